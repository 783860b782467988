//! Invariants of all formats: one record in three formats, safe text, bounded lines, times that no clock moves.

mod corpus;
pub(crate) mod sample;

use std::time::Duration;

use proptest::prelude::*;
use serde_json::Value as Json;
use spip_record::read::{self, Line};
use spip_record::{Entry, Format, Tail, ecs, zeek};

use super::*;
use crate::scans::record as scan;
use sample::{Sample, samples, sensor};
use spip_record::message::Shape;

/// Bytes of a client that make reading them panic.
pub(crate) const UNREADABLE: &[u8] = b"test: unreadable";

pub(super) fn panic_if_asked(payload: &[u8]) {
    assert_ne!(payload, UNREADABLE, "asked for by the test");
}

const FORMATS: [Format; 3] = [Format::Flat, Format::Ecs, Format::Eve];

/// The line as the log ends it.
fn finished(format: Format, mut open: Vec<u8>) -> Vec<u8> {
    let mut space = [0; Tail::BYTES];
    open.extend_from_slice(format.tail().write(&mut space, 7));
    assert_eq!(open.pop(), Some(b'\n'));
    open
}

fn logged(session: &Session, format: Format) -> Vec<u8> {
    let mut line = Vec::new();
    sensor(format).write(session, usize::MAX, &mut line);
    finished(format, line)
}

fn read(line: &[u8]) -> Entry<'_> {
    match read::line(line) {
        Ok(Line::Session(entry)) => *entry,
        other => panic!("{other:?} of {}", String::from_utf8_lossy(line)),
    }
}

fn json(line: &[u8]) -> Json {
    serde_json::from_slice(line).unwrap_or_else(|error| panic!("{error} in {}", String::from_utf8_lossy(line)))
}

/// Fails where a terminal would obey a character, or a reader would take two lines for one.
fn assert_printable(line: &[u8]) {
    let text = std::str::from_utf8(line).expect("a line is UTF-8");
    if let Some(character) = text.chars().find(|c| spip_record::json::is_hidden(*c)) {
        panic!("U+{:04X} stands in {text}", u32::from(character));
    }
}

#[test]
fn a_record_that_is_read_is_written_in_every_format_as_the_session_was() {
    for Sample { name, session } in samples() {
        let flat = logged(&session, Format::Flat);
        let entry = read(&flat);
        assert_eq!(entry.seq, Some(7));
        for format in FORMATS {
            let mut line = Vec::new();
            format.encode(&entry, &mut line);
            let converted = finished(format, line);
            let expected = logged(&session, format);
            assert_eq!(String::from_utf8_lossy(&converted), String::from_utf8_lossy(&expected), "{name}");
        }
    }
}

/// Kinds of lines of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Session,
    Scan,
    Log,
}

const KINDS: [Kind; 3] = [Kind::Session, Kind::Scan, Kind::Log];

/// The schema that users get, and that every line of the end-to-end tests is held against, too.
fn schema(format: Format, kind: Kind) -> (Json, jsonschema::Validator) {
    let text = match (format, kind) {
        (Format::Flat, Kind::Session) => include_str!("../../../../docs/schema/flat.schema.json"),
        (Format::Flat, Kind::Scan) => include_str!("../../../../docs/schema/flat-scan.schema.json"),
        (Format::Flat, Kind::Log) => include_str!("../../../../docs/schema/flat-log.schema.json"),
        (Format::Ecs, Kind::Session) => include_str!("../../../../docs/schema/ecs.schema.json"),
        (Format::Ecs, Kind::Scan) => include_str!("../../../../docs/schema/ecs-scan.schema.json"),
        (Format::Ecs, Kind::Log) => include_str!("../../../../docs/schema/ecs-log.schema.json"),
        (Format::Eve, Kind::Session) => include_str!("../../../../docs/schema/eve.schema.json"),
        (Format::Eve, Kind::Scan) => include_str!("../../../../docs/schema/eve-scan.schema.json"),
        (Format::Eve, Kind::Log) => include_str!("../../../../docs/schema/eve-log.schema.json"),
    };
    let schema = serde_json::from_str(text).expect("a schema is JSON");
    let validator = jsonschema::validator_for(&schema).expect("a schema is one");
    (schema, validator)
}

/// Lines of a kind, each with its name: all that this kind can have is in one of them.
fn lines(format: Format, kind: Kind) -> Vec<(String, Json)> {
    match kind {
        Kind::Session => {
            let all = samples().into_iter().chain(sample::shortened());
            let record = |Sample { name, session }: Sample| {
                let bound = if name.starts_with("shortened") { 64 << 10 } else { 1 << 30 };
                let mut line = Vec::new();
                let _ = Sensor { max_line_bytes: bound, ..sensor(format) }.write(&session, usize::MAX, &mut line);
                (name, json(&finished(format, line)))
            };
            all.map(record).chain([("enriched".to_owned(), enriched(format))]).collect()
        }
        Kind::Scan => {
            let names = ["one", "many", "rest"].into_iter();
            names
                .zip(scan_samples())
                .map(|(name, scan)| (name.to_owned(), json(&scan::tests::written(&scan, format))))
                .collect()
        }
        Kind::Log => {
            let shape = Shape { format, name: "sensor \"7\"".into(), run: "0123456789ab".into(), max_bytes: 64 << 10 };
            let all = [log::Level::Error, log::Level::Warn, log::Level::Info, log::Level::Debug, log::Level::Trace];
            let line = |level: log::Level| {
                let fields = [("port", log::kv::Value::from(8080)), ("reason", log::kv::Value::from("a\u{1b}"))];
                let arguments = format_args!("it {}s", "happen");
                let record =
                    log::Record::builder().level(level).target("start").args(arguments).key_values(&fields).build();
                let mut line = shape.line(&record);
                line.push(b'}');
                (level.to_string(), json(&line))
            };
            all.map(line).into()
        }
    }
}

/// A record with everything that readers add.
fn enriched(format: Format) -> Json {
    use spip_record::enrichment::{Enrichment, Evidence, Indicator, IndicatorKind, Scanner, ScannerKind, Source, Tag};
    let indicator = |kind, value: &str| Indicator { kind, value: value.into() };
    let enrichment = Enrichment {
        source: Source {
            country: Some("SE".into()),
            city: Some("Linköping".into()),
            asn: Some(64500),
            network: Some("Example \u{1b}Net".into()),
            special: Some("documentation".into()),
            scanner: Some(Scanner {
                name: "Example Survey".into(),
                kind: ScannerKind::Research,
                evidence: Evidence::Listed,
            }),
        },
        tags: vec![Tag {
            id: 7_700_001,
            rev: 2,
            name: "an exploit".into(),
            cve: vec!["CVE-2021-44228".into(), "CVE-2021-45046".into()],
            class: "web-application-attack".into(),
            priority: 1,
            technique: vec!["T1190".into()],
            reference: vec!["https://example.com/".into()],
        }],
        tags_incomplete: true,
        indicators: vec![
            indicator(IndicatorKind::Url, "http://a.example/x"),
            indicator(IndicatorKind::Host, "a.example"),
            indicator(IndicatorKind::Host, "192.0.2.9"),
            indicator(IndicatorKind::Sha256, &"0f".repeat(32)),
        ],
    };
    let session = sample::of_payload(b"x");
    let mut entry = entry::of(&session, sample::any_sensor());
    entry.enrichment = Some(Box::new(enrichment));
    let mut line = Vec::new();
    format.encode(&entry, &mut line);
    let line = finished(format, line);
    assert_printable(&line);
    if format == Format::Flat {
        assert_eq!(read(&line).enrichment, entry.enrichment, "what is read is what was written");
    }
    json(&line)
}

