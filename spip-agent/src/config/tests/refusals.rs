//! Everything that is refused, with the words that the operator sees.

use super::*;

#[test]
fn an_address_and_a_port_are_required() {
    let message = load("").expect_err("empty").to_string();
    assert_eq!(
        message,
        "/etc/spip/spip.toml: ip: missing; must be the IP address to listen on: \"0.0.0.0\" (all of IPv4), \"::\" \
         (all of IPv4 and IPv6) or one of this machine's own, without brackets or port\n\
         /etc/spip/spip.toml: port: missing; must be a whole number from 1 to 65535, for example port = 8080"
    );
}

#[test]
fn an_address_is_not_a_name_and_not_a_group() {
    for ip in ["localhost", "[::]", "0.0.0.0:80", "224.0.0.1", "ff02::1", "", "fe80::1%eth0"] {
        let message = load(&format!("ip = \"{ip}\"\nport = 1")).expect_err(ip).to_string();
        let start = format!("/etc/spip/spip.toml:1: ip = \"{ip}\": must be the IP address to listen on");
        assert!(message.starts_with(&start), "{message}");
    }
}

#[test]
fn a_mapped_listen_address_is_ipv4() {
    assert_eq!(loaded("ip = \"::ffff:192.0.2.1\"\nport = 1").listen.to_string(), "192.0.2.1:1");
}

#[test]
fn a_port_outside_its_bounds_is_refused() {
    for port in ["0", "65536", "-1", "99999999999999999999"] {
        let message = load(&format!("ip = \"::\"\nport = {port}")).expect_err(port).to_string();
        assert_eq!(message, format!("{FILE}:2: port = {port}: must be a whole number from 1 to 65535"));
    }
}

#[test]
fn a_wrong_type_is_named() {
    let message = load("ip = 1\nport = \"80\"").expect_err("types").to_string();
    assert!(message.contains(":1: ip = 1: is an integer; must be the IP address"), "{message}");
    assert!(message.ends_with(":2: port = \"80\": is a string; must be a whole number from 1 to 65535"), "{message}");
    assert_refused("tls = true", "tls = true: is a boolean; must be one of \"auto\", \"off\"");
    assert_refused("fsync = 1.5", "fsync = 1.5: is a float; must be one of \"never\", \"interval\", \"always\"");
    assert_refused("log_compress = []", "log_compress = []: is an array; must be one of \"none\", \"zstd\"");
    assert_refused(
        "name = {}",
        "name = {}: is a table; must be a text of at most 255 bytes without control characters",
    );
    assert_refused("log_file = 1979-05-27", "log_file = 1979-05-27: is a datetime; must be a path");
    assert_refused(
        "tls_client_certificates = \"yes\"",
        "tls_client_certificates = \"yes\": is a string; must be true or false",
    );
    assert_refused("loom = 1", "loom = 1: is an integer; must be a table, [loom]");
}

#[test]
fn a_greeting_names_its_port_and_a_dialogue() {
    let names = "\"off\", \"ftp\", \"http\", \"imap\", \"mqtt\", \"mysql\", \"pop3\", \"postgresql\", \"redis\", \"smtp\", \"ssh\", \
                 \"telnet\", \"vnc\"";
    assert_refused("greetings = { 0 = \"ftp\" }", "greetings.0: must be a port from 1 to 65535");
    assert_refused("greetings = { ftp = 21 }", "greetings.ftp: must be a port from 1 to 65535");
    assert_refused("greetings = { 21 = \"gopher\" }", &format!("greetings.21: must be one of {names}"));
    assert_refused("greetings = { 21 = 1 }", &format!("greetings.21: must be one of {names}"));
    assert_refused(
        "greetings = 21",
        "greetings = 21: is an integer; must be a table of ports and dialogues: { 2121 = \"ftp\", 23 = \"off\" }",
    );
}

#[test]
fn a_word_outside_its_choices_is_refused() {
    assert_refused("ebpf = \"on\"", "ebpf = \"on\": must be one of \"auto\", \"off\", \"required\"");
    assert_refused("tls = \"OFF\"", "tls = \"OFF\": must be one of \"auto\", \"off\"");
}

#[test]
fn a_duration_is_positive_finite_and_sane() {
    let keys = [
        "first_byte_timeout_seconds",
        "read_timeout_seconds",
        "write_timeout_seconds",
        "session_timeout_seconds",
        "drain_timeout_seconds",
        "rejected_interval_seconds",
    ];
    for key in keys {
        for value in ["-1", "0.0", "nan", "inf", "-inf", "86401", "1e400"] {
            assert_refused(
                &format!("{key} = {value}"),
                &format!("{key} = {value}: must be a number of seconds from 0.001 to 86400 (a day)"),
            );
        }
    }
    assert_refused(
        "session_timeout_seconds = 0",
        "session_timeout_seconds = 0: must be a number of seconds from 0.001 to 86400 (a day)",
    );
}

