//! From what the server counts to what the shard publishes.

use super::front::FrontCounters;
use crate::driver::streams::StreamCounters;
use crate::metrics::{Counter, ShardCounters};
use relay::stun::{AuthCounts, AuthError};
use relay::turn::ledger::QuotaExceeded;
use relay::turn::{Cause, Counters};

/// Publishes everything that a server has counted.
pub(super) fn publish(shard: &ShardCounters, server: &Counters, logins: &AuthCounts) {
    shard.relay_to_peer_packets.set(server.usage.to_peer_packets);
    shard.relay_to_peer_bytes.set(server.usage.to_peer_bytes);
    shard.relay_to_client_packets.set(server.usage.to_client_packets);
    shard.relay_to_client_bytes.set(server.usage.to_client_bytes);
    shard.relay_successes.set(server.successes);
    for (code, count) in Counters::ERROR_CODES.iter().map(|code| Some(*code)).chain([None]).zip(server.errors)
    {
        error(shard, code).set(count);
    }
    for (quota, count) in QuotaExceeded::ALL.iter().zip(server.quotas) {
        quota_hit(shard, *quota).set(count);
    }
    shard.relay_refused_policy_expired.set(server.policy_expired);
    let [denied, not_allowed] = server.users_refused;
    shard.relay_users_denied.set(denied);
    shard.relay_users_not_allowed.set(not_allowed);
    for (cause, count) in Cause::ALL.iter().zip(server.drops) {
        dropped(shard, *cause).set(count);
    }
    for error in AuthError::ALL {
        auth_failure(shard, error).set(logins.refused(error));
    }
}

/// Publishes what was counted of clients' streams.
pub(super) fn publish_streams(shard: &ShardCounters, front: &FrontCounters, driver: &StreamCounters) {
    shard.relay_streams.set(driver.streams);
    shard.relay_streams_accepted.set(front.accepted);
    shard.relay_streams_refused.set(driver.refused);
    shard.relay_streams_refused_by_address.set(front.refused_by_address);
    shard.relay_streams_paused.set(front.reading_paused);
    shard.relay_dropped_slow_client.set(front.relayed_dropped);
    shard.relay_streams_closed_by_client.set(front.closed_by_client);
    shard.relay_streams_closed_broken.set(front.closed_broken);
    shard.relay_streams_closed_malformed.set(front.closed_malformed);
    shard.relay_streams_closed_tls.set(front.closed_tls);
    shard.relay_streams_closed_opening.set(front.closed_opening);
    shard.relay_streams_closed_idle.set(front.closed_idle);
    shard.relay_streams_closed_not_read.set(front.closed_not_read);
    shard.relay_streams_closed_here.set(front.closed_by_service);
}

/// The counter of an error code; `None` is any that has none of its own.
fn error(shard: &ShardCounters, code: Option<u16>) -> &Counter {
    match code {
        Some(400) => &shard.relay_errors_400,
        Some(401) => &shard.relay_errors_401,
        Some(403) => &shard.relay_errors_403,
        Some(405) => &shard.relay_errors_405,
        Some(420) => &shard.relay_errors_420,
        Some(437) => &shard.relay_errors_437,
        Some(438) => &shard.relay_errors_438,
        Some(440) => &shard.relay_errors_440,
        Some(441) => &shard.relay_errors_441,
        Some(442) => &shard.relay_errors_442,
        Some(443) => &shard.relay_errors_443,
        Some(486) => &shard.relay_errors_486,
        Some(508) => &shard.relay_errors_508,
        _ => &shard.relay_errors_other,
    }
}

fn quota_hit(shard: &ShardCounters, quota: QuotaExceeded) -> &Counter {
    match quota {
        QuotaExceeded::Node => &shard.relay_quota_node,
        QuotaExceeded::User => &shard.relay_quota_user,
        QuotaExceeded::UserRate => &shard.relay_quota_user_rate,
        QuotaExceeded::Ip => &shard.relay_quota_ip,
    }
}

fn dropped(shard: &ShardCounters, cause: Cause) -> &Counter {
    match cause {
        Cause::Malformed => &shard.relay_dropped_malformed,
        Cause::NotARequest => &shard.relay_dropped_not_a_request,
        Cause::StrangerLimit => &shard.relay_dropped_strangers,
        Cause::ClientDenied => &shard.relay_dropped_client_denied,
        Cause::NoAllocation => &shard.relay_dropped_no_allocation,
        Cause::NoChannel => &shard.relay_dropped_no_channel,
        Cause::NoPermission => &shard.relay_dropped_no_permission,
        Cause::PeerDenied => &shard.relay_dropped_peer_denied,
        Cause::RateLimit => &shard.relay_dropped_rate,
        Cause::ClientGone => &shard.relay_dropped_client_gone,
        Cause::NoPolicy => &shard.relay_dropped_no_policy,
    }
}

fn auth_failure(shard: &ShardCounters, error: AuthError) -> &Counter {
    match error {
        AuthError::NoIntegrity => &shard.relay_auth_no_integrity,
        AuthError::Incomplete => &shard.relay_auth_incomplete,
        AuthError::PasswordAlgorithms => &shard.relay_auth_password_algorithms,
        AuthError::UnknownUser => &shard.relay_auth_unknown_user,
        AuthError::Expired => &shard.relay_auth_expired,
        AuthError::StaleNonce => &shard.relay_auth_stale_nonce,
        AuthError::WrongIntegrity => &shard.relay_auth_wrong_integrity,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_code_and_every_cause_has_a_counter_of_its_own() {
        let shard = ShardCounters::default();
        let codes: HashSet<*const Counter> =
            Counters::ERROR_CODES.iter().map(|code| std::ptr::from_ref(error(&shard, Some(*code)))).collect();
        assert_eq!(codes.len(), Counters::ERROR_CODES.len());
        assert!(!codes.contains(&std::ptr::from_ref(error(&shard, None))));
        let causes: HashSet<*const Counter> =
            Cause::ALL.iter().map(|cause| std::ptr::from_ref(dropped(&shard, *cause))).collect();
        assert_eq!(causes.len(), Cause::ALL.len());
        let quotas: HashSet<*const Counter> =
            QuotaExceeded::ALL.iter().map(|quota| std::ptr::from_ref(quota_hit(&shard, *quota))).collect();
        assert_eq!(quotas.len(), QuotaExceeded::ALL.len());
        let failures: HashSet<*const Counter> =
            AuthError::ALL.iter().map(|error| std::ptr::from_ref(auth_failure(&shard, *error))).collect();
        assert_eq!(failures.len(), AuthError::ALL.len());
    }
}
