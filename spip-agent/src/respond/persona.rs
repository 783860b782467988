//! The persona: one host with the versions of one distribution, the same on every port unless the
//! operator says otherwise for one.
//!
//! A persona without a file is drawn at the first start and kept in the state directory, so that it stays the same
//! and two sensors differ. What an operator writes replaces single texts of it; a file need not be complete. Texts go
//! to clients as they are, so they are bounded and of printable ASCII.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use toml::Table;
use toml::de::DeTable;
use uuid::Uuid;

use crate::config::{self, Problem};
use crate::process::walk::{self, Place, read};

mod drawn;

/// The longest text of one line.
const TEXT_BYTES: usize = 120;
/// The longest page: an answer with it fits into what may be said unasked.
const PAGE_BYTES: usize = 1_500;
/// The largest file that is read: the texts of a hundred ports.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// The file in the state directory.
const FILE: &str = "persona.toml";

/// Banners of the servers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Face {
    /// The host's name.
    pub host: String,
    /// System and kernel, as `uname` names them.
    pub kernel: String,
    /// Text of FTP behind `220`.
    pub ftp: String,
    /// The `Server` of HTTP.
    pub http: String,
    /// Text of IMAP behind its capabilities.
    pub imap: String,
    /// The version of MySQL.
    pub mysql: String,
    /// Text of POP3 behind `+OK`.
    pub pop3: String,
    /// The version of PostgreSQL.
    pub postgresql: String,
    /// The version of Redis.
    pub redis: String,
    /// Text of SMTP behind the host's name.
    pub smtp: String,
    /// The identification of SSH.
    pub ssh: String,
    /// Prompt of Telnet for the name.
    pub telnet: String,
    /// The version of RFB.
    pub vnc: String,
    /// The page that HTTP shows.
    pub page: String,
}

/// A face, and others on single ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Persona {
    /// Without the operator's texts.
    drawn: Face,
    face: Face,
    ports: BTreeMap<u16, Face>,
}

/// Reasons why there is no persona.
#[derive(Debug, thiserror::Error)]
pub enum PersonaError {
    /// The file cannot be read.
    #[error("cannot read the persona {}", path.display())]
    Unreadable {
        /// File.
        path: PathBuf,
        /// Error of the system.
        source: io::Error,
    },
    /// The file says something that cannot be shown.
    #[error("the persona {}{}: {problem}", path.display(), line.map(|line| format!(":{line}")).unwrap_or_default())]
    Invalid {
        /// File.
        path: PathBuf,
        /// The line of the file, counted from 1, where it can be told.
        line: Option<usize>,
        /// The problem, and what is accepted.
        problem: String,
    },
}

/// The files of a persona, read and found usable.
#[derive(Debug)]
pub struct Written {
    /// The operator's file and its content.
    operators: Option<(PathBuf, String)>,
    /// File of the drawn banners.
    path: PathBuf,
    /// The face that is kept there, or why it cannot be read.
    kept: io::Result<Face>,
}

impl Written {
    /// Reads the operator's file and what is kept in `state_directory`. Draws and keeps nothing: a face that is missing or
    /// out of reach is drawn by [`Written::persona`].
    ///
    /// # Errors
    /// A file cannot be read, or what is in it cannot be used; each with the key of the configuration that names it.
    pub fn read(file: Option<&Path>, state_directory: &Path) -> Result<Self, Vec<(&'static str, PersonaError)>> {
        let operators = file.map(|path| {
            let text = read(path)?;
            Persona::from_text(&text, path)?;
            Ok((path.to_owned(), text))
        });
        let path = Persona::kept_in(state_directory);
        let kept = match read_kept(&path) {
            Ok(text) => Persona::from_text(&text, &path).map(|persona| Ok(persona.face)),
            Err(error) => Ok(Err(error)),
        };
        match (operators.transpose(), kept) {
            (Ok(operators), Ok(kept)) => Ok(Self { operators, path, kept }),
            (operators, kept) => {
                let mistakes = [("persona", operators.err()), ("state_dir", kept.err())];
                Err(mistakes.into_iter().filter_map(|(key, error)| Some((key, error?))).collect())
            }
        }
    }

