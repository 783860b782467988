//! Compares what the packet filter saw with what the kernel knows of the same connection.
//!
//! The filter reads unchecked packets, and a client writes what it likes into them: a SYN that the kernel
//! drops, sent before the real one in a form that the filter cannot read, would otherwise decide what the record says.
//! So the kernel is the judge: the destination must be the one that connection tracking, or the socket, has; the SYN
//! must be the one that the kernel accepted. What is then taken from the filter alone is the client's source port
//! before address translation.
//!
//! Timestamps, ECN flags and the IPv4 identification may change between a SYN and its retransmission, and some clients
//! leave options out of later ones, so they are not compared. The record shows those of the SYN that the kernel
//! accepted.

use spip_common::Syn;

use super::saved::Saved;
use crate::kernel::addr::Destination;
use crate::kernel::ebpf;
use spip_record::Conflict;

/// TCP option: end of the list.
const END: u8 = 0;
/// TCP option: padding.
const NOP: u8 = 1;
/// TCP option: timestamps (RFC 7323).
const TIMESTAMPS: u8 = 8;
/// TCP option: Fast Open cookie (RFC 7413), which a retransmission leaves out.
const FAST_OPEN: u8 = 34;

/// Returns why `seen` is not believed: it contradicts the `destination` that the kernel has for the connection, or the
/// SYN that it `saved`.
pub(super) fn conflict(seen: &ebpf::Origin, destination: Destination, saved: &Saved) -> Option<Conflict> {
    if seen.ambiguous {
        return Some(Conflict::Ambiguous);
    }
    let syn = &seen.syn;
    if (syn.destination_ip(), syn.destination_port) != (destination.ip(), destination.port()) {
        return Some(Conflict::Destination);
    }
    let same = match saved {
        Saved::Nothing => true,
        Saved::Unreadable => false,
        Saved::Syn(accepted) if seen.observed => is_same_syn(syn, accepted, seen.repeats > 0),
        // Of a local client that no filter observed, the sequence number is all that is known of its SYN.
        Saved::Syn(accepted) => syn.sequence == accepted.sequence,
    };
    (!same).then_some(Conflict::Syn)
}

/// Returns the facts of a believed SYN: those that the kernel `accepted`, with what only the filter knows.
pub(super) fn facts(seen: &ebpf::Origin, accepted: Option<Syn>) -> Option<Syn> {
    let Some(accepted) = accepted else {
        return (seen.observed && !seen.varied).then_some(seen.syn);
    };
    let Syn { destination, destination_port, source_port, interface, seen_ns, .. } = seen.syn;
    Some(Syn { destination, destination_port, source_port, interface, seen_ns, ..accepted })
}

/// Reports whether the filter and the kernel saw the same SYN, or, where it was sent several times, two of them.
fn is_same_syn(seen: &Syn, accepted: &Syn, repeated: bool) -> bool {
    let fixed = |syn: &Syn| (syn.ip_version, syn.sequence, syn.ttl, syn.window, syn.acknowledgement, syn.urgent);
    fixed(seen) == fixed(accepted) && (repeated || lasting(seen.options()).eq(lasting(accepted.options())))
}

