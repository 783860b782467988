//! Every mistake names its key.

use super::*;

const HEAD: &str = "log = \"/var/log/spip/spip.jsonl\"\nstate_dir = \"/var/lib/spip-ship\"\n";

pub(crate) fn parse(text: &str) -> Result<Config, String> {
    let raw: Raw = toml::from_str(text).map_err(|error| error.to_string())?;
    Config::from_raw(raw).map_err(|mistake| format!("{}: {}", mistake.key, mistake.message))
}

fn with_sink(keys: &str) -> Result<Config, String> {
    parse(&format!("{HEAD}[[sink]]\n{keys}"))
}

#[test]
fn the_smallest_configuration_has_the_documented_defaults() {
    let config = with_sink("kind = \"nats\"\nurl = \"nats://127.0.0.1:4222\"\nstream = \"SPIP\"").expect("accepted");
    let sink = &config.sinks[0];
    assert_eq!((sink.name.as_str(), sink.limits.bytes), ("nats", 512 * 1024));
    assert_eq!(sink.limits.time.as_millis(), 1_000);
    let Kind::Nats(nats) = &sink.kind else { panic!("kind = nats") };
    assert_eq!(nats.access.subject_prefix, "spip.records");
    assert_eq!(nats.compression, Compression::Zstd);
    assert!(nats.wanted.create);
}

#[test]
fn each_mistake_names_the_key_and_what_is_accepted() {
    let cases = [
        ("kind = \"kafka\"", "sink.kind: \"kafka\" is not accepted: nats, clickhouse, elasticsearch, http, files"),
        ("kind = \"nats\"", "sink.url: is missing"),
        ("kind = \"nats\"\nurl = \"http://x\"", "sink.url: \"http://x\" is not accepted"),
        ("kind = \"nats\"\nurl = \"nats://u:p@x\"", "sink.url: must not have a user or password"),
        ("kind = \"http\"\nurl = \"https://u@x/\"", "sink.url: must not have a user or password"),
        ("kind = \"http\"\nurl = \"http://x\"\nstream = \"S\"", "sink.stream: is no key of kind = \"http\""),
        ("kind = \"files\"", "sink.path: is missing"),
        ("kind = \"nats\"\nurl = \"nats://x\"\ncert_file = \"/a\"", "sink.key_file: is missing"),
        ("kind = \"nats\"\nurl = \"nats://x\"\nbatch_bytes = 1", "sink.batch_bytes: 1 is not accepted: 4096 to"),
        ("kind = \"nats\"\nurl = \"nats://x\"\nsubject_prefix = \"a.*\"", "sink.subject_prefix: tokens of"),
        ("kind = \"clickhouse\"\nurl = \"http://x\"\ntable = \"a;b\"", "sink.table: letters, digits"),
        ("kind = \"clickhouse\"\nurl = \"http://x\"\ndeduplication = \"no\"", "sink.deduplication: \"no\""),
        ("kind = \"elasticsearch\"\nurl = \"http://x\"\nindex = \"../x\"", "sink.index: lower-case"),
        ("kind = \"nats\"\nurl = \"nats://x\"\ntoken = \"s\"", "unknown field `token`"),
    ];
    for (keys, expected) in cases {
        let error = with_sink(keys).expect_err(keys);
        assert!(error.contains(expected), "{keys}\n{error}\n{expected}");
    }
    let twice = with_sink("kind = \"files\"\npath = \"/a\"\n[[sink]]\nkind = \"files\"\npath = \"/b\"");
    assert!(twice.expect_err("one name twice").contains("two sinks are called \"files\""));
    assert!(parse(HEAD).expect_err("no sink").contains("sink: is missing"));
}

#[test]
fn a_hub_reads_a_stream_and_does_not_write_one() {
    let hub = "state_dir = \"/s\"\n[source]\nkind = \"nats\"\nurl = [\"nats://a\", \"nats://b\"]\n[[sink]]\n";
    let config = parse(&format!("{hub}kind = \"files\"\npath = \"/hub\"")).expect("accepted");
    let Source::Nats(source) = config.source else { panic!("source of kind nats") };
    assert_eq!(source.access.urls.len(), 2);
    assert!(source.check_names);
    let error = parse(&format!("{hub}kind = \"nats\"\nurl = \"nats://a\"")).expect_err("a circle");
    assert!(error.contains("a stream is no sink for a stream"), "{error}");
}

#[test]
fn a_source_has_the_keys_of_a_server_and_none_of_a_sink() {
    let files = "[[sink]]\nkind = \"files\"\npath = \"/hub\"";
    let source = |keys: &str| parse(&format!("state_dir = \"/s\"\n[source]\n{keys}\n{files}"));
    let cases = [
        ("kind = \"kafka\"", "source.kind: \"kafka\" is not accepted: nats"),
        ("kind = \"nats\"", "source.url: is missing"),
        ("kind = \"nats\"\nurl = \"tls://u@x\"", "source.url: must not have a user or password"),
        ("kind = \"nats\"\nurl = \"nats://x\"\nname = \"n\"", "source.name: is no key of kind = \"nats\""),
        ("kind = \"nats\"\nurl = \"nats://x\"\nbatch_bytes = 4096", "source.batch_bytes: is no key"),
        ("kind = \"nats\"\nurl = \"nats://x\"\ncompression = \"none\"", "source.compression: is no key"),
        ("kind = \"nats\"\nurl = \"nats://x\"\nreplicas = 9", "source.replicas: 9 is not accepted: 1 to 5"),
        ("kind = \"nats\"\nurl = \"nats://x\"\nconsumer = \"a.b\"", "source.consumer: letters, digits"),
    ];
    for (keys, expected) in cases {
        let error = source(keys).expect_err(keys);
        assert!(error.contains(expected), "{keys}\n{error}\n{expected}");
    }
    let sink = with_sink("kind = \"nats\"\nurl = \"nats://x\"\nconsumer = \"c\"").expect_err("a key of a source");
    assert!(sink.contains("sink.consumer: is no key of kind = \"nats\""), "{sink}");
}

#[test]
fn a_mistake_of_toml_is_one_line_with_its_number() {
    let text = "log = \"a\"\nstate_dir = \"b\"\n[[sink]]\nkind = \"files\"\ndirectory = \"c\"\n";
    let error = toml::from_str::<Raw>(text).err().expect("an unknown key");
    let said = one_line(text, &error);
    assert!(
        said.starts_with("line 5: unknown field `directory`, expected one of `kind`") && !said.contains('\n'),
        "{said}"
    );
}