    /// Makes the persona: the face that is kept, or one that is drawn now and kept, with the operator's texts in place of
    /// its own. Also returns why it could not be kept, if so; then the face that was drawn for `before` stays, because a
    /// host does not change its face.
    ///
    /// # Errors
    /// The operator's texts cannot be used.
    pub fn persona(self, before: Option<&Persona>) -> Result<(Persona, Option<io::Error>), PersonaError> {
        let draw = || drawn::draw(Uuid::new_v4().as_bytes());
        let (face, not_kept) = match self.kept {
            Ok(face) => (face, None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let face = draw();
                let not_kept = keep(&face, &self.path).err();
                (face, not_kept)
            }
            Err(error) => (draw(), Some(error)),
        };
        let face = match (&not_kept, before) {
            (Some(_), Some(before)) => before.drawn.clone(),
            _ => face,
        };
        let persona = match self.operators {
            None => Persona { drawn: face.clone(), face, ports: BTreeMap::new() },
            Some((path, text)) => Persona::from_toml(&text, &face, &path)?,
        };
        Ok((persona, not_kept))
    }
}

impl Persona {
    /// Returns the path of a drawn persona.
    #[must_use]
    pub fn kept_in(state_directory: &Path) -> PathBuf {
        state_directory.join(FILE)
    }

    /// Checks that the face in `state_directory` can be read, or that one could be kept there. Keeps none; returns whether
    /// there is one.
    ///
    /// # Errors
    /// The reason why a face would be drawn at each start.
    pub fn look(state_directory: &Path) -> io::Result<bool> {
        let path = Self::kept_in(state_directory);
        match read_kept(&path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => walk::try_making(&path).map(|()| false),
            Err(error) => Err(error),
        }
    }

    /// The persona that `text`, the content of the file `path`, describes; what it leaves out is the same everywhere.
    ///
    /// # Errors
    /// What is in it cannot be used.
    pub fn from_text(text: &str, path: &Path) -> Result<Self, PersonaError> {
        Self::from_toml(text, &drawn::draw(&[0; 16]), path)
    }

    /// A persona whose texts are those of `base` where `text` has none.
    fn from_toml(text: &str, drawn: &Face, path: &Path) -> Result<Self, PersonaError> {
        let refused = |line, problem| PersonaError::Invalid { path: path.to_owned(), line, problem };
        let invalid = |keys: &[&str], why: &str| refused(line_of(text, keys), format!("{}: {why}", keys.join(".")));
        let mut written: Table = text.parse().map_err(|error| {
            let Problem { line, text } = config::syntax_problem(text, &error);
            refused(line, text)
        })?;
        let ports = written.remove("ports");
        let base = Table::try_from(drawn).map_err(|error| refused(None, error.to_string()))?;
        let (common, face) = replaced(&base, written).map_err(|(key, why)| invalid(&[&key], &why))?;
        let mut others = BTreeMap::new();
        let ports = match ports {
            None => Table::new(),
            Some(toml::Value::Table(ports)) => ports,
            Some(_) => return Err(invalid(&["ports"], "must be tables, one for each port: [ports.2222]")),
        };
        for (port, texts) in ports {
            let number = port.parse::<u16>().ok().filter(|number| *number > 0);
            let (Some(number), toml::Value::Table(texts)) = (number, texts) else {
                return Err(invalid(&["ports", &port], "must be a table for a port from 1 to 65535"));
            };
            let face = replaced(&common, texts).map_err(|(key, why)| invalid(&["ports", &port, &key], &why))?.1;
            others.insert(number, face);
        }
        Ok(Self { drawn: drawn.clone(), face, ports: others })
    }

    /// Returns the banners on this port.
    #[must_use]
    pub fn face(&self, port: u16) -> &Face {
        self.ports.get(&port).unwrap_or(&self.face)
    }
}

