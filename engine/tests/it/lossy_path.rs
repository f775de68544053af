//! A network path with faults between clients and a node: a UDP proxy that loses, duplicates, delays and so reorders
//! datagrams, by a seeded plan. (The kernel's netem would do, where it exists; it does not exist everywhere.)

use std::collections::{BinaryHeap, HashMap};
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What the path does to datagrams, in both directions alike.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    /// Datagrams lost, of 1,000.
    pub lost_permille: u64,
    /// Datagrams that arrive twice, of 1,000.
    pub duplicated_permille: u64,
    /// Datagrams held back by `delay_max` on top, of 1,000: later ones overtake them.
    pub reordered_permille: u64,
    /// The delay of every datagram, drawn evenly from zero to this.
    pub delay_max: Duration,
    /// Names the run: the same seed gives the same decisions in the same order.
    pub seed: u64,
}

/// A running proxy. Stops when dropped.
pub struct LossyPath {
    /// Where clients send to instead of the node.
    pub address: SocketAddr,
    dropped: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl LossyPath {
    /// Starts a path to `node`.
    pub fn to(node: SocketAddr, faults: Faults) -> LossyPath {
        let front = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind the path's front");
        front.set_nonblocking(true).expect("nonblocking");
        let address = front.local_addr().expect("front address");
        let stop = Arc::new(AtomicBool::new(false));
        let dropped = Arc::new(AtomicU64::new(0));
        let thread = std::thread::spawn({
            let (stop, dropped) = (stop.clone(), dropped.clone());
            move || Forwarder::new(front, node, faults, dropped).run(&stop)
        });
        LossyPath { address, dropped, stop, thread: Some(thread) }
    }

    /// Datagrams lost so far: a test that claims loss can assert that there was some.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl Drop for LossyPath {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A datagram under way. Ordered so that the heap gives the earliest first.
struct InFlight {
    due: Instant,
    number: u64,
    client: SocketAddr,
    to_node: bool,
    bytes: Vec<u8>,
}

impl PartialEq for InFlight {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}
impl Eq for InFlight {}
impl PartialOrd for InFlight {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for InFlight {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.due, other.number).cmp(&(self.due, self.number))
    }
}

struct Forwarder {
    front: UdpSocket,
    node: SocketAddr,
    faults: Faults,
    /// One socket towards the node for each client address, so that the node sees clients apart.
    backs: HashMap<SocketAddr, UdpSocket>,
    in_flight: BinaryHeap<InFlight>,
    random: u64,
    number: u64,
    dropped: Arc<AtomicU64>,
}

impl Forwarder {
    fn new(front: UdpSocket, node: SocketAddr, faults: Faults, dropped: Arc<AtomicU64>) -> Forwarder {
        Forwarder {
            front,
            node,
            faults,
            backs: HashMap::new(),
            in_flight: BinaryHeap::new(),
            random: faults.seed,
            number: 0,
            dropped,
        }
    }

    fn run(mut self, stop: &AtomicBool) {
        let mut buffer = vec![0; 65_536];
        while !stop.load(Ordering::Relaxed) {
            let received = self.receive(&mut buffer);
            let delivered = self.deliver();
            if !received && !delivered {
                std::thread::sleep(Duration::from_micros(200));
            }
        }
    }

    fn receive(&mut self, buffer: &mut [u8]) -> bool {
        let mut any = false;
        while let Ok((len, client)) = self.front.recv_from(buffer) {
            any = true;
            if !self.backs.contains_key(&client) {
                let back = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind towards the node");
                back.set_nonblocking(true).expect("nonblocking");
                back.connect(self.node).expect("connect to the node");
                self.backs.insert(client, back);
            }
            self.admit(client, true, &buffer[..len]);
        }
        let clients: Vec<SocketAddr> = self.backs.keys().copied().collect();
        for client in clients {
            // A node that is gone answers with a port-unreachable, which is an error here and no reason to stop.
            loop {
                match self.backs[&client].recv(buffer) {
                    Ok(len) => {
                        any = true;
                        self.admit(client, false, &buffer[..len]);
                    }
                    Err(e) if e.kind() == ErrorKind::ConnectionRefused => {}
                    Err(_) => break,
                }
            }
        }
        any
    }

    fn admit(&mut self, client: SocketAddr, to_node: bool, bytes: &[u8]) {
        if self.strikes(self.faults.lost_permille) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let copies = if self.strikes(self.faults.duplicated_permille) { 2 } else { 1 };
        for _ in 0..copies {
            let micros = self.faults.delay_max.as_micros() as u64;
            let mut delay = Duration::from_micros(self.next_random() % (micros + 1));
            if self.strikes(self.faults.reordered_permille) {
                delay += self.faults.delay_max;
            }
            self.number += 1;
            let (due, number) = (Instant::now() + delay, self.number);
            self.in_flight.push(InFlight { due, number, client, to_node, bytes: bytes.to_vec() });
        }
    }

    fn deliver(&mut self) -> bool {
        let mut any = false;
        while self.in_flight.peek().is_some_and(|first| first.due <= Instant::now()) {
            let Some(datagram) = self.in_flight.pop() else { break };
            any = true;
            // A full socket buffer loses the datagram, as a router would.
            let _ = if datagram.to_node {
                self.backs[&datagram.client].send(&datagram.bytes)
            } else {
                self.front.send_to(&datagram.bytes, datagram.client)
            };
        }
        any
    }

    fn strikes(&mut self, permille: u64) -> bool {
        self.next_random() % 1_000 < permille
    }

    /// SplitMix64 (Steele, Lea, Flood 2014).
    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
