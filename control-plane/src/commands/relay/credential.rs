//! `ioex relay credential`: a user name and password that expire (TURN REST convention).

use super::{Node, RELAY_OFF};
use crate::exit::{Exit, Failure};
use crate::reachable;
use crate::relay_credentials::RelayFiles;
use serde_json::json;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

pub fn run(node: &Node, name: &str, ttl_s: u64) -> Result<ExitCode, Failure> {
    let relay = &node.configuration.relay;
    let refuse = |text: &str| Err(Failure::message(Exit::NotFound, text));
    if !relay.is_on() {
        return refuse(RELAY_OFF);
    }
    if !relay.ephemeral {
        return refuse("relay.ephemeral is false: this relay lets in users with a password alone");
    }
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let credential = RelayFiles::new(&node.directory, relay).credential(name, now_s + ttl_s)?;
    let Some(credential) = credential else {
        let path = node.directory.relay_secret();
        return refuse(&format!("there is no secret in {} yet; `ioex up` makes it", path.display()));
    };
    // What listens is asked of the engine, which knows the ports; a node that does not run is described by its settings.
    let listeners = match node.engine_if_any()? {
        Some(mut engine) => engine.status()?.relay,
        None => {
            let plain = relay.listen.iter().flat_map(|address| {
                ["udp", "tcp"].map(|transport| format!("turn:{address}?transport={transport}"))
            });
            let tls = relay.tls_listen.iter().map(|address| format!("turns:{address}?transport=tcp"));
            plain.chain(tls).collect()
        }
    };
    let uris = reachable::turn_uris(&node.configuration.node, &listeners);
    if node.console.json {
        node.console.json(&json!({
            "username": credential.username,
            "password": *credential.password,
            "ttl": ttl_s,
            "uris": uris,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut out = format!(
        "username  {}\npassword  {}\nttl       {ttl_s} s\n",
        credential.username, *credential.password
    );
    for (i, uri) in uris.iter().enumerate() {
        out.push_str(&format!("{:10}{uri}\n", if i == 0 { "uris" } else { "" }));
    }
    node.console.text(&out)?;
    Ok(ExitCode::SUCCESS)
}
