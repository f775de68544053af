//! Who holds a list, where no node was named: the DHT of the node that runs here knows, and who is named there is probed.

use crate::api::client::{self, ApiError};
use crate::bootstrap::cost_ms;
use crate::data_directory::DataDirectory;
use http::Method;
use peer::{Client, NodeUrl};
use std::time::Duration;
use store::Hash;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How long a holder has for its answer. Those that take longer are asked last.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// Holders that are asked at first, and how many times as many if those are not enough.
const FIRST: usize = 4;
const GROWTH: usize = 4;

/// The URLs of a list's holders, one each; none if no node runs here, or it is not part of a DHT, or nobody announces the list.
pub fn of_list(directory: &DataDirectory, list: &Hash) -> Vec<NodeUrl> {
    let answer = match client::call(directory, Method::GET, &format!("/v1/dht/holders/{list}"), None) {
        Ok(answer) => answer,
        Err(error @ (ApiError::NotRunning { .. } | ApiError::Refused { .. })) => {
            tracing::debug!(%error, "no holders");
            return Vec::new();
        }
        Err(error) => {
            tracing::warn!(%error, "the DHT is not asked who holds the list");
            return Vec::new();
        }
    };
    let first_url = |holder: &serde_json::Value| holder["urls"][0].as_str()?.parse().ok();
    answer["holders"].as_array().into_iter().flatten().filter_map(first_url).collect()
}

/// Probes them all side by side and puts them in order: near and empty ones first, those without an answer last.
pub async fn by_cost(client: &Client, urls: Vec<NodeUrl>) -> Vec<NodeUrl> {
    let mut probes = JoinSet::new();
    for url in urls {
        let node = client.node(url.clone());
        probes.spawn(async move {
            let health = timeout(PROBE_TIMEOUT, node.probe()).await.ok().and_then(Result::ok);
            let cost_ms = health.map_or(f64::INFINITY, |health| {
                cost_ms(health.round_trip.as_secs_f64() * 1_000.0, 0.0, health.load_percent.unwrap_or(0))
            });
            (cost_ms, url)
        });
    }
    let mut probed = probes.join_all().await;
    probed.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    probed.into_iter().map(|(_, url)| url).collect()
}

/// How many of so many holders are asked at first, and then, if those do not have all of it or vanish.
pub fn waves(holders: usize) -> impl Iterator<Item = usize> {
    let growing = std::iter::successors(Some(FIRST), |size| size.checked_mul(GROWTH));
    let below = growing.take_while(move |size| *size < holders);
    below.chain(std::iter::once(holders))
}

#[cfg(test)]
mod tests {
    use super::waves;

    #[test]
    fn waves_grow_until_all_are_asked() {
        assert_eq!(waves(1).collect::<Vec<_>>(), [1]);
        assert_eq!(waves(4).collect::<Vec<_>>(), [4]);
        assert_eq!(waves(5).collect::<Vec<_>>(), [4, 5]);
        assert_eq!(waves(64).collect::<Vec<_>>(), [4, 16, 64]);
    }
}
