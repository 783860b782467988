//! What bytes mean. Pure functions on bytes: nothing in here knows a socket, a clock or a configuration, nothing
//! panics, and nothing allocates more than a small multiple of its bounded input.

pub mod client_hello;
pub mod community_id;
pub mod ja3;
pub mod ja4;
pub mod syn;