#[test]
fn an_alert_of_eve_is_valid_and_shares_the_flow_of_its_record() {
    let text = include_str!("../../../../docs/schema/eve-alert.schema.json");
    let schema: Json = serde_json::from_str(text).expect("a schema is JSON");
    let validator = jsonschema::validator_for(&schema).expect("a schema is one");
    let session = sample::of_payload(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut entry = entry::of(&session, sample::any_sensor());
    let tag = |id| spip_record::enrichment::Tag { id, name: "it".into(), priority: 1, ..Default::default() };
    entry.enrichment =
        Some(Box::new(spip_record::enrichment::Enrichment { tags: vec![tag(1), tag(2)], ..Default::default() }));
    let (mut alerts, mut flow) = (Vec::new(), Vec::new());
    spip_record::eve::encode_alerts(&entry, &mut alerts);
    Format::Eve.encode(&entry, &mut flow);
    let flow = json(&finished(Format::Eve, flow));
    let alerts: Vec<Json> = alerts.split_inclusive(|byte| *byte == b'\n').map(json).collect();
    assert_eq!(alerts.len(), 2);
    for (alert, id) in alerts.iter().zip([1, 2]) {
        let errors: Vec<_> = validator.iter_errors(alert).map(|e| format!("{}: {e}", e.instance_path())).collect();
        assert!(errors.is_empty(), "{errors:?}");
        assert_eq!(alert["alert"]["signature_id"], id);
        assert_eq!(alert["flow_id"], flow["flow_id"]);
        assert_eq!(alert["spip"]["session_id"], flow["spip"]["session_id"]);
    }
    assert_eq!(flow["flow"]["alerted"], true);
}

/// A scan of few ports, one of many, and what has no record of its own.
fn scan_samples() -> [scan::Scan; 3] {
    let one = scan::tests::scan([22, 23, 80]);
    let mut many = scan::tests::scan((0..=u16::MAX).filter(|port| port % 2 == 1));
    many.shown.as_mut().expect("a source").syn = sample::syn();
    let rest = scan::Scan { source: [0; 4].into(), undecided: 9, shown: None, ..one.clone() };
    [one, many, rest]
}

/// Returns the place of the facts that only this project has.
fn own(format: Format) -> &'static str {
    if format == Format::Flat { "" } else { "/spip" }
}

#[test]
fn every_line_is_valid_and_every_property_of_a_schema_is_used() {
    for (format, kind) in FORMATS.into_iter().flat_map(|format| KINDS.map(|kind| (format, kind))) {
        let (schema, validator) = schema(format, kind);
        let mut used = std::collections::BTreeSet::new();
        for (name, record) in lines(format, kind) {
            let errors: Vec<_> =
                validator.iter_errors(&record).map(|e| format!("{}: {e}", e.instance_path())).collect();
            assert!(errors.is_empty(), "{name} {format:?} {kind:?}: {errors:?}");
            paths("", &record, &mut used);
        }
        let mut known = Vec::new();
        all_properties("", &schema, &mut known);
        let unused: Vec<_> = known.iter().filter(|path| !used.contains(*path)).collect();
        assert!(unused.is_empty(), "no sample of {kind:?} has {unused:?} in {format:?}");
    }
}

/// The paths of all members of a line, those of lists' items as if there were one.
fn paths(prefix: &str, value: &Json, all: &mut std::collections::BTreeSet<String>) {
    match value {
        Json::Object(members) => {
            for (key, value) in members {
                let path = format!("{prefix}/{key}");
                paths(&path, value, all);
                all.insert(path);
            }
        }
        Json::Array(items) => items.iter().for_each(|item| paths(prefix, item, all)),
        _ => {}
    }
}

/// The paths of all properties of a schema, in the same way.
fn all_properties(prefix: &str, schema: &Json, all: &mut Vec<String>) {
    for (key, schema) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{prefix}/{key}");
        all_properties(&path, schema, all);
        all.push(path);
    }
    if schema["items"].is_object() {
        all_properties(prefix, &schema["items"], all);
    }
}

#[test]
fn a_schema_refuses_what_is_not_documented() {
    for format in FORMATS {
        let (_, validator) = schema(format, Kind::Session);
        let record = json(&logged(&sample::of_payload(b"x"), format));
        let mut more = record.clone();
        more["forgotten"] = Json::from(1);
        assert!(validator.is_valid(&record) && !validator.is_valid(&more), "{format:?}");
        for key in record.as_object().expect("an object").keys().filter(|key| *key != "first_byte_us") {
            let mut less = record.clone();
            less.as_object_mut().expect("an object").remove(key);
            let optional = ["payload_sha256", "protocol", "app_proto", "related"].contains(&key.as_str());
            assert_eq!(validator.is_valid(&less), optional, "{key} in {format:?}");
        }
    }
}

#[test]
fn the_schemas_of_scans_and_messages_refuse_what_is_not_documented() {
    for (format, kind) in FORMATS.into_iter().flat_map(|format| [Kind::Scan, Kind::Log].map(|kind| (format, kind))) {
        let (_, validator) = schema(format, kind);
        let (_, record) = lines(format, kind).swap_remove(0);
        let removed = |at: &str, key: &str| {
            let mut less = record.clone();
            let object = if at.is_empty() { &mut less } else { less.pointer_mut(at).expect("there") };
            object.as_object_mut().expect("an object").remove(key);
            less
        };
        for at in ["", own(format)] {
            let object = if at.is_empty() { &record } else { &record["spip"] };
            for key in object.as_object().expect("an object").keys() {
                // Fields of messages are what each message needs.
                let optional = ["tools", "related", "port", "reason"].contains(&key.as_str());
                assert_eq!(validator.is_valid(&removed(at, key)), optional, "{at}/{key} in {format:?} {kind:?}");
            }
            let mut more = record.clone();
            let object = if at.is_empty() { &mut more } else { &mut more["spip"] };
            object["forgotten"] = Json::from(vec![1]);
            assert!(!validator.is_valid(&more), "{at} in {format:?} {kind:?}");
        }
    }
}

