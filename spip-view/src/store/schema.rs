//! The tables of the two kinds of files: one catalog, and a file for each day.
//!
//! The catalog has what outlives a day: facts and sources with their first appearance, begins of payloads, profiles, runs
//! of the sensors, and how far logs are read. A day has its sessions and scans, roll-ups by hour, and the records themselves.
//!
//! A *profile* is what many sessions have in common: what the client sent and how it is recognised. It is stored once for all
//! days, and a session has its number. Connections that read see both together as the view [`sessions`].
//!
//! Roll-ups are packed (see `rollup`), and are the index, too: they say in which hours a value occurs, and sessions lie in
//! the order of time. `class` in them is what the source is known for (see [`crate::meaning::Class`]), so that known
//! scanners can be left out of every number.

use crate::row::Kind;

/// Version of both kinds of files, in `PRAGMA user_version`. A store of another version is moved aside and built anew
/// from the logs.
pub const VERSION: i32 = 5;

/// The catalog. Most facts are seen once: the time since the first appearance is then 0, which takes no byte. The session
/// of the first appearance has that time in its key, so a fact stores the ordinal alone ([`super::key`] makes the key).
pub const CATALOG: &str = "
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE facts (
    kind INTEGER NOT NULL,
    id INTEGER NOT NULL,
    hash INTEGER NOT NULL,
    value NOT NULL,
    first_us INTEGER NOT NULL,
    lasted_us INTEGER NOT NULL,
    n INTEGER NOT NULL,
    source,
    ordinal INTEGER,
    port INTEGER,
    grp INTEGER,
    label TEXT,
    class INTEGER NOT NULL,
    last_us INTEGER AS (first_us + lasted_us),
    session INTEGER AS ((first_us % 86400000000 + 86400000000) % 86400000000 << 10 | ordinal),
    PRIMARY KEY (kind, id)
) WITHOUT ROWID;
CREATE UNIQUE INDEX facts_hash ON facts (hash);
CREATE INDEX facts_first ON facts (kind, first_us);
CREATE TABLE payloads (id INTEGER PRIMARY KEY, head BLOB NOT NULL);
CREATE TABLE profiles (
    id INTEGER PRIMARY KEY,
    payload INTEGER,
    payload_group INTEGER,
    campaign INTEGER,
    path INTEGER,
    protocol INTEGER,
    syn INTEGER,
    user_agent INTEGER,
    http_fingerprint INTEGER,
    host INTEGER,
    ssh_client INTEGER,
    hassh INTEGER,
    ja4 INTEGER,
    ja3 INTEGER,
    server_name INTEGER,
    tool INTEGER
);
CREATE TRIGGER payload_forgotten AFTER DELETE ON facts WHEN old.kind = 3 BEGIN
    DELETE FROM payloads WHERE id = old.id;
