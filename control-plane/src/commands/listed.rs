//! A file named on the command line by its list, and the nodes that are asked for it.

use super::node_urls;
use crate::exit::{Exit, Failure};
use peer::NodeUrl;
use store::Hash;

/// The list's hash, and the nodes: those of `flag`, and that of the URL if it was one.
pub fn listed(list: &str, flag: &str, nodes: &[String]) -> Result<(Hash, Vec<NodeUrl>), Failure> {
    let usage = |message: String| Failure::message(Exit::Usage, message);
    let mut urls = node_urls(flag, nodes)?;
    let hash = match list.rsplit_once("/list/") {
        None => list,
        Some((node, hash)) => {
            let node: NodeUrl = node.parse().map_err(|error| usage(format!("`{list}`: {error}")))?;
            if !urls.contains(&node) {
                urls.insert(0, node);
            }
            hash
        }
    };
    let hash = hash.parse().map_err(|error| usage(format!("`{list}` is no address of a list: {error}")))?;
    if urls.is_empty() {
        return Err(usage(format!("no node is named; name each that may hold the file with {flag}")));
    }
    Ok((hash, urls))
}
