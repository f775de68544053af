//! What both drivers must do with TCP, against the kernel's loopback device, with the clients of the standard library.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use engine::driver::streams::{ListenerOptions, StreamEnd, StreamEvent, StreamId, Streams, TcpListener};
use engine::driver::uring::{TaskRun, UringDriver};
use engine::driver::{AnyDriver, Driver, DriverKind, Waker, open};
use socket2::SockRef;

/// Longer than anything here takes, even on a machine that does much else: whoever waits this long waits for ever.
const FOREVER: Duration = Duration::from_secs(60);

/// A driver, or a way to run it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    Uring,
    UringCooperative,
    Epoll,
}

/// One suite, run with each.
macro_rules! for_each_driver {
    ($($test:ident),+ $(,)?) => {
        mod uring {
            $(#[test] fn $test() { super::$test(super::Subject::Uring); })+
        }

        mod uring_cooperative {
            $(#[test] fn $test() { super::$test(super::Subject::UringCooperative); })+
        }

        mod epoll {
            $(#[test] fn $test() { super::$test(super::Subject::Epoll); })+
        }
    };
}

// Below the macro, which it uses too.
mod front;

for_each_driver!(
    bytes_go_both_ways_intact_and_in_order,
    both_addresses_are_told_and_are_canonical,
    one_that_has_said_all_can_still_be_answered,
    a_reset_is_told,
    a_closed_stream_tells_nothing_more_and_its_name_names_no_other,
    bytes_that_the_kernel_takes_at_once_leave_before_a_close,
    one_that_does_not_read_holds_up_nobody_else,
    a_stream_that_finishes_sends_everything_first,
    a_paused_stream_is_not_read_from,
    a_reset_of_a_stream_that_is_not_read_from_wakes_nobody_again_and_again,
    further_clients_wait_while_there_are_as_many_streams_as_there_may_be,
    a_storm_of_clients_is_accepted_and_served,
    clients_wait_while_no_file_can_be_opened,
    chunks_that_are_held_stop_reading_and_come_back,
    many_streams_that_send_at_once_all_get_their_turn,
    a_driver_dropped_in_the_middle_of_everything_lets_go_of_its_port,
    no_more_are_accepted_after_listening_has_stopped,
    clients_are_spread_over_the_listeners_of_a_group,
);

fn bytes_go_both_ways_intact_and_in_order(subject: Subject) {
    let mut server = Server::new(subject);
    let mut client = server.connect();
    let (stream, ..) = server.accepted();
    let sent = pattern(3 << 20, 1);
    let to_send = sent.clone();
    let mut writer = client.try_clone().expect("another handle");
    let writing = std::thread::spawn(move || writer.write_all(&to_send).expect("the server reads"));
    let mut received = Vec::new();
    while received.len() < sent.len() {
        let StreamEvent::Received { stream: from, chunk } = server.event() else { panic!("only bytes come") };
        assert_eq!(from, stream);
        received.extend_from_slice(&chunk);
    }
    writing.join().expect("written");
    assert!(received == sent, "3 MiB arrive as they were sent");

    let reading = std::thread::spawn(move || {
        let mut bytes = vec![0; 3 << 20];
        client.read_exact(&mut bytes).expect("the server writes");
        bytes
    });
    // Pieces of every size, more of them than the kernel takes at once.
    let mut rest = &sent[..];
    let mut piece_len = 1;
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(rest.len().min(piece_len));
        server.driver.stream_send(stream, piece.to_vec());
        rest = after;
        piece_len = piece_len * 3 % 70_001 + 1;
    }
    server.run_until(|server| server.driver.stream_unsent(stream) == 0);
    assert!(reading.join().expect("read") == sent);
    let counters = server.driver.stream_counters();
    assert_eq!((counters.bytes_received, counters.bytes_sent), (3 << 20, 3 << 20));
    assert_eq!((server.driver.streams_unsent(), counters.streams), (0, 1));
}

fn both_addresses_are_told_and_are_canonical(subject: Subject) {
    let mut server = Server::listening(subject, "[::]:0");
    let to = SocketAddr::from(([127, 0, 0, 1], server.addr.port()));
    let client = TcpStream::connect(to).expect("it listens");
    let (_, from, at) = server.accepted();
    assert_eq!((from, at), (client.local_addr().expect("bound"), to));
}

fn one_that_has_said_all_can_still_be_answered(subject: Subject) {
    let mut server = Server::new(subject);
    let mut client = server.connect();
    client.write_all(b"ask").expect("connected");
    client.shutdown(Shutdown::Write).expect("connected");
    let (stream, ..) = server.accepted();
    assert!(matches!(server.event(), StreamEvent::Received { chunk, .. } if *chunk == *b"ask"));
    assert!(matches!(server.event(), StreamEvent::Finished { stream: which } if which == stream));
    server.driver.stream_send(stream, b"answer".to_vec());
    server.driver.stream_finish(stream);
    server.run_until(|server| server.driver.stream_counters().streams == 0);
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("an orderly end");
    assert_eq!(answer, "answer");
}

fn a_reset_is_told(subject: Subject) {
    let mut server = Server::new(subject);
    let client = server.connect();
    let (stream, ..) = server.accepted();
    reset(&client);
    drop(client);
    let StreamEvent::Closed { stream: which, why } = server.event() else { panic!("nothing else can come") };
    assert_eq!((which, why), (stream, StreamEnd::Reset));
    server.run_until(|server| server.driver.stream_counters().streams == 0);
    assert_eq!(server.driver.stream_counters().broken, 1);
    server.driver.stream_send(stream, b"to nobody".to_vec());
    assert_eq!((server.driver.stream_unsent(stream), server.driver.stream_counters().bytes_dropped), (0, 9));
}

fn a_closed_stream_tells_nothing_more_and_its_name_names_no_other(subject: Subject) {
    let mut server = Server::new(subject);
    let mut first = server.connect();
    first.write_all(b"first").expect("connected");
    let (stream, ..) = server.accepted();
    server.driver.stream_close(stream);
    server.run_until(|server| server.driver.stream_counters().streams == 0);
    let mut second = server.connect();
    second.write_all(b"second").expect("connected");
    let (other, ..) = server.accepted();
    assert_ne!(stream, other);
    assert!(matches!(server.event(), StreamEvent::Received { chunk, .. } if *chunk == *b"second"));
    server.driver.stream_close(stream);
    server.driver.stream_pause(stream);
    server.driver.stream_send(stream, b"no".to_vec());
    server.driver.stream_send(other, b"yes".to_vec());
    server.driver.stream_finish(other);
    server.run_until(|server| server.driver.stream_counters().streams == 0);
    let mut answer = String::new();
    second.read_to_string(&mut answer).expect("an orderly end");
    assert_eq!(answer, "yes");
}

fn bytes_that_the_kernel_takes_at_once_leave_before_a_close(subject: Subject) {
    let mut server = Server::new(subject);
    let mut client = server.connect();
    let (stream, ..) = server.accepted();
    server.driver.stream_send(stream, b"farewell".to_vec());
    server.driver.stream_close(stream);
    server.run_until(|server| server.driver.stream_counters().streams == 0);
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("an orderly end");
    assert_eq!(answer, "farewell");
}

fn one_that_does_not_read_holds_up_nobody_else(subject: Subject) {
    let mut server = Server::new(subject);
    let slow = server.connect();
    let (slow_stream, ..) = server.accepted();
    let mut fast = server.connect();
    let (fast_stream, ..) = server.accepted();
    // More than all buffers between here and the slow client hold.
    for seed in 0..512 {
        server.driver.stream_send(slow_stream, pattern(64 << 10, seed));
        server.look();
    }
    assert!(server.driver.stream_unsent(slow_stream) > 0, "the kernel holds no 32 MiB");
    let mut answer = vec![0; 1_000];
    for seed in 0..100 {
        server.driver.stream_send(fast_stream, pattern(1_000, seed));
        server.run_until(|server| server.driver.stream_unsent(fast_stream) == 0);
        fast.read_exact(&mut answer).expect("the fast one is served");
        assert!(answer == pattern(1_000, seed));
    }
    let unsent = server.driver.stream_unsent(slow_stream);
    assert_eq!(server.driver.streams_unsent(), unsent);
    server.driver.stream_close(slow_stream);
    server.run_until(|server| server.driver.stream_counters().streams == 1);
    assert_eq!(server.driver.streams_unsent(), 0);
    assert_eq!(server.driver.stream_counters().bytes_dropped, unsent as u64);
    drop(slow);
}

fn a_stream_that_finishes_sends_everything_first(subject: Subject) {
    let mut server = Server::new(subject);
    let mut client = server.connect();
    let (stream, ..) = server.accepted();
    let sent = pattern(16 << 20, 3);
    server.driver.stream_send(stream, sent.clone());
    server.driver.stream_finish(stream);
    server.look();
    assert!(server.driver.stream_unsent(stream) > 0, "the kernel holds no 16 MiB");
    let reading = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        client.read_to_end(&mut bytes).expect("an orderly end");
        bytes
    });
    server.run_until(|server| server.driver.stream_counters().streams == 0);
    assert!(reading.join().expect("read") == sent);
}

