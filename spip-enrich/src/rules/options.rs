//! Parses a rule as a whole: what it requires of a connection, or why it cannot be taken.

use super::buffer::{Buffer, Transform, View};
use super::bytes::{Bound, ByteJump, ByteTest, DataAt};
use super::content::Content;
use super::file;
use super::meta::Meta;
use super::pcre::Pcre;
use super::scope::Scope;
use spip_record::enrichment::Tag;

/// Upper bound of conditions of a rule. The largest of the community rules have about 40.
const PARTS: usize = 128;

/// A condition on a buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Content(Content),
    Pcre(Box<Pcre>),
    DataAt(DataAt),
    ByteTest(ByteTest),
    ByteJump(ByteJump),
    Size(Bound),
}

impl Part {
    /// Reports whether it depends on where the part before it matched.
    pub(super) fn is_relative(&self) -> bool {
        match self {
            Self::Content(content) => content.is_relative(),
            Self::Pcre(pcre) => pcre.relative,
            Self::DataAt(at) => at.relative,
            Self::ByteTest(test) => test.is_relative(),
            Self::ByteJump(jump) => jump.is_relative(),
            Self::Size(_) => false,
        }
    }
}

/// A rule.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) tag: Tag,
    pub(super) scope: Scope,
    /// Application protocols, and whether each must not be spoken.
    pub(super) applications: Vec<(bool, String)>,
    /// Bounds on the payload.
    pub(super) sizes: Vec<Bound>,
    /// Conditions, in their order, on one buffer each.
    pub(super) groups: Vec<(View, Vec<Part>)>,
}

/// Keywords of what a server answers.
const ANSWERS: &[&str] = &[
    "http.stat_code",
    "http.stat_msg",
    "http.response_body",
    "http.response_header",
    "http.response_line",
    "http.server",
    "http.location",
    "http_stat_code",
    "http_stat_msg",
    "http_server_body",
    "http_response_line",
    "http_server",
    "http_location",
    "tls.cert_subject",
    "tls.cert_issuer",
    "tls.cert_serial",
    "tls.cert_fingerprint",
    "tls.certs",
    "tls_cert_subject",
    "tls_cert_issuer",
    "tls_cert_serial",
    "tls_cert_fingerprint",
    "tls.subject",
    "tls.issuerdn",
    "tls.fingerprint",
    "ja3s.hash",
    "ja3s.string",
    "ssh.hassh.server",
    "ssh.hassh.server.string",
    "dns.opcode",
    "dns.rcode",
];

/// Keywords of packets, of which a record has none.
const PACKETS: &[&str] = &[
    "ack",
    "ttl",
    "tos",
    "id",
    "seq",
    "window",
    "fragbits",
    "fragoffset",
    "icmp_id",
    "icmp_seq",
    "icode",
    "itype",
    "ip_proto",
    "ipopts",
    "sameip",
    "tcp.hdr",
    "tcp.mss",
    "tcp.flags",
    "udp.hdr",
    "ipv4.hdr",
    "ipv6.hdr",
    "stream_size",
    "decode-event",
    "stream-event",
];

impl Rule {
    /// Parses the text of a rule.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (header, options) = file::split(text).ok_or("has not the form of a rule")?;
        let mut parser = Parser {
            meta: Meta::default(),
            applications: Vec::new(),
            sizes: Vec::new(),
            parts: Vec::new(),
            current: View::plain(Buffer::Payload),
        };
        let mut refused = Scope::parse(&header);
        for (name, value) in file::options(options) {
            // Goes on after a mistake, so that the report can give the number of the rule.
            if let Err(reason) = parser.option(name, value)
                && refused.is_ok()
            {
                refused = Err(reason);
            }
        }
        let id = parser.meta.tag.id;
        let named = |reason| if id > 0 { format!("{reason}\0{id}") } else { reason };
        let scope = refused.map_err(named)?;
        parser.finish(scope).map_err(named)
    }
}

/// Splits a reason and the number of the rule that [`Rule::parse`] appends to it.
pub(super) fn reason(error: &str) -> (&str, Option<&str>) {
    match error.split_once('\0') {
        Some((reason, id)) => (reason, Some(id)),
        None => (error, None),
    }
}

struct Parser {
    meta: Meta,
    applications: Vec<(bool, String)>,
    sizes: Vec<Bound>,
    parts: Vec<(View, Part)>,
    current: View,
}

