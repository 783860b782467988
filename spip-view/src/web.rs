//! The server.

pub mod routes;
