//! The program beside real servers: what is stored is what was logged, each line once, whatever was killed meanwhile.

mod access;
mod bench;
mod disk;
mod fleet;
mod http;
mod hub;
mod nats;
mod support;
mod web;