#[test]
fn a_number_outside_its_bounds_is_refused() {
    for (key, bounds, wrong) in [
        ("community_id_seed", (0_u64, 65_535_u64), "65536"),
        ("log_rotate_bytes", (0, 1_099_511_627_776), "-1"),
        ("log_rotate_seconds", (0, 315_360_000), "315360001"),
        ("log_keep_files", (0, 1_000_000), "1000001"),
        ("log_keep_bytes", (0, 9_007_199_254_740_992), "-5"),
        ("max_line_bytes", (8_192, 1_099_511_627_776), "8191"),
        ("log_queue_bytes", (65_536, 1_099_511_627_776), "65535"),
        ("ebpf_syn_entries", (64, 16_777_216), "0"),
        ("ebpf_origin_entries", (64, 16_777_216), "16777217"),
        ("payload_limit_bytes", (1, 1_073_741_824), "0"),
        ("payload_memory_bytes", (1, 1_099_511_627_776), "0"),
        ("max_sessions", (1, 16_777_216), "0"),
        ("max_sessions_per_source", (1, 16_777_216), "0"),
        ("max_sources", (1, 16_777_216), "0"),
    ] {
        let (from, to) = bounds;
        assert_refused(
            &format!("{key} = {wrong}"),
            &format!("{key} = {wrong}: must be a whole number from {from} to {to}"),
        );
    }
    for value in ["-1", "nan", "inf", "1e10"] {
        assert_refused(
            &format!("rate_limit_per_second = {value}"),
            &format!("rate_limit_per_second = {value}: must be a number from 0 to 1000000000"),
        );
    }
    assert_refused("rate_limit_burst = 0.5", "rate_limit_burst = 0.5: must be a number from 1 to 1000000000");
}

#[test]
fn one_connection_fits_into_the_memory_of_all() {
    assert_refused(
        "payload_memory_bytes = 1000",
        "payload_memory_bytes = 1000: must be at least payload_limit_bytes (65536), or no connection could fill it",
    );
}

#[test]
fn excluded_ports_are_numbers_and_ranges() {
    let accepted = "must be an array of ports from 1 to 65535 and ranges such as \"8000-8100\"";
    assert_refused("exclude_ports = 22", &format!("exclude_ports = 22: is an integer; {accepted}"));
    for (element, kind) in
        [("0", ""), ("65536", ""), ("1.5", "is a float; "), ("true", "is a boolean; "), ("[22]", "is an array; ")]
    {
        assert_refused(
            &format!("exclude_ports = [22, {element}]"),
            &format!("exclude_ports = {element}: {kind}{accepted}"),
        );
    }
    for element in ["90-80", "0-5", "1-65536", "-5", "5-", "a-b", "", "1-2-3", "+1-2", "22,23"] {
        assert_refused(
            &format!("exclude_ports = [\"{element}\"]"),
            &format!("exclude_ports = \"{element}\": {accepted}"),
        );
    }
    assert_eq!(loaded(&format!("{LEAST}exclude_ports = [\"1-65535\", 65535]")).exclude_ports, [(1, 65_535)]);
    assert_eq!(loaded(&format!("{LEAST}exclude_ports = [\" 5 - 7 \", \"9\"]")).exclude_ports, [(5, 7), (9, 9)]);
}

#[test]
fn a_misspelt_key_gets_a_suggestion() {
    for (wrong, right) in [
        ("read_timeout", "read_timeout_seconds"),
        ("log-file", "log_file"),
        ("Fsync", "fsync"),
        ("exlude_port", "exclude_ports"),
        ("certpath", "cert_path"),
        ("max_session_per_source", "max_sessions_per_source"),
    ] {
        assert_refused(&format!("{wrong} = 1"), &format!("{wrong}: unknown key; did you mean {right}?"));
    }
    assert_refused("[lom]\nx = 1", "lom: unknown table; did you mean loom?");
}

#[test]
fn an_unknown_key_gets_the_list_and_its_value_stays_unsaid() {
    let message = refusal("api_token_of_something = \"secret\"");
    assert!(
        message.starts_with("/etc/spip/spip.toml:3: api_token_of_something: unknown key; the keys are ip, port, "),
        "{message}"
    );
    assert!(!message.contains("secret"));
}