fn a_paused_stream_is_not_read_from(subject: Subject) {
    let mut server = Server::new(subject);
    let mut client = server.connect();
    let (stream, ..) = server.accepted();
    client.write_all(b"before").expect("connected");
    assert!(matches!(server.event(), StreamEvent::Received { chunk, .. } if *chunk == *b"before"));
    server.driver.stream_pause(stream);
    // The kernel may hand over what it had begun to.
    for _ in 0..10 {
        server.look();
    }
    client.write_all(b"meanwhile").expect("connected");
    let mut early = Vec::new();
    for _ in 0..100 {
        server.look();
        while let Some(event) = server.driver.stream_event() {
            let StreamEvent::Received { chunk, .. } = event else { panic!("nothing else happens") };
            early.extend_from_slice(&chunk);
        }
    }
    assert!(early.is_empty(), "{early:?} came while reading was paused");
    server.driver.stream_resume(stream);
    assert!(matches!(server.event(), StreamEvent::Received { chunk, .. } if *chunk == *b"meanwhile"));
}

fn a_reset_of_a_stream_that_is_not_read_from_wakes_nobody_again_and_again(subject: Subject) {
    let mut server = Server::new(subject);
    let client = server.connect();
    let (stream, ..) = server.accepted();
    server.driver.stream_pause(stream);
    for _ in 0..10 {
        server.look();
    }
    reset(&client);
    drop(client);
    let before = server.driver.counters().waits;
    let deadline = Instant::now() + Duration::from_millis(50);
    let mut end = None;
    while Instant::now() < deadline {
        server.driver.wait(Some(deadline)).expect("wait");
        end = end.or(server.driver.stream_event());
    }
    let waits = server.driver.counters().waits - before;
    assert!(waits < 20, "{waits} times nothing happened");
    // Reading again, at the latest, tells.
    server.driver.stream_resume(stream);
    let end = end.unwrap_or_else(|| server.event());
    assert!(matches!(end, StreamEvent::Closed { why: StreamEnd::Reset, .. }), "{end:?}");
}