#[test]
fn the_documentation_has_every_field() {
    let page = include_str!("../../../../docs/records.md");
    for format in FORMATS {
        let (schema, _) = schema(format, Kind::Session);
        let (_, section) = page.split_once(&format!("\n## {}", heading(format))).expect("a section");
        let section = section.split("\n## ").next().unwrap_or_default();
        let mut names = Vec::new();
        properties("", &schema, format, &mut names);
        let missing: Vec<_> = names.iter().filter(|name| !section.contains(&format!("`{name}`"))).collect();
        assert!(missing.is_empty(), "docs/records.md lacks {missing:?} under {}", heading(format));
    }
}

#[test]
fn the_record_in_the_readme_is_one_that_this_version_writes() {
    let page = include_str!("../../../../README.md");
    let (_, block) = page.split_once("A real record from the demo").expect("a record");
    let block = block.split_once("```json\n").and_then(|(_, rest)| rest.split_once("```")).expect("a block").0;
    assert_eq!(block.matches('…').count(), 2, "its payload, twice");
    let line: String = block.lines().map(|part| part.trim_start().replace('…', "")).collect();
    let (_, validator) = schema(Format::Flat, Kind::Session);
    let errors: Vec<_> = validator.iter_errors(&json(line.as_bytes())).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{errors:?}");
    let entry = read(line.as_bytes());
    let mut written = Vec::new();
    Format::Flat.encode(&entry, &mut written);
    written.extend_from_slice(Format::Flat.tail().write(&mut [0; Tail::BYTES], entry.seq.expect("a number")));
    assert_eq!(String::from_utf8_lossy(&written).trim_end(), line);
    // Nothing was left out but the end of the payload.
    assert!(entry.first_byte_us.is_some() && entry.protocol.is_some() && entry.http.is_some() && entry.syn.is_some());
}

#[test]
fn the_documentation_has_every_field_of_a_scan() {
    let page = include_str!("../../../../docs/scans.md");
    let (schema, _) = schema(Format::Flat, Kind::Scan);
    let names = schema["properties"].as_object().expect("an object").keys();
    let missing: Vec<_> = names.filter(|name| !page.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "docs/scans.md lacks {missing:?}");
}

fn heading(format: Format) -> &'static str {
    match format {
        Format::Flat => "flat",
        Format::Ecs => "ecs",
        Format::Eve => "eve",
    }
}

/// The paths of a schema's own properties: those of the flat format as they are, those of others with their objects.
/// What stands under `spip` is documented with the flat format.
fn properties(prefix: &str, schema: &Json, format: Format, names: &mut Vec<String>) {
    let Some(properties) = schema["properties"].as_object() else { return };
    for (key, schema) in properties {
        let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        // Protocols have a page of their own, and so has what a request says.
        let elsewhere = schema.get("$ref").is_some() || format == Format::Flat && key == "http";
        if schema.get("properties").is_none() || elsewhere || key == "spip" {
            if !elsewhere || key == "http" {
                names.push(path);
            }
        } else {
            self::properties(&path, schema, format, names);
        }
    }
}