impl Face {
    /// Numbers that are always the same for this host, for what would otherwise be the same on every sensor.
    #[must_use]
    pub fn number(&self, purpose: &str) -> [u8; 3] {
        let digest = Sha256::new_with_prefix(&self.host).chain_update(purpose).finalize();
        [digest[0], digest[1], digest[2]]
    }
}

fn read(path: &Path) -> Result<String, PersonaError> {
    let unreadable = |source| PersonaError::Unreadable { path: path.to_owned(), source };
    read::open(path).and_then(text_of).map_err(unreadable)
}

fn text_of(file: File) -> io::Result<String> {
    let mut text = String::new();
    file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "larger than 1 MiB: not a persona"));
    }
    Ok(text)
}

/// The line of a key, after the tables that it is in.
fn line_of(text: &str, keys: &[&str]) -> Option<usize> {
    let root = DeTable::parse(text).ok()?;
    let (mut table, mut at) = (Some(root.get_ref()), None);
    for key in keys {
        let (found, value) = table?.get_key_value(*key)?;
        (table, at) = (value.get_ref().as_table(), Some(found.span().start));
    }
    at.map(|at| config::line(text, at))
}

/// All texts and the face that they make, with `texts` in place of those of `base`; or the key of one that cannot be
/// shown, and what is accepted.
fn replaced(base: &Table, texts: Table) -> Result<(Table, Face), (String, String)> {
    for (key, value) in &texts {
        let known = || base.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        let wrong =
            if base.contains_key(key) { problem(key, value) } else { Some(format!("unknown; there are {}", known())) };
        if let Some(why) = wrong {
            return Err((key.clone(), why));
        }
    }
    let mut all = base.clone();
    all.extend(texts);
    let face = all.clone().try_into().map_err(|error: toml::de::Error| (String::new(), error.message().to_owned()))?;
    Ok((all, face))
}

/// Returns the reason why a text cannot be sent, if any.
fn problem(key: &str, value: &toml::Value) -> Option<String> {
    let Some(text) = value.as_str() else { return Some("must be a text".to_owned()) };
    let is_page = key == "page";
    let longest = if is_page { PAGE_BYTES } else { TEXT_BYTES };
    let allowed = |byte: u8| matches!(byte, b' '..=b'~') || is_page && matches!(byte, b'\n' | b'\r' | b'\t');
    if text.is_empty() || text.len() > longest || !text.bytes().all(allowed) {
        return Some(format!("must be printable ASCII of 1 to {longest} bytes"));
    }
    match key {
        "ssh" if !text.starts_with("SSH-2.0-") => Some("must begin with SSH-2.0-".to_owned()),
        "vnc" if !is_rfb_version(text) => Some("must be a version of RFB, as 003.008".to_owned()),
        _ => None,
    }
}

/// `003.003` to `003.889`.
fn is_rfb_version(text: &str) -> bool {
    let digits = |text: &str| text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
    text.split_once('.').is_some_and(|(major, minor)| digits(major) && digits(minor))
}

/// Writes a face that was drawn, whole or not at all.
fn keep(face: &Face, path: &Path) -> io::Result<()> {
    let place = Place::making_directories(path, 0o750)?;
    let text = toml::to_string_pretty(face).map_err(io::Error::other)?;
    let name = |path: &Path| path.file_name().unwrap_or_default().to_owned();
    let temporary = name(&path.with_extension(format!("toml.{}", std::process::id())));
    let mut file = place.open_beside(&temporary, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL, 0o640)?;
    let written = file
        .write_all(b"# Who this sensor pretends to be, drawn at its first start. Remove the file to draw anew.\n")
        .and_then(|()| file.write_all(text.as_bytes()))
        .and_then(|()| file.sync_all())
        .and_then(|()| place.rename(&temporary, &name(path)));
    if written.is_err() {
        let _ = place.remove(&temporary);
    }
    written
}

/// Reads a face that was drawn before.
fn read_kept(path: &Path) -> io::Result<String> {
    read::open(path).and_then(text_of)
}

#[cfg(test)]
pub(crate) mod tests;
