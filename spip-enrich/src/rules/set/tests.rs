use super::*;
use crate::requests::split;

fn rules(text: &str) -> Rules {
    let mut builder = Builder::default();
    builder.text("test", text).unwrap();
    let (rules, report) = builder.build().unwrap();
    assert_eq!(report.skipped_count(), 0, "{report}");
    rules
}

fn ids(rules: &Rules, facts: &Facts<'_>) -> Vec<u64> {
    let requests = split(facts.payload);
    rules.find(facts, &requests, &mut Scratch::default()).tags.iter().map(|tag| tag.id).collect()
}

fn matches(options: &str, payload: &[u8]) -> bool {
    let rules = rules(&format!("alert tcp any any -> any any ({options} sid:1;)"));
    !ids(&rules, &Facts { payload, ..Facts::default() }).is_empty()
}

#[test]
fn contents_have_their_places() {
    for (options, payload, expected) in [
        (r#"content:"b"; offset:1; depth:1;"#, "ab", true),
        (r#"content:"b"; offset:1; depth:1;"#, "aab", false),
        (r#"content:"B"; nocase;"#, "ab", true),
        (r#"content:"B";"#, "ab", false),
        (r#"content:"a"; startswith; content:"z"; endswith;"#, "abz", true),
        (r#"content:"a"; startswith; content:"z"; endswith;"#, "abzz", true),
        (r#"content:"z"; endswith;"#, "za", false),
        (r#"content:"a"; content:"c"; distance:1; within:1;"#, "abc", true),
        (r#"content:"a"; content:"c"; distance:1; within:1;"#, "abbc", false),
        // Only the second place of the first content fits.
        (r#"content:"a"; content:"c"; distance:1; within:1;"#, "a..abc", true),
        (r#"content:"c"; content:"a"; distance:-3; within:1;"#, "abc", true),
        (r#"content:"a"; content:!"c"; within:2;"#, "abbc", true),
        (r#"content:"a"; content:!"c"; within:2;"#, "abc", false),
        (r#"content:"a"; isdataat:!1,relative;"#, "ba", true),
        (r#"content:"a"; isdataat:2,relative;"#, "bab", false),
        (r#"content:"a"; pcre:"/^\d+x/R";"#, "a1 a12x", true),
        (r#"content:"a"; pcre:!"/\d/";"#, "ab", true),
        (r#"content:"a"; pcre:!"/\d/";"#, "a1", false),
        (r#"content:"a"; bsize:3;"#, "abc", true),
        (r#"content:"a"; dsize:>3;"#, "abc", false),
        (r#"content:"|01|"; byte_jump:1,0,relative; content:"X"; within:1;"#, "\u{1}\u{2}..X", true),
        (r#"content:"|01|"; byte_jump:1,0,relative; content:"X"; within:1;"#, "\u{1}\u{1}..X", false),
    ] {
        assert_eq!(matches(options, payload.as_bytes()), expected, "{options} on {payload:?}");
    }
}

#[test]
fn conditions_on_requests_hold_in_one_request() {
    let rules = rules(
        r#"alert http any any -> any any (http.method; content:"POST"; http.uri; content:"/login"; sid:1;)
           alert http any any -> any any (content:"evil"; http.uri; content:"/second"; sid:2;)"#,
    );
    let apart = b"GET /login HTTP/1.1\r\n\r\nPOST /other HTTP/1.1\r\nContent-Length: 0\r\n\r\n";
    assert!(ids(&rules, &Facts { payload: apart, ..Facts::default() }).is_empty());
    let together = b"GET / HTTP/1.1\r\nX: evil\r\n\r\nGET /second HTTP/1.1\r\n\r\nPOST /login HTTP/1.1\r\n\r\n";
    assert_eq!(ids(&rules, &Facts { payload: together, ..Facts::default() }), [1, 2]);
}

#[test]
fn fingerprints_and_addresses_are_conditions() {
    let rules = rules(
        r#"alert tls any any -> any any (ja3.hash; content:"e7d705a3286e19ea42f587b344ee6865"; sid:1;)
           alert tls any any -> any any (ja4.hash; content:"t13d"; startswith; sid:2;)
           alert ssh any any -> any any (ssh.software; content:"libssh"; sid:3;)
           alert ip [192.0.2.0/24,198.51.100.7] any -> $HOME_NET any (msg:"listed"; sid:4;)"#,
    );
    let facts = Facts {
        source: "192.0.2.77:5".parse().unwrap(),
        protocol: Some("ssh"),
        tls: Some(crate::facts::Tls {
            ja3: Some("e7d705a3286e19ea42f587b344ee6865"),
            ja4: Some("t13d1516h2_8daaf6152771_b0da82dd1658"),
            ..Default::default()
        }),
        ssh: Some(crate::facts::Ssh { identification: "SSH-2.0-libssh_0.9.6", ..Default::default() }),
        ..Facts::default()
    };
    assert_eq!(ids(&rules, &facts), [1, 2, 3, 4]);
    assert!(ids(&rules, &Facts::default()).is_empty());
}

#[test]
fn of_two_rules_with_one_number_the_later_revision_is_kept() {
    let mut builder = Builder::default();
    builder.text("a", r#"alert tcp any any -> any any (content:"old"; sid:1; rev:1;)"#).unwrap();
    builder.text("b", r#"alert tcp any any -> any any (content:"new"; sid:1; rev:2;)"#).unwrap();
    let (rules, report) = builder.build().unwrap();
    assert_eq!((report.taken, report.skipped_count()), (1, 1));
    assert_eq!(ids(&rules, &Facts { payload: b"new", ..Facts::default() }), [1]);
}

#[test]
fn a_rule_made_to_be_slow_is_given_up_and_the_record_says_so() {
    let chain = r#"content:"a"; content:"a"; distance:0; "#.to_owned() + &r#"content:"a"; distance:0; "#.repeat(12);
    let rules = rules(&format!(
        r#"alert tcp any any -> any any ({chain} content:"b"; distance:0; sid:1;)
        alert tcp any any -> any any (content:"aaaa"; sid:2;)"#
    ));
    // The rule is a candidate, because the last byte that it needs stands before the others.
    let payload = [&b"b"[..], &[b'a'; 4000]].concat();
    let facts = Facts { payload: &payload, ..Facts::default() };
    let started = std::time::Instant::now();
    let found = rules.find(&facts, &[], &mut Scratch::default());
    assert!(found.incomplete);
    assert_eq!(found.tags.iter().map(|tag| tag.id).collect::<Vec<_>>(), [2]);
    assert!(started.elapsed() < std::time::Duration::from_secs(5));
}

#[test]
fn tags_are_bounded_and_the_worst_come_first() {
    let text: String = (1..=100)
        .map(|sid| {
            let class = if sid == 77 { "attempted-admin" } else { "misc-activity" };
            format!("alert tcp any any -> any any (content:\"abc\"; classtype:{class}; sid:{sid};)\n")
        })
        .collect();
    let found = ids(&rules(&text), &Facts { payload: b"abc", ..Facts::default() });
    assert_eq!(found.len(), TAGS);
    assert_eq!(found[..2], [77, 1]);
}

#[test]
fn a_scratch_serves_another_set() {
    let (first, second) = (
        rules(r#"alert tcp any any -> any any (pcre:"/abc/"; sid:1;)"#),
        rules(r#"alert tcp any any -> any any (pcre:"/abd/"; sid:2;)"#),
    );
    let mut scratch = Scratch::default();
    let facts = Facts { payload: b"abd", ..Facts::default() };
    assert!(first.find(&facts, &[], &mut scratch).tags.is_empty());
    assert_eq!(second.find(&facts, &[], &mut scratch).tags[0].id, 2);
}

mod any_bytes {
    use proptest::prelude::*;

    use super::*;

    /// Tries every rule on every request, without a search for texts that could exclude it, and without a budget.
    fn without_filters(rules: &Rules, facts: &Facts<'_>) -> Vec<u64> {
        let requests = split(facts.payload);
        let mut scratch = Scratch::default();
        scratch.prepare(rules);
        let mut search = Search {
            rules,
            values: Values::new(facts, &requests, &rules.views),
            scratch: &mut scratch,
            budget: Budget { record: u32::MAX, rule: RULE_STEPS, exhausted: false },
            found: Vec::new(),
            candidates: Vec::new(),
        };
        let mut found: Vec<u64> = Vec::new();
        for rule in &rules.rules {
            let turns = if rule.of_request { requests.len() } else { 1 };
            if (0..turns).any(|request| search.holds(rule, request)) {
                found.push(rule.tag.id);
            }
        }
        assert!(!search.budget.exhausted);
        found.sort_unstable();
        found
    }

    /// Words that rules and payloads share, some within others, in both cases.
    fn word() -> impl Strategy<Value = &'static str> {
        proptest::sample::select(vec![
            "a", "ab", "aba", "abab", "B", "/a", "/aB/", "id=", "id=1", "wget", "GET", "|00|", "|ff 0a|", "x-",
            "uNiOn", "select",
        ])
    }

    /// Conditions of one rule.
    fn conditions() -> impl Strategy<Value = String> {
        let buffer = proptest::sample::select(vec![
            "",
            "",
            "",
            "http.uri; ",
            "http.header; ",
            "http.request_body; ",
            "http.request_body; url_decode; ",
            "tls.sni; ",
        ]);
        let modifier = proptest::sample::select(vec![
            "",
            "",
            "",
            " nocase;",
            " nocase;",
            " fast_pattern;",
            " distance:0;",
            " within:6;",
            " offset:1;",
            " depth:9;",
            " endswith;",
        ]);
        let condition = (word(), modifier, 0..12u8).prop_map(|(word, modifier, kind)| match kind {
            0 => format!("content:!\"{word}\"; "),
            1 => "pcre:\"/[a-b]+\\x00?/\"; ".to_owned(),
            2 => "pcre:\"/id=[0-9]*W/Ri\"; ".to_owned(),
            3 => "pcre:!\"/un.on\\+?select/i\"; ".to_owned(),
            _ => format!("content:\"{word}\";{modifier} "),
        });
        let group = (buffer, proptest::collection::vec(condition, 1..4))
            .prop_map(|(buffer, conditions)| format!("{buffer}{}", conditions.concat()));
        proptest::collection::vec(group, 1..3).prop_map(|groups| groups.concat())
    }

    /// A payload of those words: requests, or any bytes.
    fn payload() -> impl Strategy<Value = Vec<u8>> {
        let words = || {
            proptest::collection::vec((word(), any::<bool>()), 0..8).prop_map(|words| {
                let text: String = words
                    .iter()
                    .map(|(word, upper)| if *upper { word.to_uppercase() } else { (*word).to_owned() })
                    .collect();
                text.replace("|00|", "\0").replace("|FF 0A|", "%0a").into_bytes()
            })
        };
        let request = (words(), words(), words()).prop_map(|(target, header, body)| {
            let length = body.len().to_string().into_bytes();
            [
                &b"POST /"[..],
                &target,
                b" HTTP/1.1\r\nX-A: ",
                &header,
                b"\r\nContent-Length: ",
                &length,
                b"\r\n\r\n",
                &body,
            ]
            .concat()
        });
        (words(), proptest::collection::vec(request, 0..3))
            .prop_map(|(tail, requests)| [requests.concat(), tail].concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn the_filters_exclude_no_rule_that_matches(
            conditions in proptest::collection::vec(conditions(), 1..40),
            payloads in proptest::collection::vec(payload(), 1..6),
        ) {
            let mut builder = Builder::default();
            for (index, conditions) in conditions.iter().enumerate() {
                let class = "classtype:misc-activity;";
                builder.text("made", &format!("alert ip any any -> any any ({conditions}{class} sid:{};)", index + 1)).unwrap();
            }
            let (rules, _) = builder.build().unwrap();
            // The same scratch for all: what it keeps changes no answer.
            let mut scratch = Scratch::default();
            for payload in payloads.iter().chain(payloads.iter().rev()) {
                let tls = crate::facts::Tls { server_name: Some("ab.UNION.example"), ..Default::default() };
                let facts = Facts { payload, tls: Some(tls), ..Facts::default() };
                let found = rules.find(&facts, &split(payload), &mut scratch);
                let ids: Vec<u64> = found.tags.iter().map(|tag| tag.id).collect();
                let expected = without_filters(&rules, &facts);
                prop_assert!(!found.incomplete);
                prop_assert_eq!(ids, expected.into_iter().take(TAGS).collect::<Vec<_>>());
            }
        }
    }

    proptest! {
        #[test]
        fn a_rule_of_any_text_is_taken_or_refused(text in "[ -~]{0,120}") {
            let mut builder = Builder::default();
            builder.text("any", &text).unwrap();
            builder.text("any", &format!("alert tcp any any -> any any ({text}; sid:1;)")).unwrap();
            builder.text("any", &format!("alert tcp any any -> any any (content:\"{text}\"; sid:1;)")).unwrap();
            builder.text("any", &format!("alert tcp any any -> any any (pcre:\"/{text}/\"; sid:1;)")).unwrap();
            let (rules, _) = builder.build().unwrap();
            let payload = text.as_bytes();
            let _ = rules.find(&Facts { payload, ..Facts::default() }, &split(payload), &mut Scratch::default());
        }
    }
}
