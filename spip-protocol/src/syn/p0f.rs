//! The raw signature of a SYN as p0f 3 prints it, so that it can be looked up in, or added to, a list of its
//! signatures: `version:ttl+distance:IP options:MSS:window,scale:options:quirks:payload`.
//!
//! The format is that of p0f's README (section "TCP signatures", version 3.09), and what it leaves open is as p0f does
//! it (github.com/p0f/p0f, process.c of commit 01d0be0b42b5 and fp_tcp.c of 154ff59a62ca): how malformed options are
//! read, which of several counts, and in which order sizes are tried for the window. It was compared with what p0f
//! 3.09b prints for the SYNs of Linux, nmap, masscan, ZMap and hping3.
//!
//! Where p0f misses what its README promises, this does not: it overlooks most non-zero acknowledgement numbers
//! (`ack+`), and non-zero bytes behind the end of the options where only the last one is (`opt+`). The length of IPv6
//! extension headers is the true one; p0f does not look behind them. The bytes are hostile: what cannot be true of the
//! options ends their reading and is the quirk `bad`.

use spip_common::Syn;

use super::number;

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
/// The lowest of the four bits before the flags of TCP: AE of accurate ECN, NS before that.
const ACCURATE_ECN: u8 = 1;
/// A smaller segment is no measure of a window.
const SMALLEST_MSS: u16 = 100;
/// The MTU of Ethernet.
const ETHERNET: u32 = 1500;
/// The fixed parts of an IPv4 and an IPv6 header, and of a TCP header.
const IPV4_HEADER: u32 = 20;
const IPV6_HEADER: u32 = 40;
const TCP_HEADER: u32 = 20;
/// Bytes that timestamps take of each segment: ten, padded to twelve.
const TIMESTAMP_BYTES: u32 = 12;
/// Options that are listed; more are `bad`.
const OPTIONS_MAX: usize = 24;

/// The signature of a SYN, to be written.
#[derive(Clone, Copy, Debug)]
pub struct Signature<'a>(pub &'a Syn);

/// Kinds of options.
enum Item {
    End { padding: usize },
    NoOperation,
    Known(&'static str),
    Unknown(u8),
}

/// Values of the options: of several of one kind the last, and every quirk.
#[derive(Default)]
struct Values {
    mss: Option<u16>,
    scale: Option<u8>,
    own_time: Option<u32>,
    excessive_scale: bool,
    zero_own_time: bool,
    peer_time: bool,
    trailing: bool,
    bad: bool,
}

/// Reads options one after the other.
struct OptionWalk<'a> {
    rest: &'a [u8],
    listed: usize,
    values: Values,
}

impl<'a> OptionWalk<'a> {
    fn new(raw: &'a [u8]) -> Self {
        Self { rest: raw, listed: 0, values: Values::default() }
    }

    /// The length byte and the value of an option, and what follows it; nothing when that cannot be.
    ///
    /// Where an RFC gives the length, it is believed rather than the byte that should say the same.
    fn split(&mut self, kind: u8, after: &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
        let fixed = match kind {
            MAXIMUM_SEGMENT_SIZE => Some(4),
            WINDOW_SCALE => Some(3),
            SACK_PERMITTED => Some(2),
            TIMESTAMPS => Some(10),
            _ => None,
        };
        let said = *after.first()?;
        self.values.bad |= fixed.is_some_and(|fixed| fixed != said);
        let length = fixed.or_else(|| {
            let possible = if kind == SACK { 10..=34 } else { 2..=40 };
            possible.contains(&said).then_some(said)
        })?;
        after.split_at_checked(usize::from(length) - 1)
    }

    fn read(&mut self, kind: u8, option: &[u8]) {
        let values = &mut self.values;
        match (kind, option) {
            (MAXIMUM_SEGMENT_SIZE, [_, high, low]) => values.mss = Some(u16::from_be_bytes([*high, *low])),
            (WINDOW_SCALE, [_, shift]) => {
                values.scale = Some(*shift);
                values.excessive_scale |= *shift > LARGEST_SCALE;
            }
            (TIMESTAMPS, [_, a, b, c, d, peer @ ..]) => {
                let own = u32::from_be_bytes([*a, *b, *c, *d]);
                values.own_time = Some(own);
                values.zero_own_time |= own == 0;
                values.peer_time |= peer.iter().any(|byte| *byte != 0);
            }
            _ => {}
        }
    }
}

