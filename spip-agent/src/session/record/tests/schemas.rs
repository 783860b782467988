//! Lines, their schemas and their documentation name the same fields.

use super::*;

/// Kinds of lines of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Session,
    Scan,
    Log,
}

pub(super) const KINDS: [Kind; 3] = [Kind::Session, Kind::Scan, Kind::Log];

/// The schema that users get, and that every line of the end-to-end tests is held against, too.
pub(super) fn schema(format: Format, kind: Kind) -> (Json, jsonschema::Validator) {
    let text = match (format, kind) {
        (Format::Flat, Kind::Session) => include_str!("../../../../../docs/schema/flat.schema.json"),
        (Format::Flat, Kind::Scan) => include_str!("../../../../../docs/schema/flat-scan.schema.json"),
        (Format::Flat, Kind::Log) => include_str!("../../../../../docs/schema/flat-log.schema.json"),
        (Format::Ecs, Kind::Session) => include_str!("../../../../../docs/schema/ecs.schema.json"),
        (Format::Ecs, Kind::Scan) => include_str!("../../../../../docs/schema/ecs-scan.schema.json"),
        (Format::Ecs, Kind::Log) => include_str!("../../../../../docs/schema/ecs-log.schema.json"),
        (Format::Eve, Kind::Session) => include_str!("../../../../../docs/schema/eve.schema.json"),
        (Format::Eve, Kind::Scan) => include_str!("../../../../../docs/schema/eve-scan.schema.json"),
        (Format::Eve, Kind::Log) => include_str!("../../../../../docs/schema/eve-log.schema.json"),
    };
    let schema = serde_json::from_str(text).expect("a schema is JSON");
    let validator = jsonschema::validator_for(&schema).expect("a schema is one");
    (schema, validator)
}

/// Lines of a kind, each with its name: all that this kind can have is in one of them.
pub(super) fn lines(format: Format, kind: Kind) -> Vec<(String, Json)> {
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
            let names = ["one", "many", "rest", "with data"].into_iter();
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
    let text = include_str!("../../../../../docs/schema/eve-alert.schema.json");
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

/// A scan of few ports, one of many, what has no record of its own, and one with data.
pub(super) fn scan_samples() -> [scan::Scan; 4] {
    let one = scan::tests::scan([22, 23, 80]);
    let mut many = scan::tests::scan((0..=u16::MAX).filter(|port| port % 2 == 1));
    many.shown.as_mut().expect("a source").syn = sample::syn();
    let rest = scan::Scan { source: [0; 4].into(), undecided: 9, shown: None, ..one.clone() };
    let mut with_data = one.clone();
    let shown = with_data.shown.as_mut().expect("a source");
    shown.syn = sample::syn_with_cookie();
    let bytes = b"GET / HTTP/1.0\r\n\r\n".as_slice().into();
    shown.data = Some(Box::new(scan::ScanData { count: 2, length: 18, bytes }));
    [one, many, rest, with_data]
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
    let page = include_str!("../../../../../docs/records.md");
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
    let page = include_str!("../../../../../README.md");
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
    let page = include_str!("../../../../../docs/scans.md");
    let (schema, _) = schema(Format::Flat, Kind::Scan);
    let names = schema["properties"].as_object().expect("an object").keys();
    let missing: Vec<_> = names.filter(|name| !page.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "docs/scans.md lacks {missing:?}");
}

pub(super) fn heading(format: Format) -> &'static str {
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