#[test]
fn all_problems_are_named_at_once_in_the_order_of_the_file() {
    let message = load("tls = 3\nip = \"x\"\nprot = 80\nfsync = \"no\"").expect_err("invalid").to_string();
    let places: Vec<&str> = message.lines().filter_map(|line| line.split(": ").nth(1)).collect();
    assert_eq!(places, ["port", "tls = 3", "ip = \"x\"", "prot", "fsync = \"no\""]);
}

#[test]
fn what_is_not_toml_is_refused_with_its_line() {
    for (lines, start) in [
        ("name = ", ":3: not valid TOML: "),
        ("port = 1", ":3: not valid TOML: duplicate key port"),
        ("\n= 1", ":4: not valid TOML"),
    ] {
        let message = refusal(lines);
        assert!(message.starts_with(&format!("{FILE}{start}")), "{message}");
    }
}

#[test]
fn a_certificate_and_its_key_come_together() {
    let files = Files::new("pair");
    for (given, other) in [("cert_path", "key_path"), ("key_path", "cert_path")] {
        let text = format!("{LEAST}{given} = \"cert.pem\"\n");
        let message = Config::from_str(&text, &files.config()).expect_err("one alone").to_string();
        let file = files.config();
        assert_eq!(
            message,
            format!("{}:3: {given} = \"cert.pem\": is given without {other}; give both, or neither", file.display())
        );
    }
}

#[test]
fn an_unreadable_certificate_is_refused() {
    let files = Files::new("missing");
    let text = format!("{LEAST}cert_path = \"no.pem\"\nkey_path = \".\"\n");
    let message = Config::from_str(&text, &files.config()).expect_err("missing").to_string();
    let (file, directory) = (files.config(), files.0.clone());
    let (file, directory) = (file.display(), directory.display());
    assert_eq!(
        message,
        format!(
            "{file}:3: cert_path = \"no.pem\": cannot read {directory}/no.pem: No such file or directory (os error 2); \
             must be a PEM file that the agent may read\n\
             {file}:4: key_path = \".\": cannot read {directory}: not a regular file; must be a PEM file that the agent \
             may read"
        )
    );
}

#[test]
fn a_certificate_that_is_not_used_is_said() {
    let files = Files::new("unused");
    let text = format!("{LEAST}tls = \"off\"\ncert_path = \"cert.pem\"\nkey_path = \"key.pem\"\n");
    let warnings = Config::from_str(&text, &files.config()).expect("valid").warnings;
    assert_eq!(
        warnings,
        [format!("{}: cert_path and key_path are not used, because tls = \"off\"", files.config().display())]
    );
}

#[test]
fn a_relative_log_file_is_in_the_working_directory() {
    let here = std::env::current_dir().expect("directory");
    assert_eq!(loaded(&format!("{LEAST}log_file = \"spip.json\"")).log.file, Some(here.join("spip.json")));
}

#[test]
fn paths_into_the_kernel_are_absolute() {
    for key in ["cgroup_path", "bpf_pin_path"] {
        assert_refused(
            &format!("{key} = \"fs/x\""),
            &format!("{key} = \"fs/x\": must be an absolute path, beginning with /"),
        );
    }
}

#[test]
fn a_path_holds_no_zero_byte() {
    assert_refused("log_file = \"a\\u0000b\"", "log_file = \"a\\u0000b\": holds a zero byte; must be a path");
}

#[test]
fn a_name_is_short_and_printable() {
    let accepted = "must be a text of at most 255 bytes without control characters";
    assert_refused("name = \"a\\nb\"", &format!("name = \"a\\nb\": {accepted}"));
    assert!(refusal(&format!("name = \"{}\"", "x".repeat(256))).ends_with(&format!("…: {accepted}")));
}

#[test]
fn a_value_in_a_message_is_one_short_line() {
    let message = refusal(&format!("tls = \"\"\"\n\x7f{}\"\"\"", "x\n".repeat(1000)));
    assert_eq!(message.lines().count(), 1);
    assert!(message.len() < 400 && !message.contains('\x7f'), "{message:?}");
}

#[test]
fn an_unreadable_file_is_named() {
    let message = Config::load(Path::new("/nonexistent/spip.toml")).expect_err("missing").to_string();
    assert_eq!(message, "cannot read the configuration /nonexistent/spip.toml: No such file or directory (os error 2)");
    let message = Config::load(Path::new("/")).expect_err("a directory").to_string();
    assert_eq!(message, "cannot read the configuration /: Is a directory (os error 21)");
}

