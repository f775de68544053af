//! The relay from end to end: the real engine, clients by others (coturn's, aioice), real NATs, storms, kills
//! and policies that change while clients talk.

mod client;
mod ice;
mod namespace;
mod nat;
mod node;
mod policy;
mod restart;
mod storm;
mod tunnel;
mod uclient;
