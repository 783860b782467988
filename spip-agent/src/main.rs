//! spip-agent
fn main() {}
