//! Names the known scanners: projects that survey the internet, whose records an operator wants to tell from attacks.
//!
//! Two kinds of evidence, and never mixed up: *listed* is an address in a list that the operator keeps, *claimed* is
//! what the client says of itself, which anyone can say. Nothing is resolved.
//!
//! A list is a text file for each project. A line is a network (`192.0.2.0/24`), an address, or a range
//! (`192.0.2.1-192.0.2.9`), with a name before or after it where the file has more than one project, separated by a
//! comma: `Example Survey, 192.0.2.0/24`. The name of the file, without its extension, is the name otherwise. Comments
//! start with `#`; `# kind: research`, `search` or `commercial`, and `# name: …`, hold for the lines that follow.

mod claims;

use std::borrow::Cow;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnetwork::IpNetwork;
use spip_record::enrichment::{Evidence, Scanner, ScannerKind as Kind};

use crate::ranges::Ranges;

pub use claims::claimed;

/// The largest list that is read: a million lines of the longest kind.
pub const FILE_BYTES: u64 = 64 << 20;

/// Upper bound of ranges of all lists together: 80 MB of memory at most.
pub const RANGES: usize = 1_000_000;

/// Upper bound of bad lines that are named per file.
const NAMED_LINES: usize = 5;

/// The longest name of a project.
const NAME_BYTES: usize = 64;

/// The lists of one directory.
#[derive(Clone, Debug, Default)]
pub struct Scanners {
    ranges: Ranges<u32>,
    projects: Vec<(String, Kind)>,
}

impl Scanners {
    /// Returns the project in whose ranges `address` is.
    #[must_use]
    pub fn listed(&self, address: IpAddr) -> Option<Scanner> {
        let (name, kind) = self.projects.get(*self.ranges.find(address)? as usize)?;
        Some(Scanner { name: Cow::Owned(name.clone()), kind: *kind, evidence: Evidence::Listed })
    }

    /// Returns the number of ranges.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Reports whether there is no range.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Returns the projects, each with its kind.
    pub fn projects(&self) -> impl Iterator<Item = (&str, Kind)> {
        self.projects.iter().map(|(name, kind)| (name.as_str(), *kind))
    }
}

/// Reasons why a list cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("cannot read {}: {cause}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Error of the system.
        cause: std::io::Error,
    },
    /// It is larger than a list is.
    #[error("{} is larger than {FILE_BYTES} bytes; split it", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// Lines are no ranges.
    #[error("{}: {} of its lines cannot be read, the first: {first}; each is `name, CIDR` or one CIDR", path.display(), lines)]
    Lines {
        /// The file.
        path: PathBuf,
        /// Number of lines.
        lines: usize,
        /// The first ones, with their numbers and reasons.
        first: String,
    },
    /// There are too many ranges.
    #[error("the lists have more than {RANGES} ranges; leave some files out")]
    TooMany,
}

/// Collects lists.
#[derive(Debug, Default)]
pub struct Builder {
    projects: Vec<(String, Kind)>,
    networks: Vec<(IpNetwork, u32)>,
}

impl Builder {
    /// Adds the list at `path`.
    ///
    /// # Errors
    /// It cannot be read, has a line that is no range, or there are too many.
    pub fn file(&mut self, path: &Path) -> Result<(), Error> {
        let read = |cause| Error::Read { path: path.to_owned(), cause };
        if std::fs::metadata(path).map_err(read)?.len() > FILE_BYTES {
            return Err(Error::TooLarge { path: path.to_owned() });
        }
        let text = std::fs::read(path).map_err(read)?;
        self.text(path, &String::from_utf8_lossy(&text))
    }

