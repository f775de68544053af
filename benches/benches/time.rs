//! Wall time of pure code, with criterion.
#![allow(missing_docs)]

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use store::erasure::Code;
use store::list::ListView;

fn requests(c: &mut Criterion) {
    measure(c, "content/ranged GET, fields to response", &benches::get_fields(), benches::request_work);
    measure(c, "token/verify", &benches::token(), benches::token_work);
    measure(c, "token/known", &benches::known_token(), benches::known_token_work);
    measure(c, "address/parse", benches::address_text().as_str(), benches::address_work);
}

fn formats(c: &mut Criterion) {
    let list = benches::list(4096);
    measure(c, "list/open 4096 segments", list.as_slice(), benches::list_open_work);
    let view = ListView::open(&list).expect("the list is valid");
    measure(c, "list/open 1000000 segments", benches::list(1_000_000).as_slice(), benches::list_open_work);
    let coded = benches::pipeline::coded_list(100_000);
    measure(c, "list/open 100000 segments, 10+4, outboards", coded.as_slice(), benches::list_open_work);
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

fn stun(c: &mut Criterion) {
    let send = benches::stun::send_indication();
    measure(c, "stun/read a Send indication", send.as_slice(), benches::stun::send_indication_work);
    measure(c, "stun/write a Data indication", &benches::stun::peer(), benches::stun::data_indication_work);
    let requests = &mut benches::stun::requests();
    measure_mut(c, "stun/challenge", requests, benches::stun::challenge_work);
    measure_mut(c, "stun/authenticate, MD5", requests, benches::stun::authenticate_md5_work);
    measure_mut(c, "stun/authenticate, SHA-256", requests, benches::stun::authenticate_sha256_work);
    measure_mut(c, "stun/authenticate, second secret", requests, benches::stun::authenticate_rest_work);
}

fn turn(c: &mut Criterion) {
    let busy = &mut benches::turn::busy(5_000);
    measure_mut(c, "turn/route ChannelData, 5000 allocations", busy, benches::turn::channel_work);
    measure_mut(c, "turn/route a peer's datagram, 5000 allocations", busy, benches::turn::peer_work);
    measure_mut(c, "turn/route a Send indication, 5000 allocations", busy, benches::turn::send_work);
}

fn pow(c: &mut Criterion) {
    measure(c, "pow/weigh a block header", &benches::pow::block_header(), benches::pow::block_header_work);
    let headers = benches::pow::block_headers(1111);
    measure(c, "pow/link 1111 headers", headers.as_slice(), benches::pow::linked_headers_work);
    let theirs = benches::pow::bitcoin_headers();
    measure(c, "pow/link 1111 headers, rust-bitcoin", theirs.as_slice(), benches::pow::bitcoin_headers_work);
    measure(c, "pow/restore 1111 headers", headers.as_slice(), benches::pow::restored_headers_work);
    measure(c, "pow/take in 1000 headers", &benches::pow::headers(1000), benches::pow::headers_work);
}

/// Bytes a second of data that is encoded, and of data that comes back when 4 of 14 shards are lost.
fn erasure(c: &mut Criterion) {
    for code in [Code::ReedSolomon256, Code::Leopard65536] {
        let mut group = c.benchmark_group(format!("erasure/10+4 by {code:?}"));
        let shards = &mut benches::erasure::group(code);
        group.throughput(Throughput::Bytes(10 * benches::erasure::SHARD_LEN as u64));
        group.bench_function("encode", |bencher| {
            bencher.iter(|| benches::erasure::encode_work(black_box(shards)));
        });
        group.throughput(Throughput::Bytes(4 * benches::erasure::SHARD_LEN as u64));
        group.bench_function("reconstruct", |bencher| {
            bencher.iter(|| benches::erasure::reconstruct_work(black_box(shards)));
        });
    }
}

fn transactions(c: &mut Criterion) {
    let payment = benches::transactions::payment();
    measure(c, "transaction/decode and hash", payment.as_slice(), benches::transactions::payment_work);
    measure(c, "transaction/verify one signature", payment.as_slice(), benches::transactions::signature_work);
    let proof = benches::transactions::proof(4096);
    measure(c, "merkleblock/verify 8 of 4096", &proof, benches::transactions::proof_work);
}

/// Side by side: 100 headers and 100 bare recoveries, one proof here and by alloy.
fn dpos(c: &mut Criterion) {
    let chain = benches::dpos::chain(100);
    measure(c, "dpos/take in 100 headers", &chain, benches::dpos::chain_work);
    measure(c, "dpos/bare ecrecover of 100", &benches::dpos::signatures(100), benches::dpos::ecrecover_work);
    measure(c, "dpos/place 100 headers", &benches::dpos::read(chain), benches::dpos::place_work);
    measure(c, "dpos/storage proof of 8", &benches::dpos::storage_proof(), benches::dpos::storage_proof_work);
    measure(
        c,
        "dpos/storage proof of 8, alloy",
        &benches::dpos::alloy_proof(),
        benches::dpos::alloy_proof_work,
    );
}

/// Bytes a second of a file or shard.
fn pipeline(c: &mut Criterion) {
    let mut group = c.benchmark_group("pipeline");
    let shard = benches::pipeline::shard();
    group.throughput(Throughput::Bytes(shard.0.len() as u64));
    group.bench_function("address and outboard of 1 MiB", |bencher| {
        bencher.iter(|| benches::pipeline::outboard_create_work(black_box(&shard)));
    });
    group.bench_function("verify 1 MiB in pieces of 16 KiB", |bencher| {
        bencher.iter(|| benches::pipeline::verify_work(black_box(&shard)));
    });
    let file = benches::pipeline::file();
    group.throughput(Throughput::Bytes(file.len() as u64));
    group.sample_size(20);
    group.bench_function("encrypt, 10+4, addresses, one thread", |bencher| {
        bencher.iter(|| benches::pipeline::encode_work(black_box(&file)));
    });
}

/// Bytes a second that are encrypted.
fn aead(c: &mut Criterion) {
    let mut group = c.benchmark_group("aead/AES-256-GCM, 64 KiB");
    group.throughput(Throughput::Bytes(benches::aead::MESSAGE_LEN as u64));
    let ciphers = &mut benches::aead::ciphers();
    type Work = fn(&mut benches::aead::Ciphers) -> [u8; store::aead::TAG_LEN];
    let works: [(&str, Work); 3] = [
        ("store", benches::aead::store_work),
        ("BoringSSL", benches::aead::boring_work),
        ("aes-gcm", benches::aead::portable_work),
    ];
    for (name, work) in works {
        group.bench_function(name, |bencher| bencher.iter(|| work(black_box(ciphers))));
    }
}

fn measure<I: ?Sized, O>(c: &mut Criterion, name: &str, input: &I, work: fn(&I) -> O) {
    c.bench_function(name, |bencher| {
        bencher.iter(|| work(black_box(input)));
    });
}

fn measure_mut<I, O>(c: &mut Criterion, name: &str, input: &mut I, work: fn(&mut I) -> O) {
    c.bench_function(name, |bencher| {
        bencher.iter(|| work(black_box(&mut *input)));
    });
}

criterion_group!(
    all,
    requests,
    formats,
    erasure,
    aead,
    pipeline,
    packets,
    stun,
    turn,
    pow,
    transactions,
    dpos
);
criterion_main!(all);
