//! Instructions that pure code executes, counted by callgrind through gungraun.
//!
//! A change of more than two percent against the last run on the same machine fails the run.
#![allow(missing_docs)]

use std::hint::black_box;
use std::net::SocketAddr;
use std::time::Instant;

use benches::dpos::{Chain, StorageProof};
use benches::stun::Requests;
use benches::turn::Busy;
use chain_lite::dpos::SignedHeader;
use engine::cid::Keys;
use engine::timers::Timers;
use gungraun::prelude::*;
use gungraun::{Callgrind, EventKind};
use store::list::ListView;
use store::pack::{Commit, PackKey, Record};

#[library_benchmark]
#[bench::ranged_get(benches::get_fields())]
fn content_request(fields: benches::Fields) -> usize {
    black_box(benches::request_work(black_box(&fields)))
}

#[library_benchmark]
#[bench::valid(benches::token())]
fn token_verify(token: benches::Token) -> bool {
    black_box(benches::token_work(black_box(&token)))
}

#[library_benchmark]
#[bench::held(benches::known_token())]
fn token_known(known: benches::KnownToken) -> bool {
    black_box(benches::known_token_work(black_box(&known)))
}

#[library_benchmark]
#[bench::address(benches::address_text())]
fn address_parse(text: String) -> [u8; 4] {
    black_box(benches::address_work(black_box(&text)))
}

#[library_benchmark]
#[bench::segments_4096(benches::list(4096))]
fn list_open(document: Vec<u8>) -> u64 {
    black_box(benches::list_open_work(black_box(&document)))
}

/// A view of a list that lives as long as the process.
fn leaked_view(segments: u32) -> ListView<'static> {
    ListView::open(benches::list(segments).leak()).expect("the list is valid")
}

#[library_benchmark]
#[bench::segments_4096(leaked_view(4096))]
fn list_locate(view: ListView<'static>) -> u64 {
    black_box(benches::list_locate_work(black_box(&view)))
}

#[library_benchmark]
#[bench::segments_4000(benches::pipeline::coded_list(4000))]
fn coded_list_open(document: Vec<u8>) -> u64 {
    black_box(benches::list_open_work(black_box(&document)))
}

/// A view of a list with parity that lives as long as the process.
fn leaked_coded_view(segments: u32) -> ListView<'static> {
    ListView::open(benches::pipeline::coded_list(segments).leak()).expect("the list is valid")
}

#[library_benchmark]
#[bench::groups_400(leaked_coded_view(4000))]
fn list_groups(view: ListView<'static>) -> u64 {
    black_box(benches::pipeline::groups_work(black_box(&view)))
}

#[library_benchmark]
#[bench::shard_1_mib(benches::pipeline::shard())]
fn outboard_open(shard: (Vec<u8>, store::Hash, Vec<u8>)) -> u32 {
    black_box(benches::pipeline::outboard_open_work(black_box(&shard)))
}

#[library_benchmark]
#[bench::one_record(benches::pack_headers())]
fn pack_headers(headers: (PackKey, Commit, Record)) -> u32 {
    black_box(benches::pack_headers_work(black_box(&headers)))
}

#[library_benchmark]
#[bench::publishers_1000(benches::policy_frame(1000))]
fn policy_decode(frame: Vec<u8>) -> usize {
    black_box(benches::policy_work(black_box(&frame)))
}

#[library_benchmark]
#[bench::drain(benches::drain_frame())]
fn frame_decode(frame: Vec<u8>) -> bool {
    black_box(benches::drain_work(black_box(&frame)))
}

#[library_benchmark]
#[bench::eight_shards(benches::connection_id_keys())]
fn connection_id(keys: Keys) -> usize {
    black_box(benches::connection_id_work(black_box(&keys)))
}

#[library_benchmark]
#[bench::connections_10000(benches::timers(10_000))]
fn timers_1000_packets(mut timers: (Timers, Instant)) -> usize {
    black_box(benches::timers_work(black_box(&mut timers)))
}

#[library_benchmark]
#[bench::payload_1200(benches::stun::send_indication())]
fn stun_send_indication(datagram: Vec<u8>) -> (SocketAddr, usize, bool) {
    black_box(benches::stun::send_indication_work(black_box(&datagram)))
}

#[library_benchmark]
#[bench::payload_1200(benches::stun::peer())]
fn stun_data_indication(from: SocketAddr) -> [u8; 48] {
    black_box(benches::stun::data_indication_work(black_box(&from)))
}

