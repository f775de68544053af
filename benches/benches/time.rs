//! Wall time of pure code, with criterion.
#![allow(missing_docs)]

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use store::list::ListView;

fn requests(c: &mut Criterion) {
    let fields = benches::get_fields();
    c.bench_function("content/ranged GET, fields to response", |b| {
        b.iter(|| benches::request_work(black_box(&fields)))
    });
    let token = benches::token();
    c.bench_function("token/verify", |b| b.iter(|| benches::token_work(black_box(&token))));
    let address = benches::address_text();
    c.bench_function("address/parse", |b| b.iter(|| benches::address_work(black_box(&address))));
}

fn formats(c: &mut Criterion) {
    let list = benches::list(4096);
    c.bench_function("list/open 4096 segments", |b| b.iter(|| benches::list_open_work(black_box(&list))));
    let view = ListView::open(&list).expect("the list is valid");
    c.bench_function("list/locate 64 bytes", |b| b.iter(|| benches::list_locate_work(black_box(&view))));
    let headers = benches::pack_headers();
    c.bench_function("pack/headers of a commit", |b| {
        b.iter(|| benches::pack_headers_work(black_box(&headers)))
    });
    let policy = benches::policy_frame(1000);
    c.bench_function("policy/decode 1000 publishers", |b| {
        b.iter(|| benches::policy_work(black_box(&policy)))
    });
    let drain = benches::drain_frame();
    c.bench_function("policy/decode an empty frame", |b| b.iter(|| benches::drain_work(black_box(&drain))));
}

fn packets(c: &mut Criterion) {
    let keys = benches::connection_id_keys();
    c.bench_function("connection id/issue and read", |b| {
        b.iter(|| benches::connection_id_work(black_box(&keys)))
    });
    c.bench_function("timers/1000 packets of 10000 connections", |b| {
        b.iter_batched_ref(|| benches::timers(10_000), benches::timers_work, BatchSize::SmallInput);
    });
}

criterion_group!(all, requests, formats, packets);
criterion_main!(all);
