//! Numbers of both planes for Prometheus (text format 0.0.4). What a node does not have (a mailbox, a DHT, chains) has no numbers.

use super::Api;
use super::prometheus::{Kind, Text};
use crate::build_facts;
use crate::chain::place::ChainDirectory;
use crate::chain::view::{Chain, View, ViewError};
use crate::engine_socket::EngineSocket;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header;
use peer::friends::Standing;
use std::time::{SystemTime, UNIX_EPOCH};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(metrics))
}

/// Numbers of the control plane and of the engine, for Prometheus
#[utoipa::path(get, path = "/metrics", tag = "operation",
    responses((status = 200, description = "Text format 0.0.4", body = String, content_type = "text/plain")))]
async fn metrics(State(api): State<Api>) -> Response {
    let mut text = Text::default();
    control_plane(&api, &mut text);
    friends(&api, &mut text).await;
    dht(&api, &mut text).await;
    chains(&api, &mut text).await;
    engine(&api, &mut text).await;
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text.finish()).into_response()
}

fn control_plane(api: &Api, text: &mut Text) {
    let (parts, history) = (api.parts(), &api.parts().engine.history);
    text.family("ioex_build_info", Kind::Gauge, "Version of the control plane; always 1.");
    text.sample(&[("version", build_facts::VERSION)], 1);
    text.number(
        "ioex_up_seconds",
        Kind::Gauge,
        "Since ioex up was started.",
        parts.since.elapsed().as_secs(),
    );
    let help = "Engines that were started in place of one that had died.";
    text.number("ioex_engine_restarts_total", Kind::Counter, help, history.restarts());
    if let Some(set_at) = history.policy_set_at() {
        let help = "Since the engine was last given its policy.";
        text.number("ioex_policy_age_seconds", Kind::Gauge, help, set_at.elapsed().as_secs());
    }
}

async fn friends(api: &Api, text: &mut Text) {
    // A service that has ended has no numbers either.
    let Some(friends) = &api.parts().friends else { return };
    let (Ok(mailbox), Ok(list)) = (api.mailbox().await, friends.list().await) else { return };
    let help = "Whether there is a session at a mailbox.";
    text.number("ioex_mailbox_connected", Kind::Gauge, help, mailbox.connected.into());
    text.family("ioex_friends", Kind::Gauge, "Everybody of whom something is known, by standing.");
    for (standing, name) in [
        (Standing::Friend, "friend"),
        (Standing::Asked, "asked"),
        (Standing::Asking, "asking"),
        (Standing::Declined, "declined"),
        (Standing::Ended, "ended"),
    ] {
        let count = list.iter().filter(|view| view.friend.standing == standing).count();
        text.sample(&[("standing", name)], count as u64);
    }
    let connected = list.iter().filter(|view| view.is_connected).count();
    text.number("ioex_friends_connected", Kind::Gauge, "Friends that are connected.", connected as u64);
    text.family(
        "ioex_messages_sent_total",
        Kind::Counter,
        "Messages that were to be sent, by what became of them.",
    );
    for (result, count) in api.sent() {
        text.sample(&[("result", result)], count);
    }
    let counters = &mailbox.counters;
    text.number("ioex_messages_received_total", Kind::Counter, "Messages that were kept.", counters.received);
    text.family("ioex_friend_requests_total", Kind::Counter, "Requests that came, by what became of them.");
    for (result, count) in [
        ("taken", counters.requests),
        ("dropped", counters.requests_dropped),
        ("declined", counters.requests_declined),
    ] {
        text.sample(&[("result", result)], count);
    }
    text.family("ioex_envelopes_refused_total", Kind::Counter, "Envelopes that came to nothing, by cause.");
    for (cause, count) in [
        ("mailbox", counters.dropped),
        ("repeated", counters.repeated),
        ("malformed", counters.malformed),
        ("unexpected", counters.unexpected),
        ("file", counters.files_refused),
        ("flooded", counters.flooded),
        ("unsaved", counters.unsaved),
    ] {
        text.sample(&[("cause", cause)], count);
    }
}

async fn dht(api: &Api, text: &mut Text) {
    if api.parts().dht.is_none() {
        return;
    }
    // A node that is just being started again has no numbers.
    let Ok(stat) = api.dht_stat().await else { return };
    let mut gauge = |name, help, value: usize| text.number(name, Kind::Gauge, help, value as u64);
    gauge("ioex_dht_nodes", "Nodes in the DHT's routing table.", stat.nodes);
    gauge("ioex_dht_announcing_nodes", "Of these, those that keep announcements.", stat.announcing_nodes);
    gauge(
        "ioex_dht_network_nodes",
        "Nodes of the whole network, as lookups suggest.",
        stat.network_nodes_estimate,
    );
    gauge("ioex_dht_lists", "Content lists that this node announces.", stat.lists);
    let is_published = usize::from(stat.record.sequence_ms.is_some() && stat.record.problem.is_none());
    gauge(
        "ioex_dht_record_published",
        "Whether the last attempt to publish the record succeeded.",
        is_published,
    );
    let datagrams = &stat.datagrams;
    let help = "Datagrams that the gate let through.";
    text.number("ioex_dht_datagrams_passed_total", Kind::Counter, help, datagrams.passed);
    let help = "Datagrams that the gate dropped, by cause; store_rate: requests to store.";
    text.family("ioex_dht_datagrams_dropped_total", Kind::Counter, help);
    for (cause, count) in &datagrams.dropped {
        text.sample(&[("cause", cause)], *count);
    }
}

async fn chains(api: &Api, text: &mut Text) {
    let directory = ChainDirectory::of(&api.parts().directory);
    let tips = tokio::task::spawn_blocking(move || {
        let tip = |chain| {
            let view = View::open(&directory, chain)?;
            let height = view.last()?;
            let time_s = view.headers(height, 1)?.first().and_then(|header| header["time_unix_s"].as_u64());
            Ok::<_, ViewError>((height, time_s.unwrap_or_default()))
        };
        [(Chain::Pow, "pow"), (Chain::Dpos, "dpos")].map(|(chain, name)| (name, tip(chain).ok()))
    });
    let Ok(tips) = tips.await else { return };
    let tips: Vec<_> = tips.into_iter().filter_map(|(chain, tip)| Some((chain, tip?))).collect();
    if tips.is_empty() {
        return;
    }
    text.family("ioex_chain_height", Kind::Gauge, "Height of the last verified header.");
    for (chain, (height, _)) in &tips {
        text.sample(&[("chain", chain)], *height);
    }
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let help = "Since the time that the last verified header says.";
    text.family("ioex_chain_tip_age_seconds", Kind::Gauge, help);
    for (chain, (_, time_s)) in &tips {
        text.sample(&[("chain", chain)], now_s.saturating_sub(*time_s));
    }
}

async fn engine(api: &Api, text: &mut Text) {
    let status = api.ask_engine(EngineSocket::status).await;
    let help = "Whether the engine answers; what follows is its own.";
    text.number("ioex_engine_up", Kind::Gauge, help, status.is_ok().into());
    let Ok(status) = status else { return };
    text.number("ioex_engine_draining", Kind::Gauge, "Whether the engine drains.", status.draining.into());
    let help = "Since the engine became ready.";
    text.number("ioex_engine_up_seconds", Kind::Gauge, help, status.uptime_s);
    for (series, value) in &status.counters {
        text.series(series, *value);
    }
}