impl Parser {
    fn option(&mut self, name: &str, value: Option<&str>) -> Result<(), String> {
        if self.meta.take(name, value)? {
            return Ok(());
        }
        let given = value.unwrap_or_default();
        match name {
            "content" => self.push(self.current.clone(), Part::Content(Content::parse(given)?)),
            "uricontent" => self.push(View::plain(Buffer::Uri), Part::Content(Content::parse(given)?)),
            "pcre" => {
                let pcre = Pcre::parse(given)?;
                let view = pcre.buffer.map_or_else(|| self.current.clone(), View::plain);
                self.push(view, Part::Pcre(Box::new(pcre)))
            }
            "isdataat" => {
                let at = DataAt::parse(given)?;
                self.push(self.place(at.relative), Part::DataAt(at))
            }
            "byte_test" => {
                let test = ByteTest::parse(given)?;
                self.push(self.place(test.is_relative()), Part::ByteTest(test))
            }
            "byte_jump" => {
                let jump = ByteJump::parse(given)?;
                self.push(self.place(jump.is_relative()), Part::ByteJump(jump))
            }
            "bsize" => self.push(self.current.clone(), Part::Size(Bound::parse(name, given)?)),
            "urilen" => {
                let buffer = if given.ends_with("raw") { Buffer::RawUri } else { Buffer::Uri };
                self.push(View::plain(buffer), Part::Size(Bound::parse(name, given)?))
            }
            "dsize" => {
                self.sizes.push(Bound::parse(name, given)?);
                Ok(())
            }
            "app-layer-protocol" => {
                let protocol = given.split(',').next().unwrap_or_default().trim();
                let (negated, protocol) =
                    protocol.strip_prefix('!').map_or((false, protocol), |rest| (true, rest.trim()));
                self.applications.push((negated, protocol.to_ascii_lowercase()));
                Ok(())
            }
            "flow" => flow(given),
            "flags" => flags(given),
            "threshold" => threshold(given),
            "detection_filter" => Err("counts several connections".to_owned()),
            "flowbits" | "xbits" | "hostbits" => match given.split(',').next().unwrap_or_default().trim() {
                "set" | "unset" | "toggle" => Ok(()),
                "noalert" => Err("gives no alert of its own".to_owned()),
                _ => Err("depends on another rule".to_owned()),
            },
            "noalert" => Err("gives no alert of its own".to_owned()),
            "prefilter" | "rawbytes" if value.is_none() => Ok(()),
            name if ANSWERS.contains(&name) => Err("looks at what a server answers".to_owned()),
            name if PACKETS.contains(&name) => Err("looks at fields of packets".to_owned()),
            name => self.keyword(name, value),
        }
    }

    /// Takes keywords of buffers, transforms, and what modifies the content before.
    fn keyword(&mut self, name: &str, value: Option<&str>) -> Result<(), String> {
        if value.is_none() {
            if let Some(buffer) = Buffer::sticky(name) {
                self.current = View::plain(buffer);
                return Ok(());
            }
            if let Some(transform) = Transform::of(name) {
                return self.current.transform(transform);
            }
        }
        let unknown = || {
            let clean: String =
                name.chars().filter(|c| c.is_ascii_alphanumeric() || "._-".contains(*c)).take(40).collect();
            format!("keyword {clean}")
        };
        match self.parts.last_mut() {
            Some((view, Part::Content(content))) => {
                if value.is_none()
                    && let Some(buffer) = Buffer::modifier(name)
                {
                    *view = View::plain(buffer);
                    return Ok(());
                }
                if content.modify(name, value)? { Ok(()) } else { Err(unknown()) }
            }
            _ => Err(unknown()),
        }
    }

    /// The buffer of an option that counts from the match before: that match's, unless a keyword chose one.
    fn place(&self, relative: bool) -> View {
        match self.parts.last() {
            Some((view, _)) if relative && self.current == View::plain(Buffer::Payload) => view.clone(),
            _ => self.current.clone(),
        }
    }

    fn push(&mut self, view: View, part: Part) -> Result<(), String> {
        if self.parts.len() == PARTS {
            return Err(format!("more than {PARTS} conditions"));
        }
        self.parts.push((view, part));
        Ok(())
    }

