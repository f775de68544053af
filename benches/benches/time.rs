//! Wall time of pure code, with criterion.
#![allow(missing_docs)]

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use store::list::ListView;

fn requests(c: &mut Criterion) {
    measure(c, "content/ranged GET, fields to response", &benches::get_fields(), benches::request_work);
    measure(c, "token/verify", &benches::token(), benches::token_work);
    measure(c, "address/parse", benches::address_text().as_str(), benches::address_work);
}

fn formats(c: &mut Criterion) {
    let list = benches::list(4096);
    measure(c, "list/open 4096 segments", list.as_slice(), benches::list_open_work);
    let view = ListView::open(&list).expect("the list is valid");
    measure(c, "list/locate 64 bytes", &view, benches::list_locate_work);
    measure(c, "pack/headers of a commit", &benches::pack_headers(), benches::pack_headers_work);
    measure(c, "policy/decode 1000 publishers", benches::policy_frame(1000).as_slice(), benches::policy_work);
    measure(c, "policy/decode an empty frame", benches::drain_frame().as_slice(), benches::drain_work);
}

fn packets(c: &mut Criterion) {
    measure(c, "connection id/issue and read", &benches::connection_id_keys(), benches::connection_id_work);
    c.bench_function("timers/1000 packets of 10000 connections", |bencher| {
        bencher.iter_batched_ref(|| benches::timers(10_000), benches::timers_work, BatchSize::SmallInput);
    });
}

fn measure<I: ?Sized, O>(c: &mut Criterion, name: &str, input: &I, work: fn(&I) -> O) {
    c.bench_function(name, |bencher| {
        bencher.iter(|| work(black_box(input)));
    });
}

criterion_group!(all, requests, formats, packets);
criterion_main!(all);
