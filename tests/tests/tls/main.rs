//! TLS on any port, with real clients and with bytes that no client would send.
//!
//! What a client's own library says of a handshake is not checked against itself: the client is `curl`, `openssl
//! s_client` or Python, the server is the agent, and the record is compared with what the client was told to do.

mod certificates;
mod client;
mod hello;
mod ordinary;
mod stubborn;
mod versions;
mod wire;
