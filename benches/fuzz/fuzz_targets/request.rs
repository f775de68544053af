//! The content service's request logic: path, method, ranges and conditions, one line of the input each.
#![no_main]

use libfuzzer_sys::fuzz_target;
use relay::content::{Action, Body, Request, route};

fuzz_target!(|data: &[u8]| {
    let mut lines = data.splitn(6, |byte| *byte == b'\n');
    let mut line = || lines.next().filter(|line| !line.is_empty());
    let request = Request {
        method: line().unwrap_or(b"GET"),
        path: line().unwrap_or(b"/"),
        range: line(),
        if_none_match: line(),
        if_range: line(),
        authorization: line(),
        content_length: Some(data.len() as u64),
    };
    match route(&request, true) {
        Ok(Action::Read(read)) => {
            for len in [1, 4_096, u64::MAX >> 2] {
                let response = read.respond(len, "application/octet-stream");
                assert!([200, 206, 304, 416].contains(&response.status));
                if let Body::Range(range) = response.body {
                    assert!(range.start < range.end && range.end <= len);
                }
            }
        }
        Ok(_) => {}
        Err(problem) => assert!((400..600).contains(&problem.response(false).status)),
    }
});
