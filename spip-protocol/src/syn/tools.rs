//! The tools that give themselves away by their SYN. Each is named for a property that its own published source gives to
//! every SYN that it sends, and that is cited beside it.
//!
//! A tell is a hint, not a proof: what one program does another can imitate, and later versions or forks of a tool may
//! do without it. Where chance alone shows a tell, the chance is stated; a record of many SYNs says how many showed it.

use spip_common::Syn;

/// A tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// ZMap, and what is made of it.
    Zmap,
    /// masscan.
    Masscan,
    /// Mirai, and what is made of its source.
    Mirai,
    /// A scanner that makes its SYNs without the help of the system, and without any TCP option.
    Stateless,
}

impl Tool {
    /// All of them, in the order in which records name them.
    pub const ALL: [Self; 4] = [Self::Zmap, Self::Masscan, Self::Mirai, Self::Stateless];

    /// The name in records.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Zmap => "zmap",
            Self::Masscan => "masscan",
            Self::Mirai => "mirai",
            Self::Stateless => "stateless",
        }
    }

    fn shows(self, syn: &Syn, destination: Ipv4OrOther) -> bool {
        match self {
            // github.com/zmap/zmap, src/probe_modules/packet.c of commit 0bfe93754bf2, make_ip_header: the identification of
            // every IPv4 packet is 54321. So it is in all versions before 4.1.0 (pull request 798, March 2024). Described in
            // Durumeric, Bailey, Halderman: An Internet-Wide View of Internet-Wide Scanning, USENIX Security 2014, and
            // in Hiesgen et al.: Spoki, USENIX Security 2022, arXiv:2110.05160. By chance: one in 65,536.
            Self::Zmap => destination.is_some() && syn.ip_id == 54_321,
            // github.com/robertdavidgraham/masscan, src/templ-pkt.c of commits 00e3471c7022 and ae4b908207aa,
            // template_set_target: the identification of an IPv4 packet is the exclusive or of destination address,
            // destination port and sequence number, in 16 bits. Described in the paper of 2014 above. By chance: one in
            // 65,536.
            Self::Masscan => destination.is_some_and(|address| {
                let mixed = address ^ u32::from(syn.destination_port) ^ syn.sequence;
                u32::from(syn.ip_id) == mixed & 0xffff
            }),
            // github.com/jgamblin/Mirai-Source-Code (as published in 2016), mirai/bot/scanner.c of commit 6a5941be681b,
            // scanner_init: the sequence number is the destination address. Described in Antonakakis et al.: Understanding
            // the Mirai Botnet, USENIX Security 2017. By chance: one in four thousand million.
            Self::Mirai => destination.is_some_and(|address| syn.sequence == address),
            // The sources above (ZMap's make_tcp_header before 3.0.0, Mirai's scanner_init, masscan's template before 2021) send
            // SYNs that end with the fixed part of the TCP header; the systems' own stacks announce at least their
            // maximum segment size (RFC 9293, 3.7.1, MUST-14). Used as a mark of stateless scanners in Hiesgen et al.,
            // above, section 2.
            Self::Stateless => syn.options_len == 0,
        }
    }
}

/// An IPv4 address as a number, or nothing.
type Ipv4OrOther = Option<u32>;

/// The tools that a SYN shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tools(u8);

impl Tools {
    /// Those that show in `syn`, whose destination must be the one that its sender wrote.
    #[must_use]
    pub fn of(syn: &Syn) -> Self {
        let destination = match (syn.ip_version, syn.destination) {
            (4, [.., a, b, c, d]) => Some(u32::from_be_bytes([a, b, c, d])),
            _ => None,
        };
        let bit = |tool: &Tool| u8::from(tool.shows(syn, destination)) << *tool as u8;
        Self(Tool::ALL.iter().map(bit).fold(0, |all, bit| all | bit))
    }

    /// Reports whether there is no tool.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Each of them.
    pub fn iter(self) -> impl Iterator<Item = Tool> {
        Tool::ALL.into_iter().filter(move |tool| self.0 & 1 << *tool as u8 != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn syn(address: [u8; 4], port: u16, sequence: u32, ip_id: u16) -> Syn {
        let mut syn = Syn::ZERO;
        syn.ip_version = 4;
        syn.destination = spip_common::packet::mapped(address);
        syn.destination_port = port;
        syn.sequence = sequence;
        syn.ip_id = ip_id;
        syn.options_len = 4;
        syn
    }

    fn names(syn: &Syn) -> Vec<&'static str> {
        Tools::of(syn).iter().map(Tool::name).collect()
    }

    #[test]
    fn each_tool_is_named_by_its_own_tell() {
        assert_eq!(names(&syn([198, 51, 100, 1], 80, 7, 54_321)), ["zmap"]);
        assert_eq!(names(&syn([198, 51, 100, 1], 23, 0xc633_6401, 9)), ["mirai"]);
        // 0x6401 ^ 0x0050 ^ 0x5678, as masscan would compute it for 198.51.100.1:80 and sequence number 0x12345678.
        assert_eq!(names(&syn([198, 51, 100, 1], 80, 0x1234_5678, 0x3229)), ["masscan"]);
        assert_eq!(names(&Syn { options_len: 0, ..syn([198, 51, 100, 1], 80, 7, 1) }), ["stateless"]);
    }

    #[test]
    fn an_ordinary_syn_names_nobody() {
        assert!(Tools::of(&syn([198, 51, 100, 1], 80, 7, 1)).is_empty());
    }

    #[test]
    fn several_tells_name_several() {
        let both = Syn { options_len: 0, ..syn([198, 51, 100, 1], 80, 7, 54_321) };
        assert_eq!(names(&both), ["zmap", "stateless"]);
    }

    #[test]
    fn ipv6_has_no_identification_and_no_address_of_32_bits() {
        let mut six = syn([198, 51, 100, 1], 80, 0xc633_6401, 54_321);
        six.ip_version = 6;
        assert!(Tools::of(&six).is_empty());
    }
}
