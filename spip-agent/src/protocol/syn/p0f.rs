//! The raw signature of a SYN as p0f 3 prints it, so that it can be looked up in, or added to, a list of its signatures:
//! `version:ttl+distance:IP options:MSS:window,scale:options:quirks:payload`.
//!
//! The format is that of p0f's README (section "TCP signatures", version 3.09), and was compared with what p0f 3.09b prints
//! for the SYNs of Linux, nmap, masscan, ZMap and hping3. One difference is known: p0f overlooks most non-zero
//! acknowledgement numbers, which its README calls `ack+`. The length of IPv6 extension headers is the true one. The bytes are a stranger's: what cannot be true of the
//! options ends their reading and is the quirk `bad`.

use spip_common::Syn;

use crate::json;

const END: u8 = 0;
const NO_OPERATION: u8 = 1;
const MAXIMUM_SEGMENT_SIZE: u8 = 2;
const WINDOW_SCALE: u8 = 3;
const SACK_PERMITTED: u8 = 4;
const SACK: u8 = 5;
const TIMESTAMPS: u8 = 8;

/// The initial values of the time to live that systems use.
const INITIAL_TTLS: [u8; 4] = [32, 64, 128, 255];
/// More hops than this are not believed, and written as `?`.
const FARTHEST: u8 = 35;
/// The largest shift that RFC 7323 allows (2.3).
const LARGEST_SCALE: u8 = 14;
/// A smaller segment is no measure of a window.
const SMALLEST_MSS: u16 = 100;
/// The MTU of Ethernet.
const ETHERNET: u16 = 1500;
/// What the timestamps take of each segment: ten bytes, filled up to twelve.
const TIMESTAMP_BYTES: u16 = 12;

/// The signature of a SYN, to be written.
#[derive(Clone, Copy, Debug)]
pub struct Signature<'a>(pub &'a Syn);

/// What one option is.
enum Item {
    End { padding: usize },
    NoOperation,
    Known(&'static str),
    Unknown(u8),
}

/// What the values of the options say.
#[derive(Default)]
struct Values {
    mss: Option<u16>,
    scale: Option<u8>,
    own_time: Option<u32>,
    peer_time: Option<u32>,
    trailing: bool,
    bad: bool,
}

/// Reads options one after the other.
struct Reader<'a> {
    rest: &'a [u8],
    values: Values,
}

impl<'a> Reader<'a> {
    fn new(raw: &'a [u8]) -> Self {
        Self { rest: raw, values: Values::default() }
    }

    /// The name of an option, and what its value says.
    fn known(&mut self, kind: u8, value: &[u8]) -> Item {
        let values = &mut self.values;
        let name = match (kind, value) {
            (MAXIMUM_SEGMENT_SIZE, [high, low]) => {
                values.mss.get_or_insert(u16::from_be_bytes([*high, *low]));
                "mss"
            }
            (WINDOW_SCALE, [shift]) => {
                values.scale.get_or_insert(*shift);
                "ws"
            }
            (SACK_PERMITTED, []) => "sok",
            (TIMESTAMPS, [a, b, c, d, e, f, g, h]) => {
                values.own_time.get_or_insert(u32::from_be_bytes([*a, *b, *c, *d]));
                values.peer_time.get_or_insert(u32::from_be_bytes([*e, *f, *g, *h]));
                "ts"
            }
            (SACK, blocks) if matches!(blocks.len(), 8 | 16 | 24 | 32) => "sack",
            (MAXIMUM_SEGMENT_SIZE, _) => self.odd("mss"),
            (WINDOW_SCALE, _) => self.odd("ws"),
            (SACK_PERMITTED, _) => self.odd("sok"),
            (TIMESTAMPS, _) => self.odd("ts"),
            (SACK, _) => self.odd("sack"),
            _ => return Item::Unknown(kind),
        };
        Item::Known(name)
    }

    /// An option whose length is not the one that its RFC gives it.
    fn odd(&mut self, name: &'static str) -> &'static str {
        self.values.bad = true;
        name
    }
}

impl Iterator for Reader<'_> {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        let (kind, after) = self.rest.split_first()?;
        match *kind {
            END => {
                self.rest = &[];
                self.values.trailing = after.iter().any(|byte| *byte != 0);
                Some(Item::End { padding: after.len() })
            }
            NO_OPERATION => {
                self.rest = after;
                Some(Item::NoOperation)
            }
            kind => {
                let length = after.split_first().and_then(|(length, value)| {
                    usize::from(*length).checked_sub(2).and_then(|length| value.split_at_checked(length))
                });
                let Some((value, rest)) = length else {
                    self.values.bad = true;
                    self.rest = &[];
                    return None;
                };
                self.rest = rest;
                Some(self.known(kind, value))
            }
        }
    }
}

