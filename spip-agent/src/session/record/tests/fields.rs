//! ECS and EVE have only fields that their specifications define, and the index templates map all of them.

use super::schemas::{KINDS, lines, schema};
use super::*;

#[test]
fn ecs_uses_only_fields_that_are_defined_with_their_types() {
    let definitions: Json =
        serde_json::from_str(include_str!("../../../../../spip-record/fixtures/ecs/fields.json")).expect("fixture");
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
        serde_json::from_str(include_str!("../../../../../spip-record/fixtures/eve/fields.json")).expect("fixture");
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
        serde_json::from_str(include_str!("../../../../../spip-record/fixtures/ecs/fields.json")).expect("fixture");
    let template: Json =
        serde_json::from_str(include_str!("../../../../../docs/schema/ecs-template.json")).expect("JSON");
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
    let template = include_str!("../../../../../docs/schema/eve-component-template.json");
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
                let bytes = ["payload_hex", "tls_client_hello_hex", "syn_data_hex"];
                let is_bytes = bytes.iter().any(|name| path.ends_with(name));
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
