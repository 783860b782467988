//! Invariants of all formats: one record in three formats, safe text, bounded lines, times that no clock moves.

mod corpus;
mod fields;
mod reading;
pub(crate) mod sample;
mod schemas;

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
                assert_eq!(own["payload"], String::from_utf8_lossy(&payload).replace('\0', "␀"), "{format:?}");
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
