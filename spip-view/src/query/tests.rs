//! Tests of the parser and of decisions about rows; conditions of SQL are tested where there is a store.

use super::*;

fn term(text: &str) -> Test {
    match Query::parse(text).unwrap().expr() {
        Expr::Term(term) => term.test.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn and_binds_more_than_or_and_may_be_left_out() {
    let parsed = |text: &str| Query::parse(text).unwrap().expr().clone();
    assert_eq!(parsed("port:1 port:2 or port:3"), parsed("(port:1 and port:2) OR port:3"));
    assert_ne!(parsed("port:1 and (port:2 or port:3)"), parsed("port:1 and port:2 or port:3"));
    assert_eq!(parsed("not port:1 port:2"), parsed("(not port:1) and port:2"));
    assert_eq!(parsed("port!=1"), parsed("not port:1"));
}

#[test]
fn numbers_have_ranges_and_an_order() {
    assert_eq!(term("port:22"), Test::Within(22, 22));
    assert_eq!(term("port:1-1024"), Test::Within(1, 1024));
    assert_eq!(term("bytes_in>10"), Test::Within(11, i64::MAX as u64));
    assert_eq!(term("bytes_in<=10"), Test::Within(0, 10));
    assert_eq!(term("bytes_in<0"), Test::Within(1, 0));
    assert_eq!(term("protocol:*"), Test::Exists);
}

#[test]
fn addresses_have_prefixes() {
    let net = |text: &str| match term(&format!("source:{text}")) {
        Test::Network(first, last) => format!("{first} {last}"),
        other => panic!("{other:?}"),
    };
    assert_eq!(net("198.51.100.77/24"), "198.51.100.0 198.51.100.255");
    assert_eq!(net("0.0.0.0/0"), "0.0.0.0 255.255.255.255");
    assert_eq!(net("2001:db8::1"), "2001:db8::1 2001:db8::1");
    assert_eq!(net("::/0"), ":: ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
    assert_eq!(net("::ffff:192.0.2.1/128"), "192.0.2.1 192.0.2.1");
}

#[test]
fn a_prefix_fits_addresses_of_its_family_from_its_first_to_its_last() {
    let fits = |query: &str, address: &str| eval::address(&term(&format!("source:{query}")), address.parse().unwrap());
    for (query, inside, outside) in [
        (
            "198.51.100.0/24",
            ["198.51.100.0", "198.51.100.255"].as_slice(),
            ["198.51.99.255", "198.51.101.0", "::c633:6401", "2001:db8::1"].as_slice(),
        ),
        ("0.0.0.0/0", &["0.0.0.0", "255.255.255.255"], &["::", "::1", "ffff::"]),
        ("::/0", &["::", "::1", "ffff:ffff::"], &["0.0.0.0", "0.0.0.1", "255.255.255.255"]),
        ("2001:db8::/64", &["2001:db8::", "2001:db8::ffff:ffff:ffff:ffff"], &["2001:db8:0:1::", "32.1.13.184"]),
    ] {
        assert!(inside.iter().all(|address| fits(query, address)), "{query}");
        assert!(!outside.iter().any(|address| fits(query, address)), "{query}");
    }
}

#[test]
fn texts_are_quoted_escaped_and_have_stars() {
    assert_eq!(term("payload:\"a\\x00\\n\\*\""), Test::Equals(b"a\0\n*".to_vec()));
    assert_eq!(term("user_agent:Mozilla*X"), Test::Like(vec![b"mozilla".to_vec(), b"x".to_vec()]));
    assert_eq!(term("payload~\"WGET \""), Test::Contains(b"wget ".to_vec()));
    assert_eq!(term("path:\"GET /a?b=(c\""), Test::Equals(b"GET /a?b=(c".to_vec()));
    assert_eq!(term("ssh_client:SSH-2.0-Go"), Test::Equals(b"SSH-2.0-Go".to_vec()));
    assert_eq!(term("session:8c5f2c9e-11"), Test::Prefix("8c5f2c9e11".to_owned()));
}

#[test]
fn an_error_points_at_the_place() {
    for (text, at, part) in [
        ("prot:22", 0, "did you mean protocol?"),
        ("zzz:22", 0, "fields are source"),
        ("port:x", 5, "takes a number"),
        ("port:70-22", 5, "takes a number"),
        ("source:1.2.3", 7, "takes an address"),
        ("source:1.2.3.4/33", 7, "takes an address"),
        ("tls:maybe", 4, "true or false"),
        ("protocol>5", 9, "has no order"),
        ("port:", 4, "value is missing"),
        ("(port:22", 0, "add )"),
        ("port:22)", 7, "never opened"),
        ("port:22 and", 11, "something is missing"),
        ("ä \"abc", 2, "no end"),
        ("payload:\"\\q\"", 9, "unknown escape"),
        ("", 0, "something is missing"),
    ] {
        let error = Query::parse(text).expect_err(text);
        assert_eq!(error.at, at, "{text}: {error}");
        assert!(error.message.contains(part), "{text}: {error}");
        assert!(error.length > 0, "{text}");
    }
}

#[test]
fn a_query_is_bounded() {
    assert!(Query::parse(&"(".repeat(40)).unwrap_err().message.contains("more than 32"));
    assert!(Query::parse(&"not ".repeat(40)).unwrap_err().message.contains("more than 32"));
    assert!(Query::parse(&"a ".repeat(65)).unwrap_err().message.contains("more than 64"));
    assert!(Query::parse(&"a".repeat(3000)).unwrap_err().message.contains("longer than"));
}

mod properties {
    use proptest::prelude::*;

    use super::super::*;

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,80}") {
            if let Err(error) = Query::parse(&text) {
                prop_assert!(error.at <= text.chars().count());
            }
        }

        #[test]
        fn what_is_quoted_is_read_as_it_was(text in "[ -~äß€\\n\\t\\x00*\"\\\\]{0,40}") {
            let query = Query::parse(&format!("host:{}", quote(&text))).unwrap();
            let expected = Expr::Term(Term { field: Field::named("host").unwrap(), test: Test::Equals(text.into_bytes()) });
            prop_assert_eq!(query.expr(), &expected);
        }
    }
}

#[test]
fn each_field_is_documented_and_its_example_is_a_query() {
    let page = include_str!("../../../docs/view.md");
    for field in FIELDS {
        let operator = if field.example.starts_with(['<', '>']) { "" } else { ":" };
        Query::parse(&format!("{}{operator}{}", field.name, field.example))
            .unwrap_or_else(|error| panic!("{}: {error}", field.name));
        let line = page.lines().find(|line| line.starts_with(&format!("| `{}`", field.name)));
        assert!(line.is_some_and(|line| line.contains(field.meaning)), "{} in docs/view.md", field.name);
        assert!(field.alias.is_empty() || line.is_some_and(|line| line.contains(&format!("`{}`", field.alias))));
    }
}
