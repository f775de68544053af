//! When a session writes its bodies on, and when it had better wait.

use super::harness::{Network, bytes};
use std::time::{Duration, Instant};

/// Who says nothing for so long, with nothing lost and no timer to come, has nothing more to say.
const SILENCE: Duration = Duration::from_secs(5);

/// Every batch is one packet and is acknowledged before the connection's next turn. So when the turn comes that finds
/// the queue empty, nothing is in flight any more: no acknowledgement and no timer lets the session write on.
#[test]
fn a_session_writes_on_after_a_full_batch_was_acknowledged_at_once() {
    let segment = bytes(128 << 10, 1);
    let mut network = Network::of_one();
    let path = format!("/b3/{}", network.node.put(&segment));
    // A turn whose last packet is short has found the queue empty already. How long that packet is differs with the
    // room for each.
    for room in (800..1_452).step_by(60) {
        let client = network.join();
        network.settle(Duration::from_millis(20));
        let stream = network.clients[client].request(&[(":method", "GET"), (":path", &path)], b"");
        let mut quiet = Instant::now();
        while !network.clients[client].is_answered(stream) && quiet.elapsed() < SILENCE {
            if network.exchange_batch(0, room) {
                quiet = Instant::now();
            }
        }
        let answer = &network.clients[client].answers[&stream];
        assert!(answer.finished, "batches of {room}: silent after {} bytes", answer.body.len());
        assert!(answer.body == segment);
    }
}
