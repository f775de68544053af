//! When a session writes its bodies on, and when it had better wait.

use super::harness::{Client, Network, address, bytes, client_config};
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

/// A client whose connection has no wider window than each of its streams, so that the connection's is used up first.
fn join_with_window(network: &mut Network, len: u64) -> usize {
    let mut config = client_config();
    config.set_initial_max_data(len);
    config.set_max_connection_window(len);
    config.set_initial_max_stream_data_bidi_local(len);
    config.set_max_stream_window(len);
    let client = network.connect(Client::with_config(address("[::1]:9000"), &mut config));
    network.until("the handshake", |network| network.clients[client].h3.is_some());
    client
}

/// DATA_BLOCKED has to be acknowledged, and an acknowledgement is when the session looks whether it can write.
#[test]
fn a_client_that_does_not_read_is_told_once_that_its_window_is_full() {
    let mut network = Network::of_one();
    let segment = bytes(1 << 20, 1);
    let path = format!("/b3/{}", network.node.put(&segment));
    let client = join_with_window(&mut network, 100_000);
    network.clients[client].reads = false;
    // The first one's body fills the window; the other ones' heads find it full.
    let streams: Vec<u64> = (0..3)
        .map(|_| network.clients[client].request(&[(":method", "GET"), (":path", &path)], b""))
        .collect();
    network
        .until("a full window", |network| network.clients[client].quic.stats().data_blocked_recv_count > 0);
    for _ in 0..1_000 {
        network.step();
    }
    let told = network.clients[client].quic.stats().data_blocked_recv_count;
    assert!(told <= 4, "told {told} times");
    network.clients[client].reads = true;
    for stream in streams {
        network.until("the answer", |network| network.clients[client].is_answered(stream));
        assert!(network.clients[client].answers[&stream].body == segment);
    }
}

/// Each time that the client widens its windows, which it does by half of them, the body goes on with one frame or two.
#[test]
fn a_body_goes_into_windows_of_one_length_in_few_frames() {
    let segment = bytes(1 << 20, 1);
    for (window_len, frames_max) in [(100_000, 64), (20_000, 256), (1_024, 2_500)] {
        let mut network = Network::of_one();
        let path = format!("/b3/{}", network.node.put(&segment));
        let client = join_with_window(&mut network, window_len);
        network.clients[client].reads = false;
        let stream = network.clients[client].request(&[(":method", "GET"), (":path", &path)], b"");
        let (mut received, mut buffer) = (Vec::new(), [0; 1_000]);
        network.until("the answer", |network| {
            // A slow reader: many acknowledgements come while the window is full.
            match network.clients[client].quic.stream_recv(stream, &mut buffer) {
                Ok((len, is_end)) => {
                    received.extend_from_slice(&buffer[..len]);
                    is_end
                }
                Err(_) => false,
            }
        });
        let (body, frames) = body_of(&received);
        assert!(body == segment);
        assert!(frames <= frames_max, "{frames} DATA frames into windows of {window_len}");
        let told = network.clients[client].quic.stats().data_blocked_recv_count;
        assert!(told <= frames as u64, "told {told} times that a window of {window_len} is full");
    }
}

/// The body that a stream's frames (RFC 9114 section 7.1) carry, and in how many DATA frames.
fn body_of(mut stream: &[u8]) -> (Vec<u8>, usize) {
    const DATA: u64 = 0;
    let (mut body, mut frames) = (Vec::new(), 0);
    while !stream.is_empty() {
        let kind = varint(&mut stream);
        let len = usize::try_from(varint(&mut stream)).expect("a length");
        if kind == DATA {
            body.extend_from_slice(&stream[..len]);
            frames += 1;
        }
        stream = &stream[len..];
    }
    (body, frames)
}

/// RFC 9000 section 16.
fn varint(bytes: &mut &[u8]) -> u64 {
    let len = 1 << (bytes[0] >> 6);
    let (integer, rest) = bytes.split_at(len);
    *bytes = rest;
    integer[1..].iter().fold(u64::from(integer[0] & 0x3f), |value, byte| value << 8 | u64::from(*byte))
}