fn further_clients_wait_while_there_are_as_many_streams_as_there_may_be(subject: Subject) {
    let mut server = Server::new(subject);
    server.driver.set_stream_limit(2);
    let (mut first, second) = (server.connect(), server.connect());
    let (first_stream, ..) = server.accepted();
    let (second_stream, ..) = server.accepted();
    let mut third = server.connect();
    third.write_all(b"third").expect("the kernel takes it");
    for _ in 0..20 {
        server.look();
        assert!(server.driver.stream_event().is_none());
    }
    assert_eq!(server.driver.stream_counters().paused_at_limit, 1);
    // What there is goes on, and room is given on.
    first.write_all(b"first").expect("connected");
    assert!(matches!(server.event(), StreamEvent::Received { stream, .. } if stream == first_stream));
    server.driver.stream_close(second_stream);
    let (third_stream, ..) = server.accepted();
    assert!(matches!(server.event(), StreamEvent::Received { stream, chunk }
        if stream == third_stream && *chunk == *b"third"));
    drop(second);
}

fn a_storm_of_clients_is_accepted_and_served(subject: Subject) {
    const CLIENTS: usize = 2_000;
    let mut server = Server::new(subject);
    server.driver.set_stream_limit(CLIENTS);
    let addr = server.addr;
    // Each client connects, asks, reads the answer and leaves, 200 at a time.
    let clients = std::thread::spawn(move || {
        for round in 0..CLIENTS / 200 {
            let mut open: Vec<_> = (0..200).map(|_| TcpStream::connect(addr).expect("it listens")).collect();
            for (number, client) in open.iter_mut().enumerate() {
                client.write_all(&pattern(100, round * 200 + number)).expect("connected");
            }
            for (number, client) in open.iter_mut().enumerate() {
                let mut answer = [0; 100];
                client.read_exact(&mut answer).expect("an answer");
                assert!(answer[..] == pattern(100, round * 200 + number));
            }
        }
    });
    let mut served = 0;
    while served < CLIENTS {
        match server.event() {
            StreamEvent::Received { stream, chunk } => server.driver.stream_send(stream, chunk.to_vec()),
            StreamEvent::Finished { stream } => {
                server.driver.stream_close(stream);
                served += 1;
            }
            StreamEvent::Closed { .. } => served += 1,
            StreamEvent::Accepted { .. } | StreamEvent::Drained { .. } => {}
        }
    }
    clients.join().expect("all were answered");
    server.run_until(|server| server.driver.stream_counters().streams == 0);
    let counters = server.driver.stream_counters();
    assert_eq!((counters.accepted, counters.refused, counters.accept_errors), (CLIENTS as u64, 0, 0));
}

