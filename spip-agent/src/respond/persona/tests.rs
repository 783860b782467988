//! Drawing, keeping, and what an operator may write.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

/// A persona for tests of what is said.
pub(crate) fn persona() -> Persona {
    let drawn = drawn::draw(&[3; 16]);
    Persona { face: drawn.clone(), drawn, ports: BTreeMap::new() }
}

/// A directory of the test's own, gone afterwards.
struct Directory(PathBuf);

impl Directory {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("spip-persona-{test}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("directory");
        Self(path)
    }

    fn write(&self, text: &str) -> PathBuf {
        let path = self.0.join("mine.toml");
        fs::write(&path, text).expect("file");
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn load(
    file: Option<&Path>,
    state_directory: &Path,
    before: Option<&Persona>,
) -> Result<(Persona, Option<io::Error>), PersonaError> {
    Written::read(file, state_directory).map_err(|mut mistakes| mistakes.remove(0).1)?.persona(before)
}

#[test]
fn a_persona_is_drawn_once_and_kept() {
    let directory = Directory::new("kept");
    let state = directory.0.join("state");
    let (first, not_kept) = load(None, &state, None).expect("persona");
    assert!(not_kept.is_none());
    let mode = fs::metadata(state.join(FILE)).expect("file").permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    assert_eq!(fs::read_dir(&state).expect("directory").count(), 1, "no temporary file stays");
    for _ in 0..3 {
        assert_eq!(load(None, &state, None).expect("persona").0, first);
    }
}

#[test]
fn two_sensors_differ() {
    let faces: Vec<Face> = (0..20_u8).map(|number| drawn::draw(&[number; 16])).collect();
    for (index, face) in faces.iter().enumerate() {
        assert!(faces[..index].iter().all(|other| other.host != face.host), "{faces:?}");
    }
    let mut servers: Vec<&str> = faces.iter().map(|face| face.ssh.as_str()).collect();
    servers.sort_unstable();
    servers.dedup();
    assert!(servers.len() > 3, "{servers:?}");
}

#[test]
fn everything_that_is_drawn_is_accepted() {
    for number in 0..=255_u8 {
        let drawn = drawn::draw(&[number; 16]);
        let table = Table::try_from(&drawn).expect("table");
        assert_eq!(replaced(&table, table.clone()).map(|(_, face)| face), Ok(drawn));
    }
}

#[test]
fn a_state_directory_that_cannot_be_written_costs_the_keeping_only() {
    let directory = Directory::new("unwritable");
    let file = directory.write("host = \"a\"");
    let (persona, not_kept) = load(Some(&file), &file.join("below-a-file"), None).expect("persona");
    assert!(not_kept.is_some());
    assert_eq!(persona.face(22).host, "a");
    // At a reload the operator's texts are those of now, and what was drawn stays.
    let file = directory.write("host = \"b\"");
    let (next, _) = load(Some(&file), &file.join("below-a-file"), Some(&persona)).expect("persona");
    assert_eq!((next.face(22).host.as_str(), &next.face(22).ssh), ("b", &persona.face(22).ssh));
    let (drawn, _) = load(None, &file.join("below-a-file"), Some(&next)).expect("persona");
    assert_eq!((&drawn.face(22).host, &drawn.drawn), (&persona.drawn.host, &persona.drawn));
}

#[test]
fn what_the_operator_writes_replaces_single_texts_and_single_ports() {
    let directory = Directory::new("written");
    let file = directory.write("ssh = \"SSH-2.0-One\"\n[ports.2222]\nssh = \"SSH-2.0-Two\"\nhost = \"other\"\n");
    let (persona, _) = load(Some(&file), &directory.0, None).expect("persona");
    assert_eq!(persona.face(22).ssh, "SSH-2.0-One");
    assert_eq!(persona.face(2222).ssh, "SSH-2.0-Two");
    assert_eq!(persona.face(2222).http, persona.face(22).http);
    assert_ne!(persona.face(22).host, "other");
}

#[test]
fn what_cannot_be_shown_is_refused_with_its_place() {
    let long = format!("http = \"{}\"", "x".repeat(TEXT_BYTES + 1));
    let cases = [
        ("ssh = \"OpenSSH\"", "ssh: must begin with SSH-2.0-"),
        ("ftp = \"a\\nb\"", "ftp: must be printable ASCII of 1 to 120 bytes"),
        ("smtp = \"\"", "smtp: must be printable ASCII"),
        (long.as_str(), "http: must be printable ASCII"),
        ("vnc = \"3.8\"", "vnc: must be a version of RFB"),
        ("mysql = 5", "mysql: must be a text"),
        ("gopher = \"x\"", ":1: gopher: unknown; there are ftp, host, http, "),
        ("ports = 1", ":1: ports: must be tables"),
        ("[ports.0]\nssh = \"SSH-2.0-x\"", ":1: ports.0: must be a table for a port"),
        ("ftp = \"a\"\n[ports.22]\nssh = \"x\"", ":3: ports.22.ssh: must begin with"),
        ("ftp = \"a\"\nssh = ", ":2: not valid TOML: "),
        ("ssh = \"SSH-2.0-a\"\nssh = \"SSH-2.0-b\"", ":2: not valid TOML: duplicate key ssh"),
    ];
    for (text, expected) in cases {
        let directory = Directory::new("refused");
        let file = directory.write(text);
        let error = load(Some(&file), &directory.0, None).expect_err(text).to_string();
        assert!(error.contains(expected) && error.contains("mine.toml"), "{text}: {error}");
    }
}
