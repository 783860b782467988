use super::*;

fn parsed(line: &str) -> Result<Command, clap::Error> {
    parse(line.split(' ').map(OsString::from))
}

fn refused(line: &str) -> (ErrorKind, String) {
    let error = parsed(line).expect_err("a mistake");
    (error.kind(), error.to_string())
}

fn rules_command(action: rules::Action, config: Option<&str>, options: rules::Options) -> Command {
    Command::Rules { action, config: config.map(PathBuf::from), options }
}

#[test]
fn the_definition_is_sound() {
    Arguments::command().debug_assert();
}

#[test]
fn the_configuration_is_named_with_one_dash_or_two() {
    for line in ["x --config f", "x -config f", "x -config=f", "x --config=f", "x -c f"] {
        let expected = Command::Run { config: "f".into(), ebpf_log: LevelFilter::Off };
        assert_eq!(parsed(line).expect(line), expected);
    }
}

#[test]
fn a_path_that_is_not_utf8_is_a_path() {
    use std::os::unix::ffi::OsStringExt as _;
    let arguments = [OsString::from("x"), OsString::from_vec(b"-config=\xff".to_vec())];
    let expected = Command::Run { config: OsString::from_vec(vec![0xff]).into(), ebpf_log: LevelFilter::Off };
    assert_eq!(parse(arguments).expect("a path"), expected);
}

#[test]
fn the_level_of_kernel_messages_is_one_of_six() {
    for (name, ebpf_log) in [
        ("off", LevelFilter::Off),
        ("error", LevelFilter::Error),
        ("warn", LevelFilter::Warn),
        ("info", LevelFilter::Info),
        ("debug", LevelFilter::Debug),
        ("trace", LevelFilter::Trace),
    ] {
        let line = format!("x -config f --ebpf-log {name}");
        assert_eq!(parsed(&line).expect(name), Command::Run { config: "f".into(), ebpf_log });
    }
    let (kind, text) = refused("x -config f --ebpf-log loud");
    assert_eq!(kind, ErrorKind::InvalidValue);
    assert!(text.contains("[possible values: off, error, warn, info, debug, trace]"), "{text}");
}

#[test]
fn a_check_is_not_a_run() {
    assert_eq!(parsed("x --check -config f").expect("valid"), Command::Check { config: "f".into() });
}

#[test]
fn without_a_configuration_the_mistake_says_what_to_do() {
    for line in ["x", "x --check", "x rules show", "x rules install --yes"] {
        let (kind, text) = refused(line);
        assert_eq!(kind, ErrorKind::MissingRequiredArgument);
        assert!(text.contains("name it with --config FILE"), "{text}");
    }
}

#[test]
fn rules_take_the_configuration_before_or_after() {
    let options = rules::Options { local: true, ..rules::Options::default() };
    let expected = rules_command(rules::Action::Show, Some("f"), options);
    for line in ["x rules show --config f --local", "x -config f rules show --local", "x rules -config=f show --local"]
    {
        assert_eq!(parsed(line).expect(line), expected);
    }
}

#[test]
fn rules_are_installed_with_their_options() {
    let options = rules::Options { local: true, include_listening: true, yes: true };
    let expected = rules_command(rules::Action::Install, Some("f"), options);
    assert_eq!(parsed("x rules install -config f --local --include-listening --yes").expect("valid"), expected);
}

#[test]
fn rules_are_removed_without_a_configuration() {
    let expected = rules_command(rules::Action::Remove, None, rules::Options::default());
    assert_eq!(parsed("x rules remove").expect("valid"), expected);
    let options = rules::Options { local: true, yes: true, ..rules::Options::default() };
    let expected = rules_command(rules::Action::Remove, Some("f"), options);
    assert_eq!(parsed("x rules remove --local --yes -config f").expect("valid"), expected);
}

#[test]
fn the_status_is_asked_with_or_without_a_configuration() {
    assert_eq!(parsed("x status").expect("valid"), Command::Status { config: None, json: false });
    let expected = Command::Status { config: Some("f".into()), json: true };
    for line in ["x status --json -config f", "x --config f status --json"] {
        assert_eq!(parsed(line).expect(line), expected);
    }
}

#[test]
fn what_belongs_to_the_agent_is_refused_beside_a_subcommand() {
    for line in ["x --check rules show -config f", "x --ebpf-log info rules show -config f"] {
        assert_eq!(refused(line).0, ErrorKind::ArgumentConflict);
    }
}

#[test]
fn a_log_is_converted_without_a_configuration() {
    let request = convert::Request {
        to: convert::Target::Zeek,
        enrich: convert::Enrich::default(),
        output: Some("o.gz".into()),
        max_line_bytes: convert::MAX_LINE_BYTES,
        files: vec!["a".into(), "b.zst".into()],
    };
    for line in [
        "x convert --from flat --to zeek -o o.gz a b.zst",
        "x -config f convert --to zeek -o o.gz a b.zst",
        "x convert -config f --to zeek -o o.gz a b.zst",
    ] {
        assert_eq!(parsed(line).expect("valid"), Command::Convert(request.clone()), "{line}");
    }
    assert_eq!(refused("x convert --to csv").0, ErrorKind::InvalidValue);
    assert_eq!(refused("x convert --from ecs --to eve").0, ErrorKind::InvalidValue);
    assert_eq!(refused("x convert a").0, ErrorKind::MissingRequiredArgument);
}

#[test]
fn help_says_what_the_configuration_is_and_does_not_offer_it_where_it_is_not_used() {
    for line in ["x convert --help", "x rules remove --help"] {
        assert!(!refused(line).1.contains("--config"), "{line}");
    }
    for (line, text) in [
        ("x init --help", "-c, --config <FILE> The same as --output"),
        ("x rules show --help", "-c, --config <FILE> The configuration, a TOML file"),
        ("x convert --help", "Write a log in another format"),
        ("x rules remove --help", "Remove exactly the rules that install made"),
    ] {
        let help = refused(line).1.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(help.contains(text), "{text} is missing in the help of {line}: {help}");
    }
}

#[test]
fn the_configuration_of_init_is_the_file_to_write() {
    let expected =
        |name: &str| Command::Init { options: init::Options { output: Some(name.into()), ..Default::default() } };
    for line in ["x init -config f", "x -config f init", "x init --output f", "x init -o f -c g", "x -c g init -o f"] {
        assert_eq!(parsed(line).expect(line), expected("f"), "{line}");
    }
}

#[test]
fn what_is_unknown_is_refused() {
    assert_eq!(refused("x -config f --chekc").0, ErrorKind::UnknownArgument);
    assert_eq!(refused("x rules flush").0, ErrorKind::InvalidSubcommand);
    assert_eq!(refused("x --help").0, ErrorKind::DisplayHelp);
    assert_eq!(refused("x --version").0, ErrorKind::DisplayVersion);
}
