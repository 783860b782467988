//! Says that a gateway hides the clients: the first sessions all come from one address that this machine knows as its
//! gateway, or as its own.
//!
//! That is how connections look that a container engine forwards from a published port into a bridge network, and those
//! through a translating load balancer: the records are whole, and their source is worth nothing.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::kernel::{interfaces, routes};

/// Sessions that are looked at. One other source among them, and the machine is reached directly.
const SESSIONS: u32 = 10;

/// The verdict on the first sessions of this run, which clones share.
#[derive(Clone, Debug)]
pub struct FirstSources(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    hiding: Vec<IpAddr>,
    /// Sessions still to be looked at; zero after the verdict.
    left: AtomicU32,
}

impl FirstSources {
    /// Asks the kernel for gateways and own addresses.
    #[must_use]
    pub fn of_this_machine() -> Self {
        Self::hidden_by(routes::gateways().into_iter().chain(interfaces::outside()).collect())
    }

    /// Takes these addresses for ones that hide others.
    #[must_use]
    pub fn hidden_by(hiding: Vec<IpAddr>) -> Self {
        let left = if hiding.is_empty() { 0 } else { SESSIONS };
        Self(Arc::new(Inner { hiding, left: AtomicU32::new(left) }))
    }

    /// Takes note of a session from `source`, and says so where it is the last of those that came from nowhere else.
    pub fn note(&self, source: IpAddr) {
        if self.completes(source) {
            log::warn!(target: "origin", source_ip = source.to_string().as_str(), sessions = SESSIONS;
                "the first {SESSIONS} sessions all come from a gateway or from this machine ({source}): what is in front, such as a \
                 container's bridge network or a translating load balancer, hides the addresses of the clients; give a container the \
                 host's network (--network host), or have a load balancer name the client: proxy_protocol_from");
        }
    }

    fn completes(&self, source: IpAddr) -> bool {
        let Inner { hiding, left } = &*self.0;
        if left.load(Ordering::Relaxed) == 0 {
            return false;
        }
        if !hiding.contains(&source.to_canonical()) {
            left.store(0, Ordering::Relaxed);
            return false;
        }
        left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)) == Ok(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GATEWAY: &str = "172.17.0.1";
    const OWN: &str = "172.17.0.2";

    /// Reports whether the verdict falls that these sources come from a gateway.
    fn says(sources: &FirstSources, from: &[&str]) -> usize {
        from.iter().filter(|source| sources.completes(source.parse().expect("an address"))).count()
    }

    fn sources() -> FirstSources {
        FirstSources::hidden_by([GATEWAY, OWN].map(|ip| ip.parse().expect("an address")).into())
    }

    #[test]
    fn ten_sessions_from_a_gateway_are_named_once() {
        let first = sources();
        assert_eq!(says(&first, &[GATEWAY; 9]), 0);
        assert_eq!(says(&first.clone(), &["::ffff:172.17.0.1"]), 1);
        assert_eq!(says(&first, &[GATEWAY; 100]), 0);
        assert_eq!(says(&sources(), &[OWN; 10]), 1);
    }

    #[test]
    fn one_other_source_ends_the_doubt() {
        let first = sources();
        assert_eq!(says(&first, &[GATEWAY; 9]), 0);
        assert_eq!(says(&first, &["198.51.100.7"]), 0);
        assert_eq!(says(&first, &[GATEWAY; 100]), 0);
    }

    #[test]
    fn nothing_is_said_where_no_gateway_is_known() {
        assert_eq!(says(&FirstSources::hidden_by(Vec::new()), &[GATEWAY; 100]), 0);
    }
}