/// In a process of its own, whose limit on open files concerns nobody else.
fn clients_wait_while_no_file_can_be_opened(subject: Subject) {
    const ALONE: &str = "IOEX_TEST_FEW_FILES";
    if std::env::var_os(ALONE).is_none() {
        let name = match subject {
            Subject::Uring => "uring",
            Subject::UringCooperative => "uring_cooperative",
            Subject::Epoll => "epoll",
        };
        let test = format!("streams::{name}::clients_wait_while_no_file_can_be_opened");
        let mut alone = std::process::Command::new("sh");
        alone.args(["-c", "ulimit -n 64; exec \"$0\" --exact \"$1\""]);
        let program = std::env::current_exe().expect("this program");
        let outcome = alone.arg(program).arg(test).env(ALONE, "1").output().expect("a shell");
        let said = String::from_utf8_lossy(&outcome.stdout);
        assert!(outcome.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    let mut server = Server::new(subject);
    let mut held = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        held.push(file);
    }
    // Descriptors for the clients alone.
    held.truncate(held.len() - 2);
    let mut clients = [server.connect(), server.connect()];
    let deadline = Instant::now() + FOREVER;
    while server.driver.stream_counters().paused_no_files == 0 {
        assert!(Instant::now() < deadline, "{:?}", server.driver.stream_counters());
        server.driver.wait(Some(Instant::now() + Duration::from_millis(5))).expect("wait");
        assert!(server.driver.stream_event().is_none());
    }
    // Resting, it does not try all the time.
    let before = server.driver.stream_counters().paused_no_files;
    for _ in 0..200 {
        server.look();
    }
    assert!(server.driver.stream_counters().paused_no_files - before < 100);
    drop(held);
    // It tries again by itself.
    server.accepted();
    server.accepted();
    clients[1].write_all(b"patient").expect("connected");
    assert!(matches!(server.event(), StreamEvent::Received { chunk, .. } if *chunk == *b"patient"));
}

fn chunks_that_are_held_stop_reading_and_come_back(subject: Subject) {
    let mut server = Server::new(subject);
    let mut client = server.connect();
    server.accepted();
    let sent = pattern(4 << 20, 5);
    let to_send = sent.clone();
    let writing = std::thread::spawn(move || client.write_all(&to_send).expect("the server reads"));
    let mut held = Vec::new();
    let deadline = Instant::now() + FOREVER;
    while server.driver.stream_counters().chunks_exhausted == 0 {
        assert!(Instant::now() < deadline, "{} chunks are no end", held.len());
        server.look();
        while let Some(event) = server.driver.stream_event() {
            let StreamEvent::Received { chunk, .. } = event else { panic!("only bytes come") };
            held.push(chunk);
        }
    }
    assert!(held.len() <= 64, "{} chunks are more than there are", held.len());
    let mut received: Vec<u8> = Vec::new();
    held.drain(..).for_each(|chunk| received.extend_from_slice(&chunk));
    while received.len() < sent.len() {
        let StreamEvent::Received { chunk, .. } = server.event() else { panic!("only bytes come") };
        received.extend_from_slice(&chunk);
    }
    writing.join().expect("written");
    assert!(received == sent);
}

fn many_streams_that_send_at_once_all_get_their_turn(subject: Subject) {
    // More streams than chunks, each with more than a chunk.
    const STREAMS: usize = 150;
    const LEN: usize = 100_000;
    let mut server = Server::new(subject);
    let addr = server.addr;
    let writing = std::thread::spawn(move || {
        let mut clients: Vec<_> =
            (0..STREAMS).map(|_| TcpStream::connect(addr).expect("it listens")).collect();
        for (seed, client) in clients.iter_mut().enumerate() {
            client.write_all(&pattern(LEN, seed)).expect("the server reads");
            client.shutdown(Shutdown::Write).expect("connected");
        }
        clients
    });
    let mut received: HashMap<StreamId, Vec<u8>> = HashMap::new();
    let mut finished = 0;
    while finished < STREAMS {
        match server.event() {
            StreamEvent::Accepted { stream, .. } => {
                received.insert(stream, Vec::new());
            }
            StreamEvent::Received { stream, chunk } => {
                received.get_mut(&stream).expect("accepted before").extend_from_slice(&chunk);
            }
            StreamEvent::Finished { .. } => finished += 1,
            event => panic!("{event:?}"),
        }
    }
    let mut all: Vec<_> = received.into_values().collect();
    let mut expected: Vec<_> = (0..STREAMS).map(|seed| pattern(LEN, seed)).collect();
    all.sort_unstable();
    expected.sort_unstable();
    assert!(all == expected, "every stream's bytes arrive intact");
    drop(writing.join().expect("written"));
}

fn a_driver_dropped_in_the_middle_of_everything_lets_go_of_its_port(subject: Subject) {
    let mut server = Server::new(subject);
    let (reader, mut writer) = (server.connect(), server.connect());
    let (stream, ..) = server.accepted();
    server.accepted();
    server.driver.stream_send(stream, pattern(16 << 20, 1));
    writer.write_all(b"unread").expect("connected");
    server.look();
    let addr = server.addr;
    drop(server);
    let deadline = Instant::now() + FOREVER;
    let options = ListenerOptions { reuse_port: false, ..ListenerOptions::default() };
    // A process that another test has just forked may hold the port for a moment.
    while let Err(error) = TcpListener::bind(addr, &options) {
        assert!(Instant::now() < deadline, "{error}");
        std::thread::sleep(Duration::from_millis(1));
    }
    drop(reader);
}

fn no_more_are_accepted_after_listening_has_stopped(subject: Subject) {
    let mut server = Server::new(subject);
    let mut client = server.connect();
    let (stream, ..) = server.accepted();
    server.driver.stop_listening();
    let deadline = Instant::now() + FOREVER;
    loop {
        server.look();
        match TcpStream::connect(server.addr) {
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => break,
            // Into the backlog of the listener that is just being closed.
            _ => assert!(Instant::now() < deadline, "it still listens"),
        }
    }
    client.write_all(b"still").expect("connected");
    loop {
        match server.event() {
            StreamEvent::Received { stream: which, chunk } if which == stream => {
                assert_eq!(*chunk, *b"still");
                break;
            }
            // Those from the backlog.
            StreamEvent::Accepted { .. } | StreamEvent::Finished { .. } | StreamEvent::Closed { .. } => {}
            event => panic!("{event:?}"),
        }
    }
}

fn clients_are_spread_over_the_listeners_of_a_group(subject: Subject) {
    let loopback = "127.0.0.1:0".parse().expect("a literal address");
    let group = TcpListener::bind_group(loopback, 2, &ListenerOptions::default()).expect("a free port");
    let addr = group[0].local_addr();
    assert_eq!(addr, group[1].local_addr());
    let mut shards: Vec<_> = group
        .into_iter()
        .map(|listener| {
            let mut driver = open_subject(subject, Waker::new().expect("an eventfd"));
            driver.listen(listener).expect("it listens");
            driver
        })
        .collect();
    let clients: Vec<_> = (0..64).map(|_| TcpStream::connect(addr).expect("both listen")).collect();
    let mut accepted = [0, 0];
    let deadline = Instant::now() + FOREVER;
    while accepted[0] + accepted[1] < clients.len() {
        assert!(Instant::now() < deadline, "{accepted:?} of 64 were accepted");
        for (shard, driver) in shards.iter_mut().enumerate() {
            driver.wait(Some(Instant::now())).expect("a look");
            while let Some(event) = driver.stream_event() {
                accepted[shard] += usize::from(matches!(event, StreamEvent::Accepted { .. }));
            }
        }
    }
    // By chance alone one in 2^63 runs fails.
    assert!(accepted[0] > 0 && accepted[1] > 0, "{accepted:?}");
}

/// A driver with one listener.
struct Server {
    driver: AnyDriver,
    addr: SocketAddr,
}

impl Server {
    fn new(subject: Subject) -> Self {
        Self::listening(subject, "127.0.0.1:0")
    }

    fn listening(subject: Subject, addr: &str) -> Self {
        let mut driver = open_subject(subject, Waker::new().expect("an eventfd"));
        let addr = addr.parse().expect("a literal address");
        let listener = TcpListener::bind(addr, &ListenerOptions::default()).expect("a free port");
        let addr = listener.local_addr();
        driver.listen(listener).expect("it listens");
        Self { driver, addr }
    }

    fn connect(&self) -> TcpStream {
        TcpStream::connect(self.addr).expect("it listens")
    }

    fn accepted(&mut self) -> (StreamId, SocketAddr, SocketAddr) {
        match self.event() {
            StreamEvent::Accepted { listener: 0, stream, from, to } => (stream, from, to),
            event => panic!("a client was to come, not {event:?}"),
        }
    }

    fn event(&mut self) -> StreamEvent {
        let deadline = Instant::now() + FOREVER;
        loop {
            if let Some(event) = self.driver.stream_event() {
                return event;
            }
            assert!(Instant::now() < deadline, "nothing happened");
            self.driver.wait(Some(deadline)).expect("wait");
        }
    }

    fn look(&mut self) {
        self.driver.wait(Some(Instant::now())).expect("a look");
    }

    /// Waits until something is so; events are dropped but by `is_so` itself.
    fn run_until(&mut self, mut is_so: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + FOREVER;
        while !is_so(self) {
            assert!(Instant::now() < deadline, "it never came to be so");
            self.driver.wait(Some(Instant::now() + Duration::from_millis(5))).expect("wait");
            while self.driver.stream_event().is_some() {}
        }
    }
}

fn open_subject(subject: Subject, waker: Waker) -> AnyDriver {
    let kind = match subject {
        Subject::UringCooperative => {
            let ring = UringDriver::with_task_run(TaskRun::Cooperative, Vec::new(), waker);
            return AnyDriver::Uring(Box::new(ring.expect("a ring")));
        }
        Subject::Uring => DriverKind::Uring,
        Subject::Epoll => DriverKind::Epoll,
    };
    open(kind, Vec::new(), waker).expect("this machine has both drivers").driver
}

/// Has the client's socket reset the connection when it is dropped.
fn reset(client: &TcpStream) {
    SockRef::from(client).set_linger(Some(Duration::ZERO)).expect("setsockopt");
}

/// Bytes that tell their place and `seed`.
fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|place| (place * 31 + seed * 17 + place / 251) as u8).collect()
}