    /// Adds a list; `path` names its project and is named in errors.
    ///
    /// # Errors
    /// A line is no range, or there are too many.
    pub fn text(&mut self, path: &Path, text: &str) -> Result<(), Error> {
        let stem = path.file_stem().map_or_else(|| "unnamed".into(), |stem| stem.to_string_lossy().into_owned());
        let (mut name, mut kind) = (stem, Kind::Unknown);
        let (mut bad, mut first) = (0, Vec::new());
        for (index, line) in text.lines().enumerate() {
            let content = match line.split_once('#') {
                Some((content, comment)) => {
                    if content.trim().is_empty() {
                        if let Some(value) = setting(comment, "kind") {
                            kind = Kind::of(&value.to_ascii_lowercase()).unwrap_or_default();
                        } else if let Some(value) = setting(comment, "name") {
                            name = value.to_owned();
                        }
                    }
                    content.trim()
                }
                None => line.trim(),
            };
            if content.is_empty() {
                continue;
            }
            match entry(content) {
                Ok((own, networks)) => self.add(own.unwrap_or(&name), kind, networks)?,
                Err(reason) => {
                    bad += 1;
                    if first.len() < NAMED_LINES {
                        first.push(format!("line {}: {reason}", index + 1));
                    }
                }
            }
        }
        if bad > 0 {
            return Err(Error::Lines { path: path.to_owned(), lines: bad, first: first.join("; ") });
        }
        Ok(())
    }

    fn add(&mut self, name: &str, kind: Kind, networks: Vec<IpNetwork>) -> Result<(), Error> {
        let mut end = name.len().min(NAME_BYTES);
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        let name: String = name[..end].chars().filter(|character| !character.is_control()).collect();
        // Lines of one project follow each other, so the last one is looked at first.
        let project = match self.projects.iter().rposition(|project| project.0 == name && project.1 == kind) {
            Some(index) => index,
            None => {
                self.projects.push((name, kind));
                self.projects.len() - 1
            }
        };
        if self.networks.len() + networks.len() > RANGES {
            return Err(Error::TooMany);
        }
        let project = u32::try_from(project).map_err(|_| Error::TooMany)?;
        self.networks.extend(networks.into_iter().map(|network| (network, project)));
        Ok(())
    }

    /// Builds the index.
    #[must_use]
    pub fn build(self) -> Scanners {
        Scanners { ranges: Ranges::new(self.networks), projects: self.projects }
    }
}

fn setting<'a>(comment: &'a str, key: &str) -> Option<&'a str> {
    let (found, value) = comment.split_once(':')?;
    let value = value.trim();
    (found.trim().eq_ignore_ascii_case(key) && !value.is_empty()).then_some(value)
}

/// Reads `name, range`, `range, name` or a range alone.
fn entry(content: &str) -> Result<(Option<&str>, Vec<IpNetwork>), String> {
    let Some((left, right)) = content.split_once(',').map(|(left, right)| (left.trim(), right.trim())) else {
        return Ok((None, networks(content)?));
    };
    let (name, found) = match (networks(right), networks(left)) {
        (Ok(found), _) => (left, found),
        (Err(_), Ok(found)) => (right, found),
        (Err(reason), Err(_)) => return Err(reason),
    };
    let name = name.trim_matches('"').trim();
    Ok(((!name.is_empty()).then_some(name), found))
}

/// Reads a network, an address, or a range of addresses, which becomes the networks that cover it.
fn networks(text: &str) -> Result<Vec<IpNetwork>, String> {
    let bad = || format!("{:?} is no address, network or range", text.chars().take(80).collect::<String>());
    let text = text.trim().trim_matches('"');
    if let Some((first, last)) = text.split_once('-') {
        let parse = |text: &str| text.trim().parse::<IpAddr>().map_err(|_| bad());
        return match (parse(first)?, parse(last)?) {
            (IpAddr::V4(first), IpAddr::V4(last)) if first <= last => {
                Ok(cover(u32::from(first).into(), u32::from(last).into(), 32))
            }
            (IpAddr::V6(first), IpAddr::V6(last)) if first <= last => Ok(cover(first.into(), last.into(), 128)),
            _ => Err(bad()),
        };
    }
    text.parse().map(|network| vec![network]).map_err(|_| bad())
}