impl Signature<'_> {
    /// Appends the signature's text, which no escaping would change.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        let syn = self.0;
        let mut reader = Reader::new(syn.options());
        (&mut reader).for_each(drop);
        let values = reader.values;

        json::number(out, syn.ip_version);
        out.push(b':');
        json::number(out, syn.ttl);
        out.push(b'+');
        match INITIAL_TTLS.iter().find(|initial| **initial >= syn.ttl).map(|initial| initial - syn.ttl) {
            Some(distance) if distance <= FARTHEST => json::number(out, distance),
            _ => out.push(b'?'),
        }
        out.push(b':');
        json::number(out, syn.ip_options_len);
        out.push(b':');
        json::number(out, values.mss.unwrap_or_default());
        out.push(b':');
        match multiple(syn, &values) {
            Some((unit, times)) => {
                out.extend_from_slice(unit.as_bytes());
                json::number(out, times);
            }
            None => json::number(out, syn.window),
        }
        out.push(b',');
        json::number(out, values.scale.unwrap_or_default());
        out.push(b':');
        list(out, Reader::new(syn.options()), |out, option| match option {
            Item::End { padding } => {
                out.extend_from_slice(b"eol+");
                json::number(out, padding);
            }
            Item::NoOperation => out.extend_from_slice(b"nop"),
            Item::Known(name) => out.extend_from_slice(name.as_bytes()),
            Item::Unknown(kind) => {
                out.push(b'?');
                json::number(out, kind);
            }
        });
        out.push(b':');
        let shown = quirks(syn, &values).into_iter().filter(|(_, shows)| *shows);
        list(out, shown, |out, (name, _)| out.extend_from_slice(name.as_bytes()));
        out.extend_from_slice(if syn.payload_length > 0 { b":+" } else { b":0" });
    }
}

/// Items with commas between them.
fn list<T>(out: &mut Vec<u8>, items: impl Iterator<Item = T>, write: impl Fn(&mut Vec<u8>, T)) {
    for (index, item) in items.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(out, item);
    }
}

/// The window as a multiple of the segment size, or of the MTU that follows from it; the sender's own first, then that
/// of Ethernet, for those whose segments were made smaller on the way.
fn multiple(syn: &Syn, values: &Values) -> Option<(&'static str, u16)> {
    let mss = values.mss.filter(|mss| *mss >= SMALLEST_MSS)?;
    let headers = if syn.ip_version == 6 { 60 } else { 40 };
    let time = values.own_time.is_some_and(|time| time != 0);
    let with_time = |size: u16| time.then(|| size.checked_sub(TIMESTAMP_BYTES)).flatten();
    let ethernet = ETHERNET - headers;
    let sizes = [
        (Some(mss), "mss*"),
        (with_time(mss), "mss*"),
        (Some(ethernet), "mss*"),
        (with_time(ethernet), "mss*"),
        (mss.checked_add(headers), "mtu*"),
        (Some(ETHERNET), "mtu*"),
    ];
    let window = Some(syn.window).filter(|window| *window > 0)?;
    let fits = sizes.iter().find_map(|(size, unit)| size.filter(|size| window % size == 0).map(|size| (size, *unit)));
    fits.map(|(size, unit)| (unit, window / size))
}

