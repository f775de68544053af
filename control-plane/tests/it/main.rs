//! Tests of the `ioex` command and the library beneath it.

mod certificate;
mod configuration;
mod doctor;
mod help;
mod identity;
mod program;
mod text;