/// Returns the options of a SYN as its kinds with their bytes, without those of timestamps and Fast Open.
fn lasting(options: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut rest = options;
    std::iter::from_fn(move || {
        let (&kind, after) = rest.split_first()?;
        if kind == END || kind == NOP {
            rest = after;
            return Some((kind, &[][..]));
        }
        // A length that is impossible ends the list; what is left is compared as it is.
        let length = after.first().map_or(0, |length| usize::from(*length));
        let (option, after) = if length < 2 { (rest, &[][..]) } else { rest.split_at(length.min(rest.len())) };
        rest = after;
        let bytes = if kind == TIMESTAMPS || kind == FAST_OPEN { &[][..] } else { option };
        Some((kind, bytes))
    })
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    /// Maximum segment size, SACK permitted, timestamps, padding, window scale.
    const OPTIONS: [u8; 20] = [2, 4, 5, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7];

    fn syn() -> Syn {
        let mut syn = Syn {
            destination: spip_common::packet::mapped([192, 0, 2, 1]),
            destination_port: 80,
            source_port: 40_000,
            sequence: 77,
            ttl: 64,
            window: 1_024,
            ip_version: 4,
            options_len: 20,
            interface: 3,
            seen_ns: 9,
            ..Syn::ZERO
        };
        syn.options[..20].copy_from_slice(&OPTIONS);
        syn
    }

    fn seen(syn: Syn) -> ebpf::Origin {
        ebpf::Origin { syn, observed: true, local: false, ambiguous: false, repeats: 0, varied: false }
    }

    fn destination() -> Destination {
        Destination::new(SocketAddr::from(([192, 0, 2, 1], 80)))
    }

    /// The same SYN as it is behind address translation.
    fn translated() -> Syn {
        Syn { destination_port: 12_345, source_port: 60_001, interface: 0, seen_ns: 0, ..syn() }
    }

    #[test]
    fn what_agrees_with_the_kernel_is_believed() {
        assert_eq!(conflict(&seen(syn()), destination(), &Saved::Syn(translated())), None);
        assert_eq!(conflict(&seen(syn()), destination(), &Saved::Nothing), None);
    }

    #[test]
    fn another_destination_than_the_kernels_is_a_lie() {
        for lie in [
            Syn { destination_port: 22, ..syn() },
            Syn { destination: spip_common::packet::mapped([8, 8, 8, 8]), ..syn() },
        ] {
            for saved in [Saved::Syn(translated()), Saved::Nothing] {
                assert_eq!(conflict(&seen(lie), destination(), &saved), Some(Conflict::Destination));
            }
        }
    }

    #[test]
    fn each_field_that_differs_from_the_accepted_syn_is_a_lie() {
        let accepted = Saved::Syn(translated());
        let mut options = syn();
        options.options[3] = 0xb5;
        let mut shorter = syn();
        shorter.options_len = 19;
        for lie in [
            Syn { sequence: 78, ..syn() },
            Syn { ttl: 200, ..syn() },
            Syn { window: 1_025, ..syn() },
            Syn { acknowledgement: 1, ..syn() },
            Syn { urgent: 1, ..syn() },
            Syn { ip_version: 6, ..syn() },
            options,
            shorter,
        ] {
            assert_eq!(conflict(&seen(lie), destination(), &accepted), Some(Conflict::Syn), "{lie:?}");
        }
        assert_eq!(conflict(&seen(syn()), destination(), &Saved::Unreadable), Some(Conflict::Syn));
    }

    #[test]
    fn a_retransmission_may_have_other_timestamps_and_fewer_options() {
        let mut later = translated();
        later.options[9] = 99;
        later.ip_id = 4;
        assert_eq!(conflict(&seen(syn()), destination(), &Saved::Syn(later)), None);
        let bare = Syn { options_len: 4, ..translated() };
        assert_eq!(conflict(&seen(syn()), destination(), &Saved::Syn(bare)), Some(Conflict::Syn));
        let repeated = ebpf::Origin { repeats: 2, ..seen(syn()) };
        assert_eq!(conflict(&repeated, destination(), &Saved::Syn(bare)), None);
        let other = Syn { ttl: 63, ..bare };
        assert_eq!(conflict(&repeated, destination(), &Saved::Syn(other)), Some(Conflict::Syn));
    }

    #[test]
    fn a_syn_whose_key_is_anothers_too_is_not_believed() {
        let ambiguous = ebpf::Origin { ambiguous: true, ..seen(syn()) };
        assert_eq!(conflict(&ambiguous, destination(), &Saved::Syn(translated())), Some(Conflict::Ambiguous));
    }

    #[test]
    fn the_facts_are_those_that_the_kernel_accepted_with_the_ports_before_translation() {
        let accepted = Syn { tos: 3, ..translated() };
        assert_eq!(facts(&seen(syn()), Some(accepted)), Some(Syn { tos: 3, ..syn() }));
        assert_eq!(facts(&seen(syn()), None), Some(syn()));
        let unobserved = ebpf::Origin { observed: false, ..seen(syn()) };
        assert_eq!(facts(&unobserved, None), None);
        let varied = ebpf::Origin { varied: true, ..seen(syn()) };
        assert_eq!(facts(&varied, None), None, "which of them was accepted is not known");
        assert_eq!(facts(&varied, Some(accepted)).map(|syn| syn.ttl), Some(64));
        assert_eq!(facts(&unobserved, Some(accepted)).map(|syn| syn.ttl), Some(64));
    }

    #[test]
    fn options_of_any_length_are_compared_to_their_end() {
        for length in 0..=20 {
            let count = lasting(&OPTIONS[..length]).count();
            assert!(count <= length, "{length}");
            assert_eq!(length == 0, count == 0);
        }
        assert_eq!(lasting(&[2, 0, 7, 7]).collect::<Vec<_>>(), [(2, &[2, 0, 7, 7][..])]);
        assert_eq!(lasting(&[3, 200, 7]).collect::<Vec<_>>(), [(3, &[3, 200, 7][..])]);
    }
}