#[library_benchmark]
#[bench::first_allocate(benches::stun::requests())]
fn stun_challenge(mut requests: Requests) -> usize {
    black_box(benches::stun::challenge_work(black_box(&mut requests)))
}

#[library_benchmark]
#[bench::refresh(benches::stun::requests())]
fn stun_authenticate_md5(mut requests: Requests) -> bool {
    black_box(benches::stun::authenticate_md5_work(black_box(&mut requests)))
}

#[library_benchmark]
#[bench::refresh(benches::stun::requests())]
fn stun_authenticate_sha256(mut requests: Requests) -> bool {
    black_box(benches::stun::authenticate_sha256_work(black_box(&mut requests)))
}

#[library_benchmark]
#[bench::refresh(benches::stun::requests())]
fn stun_authenticate_rest(mut requests: Requests) -> bool {
    black_box(benches::stun::authenticate_rest_work(black_box(&mut requests)))
}

#[library_benchmark]
#[bench::allocations_1000(benches::turn::busy(1_000))]
fn turn_channel_data(mut busy: Busy) -> bool {
    black_box(benches::turn::channel_work(black_box(&mut busy)))
}

#[library_benchmark]
#[bench::allocations_1000(benches::turn::busy(1_000))]
fn turn_peer_datagram(mut busy: Busy) -> bool {
    black_box(benches::turn::peer_work(black_box(&mut busy)))
}

#[library_benchmark]
#[bench::allocations_1000(benches::turn::busy(1_000))]
fn turn_send_indication(mut busy: Busy) -> bool {
    black_box(benches::turn::send_work(black_box(&mut busy)))
}

#[library_benchmark]
#[bench::first_bits(benches::pow::block_header())]
fn pow_block_header(bytes: [u8; 84]) -> (chain_lite::Hash, chain_lite::pow::Work) {
    black_box(benches::pow::block_header_work(black_box(&bytes)))
}

#[library_benchmark]
#[bench::headers_100(benches::pow::headers(100))]
fn pow_headers(headers: Vec<Vec<u8>>) -> chain_lite::pow::Work {
    black_box(benches::pow::headers_work(black_box(&headers)))
}

#[library_benchmark]
#[bench::two_inputs(benches::transactions::payment())]
fn transaction_decode(bytes: Vec<u8>) -> (chain_lite::Hash, i64) {
    black_box(benches::transactions::payment_work(black_box(&bytes)))
}

#[library_benchmark]
#[bench::one_key(benches::transactions::payment())]
fn transaction_signature(bytes: Vec<u8>) -> chain_lite::wallet::ProgramHash {
    black_box(benches::transactions::signature_work(black_box(&bytes)))
}

#[library_benchmark]
#[bench::eight_of_4096(benches::transactions::proof(4096))]
fn merkleblock_verify(proof: benches::transactions::Proof) -> usize {
    black_box(benches::transactions::proof_work(black_box(&proof)))
}

#[library_benchmark]
#[bench::headers_10(benches::dpos::chain(10))]
fn dpos_headers(chain: Chain) -> u64 {
    black_box(benches::dpos::chain_work(black_box(&chain)))
}

#[library_benchmark]
#[bench::headers_100(benches::dpos::read(benches::dpos::chain(100)))]
fn dpos_place(chain: (Chain, Vec<SignedHeader>)) -> u64 {
    black_box(benches::dpos::place_work(black_box(&chain)))
}

#[library_benchmark]
#[bench::nodes_8(benches::dpos::storage_proof())]
fn dpos_storage_proof(proof: StorageProof) -> alloy_primitives::U256 {
    black_box(benches::dpos::storage_proof_work(black_box(&proof)))
}

library_benchmark_group!(
    name = pure_code,
    benchmarks = [
        content_request,
        token_verify,
        token_known,
        address_parse,
        list_open,
        list_locate,
        coded_list_open,
        list_groups,
        outboard_open,
        pack_headers,
        policy_decode,
        frame_decode,
        connection_id,
        timers_1000_packets,
        stun_send_indication,
        stun_data_indication,
        stun_challenge,
        stun_authenticate_md5,
        stun_authenticate_sha256,
        stun_authenticate_rest,
        turn_channel_data,
        turn_peer_datagram,
        turn_send_indication,
        pow_block_header,
        pow_headers,
        transaction_decode,
        transaction_signature,
        merkleblock_verify,
        dpos_headers,
        dpos_place,
        dpos_storage_proof
    ]
);

main!(
    config =
        LibraryBenchmarkConfig::default().tool(Callgrind::default().soft_limits([(EventKind::Ir, 2f64)])),
    library_benchmark_groups = pure_code
);