/// The quirks in the order of the README.
fn quirks(syn: &Syn, values: &Values) -> [(&'static str, bool); 17] {
    let ipv4 = syn.ip_version == 4;
    let unfragmented = syn.ip_flags & Syn::DF != 0;
    let ecn = syn.tcp_flags & (Syn::ECE | Syn::CWR) != 0 || syn.tos & 3 != 0;
    [
        ("df", ipv4 && unfragmented),
        ("id+", ipv4 && unfragmented && syn.ip_id != 0),
        ("id-", ipv4 && !unfragmented && syn.ip_id == 0),
        ("ecn", ecn),
        ("0+", ipv4 && syn.ip_flags & Syn::RESERVED != 0 || syn.tcp_reserved != 0),
        ("flow", syn.flow_label != 0),
        ("seq-", syn.sequence == 0),
        ("ack+", syn.acknowledgement != 0),
        // An initial SYN has no ACK flag.
        ("ack-", false),
        ("uptr+", syn.urgent != 0 && syn.tcp_flags & Syn::URG == 0),
        ("urgf+", syn.tcp_flags & Syn::URG != 0),
        ("pushf+", syn.tcp_flags & Syn::PSH != 0),
        ("ts1-", values.own_time == Some(0)),
        ("ts2+", values.peer_time.is_some_and(|time| time != 0)),
        ("opt+", values.trailing),
        ("exws", values.scale.is_some_and(|scale| scale > LARGEST_SCALE)),
        ("bad", values.bad),
    ]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LINUX: [u8; 20] = [2, 4, 0x05, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7];

    fn syn(options: &[u8]) -> Syn {
        let mut syn = Syn::ZERO;
        syn.ip_version = 4;
        syn.ttl = 57;
        syn.ip_id = 7;
        syn.ip_flags = Syn::DF;
        syn.tcp_flags = Syn::SYN;
        syn.sequence = 1;
        syn.window = 64_240;
        syn.options[..options.len()].copy_from_slice(options);
        syn.options_len = u8::try_from(options.len()).expect("at most 40");
        syn
    }

    fn shown(syn: &Syn) -> String {
        let mut text = Vec::new();
        Signature(syn).write_to(&mut text);
        String::from_utf8(text).expect("ASCII")
    }

    #[test]
    fn a_linux_syn_has_its_known_signature() {
        assert_eq!(shown(&syn(&LINUX)), "4:57+7:0:1460:mss*44,7:mss,sok,ts,nop,ws:df,id+:0");
    }

    #[test]
    fn a_syn_without_options_shows_how_little_it_has() {
        let bare = Syn { ttl: 240, ip_flags: 0, window: 65_535, ip_id: 0, ..syn(&[]) };
        assert_eq!(shown(&bare), "4:240+15:0:0:65535,0::id-:0");
    }

    #[test]
    fn a_distance_that_nobody_believes_is_unknown() {
        assert_eq!(shown(&Syn { ttl: 70, ..syn(&[]) }), "4:70+?:0:0:64240,0::df,id+:0");
        assert_eq!(shown(&Syn { ttl: 0, ..syn(&[]) }), "4:0+32:0:0:64240,0::df,id+:0");
    }

    #[test]
    fn a_window_of_whole_packets_is_a_multiple_of_the_mtu() {
        let mtu = Syn { window: 1_400 * 4, ..syn(&[2, 4, 0x05, 0x50]) };
        assert_eq!(shown(&mtu), "4:57+7:0:1360:mtu*4,0:mss:df,id+:0");
        let ethernet = Syn { window: 1_460 * 4, ..syn(&[2, 4, 0x05, 0x00]) };
        assert_eq!(shown(&ethernet), "4:57+7:0:1280:mss*4,0:mss:df,id+:0");
    }

    #[test]
    fn every_quirk_shows() {
        let mut odd = syn(&[2, 4, 0, 0, 8, 10, 0, 0, 0, 0, 0, 0, 0, 1, 3, 3, 15, 99, 2, 0, 5]);
        odd.ip_flags = Syn::DF | Syn::RESERVED;
        odd.tcp_flags = Syn::SYN | Syn::URG | Syn::PSH | Syn::ECE;
        odd.flow_label = 1;
        odd.sequence = 0;
        odd.acknowledgement = 1;
        odd.payload_length = 5;
        assert_eq!(
            shown(&odd),
            "4:57+7:0:0:64240,15:mss,ts,ws,?99,eol+1:df,id+,ecn,0+,flow,seq-,ack+,urgf+,pushf+,ts1-,ts2+,opt+,exws:+"
        );
        assert_eq!(shown(&Syn { urgent: 1, ..syn(&[2, 3, 0]) }), "4:57+7:0:0:64240,0:mss:df,id+,uptr+,bad:0");
    }

    #[test]
    fn ipv6_has_its_own_quirks() {
        let six = Syn { ip_version: 6, ip_flags: 0, ip_id: 0, flow_label: 5, ..syn(&LINUX) };
        assert_eq!(shown(&six), "6:57+7:0:1460:mss*44,7:mss,sok,ts,nop,ws:flow:0");
    }

    proptest! {
        #[test]
        fn any_options_are_eight_parts(raw in proptest::collection::vec(any::<u8>(), 0..=40), window: u16, ttl: u8) {
            let text = shown(&Syn { window, ttl, ..syn(&raw) });
            prop_assert_eq!(text.split(':').count(), 8, "{}", text);
            prop_assert!(text.len() < 400);
        }
    }
}
