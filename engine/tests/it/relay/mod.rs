//! The relay as a program: the engine with `--relay`, clients and peers on loopback.

mod client;
mod data;
mod harness;
mod life;
