//! The server: the page, its JSON and the live stream on one address, while another thread reads the logs.

mod guard;
pub mod live;
pub mod routes;
mod server;

pub(crate) use server::Failure;
pub use server::run;

#[cfg(test)]
mod tests;
