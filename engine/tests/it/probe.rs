//! The probe on a machine that has what the engine wants (see CONTRIBUTING: kernel 6.1 or later, loopback).

use engine::driver::{DriverKind, UdpSocket, Waker, open, sockets::SocketOptions};
use engine::probe::Probe;

#[test]
fn the_probe_finds_what_the_suite_relies_on_and_agrees_with_the_choice_of_driver() {
    let probe = Probe::run();
    for name in ["udp_gso", "udp_gro", "reuseport_cbpf"] {
        let finding = probe.find(name).unwrap_or_else(|| panic!("{name} is probed"));
        assert!(finding.is_ok, "{finding:?}");
    }
    let loopback = "127.0.0.1:0".parse().expect("a literal address");
    let socket = UdpSocket::bind(loopback, &SocketOptions::default()).expect("a free port");
    let opened =
        open(DriverKind::Auto, vec![socket], Waker::new().expect("an eventfd")).expect("one driver works");
    assert_eq!(opened.driver.kind(), probe.driver);
    assert_eq!(opened.why_not_uring.is_none(), probe.driver == DriverKind::Uring);
}

#[test]
fn what_does_not_work_says_how_to_mend_it_and_json_holds_it_all() {
    let probe = Probe::run();
    let json = probe.to_json();
    assert_eq!(json["driver"], probe.driver.to_string());
    let findings = json["findings"].as_array().expect("an array");
    assert_eq!(findings.len(), probe.findings.len());
    for (finding, json) in probe.findings.iter().zip(findings) {
        assert_eq!((&json["name"], &json["ok"]), (&finding.name.into(), &finding.is_ok.into()));
        assert!(!finding.found.is_empty() && !finding.cost.is_empty(), "{finding:?}");
        assert_eq!(finding.mend.is_empty(), finding.is_ok, "{finding:?}");
    }
}

/// What container runtimes do by default, done to one thread.
#[test]
fn where_seccomp_forbids_the_ring_epoll_runs_and_the_operator_is_told_why() {
    let thread = std::thread::spawn(|| {
        forbid_io_uring();
        let loopback = "127.0.0.1:0".parse().expect("a literal address");
        let sockets = || vec![UdpSocket::bind(loopback, &SocketOptions::default()).expect("a free port")];
        let waker = || Waker::new().expect("an eventfd");

        let opened = open(DriverKind::Auto, sockets(), waker()).expect("epoll works everywhere");
        assert_eq!(opened.driver.kind(), DriverKind::Epoll);
        let told = opened.why_not_uring.expect("a reason").to_string();
        assert!(told.contains("seccomp") && told.contains("io_uring_disabled"), "{told}");

        let refused =
            open(DriverKind::Uring, sockets(), waker()).expect_err("the ring was asked for").to_string();
        assert!(refused.contains("seccomp") && refused.contains("--driver epoll"), "{refused}");

        let probe = Probe::run();
        assert_eq!(probe.driver, DriverKind::Epoll);
        let finding = probe.find("io_uring").expect("the ring is probed");
        assert!(!finding.is_ok && finding.mend.contains("seccomp"), "{finding:?}");
    });
    thread.join().expect("what the thread asserts");
}

fn forbid_io_uring() {
    const NUMBER_AT: u32 = 0;
    let statement = |code: u32, k: u32, jt, jf| libc::sock_filter { code: code as u16, jt, jf, k };
    let program = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, NUMBER_AT, 0, 0),
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, libc::SYS_io_uring_setup as u32, 0, 1),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32, 0, 0),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0, 0),
    ];
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
    // SAFETY: the kernel copies the program, which lives until the call returns; both calls concern this thread alone.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program), 0);
    }
}