#[test]
fn a_file_without_end_is_not_read_to_its_end() {
    let message = Config::load(Path::new("/dev/zero")).expect_err("endless").to_string();
    assert_eq!(message, "cannot read the configuration /dev/zero: not a regular file");
    let files = Files::new("large");
    std::fs::write(files.config(), vec![b'#'; (1 << 20) + 1]).expect("file");
    let message = Config::load(&files.config()).expect_err("too large").to_string();
    let file = files.config();
    assert_eq!(message, format!("{}: larger than 1048576 bytes: not a configuration file", file.display()));
}

#[test]
fn a_file_that_is_not_utf8_is_refused_with_its_line() {
    let files = Files::new("utf8");
    std::fs::write(files.config(), b"ip = \"::\"\nname = \"\xff\"\n").expect("file");
    let message = Config::load(&files.config()).expect_err("not UTF-8").to_string();
    assert_eq!(message, format!("{}:2: not valid UTF-8: a configuration file is UTF-8 text", files.config().display()));
}

#[test]
fn steering_by_sk_lookup_without_ebpf_is_a_contradiction() {
    let message = refusal("steering = \"sk_lookup\"\nebpf = \"off\"");
    let why = "is done by eBPF; remove ebpf = \"off\", or set steering = \"redirect\"";
    assert_eq!(message, format!("{FILE}:3: steering = \"sk_lookup\": {why}"));
    assert_refused("steering = \"tproxy\"", "steering = \"tproxy\": must be one of \"redirect\", \"sk_lookup\"");
}

#[test]
fn a_prefix_or_an_interface_that_cannot_be_is_refused() {
    assert_refused(
        "steer_prefixes = [\"198.51.100.7/24\"]",
        "steer_prefixes = \"198.51.100.7/24\": has bits beyond the prefix; did you mean \"198.51.100.0/24\"?",
    );
    assert_refused(
        "steer_prefixes = [24]",
        "steer_prefixes = 24: is an integer; must be an array of prefixes such as [\"198.51.100.0/24\"]",
    );
    assert_refused(
        "steer_interfaces = \"eth0\"",
        "steer_interfaces = \"eth0\": is a string; must be an array of names of interfaces such as [\"eth0\"]",
    );
    for name in ["", "a/b", "eth 0", "sixteen-bytes-16"] {
        assert_refused(
            &format!("steer_interfaces = [\"{name}\"]"),
            &format!("steer_interfaces = \"{name}\": is no name of an interface"),
        );
    }
    let many: Vec<String> = (0..1025_u32).map(|n| format!("\"10.0.{}.{}\"", n / 256, n % 256)).collect();
    let message = refusal(&format!("steer_prefixes = [{}]", many.join(",")));
    assert_eq!(message, format!("{FILE}:3: steer_prefixes: has 1025 entries; at most 1024 are accepted"));
}

#[test]
fn a_status_socket_is_an_absolute_path_or_off() {
    assert_eq!(loaded(&format!("{LEAST}status_socket = \"off\"")).status_socket, None);
    assert_refused(
        "status_socket = \"status.sock\"",
        "status_socket = \"status.sock\": must be an absolute path, beginning with /, or \"off\"",
    );
}

#[test]
fn metrics_are_read_neither_where_connections_are_taken_nor_where_the_status_is_asked() {
    for ip in ["0.0.0.0", "::", "127.0.0.1"] {
        let text = format!("ip = \"{ip}\"\nport = 9464\nmetrics = \"127.0.0.1:9464\"\n");
        let message = load(&text).expect_err(ip).to_string();
        assert_eq!(
            message,
            "/etc/spip/spip.toml:3: metrics = \"127.0.0.1:9464\": is where connections are taken (ip, port); choose \
             another port"
        );
    }
    assert_refused(
        "metrics = \"/run/spip/status.sock\"",
        "metrics = \"/run/spip/status.sock\": is the status_socket; choose another path",
    );
}

#[test]
fn a_target_that_no_message_has_is_refused_with_those_that_there_are() {
    let message = refusal("log_level = \"warn, tls=off\"");
    let start =
        format!("{FILE}:3: log_level = \"warn, tls=off\": there is no target tls; there are accept, agent, config, ");
    assert!(message.starts_with(&start), "{message}");
}

#[test]
fn messages_have_no_file_that_is_the_log_under_any_name() {
    let files = Files::new("system-log");
    let directory = files.0.display();
    std::os::unix::fs::symlink(&files.0, files.0.join("link")).expect("own directory");
    for other in [format!("{directory}/log"), format!("{directory}/link/log")] {
        assert_refused(
            &format!("system_log = \"{other}\"\nlog_file = \"{directory}/log\""),
            &format!("system_log = \"{other}\": is the log_file; for messages among the records, set \"stream\""),
        );
    }
    loaded(&format!("{LEAST}log_file = \"{directory}/log\"\nsystem_log = \"{directory}/messages\""));
}