    fn finish(mut self, scope: Scope) -> Result<Rule, String> {
        if self.meta.tag.id == 0 {
            return Err("has no sid".to_owned());
        }
        if self.parts.is_empty() && self.applications.is_empty() && scope.sources.some.is_empty() {
            return Err("has no condition on what a client sends".to_owned());
        }
        let mut groups: Vec<(View, Vec<Part>)> = Vec::new();
        for (view, part) in self.parts {
            match groups.iter_mut().find(|(known, _)| *known == view) {
                Some((_, parts)) => parts.push(part),
                None => groups.push((view, vec![part])),
            }
        }
        self.meta.finish();
        Ok(Rule { tag: self.meta.tag, scope, applications: self.applications, sizes: self.sizes, groups })
    }
}

fn flow(value: &str) -> Result<(), String> {
    for word in value.split(',').map(str::trim) {
        match word {
            "to_server" | "from_client" | "established" | "stateless" | "only_stream" | "no_stream" | "no_frag"
            | "only_frag" => {}
            "to_client" | "from_server" => return Err("looks at what a server answers".to_owned()),
            "not_established" => return Err("looks at fields of packets".to_owned()),
            _ => return Err("flow with a word that is not known".to_owned()),
        }
    }
    Ok(())
}

/// Every recorded session began with a SYN; other flags are in no record.
fn flags(value: &str) -> Result<(), String> {
    match value.split(',').next().unwrap_or_default().trim() {
        "S" | "S+" | "+S" => Ok(()),
        _ => Err("looks at fields of packets".to_owned()),
    }
}

/// A limit on alerts means nothing here; a rule that needs several events cannot be decided on one record.
fn threshold(value: &str) -> Result<(), String> {
    let words = |key: &str| {
        value.split(',').map(str::trim).find_map(|word| word.strip_prefix(key)).map(str::trim).unwrap_or_default()
    };
    if words("type") == "limit" || words("count") == "1" {
        Ok(())
    } else {
        Err("counts several connections".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &str) -> Result<Rule, String> {
        Rule::parse(&format!("alert http $EXTERNAL_NET any -> $HOME_NET any ({options})"))
            .map_err(|error| reason(&error).0.to_owned())
    }

    #[test]
    fn sticky_buffers_and_modifiers_mean_the_same() {
        let sticky =
            parse(r#"msg:"x"; http.uri; content:"/a"; nocase; http.request_body; content:"b"; sid:1;"#).unwrap();
        let modified =
            parse(r#"msg:"x"; content:"/a"; nocase; http_uri; content:"b"; http_client_body; sid:1;"#).unwrap();
        assert_eq!(sticky.groups, modified.groups);
        assert_eq!(sticky.groups[0].0, View::plain(Buffer::Uri));
    }

    #[test]
    fn a_rule_that_needs_more_than_a_record_is_refused_with_its_reason() {
        for (options, expected) in [
            (r#"flow:established,to_client; content:"a"; sid:1;"#, "looks at what a server answers"),
            (r#"content:"a"; http_stat_code; sid:1;"#, "looks at what a server answers"),
            (r#"flowbits:isset,x; content:"a"; sid:1;"#, "depends on another rule"),
            (r#"flowbits:set,x; flowbits:noalert; content:"a"; sid:1;"#, "gives no alert of its own"),
            (
                r#"content:"a"; threshold:type both, track by_src, count 5, seconds 60; sid:1;"#,
                "counts several connections",
            ),
            (r#"ttl:>5; content:"a"; sid:1;"#, "looks at fields of packets"),
            (r#"flags:A; content:"a"; sid:1;"#, "looks at fields of packets"),
            (r#"lua:x.lua; content:"a"; sid:1;"#, "keyword lua"),
            (r#"content:"a"; offset:len; sid:1;"#, "offset with a variable"),
            (r#"content:"a";"#, "has no sid"),
            (r#"msg:"x"; sid:1;"#, "has no condition on what a client sends"),
        ] {
            assert_eq!(parse(options).unwrap_err(), expected, "{options}");
        }
        assert!(
            parse(r#"content:"a"; threshold:type limit, track by_src, count 1, seconds 60; flowbits:set,x; sid:1;"#)
                .is_ok()
        );
    }

    #[test]
    fn a_refused_rule_keeps_its_number() {
        let error = Rule::parse("alert icmp any any -> any any (itype:8; sid:77;)").unwrap_err();
        assert_eq!(reason(&error), ("protocol icmp", Some("77")));
    }
}
