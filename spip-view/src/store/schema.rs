//! The tables of the two kinds of files: one catalog, and a file for each day.
//!
//! The catalog has what outlives a day: facts and sources with their first appearance, runs of the sensors, and how far
//! logs are read. A day has its sessions and scans, roll-ups by hour, and the records themselves. Roll-ups are packed (see
//! `rollup`), and are the index, too: they say in which hours a value occurs, and sessions lie in the order of time. `class` in them is what the source is
//! known for (see [`crate::meaning::Class`]), so that known scanners can be left out of every number.

/// Version of both kinds of files, in `PRAGMA user_version`. A store of another version is moved aside and built anew
/// from the logs.
pub const VERSION: i32 = 3;

/// The catalog.
pub const CATALOG: &str = "
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE facts (
    kind INTEGER NOT NULL,
    id INTEGER NOT NULL,
    hash INTEGER NOT NULL,
    value NOT NULL,
    first_us INTEGER NOT NULL,
    last_us INTEGER NOT NULL,
    n INTEGER NOT NULL,
    source,
    session INTEGER,
    port INTEGER,
    grp INTEGER,
    label TEXT,
    class INTEGER NOT NULL,
    PRIMARY KEY (kind, id)
) WITHOUT ROWID;
CREATE UNIQUE INDEX facts_hash ON facts (hash);
CREATE INDEX facts_first ON facts (kind, first_us);
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
CREATE TABLE sessions (
    id INTEGER PRIMARY KEY,
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
    protocol INTEGER,
    payload INTEGER,
    payload_group INTEGER,
    path INTEGER,
    user_agent INTEGER,
    ja4 INTEGER,
    ja3 INTEGER,
    hassh INTEGER,
    ssh_client INTEGER,
    http_fingerprint INTEGER,
    syn INTEGER,
    tool INTEGER,
    host INTEGER,
    server_name INTEGER,
    country INTEGER,
    network INTEGER,
    scanner INTEGER,
    campaign INTEGER,
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
CREATE TABLE payloads (id INTEGER PRIMARY KEY, head BLOB NOT NULL);
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
