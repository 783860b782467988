//! spip-agent
fn main(){}