/// Returns the fewest networks that cover `first..=last` of addresses of `bits` bits.
fn cover(first: u128, last: u128, bits: u32) -> Vec<IpNetwork> {
    let (mut networks, mut next) = (Vec::new(), Some(first));
    while let Some(start) = next.filter(|start| *start <= last) {
        // As large as the start is aligned, and as fits before the end.
        let mut size = start.trailing_zeros().min(bits);
        while size > 0 && (size == 128 || last - start < (1u128 << size) - 1) {
            size -= 1;
        }
        let ip = if bits == 32 {
            IpAddr::V4(u32::try_from(start).unwrap_or(u32::MAX).into())
        } else {
            IpAddr::V6(start.into())
        };
        // The prefix is at most the width of the address.
        networks.extend(u8::try_from(bits - size).ok().and_then(|prefix| IpNetwork::new(ip, prefix).ok()));
        next = start.checked_add(1u128 << size);
    }
    networks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(files: &[(&str, &str)]) -> Scanners {
        let mut builder = Builder::default();
        for (path, text) in files {
            builder.text(Path::new(path), text).unwrap();
        }
        builder.build()
    }

    fn name(scanners: &Scanners, address: &str) -> Option<(String, Kind)> {
        scanners.listed(address.parse().unwrap()).map(|scanner| (scanner.name.into_owned(), scanner.kind))
    }

    #[test]
    fn every_form_of_a_line_is_read() {
        let scanners = build(&[
            ("lists/survey.txt", "# kind: research\n192.0.2.0/25\n\n192.0.2.200 # a host\n2001:db8:5::/48\n"),
            (
                "mixed.csv",
                "Alpha, 198.51.100.0/28\n198.51.100.16/28,\"Beta\"\n# kind: commercial\nGamma,203.0.113.5-203.0.113.9\r\n",
            ),
        ]);
        assert_eq!(name(&scanners, "192.0.2.127"), Some(("survey".into(), Kind::Research)));
        assert_eq!(name(&scanners, "192.0.2.128"), None);
        assert_eq!(name(&scanners, "192.0.2.200"), Some(("survey".into(), Kind::Research)));
        assert_eq!(name(&scanners, "2001:db8:5::1"), Some(("survey".into(), Kind::Research)));
        assert_eq!(name(&scanners, "198.51.100.15"), Some(("Alpha".into(), Kind::Unknown)));
        assert_eq!(name(&scanners, "198.51.100.16"), Some(("Beta".into(), Kind::Unknown)));
        for (address, inside) in
            [("203.0.113.4", false), ("203.0.113.5", true), ("203.0.113.9", true), ("203.0.113.10", false)]
        {
            assert_eq!(name(&scanners, address), inside.then(|| ("Gamma".into(), Kind::Commercial)), "{address}");
        }
    }

    #[test]
    fn a_line_that_is_no_range_is_named_with_its_number() {
        let error = Builder::default().text(Path::new("bad.txt"), "192.0.2.0/24\nhello\n192.0.2.0/33\n").unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("bad.txt: 2 of its lines"), "{text}");
        assert!(text.contains("line 2: \"hello\""), "{text}");
    }

    #[test]
    fn a_range_becomes_the_networks_that_cover_it() {
        for (range, expected) in [
            ("0.0.0.0-255.255.255.255", vec!["0.0.0.0/0"]),
            ("192.0.2.1-192.0.2.4", vec!["192.0.2.1/32", "192.0.2.2/31", "192.0.2.4/32"]),
            ("255.255.255.254-255.255.255.255", vec!["255.255.255.254/31"]),
            ("2001:db8::-2001:db8::1", vec!["2001:db8::/127"]),
        ] {
            let found: Vec<String> = networks(range).unwrap().iter().map(ToString::to_string).collect();
            assert_eq!(found, expected, "{range}");
        }
        assert!(networks("::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff").unwrap().len() <= 2);
        assert!(networks("192.0.2.4-192.0.2.1").is_err());
    }

    #[test]
    fn a_look_up_among_fifty_thousand_ranges_is_right() {
        let text: String = (0..50_000u32)
            .map(|n| format!("p{}, {}/30\n", n % 7, std::net::Ipv4Addr::from(0x0100_0000 + n * 8)))
            .collect();
        let scanners = build(&[("many", &text)]);
        assert_eq!(scanners.len(), 50_000);
        let at = |n: u32| scanners.listed(std::net::Ipv4Addr::from(0x0100_0000 + n).into()).map(|found| found.name);
        assert_eq!(at(8 * 49_999 + 3).as_deref(), Some("p5"));
        assert_eq!(at(8 * 49_999 + 4), None);
    }
}