impl Iterator for OptionWalk<'_> {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        let (kind, after) = self.rest.split_first()?;
        if self.listed == OPTIONS_MAX {
            self.values.bad = true;
            self.rest = &[];
            return None;
        }
        self.listed += 1;
        let (item, rest) = match *kind {
            END => {
                self.values.trailing = after.iter().any(|byte| *byte != 0);
                (Item::End { padding: after.len() }, Default::default())
            }
            NO_OPERATION => (Item::NoOperation, after),
            kind => {
                let rest = match self.split(kind, after) {
                    Some((option, rest)) => {
                        self.read(kind, option);
                        rest
                    }
                    // Its kind is listed all the same.
                    None => {
                        self.values.bad = true;
                        Default::default()
                    }
                };
                (Item::of(kind), rest)
            }
        };
        self.rest = rest;
        Some(item)
    }
}

impl Item {
    fn of(kind: u8) -> Self {
        match kind {
            MAXIMUM_SEGMENT_SIZE => Self::Known("mss"),
            WINDOW_SCALE => Self::Known("ws"),
            SACK_PERMITTED => Self::Known("sok"),
            SACK => Self::Known("sack"),
            TIMESTAMPS => Self::Known("ts"),
            kind => Self::Unknown(kind),
        }
    }
}

impl Signature<'_> {
    /// Appends the signature's text, which no escaping would change.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        let syn = self.0;
        let mut reader = OptionWalk::new(syn.options());
        (&mut reader).for_each(drop);
        let values = reader.values;

        number(out, syn.ip_version);
        out.push(b':');
        number(out, syn.ttl);
        out.push(b'+');
        match INITIAL_TTLS.iter().find(|initial| **initial >= syn.ttl).map(|initial| initial - syn.ttl) {
            Some(distance) if distance <= FARTHEST => number(out, distance),
            _ => out.push(b'?'),
        }
        out.push(b':');
        number(out, syn.ip_options_len);
        out.push(b':');
        number(out, values.mss.unwrap_or_default());
        out.push(b':');
        match multiple(syn, &values) {
            Some((unit, times)) => {
                out.extend_from_slice(unit.as_bytes());
                number(out, times);
            }
            None => number(out, syn.window),
        }
        out.push(b',');
        number(out, values.scale.unwrap_or_default());
        out.push(b':');
        list(out, OptionWalk::new(syn.options()), |out, option| match option {
            Item::End { padding } => {
                out.extend_from_slice(b"eol+");
                number(out, padding);
            }
            Item::NoOperation => out.extend_from_slice(b"nop"),
            Item::Known(name) => out.extend_from_slice(name.as_bytes()),
            Item::Unknown(kind) => {
                out.push(b'?');
                number(out, kind);
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
/// of Ethernet, for those whose segments were made smaller on the way. In the order in which p0f tries them.
fn multiple(syn: &Syn, values: &Values) -> Option<(&'static str, u32)> {
    let mss = u32::from(values.mss.filter(|mss| *mss >= SMALLEST_MSS)?);
    let window = Some(u32::from(syn.window)).filter(|window| *window > 0)?;
    let six = |size: u32| (syn.ip_version == 6).then_some(size);
    let ip_header = six(IPV6_HEADER).unwrap_or(IPV4_HEADER + u32::from(syn.ip_options_len));
    let headers = ip_header + TCP_HEADER + u32::from(syn.options_len);
    let (four, six_headers) = (IPV4_HEADER + TCP_HEADER, IPV6_HEADER + TCP_HEADER);
    let segments = [
        Some(mss),
        values.own_time.filter(|time| *time != 0).map(|_| mss - TIMESTAMP_BYTES),
        Some(ETHERNET - four),
        Some(ETHERNET - four - TIMESTAMP_BYTES),
        six(ETHERNET - six_headers),
        six(ETHERNET - six_headers - TIMESTAMP_BYTES),
    ];
    let packets = [Some(mss + four), Some(mss + headers), six(mss + six_headers), Some(ETHERNET)];
    let fits =
        |sizes: &[Option<u32>]| sizes.iter().flatten().find(|size| window % **size == 0).map(|size| window / size);
    fits(&segments).map(|times| ("mss*", times)).or_else(|| fits(&packets).map(|times| ("mtu*", times)))
}

/// The quirks in the order of the README.
fn quirks(syn: &Syn, values: &Values) -> [(&'static str, bool); 17] {
    let ipv4 = syn.ip_version == 4;
    let unfragmented = syn.ip_flags & Syn::DF != 0;
    let accurate = syn.tcp_reserved & ACCURATE_ECN != 0;
    let ecn = syn.tcp_flags & (Syn::ECE | Syn::CWR) != 0 || accurate || syn.tos & 3 != 0;
    [
        ("df", ipv4 && unfragmented),
        ("id+", ipv4 && unfragmented && syn.ip_id != 0),
        ("id-", ipv4 && !unfragmented && syn.ip_id == 0),
        ("ecn", ecn),
        ("0+", ipv4 && syn.ip_flags & Syn::RESERVED != 0),
        ("flow", syn.flow_label != 0),
        ("seq-", syn.sequence == 0),
        ("ack+", syn.acknowledgement != 0),
        // An initial SYN has no ACK flag.
        ("ack-", false),
        ("uptr+", syn.urgent != 0 && syn.tcp_flags & Syn::URG == 0),
        ("urgf+", syn.tcp_flags & Syn::URG != 0),
        ("pushf+", syn.tcp_flags & Syn::PSH != 0),
        ("ts1-", values.zero_own_time),
        ("ts2+", values.peer_time),
        ("opt+", values.trailing),
        ("exws", values.excessive_scale),
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
    fn only_ips_own_bit_must_be_zero_and_that_of_accurate_ecn_is_ecn() {
        assert_eq!(shown(&Syn { tcp_reserved: 1, ..syn(&[]) }), "4:57+7:0:0:64240,0::df,id+,ecn:0");
        assert_eq!(shown(&Syn { tcp_reserved: 0xe, ..syn(&[]) }), "4:57+7:0:0:64240,0::df,id+:0");
    }

    #[test]
    fn a_length_that_an_rfc_gives_is_believed_rather_than_the_byte_that_says_another() {
        assert_eq!(shown(&syn(&[2, 3, 0x05, 0xb4, 3, 9, 7])), "4:57+7:0:1460:mss*44,7:mss,ws:df,id+,bad:0");
        assert_eq!(shown(&syn(&[4, 7, 3, 3, 2])), "4:57+7:0:0:64240,2:sok,ws:df,id+,bad:0");
    }

    #[test]
    fn an_option_that_cannot_be_read_is_listed_and_ends_the_list() {
        for (raw, list) in [
            (&[1, 99, 50, 3, 3, 7][..], "nop,?99"),
            (&[1, 99, 1, 3, 3, 7], "nop,?99"),
            (&[1, 99], "nop,?99"),
            (&[5, 4, 0, 0, 3, 3, 7], "sack"),
            (&[3, 3, 7, 8, 10, 1], "ws,ts"),
            (
                &[1; 30],
                "nop,nop,nop,nop,nop,nop,nop,nop,nop,nop,nop,nop,nop,nop,nop,nop,nop,nop,nop,nop,nop,nop,nop,nop",
            ),
        ] {
            let scale = if raw[0] == 3 { 7 } else { 0 };
            assert_eq!(shown(&syn(raw)), format!("4:57+7:0:0:64240,{scale}:{list}:df,id+,bad:0"));
        }
    }

    #[test]
    fn of_several_options_of_one_kind_the_last_one_counts_and_what_was_odd_stays() {
        let twice = [2, 4, 0x05, 0x00, 2, 4, 0x05, 0xb4, 3, 3, 15, 3, 3, 7];
        assert_eq!(shown(&syn(&twice)), "4:57+7:0:1460:mss*44,7:mss,mss,ws,ws:df,id+,exws:0");
        let times = [8, 10, 0, 0, 0, 0, 0, 0, 0, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0];
        assert_eq!(shown(&syn(&times)), "4:57+7:0:0:64240,0:ts,ts:df,id+,ts1-,ts2+:0");
    }

    #[test]
    fn sizes_are_tried_in_the_order_of_p0f() {
        let window = |version: u8, mss: u16, window: u16| {
            let [high, low] = mss.to_be_bytes();
            let text = shown(&Syn { ip_version: version, window, ..syn(&[2, 4, high, low]) });
            text.split(':').nth(4).expect("eight parts").to_owned()
        };
        // 1,448 is Ethernet's segment with timestamps, whether there are any or not.
        assert_eq!(window(4, 1_300, 1_448 * 10), "mss*10,0");
        // The headers that there are, besides those that there are at least.
        assert_eq!(window(4, 1_360, 1_404 * 3), "mtu*3,0");
        assert_eq!(window(4, 1_360, 1_400 * 3), "mtu*3,0");
        // IPv6 has the sizes of IPv4 first, then its own.
        assert_eq!(window(6, 1_300, 1_460 * 4), "mss*4,0");
        assert_eq!(window(6, 1_300, 1_440 * 3), "mss*3,0");
        assert_eq!(window(6, 1_300, 1_428 * 3), "mss*3,0");
        assert_eq!(window(4, 1_300, 1_428 * 3), "4284,0");
        assert_eq!(window(6, 1_340, 1_400 * 3), "mtu*3,0");
        // With a segment of 1,400 bytes, 1,440 is both an MTU of IPv4 and a segment of IPv6: the segment is tried
        // first.
        assert_eq!(window(6, 1_400, 1_440 * 2), "mss*2,0");
        assert_eq!(window(4, 1_400, 1_440 * 2), "mtu*2,0");
        assert_eq!(window(4, 65_500, 65_500), "mss*1,0");
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