END;
CREATE TABLE rules (sid INTEGER PRIMARY KEY, tag TEXT NOT NULL);
CREATE TABLE sources (
    source PRIMARY KEY,
    first_us INTEGER NOT NULL,
    last_us INTEGER NOT NULL,
    n INTEGER NOT NULL,
    half_open INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE logs (
    id INTEGER PRIMARY KEY,
    path TEXT NOT NULL UNIQUE,
    position TEXT NOT NULL,
    lines INTEGER NOT NULL,
    is_foreign INTEGER NOT NULL,
    foreign_reason TEXT,
    overlong INTEGER NOT NULL,
    lost_files INTEGER NOT NULL,
    behind_bytes INTEGER NOT NULL,
    last_read_us INTEGER
);
CREATE TABLE runs (
    sensor INTEGER NOT NULL,
    run TEXT NOT NULL,
    ordinal INTEGER NOT NULL,
    first_us INTEGER NOT NULL,
    last_us INTEGER NOT NULL,
    records INTEGER NOT NULL,
    first_seq INTEGER NOT NULL,
    last_seq INTEGER NOT NULL,
    missing INTEGER NOT NULL,
    ranges TEXT NOT NULL,
    duplicates INTEGER NOT NULL,
    PRIMARY KEY (sensor, run, ordinal)
) WITHOUT ROWID;
CREATE TABLE messages (
    id INTEGER PRIMARY KEY,
    time_us INTEGER NOT NULL,
    level TEXT NOT NULL,
    target TEXT NOT NULL,
    message TEXT NOT NULL,
    log INTEGER NOT NULL
);
CREATE TABLE events (id INTEGER PRIMARY KEY, time_us INTEGER NOT NULL, text TEXT NOT NULL);
";

/// A day.
pub const DAY: &str = "
CREATE TABLE absorbed (log INTEGER PRIMARY KEY, lines INTEGER NOT NULL);
CREATE TABLE session_rows (
    id INTEGER PRIMARY KEY,
    profile INTEGER,
    n INTEGER NOT NULL,
    flags INTEGER NOT NULL,
    source NOT NULL,
    source_port INTEGER NOT NULL,
    destination INTEGER NOT NULL,
    port INTEGER NOT NULL,
    sensor INTEGER NOT NULL,
    duration_us INTEGER NOT NULL,
    bytes_in INTEGER NOT NULL,
    bytes_out INTEGER NOT NULL,
    uuid INTEGER NOT NULL,
    close_reason INTEGER NOT NULL,
    refused_by INTEGER,
    country INTEGER,
    network INTEGER,
    scanner INTEGER,
    block INTEGER,
    line INTEGER
);
CREATE TABLE tries (
    session INTEGER NOT NULL,
    ordinal INTEGER NOT NULL,
    credential INTEGER NOT NULL,
    PRIMARY KEY (session, ordinal)
) WITHOUT ROWID;
CREATE TABLE marks (
    session INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    fact INTEGER NOT NULL,
    PRIMARY KEY (session, kind, fact)
) WITHOUT ROWID;
CREATE TABLE scans (
    id INTEGER PRIMARY KEY,
    n INTEGER NOT NULL,
    undecided INTEGER NOT NULL,
    flags INTEGER NOT NULL,
    source NOT NULL,
    sensor INTEGER NOT NULL,
    duration_us INTEGER NOT NULL,
    ports TEXT NOT NULL,
    port_count INTEGER NOT NULL,
    destinations TEXT NOT NULL,
    destination_count INTEGER NOT NULL,
    tool INTEGER,
    syn INTEGER,
    country INTEGER,
    network INTEGER,
    scanner INTEGER
);
CREATE TABLE hourly (
    kind INTEGER NOT NULL,
    hour INTEGER NOT NULL,
    sensor INTEGER NOT NULL,
    class INTEGER NOT NULL,
    run INTEGER NOT NULL,
    cells BLOB NOT NULL,
    PRIMARY KEY (kind, hour, sensor, class, run)
) WITHOUT ROWID;
-- Compressed records, or as text the place of a log from which they are found again.
CREATE TABLE blocks (id INTEGER PRIMARY KEY, lines NOT NULL);
";

/// Facts of a profile, in the order of its columns. Nearly all of them follow from the payload.
pub const PROFILE: [Kind; 15] = [
    Kind::Payload,
    Kind::Group,
    Kind::Campaign,
    Kind::Path,
    Kind::Protocol,
    Kind::Syn,
    Kind::UserAgent,
    Kind::HttpFingerprint,
    Kind::Host,
    Kind::SshClient,
    Kind::Hassh,
    Kind::Ja4,
    Kind::Ja3,
    Kind::ServerName,
    Kind::Tool,
];

/// Returns the statement that makes the view `sessions` of a connection: the rows of the database `day`, each with its
/// profile of the database `catalog`. It is temporary, because a stored view cannot name tables of another file.
#[must_use]
pub fn sessions(day: &str, catalog: &str) -> String {
    let profile: Vec<String> =
        PROFILE.iter().filter_map(|kind| kind.column()).map(|column| format!("p.{column} AS {column}")).collect();
    let own: Vec<String> =
        ["id"].iter().chain(super::dayfile::COLUMNS).map(|column| format!("r.{column} AS {column}")).collect();
    format!(
        "CREATE TEMP VIEW sessions AS SELECT {}, {} FROM {day}.session_rows r LEFT JOIN {catalog}.profiles p ON p.id = r.profile;",
        own.join(", "),
        profile.join(", ")
    )
}

/// Returns the tables of a statement about sessions `s`: where none of its parts names a fact of a profile, the rows alone.
/// SQLite would look each profile up nevertheless.
#[must_use]
pub fn narrowest<'a>(tables: &'a str, parts: &[&str]) -> std::borrow::Cow<'a, str> {
    let names_profile = |part: &&str| {
        PROFILE.iter().filter_map(|kind| kind.column()).any(|column| part.contains(&format!("s.{column}")))
    };
    match tables.strip_prefix("sessions s") {
        Some(behind) if !parts.iter().any(names_profile) => format!("session_rows s{behind}").into(),
        _ => tables.into(),
    }
}
