//! The program beside real servers: what is stored is what was logged, each line once, whatever was killed meanwhile.

mod access;
mod bench;
mod disk;
mod fleet;
mod garbage;
mod hostile;
mod http;
mod hub;
#[allow(dead_code, unreachable_pub, reason = "shared with the end-to-end tests, which use the rest")]
#[path = "../../../tests/src/namespace.rs"]
mod namespace;
mod nats;
mod network;
mod support;
mod web;
