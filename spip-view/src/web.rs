//! The server: the page, its JSON and the live stream on one address, while another thread reads the logs.

mod guard;
mod listener;
pub mod live;
pub mod routes;
mod server;
mod signals;

pub(crate) use server::Failure;
pub use server::run;

#[cfg(test)]
mod tests;
