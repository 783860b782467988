//! Metadata of a rule: number, name, class, and vulnerability.

use spip_record::enrichment::{LISTED, Tag};

use super::content::unescape;

/// The longest name of a rule that is kept.
const NAME_BYTES: usize = 256;
/// The longest reference.
const REFERENCE_BYTES: usize = 256;

/// Takes the options that describe a rule.
#[derive(Debug, Default)]
pub(super) struct Meta {
    /// Tag as read so far.
    pub(super) tag: Tag,
}

/// Priorities of the classes of Suricata's `classification.config`; every other class has 3.
const FIRST: &[&str] = &[
    "attempted-admin",
    "attempted-user",
    "command-and-control",
    "credential-theft",
    "domain-c2",
    "exploit-kit",
    "inappropriate-content",
    "policy-violation",
    "shellcode-detect",
    "successful-admin",
    "successful-user",
    "targeted-activity",
    "trojan-activity",
    "unsuccessful-user",
    "web-application-attack",
];
const SECOND: &[&str] = &[
    "attempted-dos",
    "attempted-recon",
    "bad-unknown",
    "coin-mining",
    "default-login-attempt",
    "denial-of-service",
    "external-ip-check",
    "misc-attack",
    "non-standard-protocol",
    "pup-activity",
    "rpc-portmap-decode",
    "social-engineering",
    "successful-dos",
    "successful-recon-largescale",
    "successful-recon-limited",
    "suspicious-filename-detect",
    "suspicious-login",
    "system-call-detect",
    "unusual-client-port-connection",
    "web-application-activity",
];

impl Meta {
    /// Takes an option that describes the rule. Returns false where it is none of these.
    pub(super) fn take(&mut self, name: &str, value: Option<&str>) -> Result<bool, String> {
        let value = value.unwrap_or_default();
        match name {
            "sid" => self.tag.id = number(name, value)?,
            "rev" => self.tag.rev = number(name, value)?,
            "msg" => {
                let bytes = unescape(value.trim_matches('"'));
                let text: String = String::from_utf8_lossy(&bytes).chars().filter(|c| !c.is_control()).collect();
                self.tag.name = cut(&text, NAME_BYTES).to_owned();
            }
            "classtype" => self.tag.class = cut(value, 64).to_ascii_lowercase(),
            "priority" => self.tag.priority = u8::try_from(number(name, value)?.clamp(1, 4)).unwrap_or(4),
            "reference" => self.reference(value),
            "metadata" => {
                for item in value.split(',') {
                    let Some((key, value)) = item.trim().split_once(char::is_whitespace) else { continue };
                    match key {
                        "cve" => self.cve(value.trim()),
                        "mitre_technique_id" => self.technique(value.trim()),
                        _ => {}
                    }
                }
            }
            "gid" | "target" | "tag" | "logto" | "requires" | "rem" => {}
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Fills in what a rule leaves to its class.
    pub(super) fn finish(&mut self) {
        if self.tag.priority == 0 {
            self.tag.priority = match self.tag.class.as_str() {
                class if FIRST.contains(&class) => 1,
                class if SECOND.contains(&class) => 2,
                _ => 3,
            };
        }
    }

    fn reference(&mut self, value: &str) {
        let Some((kind, value)) = value.split_once(',').map(|(kind, value)| (kind.trim(), value.trim())) else {
            return;
        };
        if kind.eq_ignore_ascii_case("cve") {
            self.cve(value);
        } else if kind.eq_ignore_ascii_case("url") && self.tag.reference.len() < LISTED {
            let text = value.strip_prefix("https://").or(value.strip_prefix("http://")).unwrap_or(value);
            let clean = !text.is_empty()
                && text.len() <= REFERENCE_BYTES
                && text.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'<' | b'>' | b'\\'));
            if clean {
                let scheme = if value.starts_with("http://") { "http" } else { "https" };
                self.tag.reference.push(format!("{scheme}://{text}"));
            }
        }
    }

    fn cve(&mut self, value: &str) {
        let number = value.get(4..).filter(|_| {
            value.get(..3).is_some_and(|head| head.eq_ignore_ascii_case("cve") || head.eq_ignore_ascii_case("can"))
        });
        let number = number.unwrap_or(value).replace('_', "-");
        let Some((year, serial)) = number.split_once('-') else { return };
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let right = year.len() == 4 && digits(year) && (4..=7).contains(&serial.len()) && digits(serial);
        let cve = format!("CVE-{number}");
        if right && self.tag.cve.len() < LISTED && !self.tag.cve.contains(&cve) {
            self.tag.cve.push(cve);
        }
    }

    fn technique(&mut self, value: &str) {
        let right = value.len() <= 9
            && value
                .strip_prefix('T')
                .is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.'));
        if right && self.tag.technique.len() < LISTED && !self.tag.technique.iter().any(|known| known == value) {
            self.tag.technique.push(value.to_owned());
        }
    }
}

fn number(name: &str, value: &str) -> Result<u64, String> {
    value.parse().map_err(|_| format!("{name} is no number"))
}

/// Cuts a text at a character.
fn cut(text: &str, bytes: usize) -> &str {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(options: &str) -> Tag {
        let mut meta = Meta::default();
        for (name, value) in super::super::file::options(options) {
            assert!(meta.take(name, value).unwrap(), "{name}");
        }
        meta.finish();
        meta.tag
    }

    #[test]
    fn a_cve_is_found_in_every_form() {
        let tag = tag("reference:cve,2021-44228; reference:cve,CVE-2014-6271; reference:cve,CAN-2005-0560; \
             metadata:created_at 2021_12_10, cve CVE_2021_45046, mitre_technique_id T1190; reference:cve,x; sid:5;");
        assert_eq!(tag.cve, ["CVE-2021-44228", "CVE-2014-6271", "CVE-2005-0560", "CVE-2021-45046"]);
        assert_eq!(tag.technique, ["T1190"]);
    }

    #[test]
    fn a_reference_is_a_page_and_nothing_else() {
        let tag = tag(
            r#"reference:url,example.com/a?b=c; reference:url,http://example.net/; reference:url,javascript"x; reference:bugtraq,7;"#,
        );
        assert_eq!(tag.reference, ["https://example.com/a?b=c", "http://example.net/"]);
    }

    #[test]
    fn a_class_decides_the_priority_unless_the_rule_does() {
        assert_eq!(tag("classtype:attempted-admin;").priority, 1);
        assert_eq!(tag("classtype:attempted-recon;").priority, 2);
        assert_eq!(tag("classtype:something;").priority, 3);
        assert_eq!(tag("classtype:attempted-admin; priority:4;").priority, 4);
    }
}