#[test]
fn samples_show_every_field() {
    let all = samples();
    let entries: Vec<_> = all.iter().map(|sample| entry::of(&sample.session, sample::any_sensor())).collect();
    let shown = |field: fn(&Entry<'_>) -> bool| entries.iter().any(field);
    assert!(shown(|e| e.first_byte_us.is_some()) && shown(|e| e.first_byte_us.is_none()));
    assert!(shown(|e| e.limit.is_some()) && shown(|e| e.repeated.is_some()));
    assert!(shown(|e| e.http.is_some()) && shown(|e| e.ssh.as_ref().is_some_and(|ssh| ssh.hassh.is_some())));
    assert!(shown(|e| e.details.is_some()) && shown(|e| !e.credentials.is_empty()) && shown(|e| e.syn.is_some()));
    let tls =
        |field: fn(&spip_record::entry::TlsFacts<'_>) -> bool| entries.iter().filter_map(|e| e.tls.as_ref()).any(field);
    assert!(tls(|t| t.version.is_some() && t.alpn.is_some()) && tls(|t| t.client_certificate.is_some()));
    assert!(tls(|t| t.error.is_some()) && tls(|t| t.hello.is_none()));
    assert!(
        tls(|t| t.malformed.is_some() && t.version.is_some()) && tls(|t| t.malformed.is_some() && t.hello.is_some())
    );
    assert!(tls(|t| t.hello.as_ref().is_some_and(|h| h.server_name.is_some() && !h.protocols.is_empty())));
}

#[test]
fn every_format_names_the_same_connection() {
    for Sample { name, session } in samples() {
        let [flat, ecs, eve] = FORMATS.map(|format| json(&logged(&session, format)));
        for (key, ecs_at, eve_at) in [
            ("source_ip", "/source/ip", "/src_ip"),
            ("source_port", "/source/port", "/src_port"),
            ("destination_ip", "/destination/ip", "/dest_ip"),
            ("destination_port", "/destination/port", "/dest_port"),
            ("bytes_in", "/source/bytes", "/flow/bytes_toserver"),
            ("bytes_out", "/destination/bytes", "/flow/bytes_toclient"),
            ("community_id", "/network/community_id", "/community_id"),
            ("session_id", "/event/id", "/spip/session_id"),
            ("name", "/observer/name", "/host"),
            ("close_reason", "/event/action", "/spip/close_reason"),
            ("payload", "/spip/payload", "/spip/payload"),
            ("payload_hex", "/spip/payload_hex", "/spip/payload_hex"),
            ("seq", "/event/sequence", "/spip/seq"),
            ("time", "/@timestamp", "/flow/start"),
        ] {
            let of =
                |record: &Json, at: &str| record.pointer(at).cloned().unwrap_or_else(|| panic!("{name} has no {at}"));
            assert_eq!(of(&ecs, ecs_at), flat[key], "{name}: {key}");
            let told = of(&eve, eve_at);
            let told = told.as_str().map(|text| text.replace("+0000", "Z")).map_or(told.clone(), Json::from);
            assert_eq!(told, flat[key], "{name}: {key}");
        }
    }
}

#[test]
fn ecs_uses_only_fields_that_are_defined_with_their_types() {
    let definitions: Json =
        serde_json::from_str(include_str!("../../../../spip-record/fixtures/ecs/fields.json")).expect("fixture");
    assert_eq!(definitions["version"], ecs::VERSION);
    let mut used = std::collections::BTreeSet::new();
    for (name, record) in KINDS.into_iter().flat_map(|kind| lines(Format::Ecs, kind)) {
        let mut leaves = Vec::new();
        flatten("", &record, &mut leaves);
        for (path, value) in leaves {
            let kind = definitions["fields"][&path].as_str().unwrap_or_else(|| panic!("{name}: ECS has no {path}"));
            let is_list = definitions["arrays"].as_array().expect("a list").iter().any(|array| *array == *path);
            assert_eq!(value.is_array(), is_list, "{name}: {path} = {value}");
            let values = value.as_array().cloned().unwrap_or_else(|| vec![value]);
            for value in &values {
                let fits = match kind {
                    "long" => value.as_u64().is_some_and(|number| number <= 1 << 53),
                    "boolean" => value.is_boolean(),
                    "date" => value.as_str().is_some_and(is_date),
                    "nested" => value.is_object(),
                    "ip" => value.as_str().is_some_and(|text| text.parse::<std::net::IpAddr>().is_ok()),
                    _ => value.is_string(),
                };
                assert!(fits, "{name}: {path} = {value} is no {kind}");
                if let Some(allowed) = definitions["values"][&path].as_array() {
                    assert!(allowed.contains(value), "{name}: {path} = {value}");
                }
            }
            used.insert(path);
        }
    }
    let defined: std::collections::BTreeSet<String> =
        definitions["fields"].as_object().expect("an object").keys().cloned().collect();
    let unused: Vec<_> = defined.difference(&used).collect();
    assert!(unused.is_empty(), "no sample has {unused:?}");
}

/// Reports whether a text is a date for Elasticsearch, whose years have four digits.
fn is_date(text: &str) -> bool {
    // The library's own calendar ends a day before that.
    text.len() == 27 && (text.parse::<jiff::Timestamp>().is_ok() || text.starts_with("9999-12-31T"))
}

#[test]
fn eve_uses_only_fields_that_suricata_has_with_their_types() {
    let definitions: Json =
        serde_json::from_str(include_str!("../../../../spip-record/fixtures/eve/fields.json")).expect("fixture");
    let known = |path: &str| definitions["fields"].get(path).or_else(|| definitions["later"].get(path));
    let time = definitions["pattern"]["timestamp"].as_str().expect("a pattern");
    let time = jsonschema::validator_for(&serde_json::json!({"type": "string", "pattern": time})).expect("a schema");
    let mut used = std::collections::BTreeSet::new();
    for (name, record) in KINDS.into_iter().flat_map(|kind| lines(Format::Eve, kind)) {
        assert!(time.is_valid(&record["timestamp"]), "{name}: {}", record["timestamp"]);
        let mut leaves = Vec::new();
        flatten("", &record, &mut leaves);
        for (path, value) in leaves {
            let is_list = definitions["arrays"].as_array().expect("a list").iter().any(|array| *array == *path);
            assert_eq!(value.is_array(), is_list, "{name}: {path} = {value}");
            let mut items = Vec::new();
            for item in value.as_array().cloned().unwrap_or_else(|| vec![value]) {
                flatten(&path, &item, &mut items);
            }
            for (path, value) in items {
                let fits = match known(&path).and_then(Json::as_str) {
                    Some("integer") => value.as_u64().is_some_and(|number| number <= 1 << 53),
                    Some("boolean") => value.is_boolean(),
                    Some(_) => value.is_string(),
                    None => panic!("{name}: EVE has no {path}"),
                };
                assert!(fits, "{name}: {path} = {value}");
                if let Some(allowed) = definitions["values"][&path].as_array() {
                    assert!(allowed.contains(&value), "{name}: {path} = {value}");
                }
                used.insert(path);
            }
        }
    }
    for list in ["fields", "later"] {
        let defined = definitions[list].as_object().expect("an object").keys();
        let unused: Vec<_> = defined.filter(|path| !used.contains(*path)).collect();
        assert!(unused.is_empty(), "no sample has {unused:?}");
    }
}

#[test]
fn the_index_template_maps_every_field_as_ecs_defines_it_and_every_own_one() {
    let definitions: Json =
        serde_json::from_str(include_str!("../../../../spip-record/fixtures/ecs/fields.json")).expect("fixture");
    let template: Json = serde_json::from_str(include_str!("../../../../docs/schema/ecs-template.json")).expect("JSON");
    let mappings = &template["template"]["mappings"];
    let mapped = |path: &str| path.split('.').fold(mappings, |level, key| &level["properties"][key])["type"].clone();
    for (path, kind) in definitions["fields"].as_object().expect("an object") {
        // Types that OpenSearch knows as well.
        let expected = match kind.as_str() {
            Some("wildcard") => "keyword",
            Some("match_only_text") => "text",
            other => other.expect("text"),
        };
        assert_eq!(mapped(path), expected, "{path}");
    }
    maps_every_own_field(Format::Ecs, &mappings["properties"]["spip"]);
}

#[test]
fn the_component_template_takes_nothing_that_eve_has_under_spip_for_a_date() {
    let template = include_str!("../../../../docs/schema/eve-component-template.json");
    let template: Json = serde_json::from_str(template).expect("JSON");
    let mappings = &template["template"]["mappings"];
    maps_every_own_field(Format::Eve, &mappings["properties"]["spip"]);
    // What each protocol has is mapped as it comes. Where dates are detected, a text that looks like one is a date.
    let dynamic = mappings["dynamic_templates"].as_array().expect("a list");
    for text in ["string", "date"] {
        let found = dynamic.iter().flat_map(|one| one.as_object().expect("an object").values()).find(|rule| {
            rule["match_mapping_type"] == text && rule["path_match"] == "spip.*" && rule["mapping"]["type"] == "keyword"
        });
        assert!(found.is_some(), "{text}");
    }
    let mut types = std::collections::BTreeMap::new();
    types_of("", &mappings["properties"], &mut types);
    for (path, field) in types {
        match field["type"].as_str().expect("a type") {
            "date" => assert!(["/spip/first_time", "/spip/last_time"].contains(&path.as_str()), "{path}"),
            "long" | "boolean" | "text" => {}
            "keyword" => {
                let is_bytes = path.ends_with("payload_hex") || path.ends_with("tls_client_hello_hex");
                assert_eq!(field.get("index"), is_bytes.then_some(&Json::from(false)), "{path}");
            }
            other => panic!("{path} is {other}"),
        }
        let refuses = ["date", "long"].contains(&field["type"].as_str().expect("a type"));
        assert_eq!(field.get("ignore_malformed").is_some(), refuses, "{path}");
    }
}

/// The fields of a mapping that hold values, by their paths.
fn types_of(prefix: &str, properties: &Json, types: &mut std::collections::BTreeMap<String, Json>) {
    for (key, field) in properties.as_object().into_iter().flatten() {
        let path = format!("{prefix}/{key}");
        match field.get("properties") {
            Some(inner) => types_of(&path, inner, types),
            None => drop(types.insert(path, field.clone())),
        }
    }
}

/// Fails where a mapping of `spip` lacks what a line can have there, or has what no line has. What each protocol has is
/// mapped as it comes.
fn maps_every_own_field(format: Format, mapping: &Json) {
    let mut own = std::collections::BTreeSet::new();
    for kind in KINDS {
        let (schema, _) = schema(format, kind);
        let properties = schema["properties"]["spip"]["properties"].as_object().expect("an object");
        for (key, schema) in properties.iter().filter(|(_, schema)| schema.get("$ref").is_none()) {
            let known = &mapping["properties"][key];
            assert!(known.is_object(), "the template lacks spip.{key}");
            let inner = schema["items"].as_object().map_or(schema, |_| &schema["items"]);
            for inner in inner["properties"].as_object().into_iter().flat_map(|inner| inner.keys()) {
                assert!(known["properties"][inner].is_object(), "the template lacks spip.{key}.{inner}");
            }
            own.insert(key.clone());
        }
    }
    let mapped = mapping["properties"].as_object().expect("an object");
    let gone: Vec<_> = mapped.keys().filter(|key| !own.contains(*key)).collect();
    assert!(gone.is_empty(), "the template maps {gone:?}, which no record has");
}

/// Paths and values of everything that is not under `spip`.
fn flatten(prefix: &str, value: &Json, leaves: &mut Vec<(String, Json)>) {
    match value {
        Json::Object(members) => {
            for (key, value) in members.iter().filter(|(key, _)| !prefix.is_empty() || *key != "spip") {
                let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                flatten(&path, value, leaves);
            }
        }
        other => leaves.push((prefix.to_owned(), other.clone())),
    }
}

/// Bytes that have misled readers: all single ones, broken UTF-8, and characters that terminals or editors obey.
fn nasty() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = (0..=255).map(|byte| vec![b'a', byte, b'b']).collect();
    all.push((0..=255).collect());
    for broken in [
        &b"\xc0\x80"[..],
        b"\xc1\xbf",
        b"\xe0\x80\x80",
        b"\xe0\x9f\xbf",
        b"\xf0\x80\x80\x80",
        b"\xf0\x8f\xbf\xbf",
        b"\xed\xa0\x80",
        b"\xed\xbf\xbf",
        b"\xed\xa0\xbd\xed\xb2\xa9",
        b"\xf4\x90\x80\x80",
        b"\xf8\x88\x80\x80\x80",
        b"\xe2\x80",
        b"\xf0\x9f\x92",
    ] {
        all.push(broken.to_vec());
    }
    let spots = ['\u{7f}', '\u{80}', '\u{9b}', '\u{9f}', '\u{61c}', '\u{200e}', '\u{200f}', '\u{2028}', '\u{2029}'];
    let turns =
        ['\u{202a}', '\u{202b}', '\u{202c}', '\u{202d}', '\u{202e}', '\u{2066}', '\u{2067}', '\u{2068}', '\u{2069}'];
    let unseen = ['\u{ad}', '\u{200b}', '\u{200d}', '\u{2060}', '\u{fe0f}', '\u{feff}', '\u{e0041}', '\u{e007f}'];
    all.extend(spots.iter().chain(&turns).chain(&unseen).map(|c| format!("a{c}b").into_bytes()));
    all.push("\u{feff}\u{0}\"\\/</script>\u{ffff}\u{10ffff}".into());
    all
}

#[test]
fn no_byte_of_a_client_breaks_a_line_or_reaches_a_terminal() {
    for bytes in nasty() {
        // As payload, and in every place where a client's text is shown by a protocol.
        let request =
            [b"GET /".as_slice(), &bytes, b" HTTP/1.1\r\nHost: ", &bytes, b"\r\nUser-Agent: ", &bytes, b"\r\n\r\n"];
        let login = [b"USER ".as_slice(), &bytes, b"\r\nPASS ", &bytes, b"\r\nSYST\r\n"];
        let ssh = [b"SSH-2.0-".as_slice(), &bytes, b"\r\n"];
        for payload in [bytes.clone(), request.concat(), login.concat(), ssh.concat()] {
            let session = sample::of_payload(&payload);
            for format in FORMATS {
                let line = logged(&session, format);
                assert_printable(&line);
                let record = json(&line);
                let own = if format == Format::Flat { &record } else { &record["spip"] };
                assert_eq!(own["payload_hex"], hex::encode(&payload), "{format:?}");
                assert_eq!(own["payload"], String::from_utf8_lossy(&payload).as_ref(), "{format:?}");
                assert_eq!(doubles(&line), None, "{}", String::from_utf8_lossy(&line));
            }
        }
        for hello in [sample::hello_for(&bytes)] {
            for format in FORMATS {
                let line = logged(&hello, format);
                assert_printable(&line);
                let _ = json(&line);
            }
        }
    }
}

#[test]
fn no_text_of_a_file_reaches_a_terminal_through_converting() {
    // Raw characters that the agent would have escaped, and a key that tries to break out.
    let flat = String::from_utf8(logged(&sample::of_payload(b"*1\r\n$4\r\nPING\r\n"), Format::Flat)).expect("UTF-8");
    let touched = flat
        .replace("\"redis\":{", "\"redis\":{\"\\u001b\u{202e}\\\"x\":\"\u{7f}\u{9b}\u{2028}\",")
        .replace("\"name\":\"", "\"name\":\"\u{202e}");
    assert_ne!(flat, touched);
    let entry = read(touched.as_bytes());
    for format in FORMATS {
        let mut line = Vec::new();
        format.encode(&entry, &mut line);
        let line = finished(format, line);
        assert_printable(&line);
        let _ = json(&line);
    }
    let mut line = Vec::new();
    zeek::encode(&entry, &mut line);
    assert_printable(&line);
}

/// The first key that an object of the line has twice.
fn doubles(line: &[u8]) -> Option<String> {
    fn of(value: &read::Json) -> Option<String> {
        match value {
            read::Json::Object(members) => {
                let double =
                    members.iter().enumerate().find(|(at, (key, _))| members[..*at].iter().any(|(k, _)| k == key));
                double.map(|(_, (key, _))| key.clone()).or_else(|| members.iter().find_map(|(_, value)| of(value)))
            }
            read::Json::List(list) => list.iter().find_map(of),
            _ => None,
        }
    }
    of(&read::any(line).expect("JSON"))
}

#[test]
fn no_object_has_a_key_twice() {
    for Sample { name, session } in samples() {
        for format in FORMATS {
            assert_eq!(doubles(&logged(&session, format)), None, "{name} {format:?}");
        }
    }
}

#[test]
fn a_line_never_exceeds_its_bound_and_says_what_it_lacks() {
    let mut steps = std::collections::BTreeSet::new();
    for Sample { name, session } in samples().into_iter().chain(sample::large()) {
        for format in FORMATS {
            let whole = logged(&session, format).len() + 1;
            for bound in [4 << 10, 8 << 10, 64 << 10, 80 << 10, 128 << 10, 400 << 10, whole, whole - 1] {
                let bound = bound.max(4 << 10);
                let sensor = Sensor { max_line_bytes: bound, ..sensor(format) };
                let mut line = Vec::new();
                let _ = sensor.write(&session, usize::MAX, &mut line);
                let line = finished(format, line);
                assert!(line.len() < bound, "{name}: {} of {bound} bytes in {format:?}", line.len());
                let record = json(&line);
                let own = if format == Format::Flat { &record } else { &record["spip"] };
                let Some(shortened) = own.get("shortened").map(|list| list.as_array().expect("a list")) else {
                    assert_eq!(line, logged(&session, format), "{name}");
                    continue;
                };
                assert!(whole + Tail::BYTES > bound, "{name}: shortened without need");
                let names: Vec<_> = shortened.iter().filter_map(Json::as_str).collect();
                let order = ["long_facts", "payload", "payload_hex", "client_hello", "headers", "turns", "facts"];
                let places: Vec<_> =
                    names.iter().map(|name| order.iter().position(|known| known == name).expect("known")).collect();
                assert!(places.is_sorted(), "the least loss comes first: {names:?}");
                if names == ["long_facts"] {
                    steps.insert("long_facts".to_owned());
                    continue;
                }
                assert!(names.contains(&"payload") || session.payload.kept().is_empty(), "{name}: {names:?}");
                steps.extend(names.iter().map(|name| (*name).to_owned()));
                assert_eq!(own["payload"], "");
                let kept = hex::decode(own["payload_hex"].as_str().expect("text")).expect("hexadecimal");
                assert!(session.payload.kept().starts_with(&kept), "{name}");
                let is_lost = session.stored.is_none() && kept.len() < session.payload.received() as usize;
                assert_eq!(own["payload_truncated"], is_lost, "{name}: what has a file of its own is not lost");
            }
        }
    }
    let all = ["client_hello", "facts", "headers", "long_facts", "payload", "payload_hex"];
    assert!(all.iter().all(|step| steps.contains(*step)), "{steps:?}");
}

#[test]
fn a_step_of_the_clock_moves_no_duration_and_no_order() {
    let hour = Duration::from_secs(3600);
    let accepted = Moment::now();
    // While the session lasted two and a half seconds, the wall clock went an hour back, or a day forward.
    for wall in [accepted.wall - hour, accepted.wall + 24 * hour] {
        let mut session = sample::of_payload(b"x");
        session.accepted = accepted;
        session.end(
            CloseReason::ClientClosed,
            Moment { wall, steady: accepted.steady + Duration::from_micros(2_500_001) },
        );
        let [flat, ecs, eve] = FORMATS.map(|format| json(&logged(&session, format)));
        assert_eq!((flat["duration_us"].as_u64(), flat["duration_ms"].as_u64()), (Some(2_500_001), Some(2_500)));
        assert_eq!(ecs["event"]["duration"], 2_500_001_000_u64);
        let time = |value: &Json| value.as_str().expect("text").parse::<jiff::Timestamp>().expect("a time");
        let lasted = time(&ecs["event"]["end"]).as_microsecond() - time(&ecs["event"]["start"]).as_microsecond();
        assert_eq!(lasted, 2_500_001);
        assert_eq!(time(&ecs["event"]["start"]).as_microsecond(), unix(accepted.wall));
        assert_eq!(eve["flow"]["age"], 2);
        let first = flat["first_byte_us"].as_u64().expect("a byte came");
        assert!(first < 3_600_000_000, "{first}");
    }
}

fn unix(time: SystemTime) -> i64 {
    spip_record::entry::unix_micros(time)
}

#[test]
fn times_before_1970_are_times() {
    let before = SystemTime::UNIX_EPOCH - Duration::from_nanos(1_500_001_000);
    assert_eq!(unix(before), -1_500_001);
    let mut session = sample::of_payload(b"x");
    session.accepted.wall = before;
    let flat = logged(&session, Format::Flat);
    assert_eq!(json(&flat)["time"], "1969-12-31T23:59:58.499999Z");
    assert_eq!(read(&flat).accepted_us, -1_500_001);
}

#[test]
fn a_certificate_that_never_expires_says_so_in_every_format_and_after_reading() {
    let sample = samples().into_iter().find(|sample| sample.name == "certificate").expect("a sample");
    let [flat, ecs, eve] = FORMATS.map(|format| json(&logged(&sample.session, format)));
    assert_eq!(flat["tls_client_certificate"]["not_after"], "9999-12-31T23:59:59Z");
    assert_eq!(ecs["tls"]["client"]["not_after"], "9999-12-31T23:59:59.000000Z");
    assert_eq!(eve["tls"]["client"]["notafter"], "9999-12-31T23:59:59");
    // A record that does not say it is not made to say something else.
    let flat = String::from_utf8(logged(&sample.session, Format::Flat)).expect("UTF-8");
    let unsaid = flat.replace(r#""not_after":"9999-12-31T23:59:59Z","#, "");
    assert_ne!(flat, unsaid);
    for format in FORMATS {
        let mut line = Vec::new();
        format.encode(&read(unsaid.as_bytes()), &mut line);
        let text = String::from_utf8(line).expect("UTF-8");
        assert!(!text.contains("not_after") && !text.contains("notafter") && !text.contains("1970-01-01"), "{text}");
    }
}

#[test]
fn what_is_asked_of_an_open_proxy_is_what_ecs_shows() {
    let of = |name: &str| {
        let sample = samples().into_iter().find(|sample| sample.name == name).expect("a sample");
        json(&logged(&sample.session, Format::Ecs))
    };
    let absolute = of("absolute");
    assert_eq!(
        absolute["url"],
        serde_json::json!({
            "original": "http://u:p@www.example.org:8080/ip?x", "scheme": "http", "username": "u", "password": "p",
            "domain": "www.example.org", "port": 8080, "path": "/ip", "query": "x",
        })
    );
    assert_eq!(absolute["related"]["hosts"], serde_json::json!(["www.example.org"]));
    assert_eq!(absolute["related"]["ip"], serde_json::json!(["192.0.2.7", "198.51.100.9"]));
    let tunnel = of("tunnel");
    assert_eq!(
        tunnel["url"],
        serde_json::json!({"original": "www.example.org:443", "domain": "www.example.org", "port": 443})
    );
    assert_eq!(tunnel["related"]["hosts"], serde_json::json!(["www.example.org"]));
    // Refused connections of many sources are of no address.
    assert_eq!(of("of many sources").get("related"), None);
    let mail = of("mail");
    assert_eq!(mail["email"]["from"]["address"], serde_json::json!(["a@example.com"]));
    assert_eq!(mail["email"]["to"]["address"], serde_json::json!(["b@example.net"]));
    assert_eq!(of("failed")["error"]["message"], json(&logged(&sample::hello_for(b"x"), Format::Flat))["tls_error"]);
}

#[test]
fn a_malformed_hello_is_told_and_what_is_no_host_is_not_taken_for_one() {
    let of = |name: &str| {
        let sample = samples().into_iter().find(|sample| sample.name == name).expect("a sample");
        FORMATS.map(|format| json(&logged(&sample.session, format)))
    };
    for name in ["malformed", "malformed and off"] {
        let [flat, ecs, eve] = of(name);
        for own in [&flat, &ecs["spip"], &eve["spip"]] {
            assert_eq!(own["tls_client_hello_malformed"], "a server name of another shape", "{name}");
        }
        assert_eq!((&ecs["tls"]["client"]["server_name"], &eve["tls"]["sni"]), (&"www".into(), &"www".into()));
        assert_eq!((ecs["destination"].get("domain"), ecs["related"].get("hosts")), (None, None), "{name}");
    }
    let [flat, ecs, eve] = of("address");
    assert_eq!(flat.get("tls_client_hello_malformed"), None);
    assert_eq!((&flat["tls_server_name"], &eve["tls"]["sni"]), (&"2001:db8::99".into(), &"2001:db8::99".into()));
    assert_eq!((ecs["destination"].get("domain"), ecs["related"].get("hosts")), (None, None));
    assert_eq!(ecs["related"]["ip"], serde_json::json!(["192.0.2.7", "198.51.100.9", "2001:db8::99"]));
    let [_, ecs, eve] = of("garbage");
    assert_eq!((ecs["destination"].get("domain"), ecs["related"].get("hosts")), (None, None));
    assert_eq!(
        (&ecs["tls"]["client"]["server_name"], &eve["tls"]["sni"]),
        (&"a b\u{fffd}".into(), &"a b\u{fffd}".into())
    );
    let [_, ecs, _] = of("failed");
    assert_eq!(
        (&ecs["destination"]["domain"], &ecs["related"]["hosts"][0]),
        (&"www.example.org".into(), &"www.example.org".into())
    );
    // What is not whole is not malformed; records that break off are, also where nothing is answered.
    assert_eq!(of("torn")[0].get("tls_client_hello_malformed"), None);
    let mut session = sample::of_payload(b"");
    let reason = "another record inside the client hello";
    let handshake = crate::tls::Handshake::Failed(crate::tls::Failure::MalformedHello(reason.to_owned()));
    session.tls =
        Tls::Recognised(Box::new(crate::tls::Facts::new(b"\x16\x03\x01\x00\x04\x01\x00\x01\x00\x15", handshake)));
    assert_eq!(json(&logged(&session, Format::Flat))["tls_client_hello_malformed"], reason);
    // Whole, and it ends inside its fixed part.
    let short = b"\x16\x03\x01\x00\x06\x01\x00\x00\x02\x03\x03";
    session.tls = Tls::Recognised(Box::new(crate::tls::Facts::new(short, crate::tls::Handshake::Off)));
    let flat = json(&logged(&session, Format::Flat));
    assert_eq!(flat["tls_client_hello_malformed"], "client hello ends inside its random");
}

#[test]
fn a_list_of_protocols_that_was_cut_says_so() {
    for (name, cut) in [("many protocols", Some(true)), ("as many protocols as are listed", None)] {
        let sample = samples().into_iter().find(|sample| sample.name == name).expect("a sample");
        let [flat, ecs, eve] = FORMATS.map(|format| json(&logged(&sample.session, format)));
        assert_eq!(flat["tls_supported_protocols"].as_array().map(Vec::len), Some(64), "{name}");
        for own in [&flat, &ecs["spip"], &eve["spip"]] {
            assert_eq!(own.get("tls_supported_protocols_truncated").and_then(Json::as_bool), cut, "{name}");
        }
    }
}

#[test]
fn eve_names_host_and_port_as_suricata_does_apart_and_that_of_the_target_first() {
    for (request, hostname, port) in [
        ("GET / HTTP/1.1\r\nHost: 198.51.100.1:3018\r\n\r\n", Some("198.51.100.1"), Some(3018)),
        ("GET / HTTP/1.1\r\nHost: 198.51.100.1\r\n\r\n", Some("198.51.100.1"), None),
        ("GET / HTTP/1.1\r\nHost: [2001:db8::1]:80\r\n\r\n", Some("[2001:db8::1]"), Some(80)),
        ("GET / HTTP/1.1\r\nHost: [2001:db8::1]\r\n\r\n", Some("[2001:db8::1]"), None),
        ("GET http://a.example:8080/ HTTP/1.1\r\nHost: b.example:1\r\n\r\n", Some("a.example"), Some(8080)),
        ("GET http://a.example/ HTTP/1.1\r\nHost: b.example:1\r\n\r\n", Some("a.example"), None),
        ("CONNECT a.example:443 HTTP/1.1\r\n\r\n", Some("a.example"), Some(443)),
        ("GET / HTTP/1.1\r\n\r\n", None, None),
    ] {
        let http = &json(&logged(&sample::of_payload(request.as_bytes()), Format::Eve))["http"];
        assert_eq!((http["hostname"].as_str(), http["http_port"].as_u64()), (hostname, port), "{request}");
    }
    let http2 = samples().into_iter().filter(|sample| sample.name == "http2");
    let told = http2.map(|sample| [Format::Flat, Format::Eve].map(|format| json(&logged(&sample.session, format))));
    let with_port = told.filter_map(|[flat, eve]| {
        let (host, port) = flat["http"]["host"].as_str()?.split_once(':')?;
        assert_eq!((&eve["http"]["hostname"], eve["http"]["http_port"].to_string()), (&Json::from(host), port.into()));
        Some(())
    });
    assert!(with_port.count() > 0, "no sample has a port in its :authority");
}

#[test]
fn a_silent_client_has_no_protocol_in_eve() {
    let of = |bytes: &[u8]| json(&logged(&sample::of_payload(bytes), Format::Eve));
    assert_eq!(of(b"").get("app_proto"), None);
    assert_eq!(of(b"\x00\x01\x02")["app_proto"], "failed");
}

#[test]
fn a_list_longer_than_the_agent_writes_is_read_as_far_as_that() {
    let flat =
        String::from_utf8(logged(&sample::of_payload(b"GET / HTTP/1.1\r\nA: b\r\n\r\n"), Format::Flat)).expect("UTF-8");
    let many = |item: &str| format!("[{}{item}]", format!("{item},").repeat(100_000));
    let text = many("\"x\"");
    let lists = format!(
        r#""credentials":{},"shortened":{text},"responses":{text},"turns":{},"schema":"#,
        many("{}"),
        many(r#"{"from":"client","offset":0,"length":1,"ms":0}"#),
    );
    let pairs = many("[\"a\",\"b\"]");
    let long = flat
        .replace("\"schema\":", &lists)
        .replace(r#""headers":[["A","b"]]"#, &format!(r#""headers":{pairs},"pipelined":{pairs}"#));
    let entry = read(long.as_bytes());
    let http = entry.http.expect("a request");
    let lengths = [
        entry.credentials.len(),
        entry.shortened.len(),
        entry.responses.len(),
        entry.turns.len(),
        http.headers.len(),
        http.pipelined.len(),
    ];
    assert_eq!(lengths, [16, 16, 64, 64, 100, spip_protocol::http::PIPELINED]);
    let sample = samples().into_iter().find(|sample| sample.name == "failed").expect("a sample");
    let flat = String::from_utf8(logged(&sample.session, Format::Flat)).expect("UTF-8");
    let long = flat.replace(r#""tls_supported_protocols":["h2"]"#, &format!(r#""tls_supported_protocols":{text}"#));
    assert_ne!(flat, long);
    assert_eq!(read(long.as_bytes()).tls.and_then(|tls| tls.hello).expect("a hello").protocols.len(), 32 << 10);
}

#[test]
fn a_line_that_is_no_record_is_refused_with_its_reason() {
    let flat = String::from_utf8(logged(&sample::of_payload(b"x"), Format::Flat)).expect("UTF-8");
    let scan = String::from_utf8(scan::tests::written(&scan::tests::scan([22]), Format::Flat)).expect("UTF-8");
    let deep = format!("{{\"redis\":{}1{}}}", "[".repeat(200), "]".repeat(200));
    let wide = format!("{{\"redis\":[{}1]}}", "1,".repeat(read::MAX_VALUES));
    for (line, reason) in [
        ("", "EOF"),
        ("[]", "a JSON object"),
        ("{\"a\":1}", "schema is missing: not a record of spip/1"),
        ("{\"schema\":\"spip/1\"}", "timestamp is missing: not a record of spip/1"),
        (&flat.replace("\"spip/1\"", "\"spip/2\""), "schema is \"spip/2\", not \"spip/1\""),
        (&flat.replace("\"schema\":\"spip/1\",", ""), "schema is missing"),
        (&scan.replace("\"spip/1\"", "\"spip/2\""), "schema is \"spip/2\", not \"spip/1\""),
        (&flat[..flat.len() - 1], "EOF"),
        (&flat.replace("\"payload_hex\":\"78\"", "\"payload_hex\":\"7\""), "payload_hex: "),
        (&flat.replace("\"source_port\":", "\"source_port\":65536,\"x\":"), "source_port: "),
        (&flat.replace("\"source_ip\":", "\"source_ip\":\"1.2.3\",\"x\":"), "source_ip: "),
        (&flat.replace("\"schema\":", "\"is_tls\":true,\"schema\":"), "is_tls comes twice"),
        (&flat.replace("\"payload\":\"x\"", "\"payload\":\"\n\""), "control character"),
        (&flat.replace("\"schema\":", "\"count\":12,\"schema\":"), "first_time is missing"),
        (&flat.replace("\"schema\":", "\"last_time\":\"2026-01-01T00:00:00.000000Z\",\"schema\":"), "count is missing"),
        (&flat.replace("\"schema\":", "\"ssh_hassh\":\"a\",\"schema\":"), "ssh_client is missing"),
        (
            &flat.replace("\"schema\":", "\"ssh_client\":\"a\",\"ssh_hassh\":\"a\",\"schema\":"),
            "ssh_hassh_algorithms is missing",
        ),
        (&flat.replace("\"schema\":", "\"tls_server_name\":\"a\",\"schema\":"), "is_tls is false"),
        (&scan.replace("\"source_port_max\":", "\"x\":"), "source_port_max is missing"),
        (&scan.replace("\"destination_ports\":", "\"x\":"), "destination_ports is missing"),
        (&deep, "recursion limit"),
        (&wide, "too many values"),
    ] {
        let error = read::line(line.as_bytes()).map(drop).expect_err(line).to_string();
        assert!(error.contains(reason), "{error} for {line}");
    }
}

#[test]
fn a_hello_with_one_fingerprint_less_keeps_the_rest_in_every_format() {
    let sample = samples().into_iter().find(|sample| sample.name == "failed").expect("a sample");
    let flat = logged(&sample.session, Format::Flat);
    for gone in ["tls_ja3", "tls_ja4", "tls_ja4_r"] {
        let mut less = json(&flat);
        less.as_object_mut().expect("an object").remove(gone).expect("it was there");
        let less = less.to_string();
        for format in FORMATS {
            let mut line = Vec::new();
            format.encode(&read(less.as_bytes()), &mut line);
            let record = json(&finished(format, line));
            let of = |at: &str| record.pointer(at).cloned().unwrap_or_default();
            let (name, protocols, fingerprints) = match format {
                Format::Flat => {
                    ("/tls_server_name", "/tls_supported_protocols", ["/tls_ja3", "/tls_ja4", "/tls_ja4_r"])
                }
                Format::Ecs => (
                    "/tls/client/server_name",
                    "/spip/tls_supported_protocols",
                    ["/tls/client/ja3", "/spip/tls_ja4", "/spip/tls_ja4_r"],
                ),
                Format::Eve => ("/tls/sni", "/tls/client_alpns", ["/tls/ja3/hash", "/tls/ja4", "/spip/tls_ja4_r"]),
            };
            assert_eq!((of(name), of(protocols)), ("www.example.org".into(), vec!["h2"].into()), "{gone} {format:?}");
            assert_eq!(fingerprints.iter().filter(|at| of(at).is_string()).count(), 2, "{gone} {format:?}");
        }
    }
}

#[test]
fn other_records_and_unknown_keys_are_told_apart() {
    let other = read::line(br#"{"record_type":"log","timestamp":1,"level":"info","message":"ready"}"#);
    assert!(matches!(other, Ok(Line::Other(kind)) if kind == "log"));
    let flat = String::from_utf8(logged(&sample::of_payload(b"x"), Format::Flat)).expect("UTF-8");
    let later = flat.replace("\"schema\":", "\"added_later\":{\"a\":[1]},\"schema\":");
    assert_eq!(read(later.as_bytes()), read(flat.as_bytes()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn any_session_reads_back_as_it_was_and_fits(
        payload in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..2000),
            "(GET|POST) /[ -~]{0,40} HTTP/1\\.[01]\r\n([A-Za-z-]{1,8}: [^\r\n]{0,30}\r\n){0,4}\r\n.{0,20}".prop_map(String::into_bytes),
            "(USER|PASS|AUTH PLAIN|\\*[0-9]\r\n\\$[0-9]\r\n|SSH-2\\.0-|EHLO ).{0,60}(\r\n.{0,30}){0,4}".prop_map(String::into_bytes),
        ],
        limit in 1..3000_usize,
        micros in any::<u32>(),
        bytes_out in 0..1_u64 << 50,
    ) {
        let mut session = sample::of_payload_within(&payload, limit);
        session.duration = Duration::from_micros(u64::from(micros));
        session.bytes_out = bytes_out;
        let flat = logged(&session, Format::Flat);
        let entry = read(&flat);
        for format in FORMATS {
            let mut line = Vec::new();
            format.encode(&entry, &mut line);
            let line = finished(format, line);
            assert_printable(&line);
            let expected = logged(&session, format);
            prop_assert_eq!(String::from_utf8_lossy(&line), String::from_utf8_lossy(&expected));
        }
    }

    #[test]
    fn any_line_is_read_or_refused(line in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = read::line(&line);
    }
}
