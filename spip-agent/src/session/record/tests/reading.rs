//! Lines that are read back: what is kept, what is refused, and any bytes at all.

use super::*;

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
