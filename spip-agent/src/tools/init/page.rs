//! The file: every key in the order of the effective configuration, each with its meaning. What was answered is set,
//! what was not is a comment with its default.

use std::collections::BTreeMap;
use std::path::Path;

use toml::Value;

use super::answers::Answers;
use crate::config::{Config, keys};

const HEAD: &str = "\
# Configuration of the sensor spip-agent, in TOML.
#
#   spip-agent --config FILE --check     is it right, and what holds where it says nothing?
#   spip-agent doctor --config FILE      does this machine offer what it asks for?
#
# A line that begins with # and a key shows the default of that key, or an example where there is none: without the #
# it holds. Pages such as records.md are in docs, or in /usr/share/doc/spip-agent/docs.
";

/// The file for these answers.
pub(super) fn page(answers: &Answers) -> String {
    let set = set(answers);
    let text: String = set.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
    // What cannot be loaded is refused when the page is loaded; its defaults are those of a file that can.
    let config = Config::from_str(&text, Path::new("/spip.toml"))
        .or_else(|_| Config::from_str("ip = \"::\"\nport = 1\n", Path::new("/spip.toml")));
    let effective = config.map(|loaded| loaded.config.to_toml()).unwrap_or_default();
    let mut page = HEAD.to_owned();
    for line in effective.lines() {
        entry(&mut page, line, &set, &why(answers));
    }
    page
}

/// The file that a package installs: nothing of the machine on which it was made.
#[must_use]
pub fn packaged() -> String {
    let answers = Answers {
        name: Some("sensor".to_owned()),
        ip: std::net::Ipv6Addr::UNSPECIFIED.into(),
        port: super::detect::PORT,
        log_file: Some("/var/log/spip/spip.jsonl".into()),
        rotate_bytes: 256_000_000,
        keep_bytes: 5_120_000_000,
        user: Some(super::detect::USER.to_owned()),
        // The one that steers nothing until the operator installs rules.
        steering: "redirect".to_owned(),
        steering_reason: "nothing is steered until rules are installed".to_owned(),
        outgoing: None,
        ssh: super::ssh::Ports::new(),
        exclude: vec!["22".to_owned()],
    };
    // The name of a host is not the package's to know.
    page(&answers).replacen("\nname = \"sensor\"\n", "\n#name = \"sensor\"\n", 1)
}

/// Keys that are set, with their values as TOML.
fn set(answers: &Answers) -> BTreeMap<&'static str, String> {
    let text = |text: &str| Value::from(text).to_string();
    let mut set = BTreeMap::from([("ip", text(&answers.ip.to_string())), ("port", answers.port.to_string())]);
    if let Some(name) = &answers.name {
        set.insert("name", text(name));
    }
    set.insert("steering", text(&answers.steering));
    let own = answers.outgoing.iter().filter(|_| answers.steering == "sk_lookup");
    let excluded: Vec<String> =
        answers.ssh.keys().map(u16::to_string).chain(answers.exclude.iter().chain(own).cloned()).collect();
    set.insert("exclude_ports", format!("[{}]", excluded.join(", ")));
    if let Some(file) = &answers.log_file {
        set.insert("log_file", text(&file.to_string_lossy()));
        set.insert("log_rotate_bytes", answers.rotate_bytes.to_string());
        set.insert("log_keep_files", "0".to_owned());
        set.insert("log_keep_bytes", answers.keep_bytes.to_string());
        set.insert("log_compress", text("zstd"));
    }
    if let Some(user) = &answers.user {
        set.insert("user", text(user));
    }
    set
}

/// Returns further comments on keys for this machine.
fn why(answers: &Answers) -> BTreeMap<&'static str, String> {
    let ports: Vec<_> = answers.ssh.iter().map(|(port, reasons)| format!("{port} ({})", reasons.join(", "))).collect();
    let mut why = BTreeMap::from([("steering", format!("Chosen, because {}.", answers.steering_reason))]);
    let mut excluded = String::new();
    if !ports.is_empty() {
        excluded = format!("By these you come in: {}. ", ports.join("; "));
    }
    if let Some(own) = answers.outgoing.as_deref().filter(|_| answers.steering == "sk_lookup") {
        let own = own.trim_matches('"');
        excluded.push_str(&format!("{own} remain for this machine's own connections, whatever clients occupy."));
    }
    why.insert("exclude_ports", excluded);
    why
}

/// One line of the effective configuration: a key, a key that is not set, or a heading.
fn entry(page: &mut String, line: &str, set: &BTreeMap<&str, String>, why: &BTreeMap<&str, String>) {
    if let Some((key, _)) = line.split_once(" = ") {
        page.push('\n');
        describe(page, key, why);
        match set.get(key) {
            Some(value) => page.push_str(&format!("{key} = {value}\n")),
            None => page.push_str(&format!("#{line}\n")),
        }
    } else if let Some((key, instead)) = line.strip_prefix("# ").and_then(|rest| rest.split_once(": ")) {
        page.push('\n');
        describe(page, key, why);
        page.push_str(&commented(&format!("Not set: {instead}. For example:")));
        page.push_str(&format!("#{key} = {}\n", keys::of(key).map_or("", |key| key.example)));
    } else if let Some(heading) = line.strip_prefix("# ") {
        page.push_str(&format!("\n## {heading}\n"));
    }
}

fn describe(page: &mut String, key: &str, why: &BTreeMap<&str, String>) {
    if let Some(key) = keys::of(key) {
        page.push_str(&commented(&unquoted(key.meaning)));
        page.push_str(&commented(&format!("Accepted: {}.", key.accepted().replace('`', ""))));
    }
    if let Some(reason) = why.get(key).filter(|reason| !reason.is_empty()) {
        page.push_str(&commented(reason));
    }
}

/// Takes the backquotes from values, which show by themselves what they are. A word keeps them: it would read as one of
/// the sentence.
fn unquoted(text: &str) -> String {
    let is_word = |code: &str| !code.contains(['"', '[', '{']);
    let parts = text.split('`').enumerate();
    parts.map(|(n, part)| if n % 2 == 1 && is_word(part) { format!("`{part}`") } else { part.to_owned() }).collect()
}

/// Breaks a text into comment lines of bounded width.
fn commented(text: &str) -> String {
    const WIDTH: usize = 110;
    let mut lines = String::new();
    let mut line = String::from("#");
    for word in text.split_ascii_whitespace() {
        if line.len() > 1 && line.len() + 1 + word.len() > WIDTH {
            lines.push_str(&line);
            lines.push('\n');
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    lines.push_str(&line);
    lines.push('\n');
    lines
}

#[cfg(test)]
mod tests {
    use super::super::Options;
    use super::super::answers::tests::found;
    use super::*;

    fn loaded(text: &str) -> Config {
        Config::from_str(text, Path::new("/spip.toml")).unwrap_or_else(|error| panic!("{error}\n{text}")).config
    }

    fn is_key(rest: &str) -> bool {
        rest.split_once(" = ").is_some_and(|(key, _)| key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
    }

    fn proposed() -> Answers {
        Answers::proposed(&found(), &Options::default()).expect("valid")
    }

    #[test]
    fn the_file_says_what_was_answered_and_defaults_for_the_rest() {
        let config = loaded(&page(&proposed()));
        assert_eq!(config.listen, "[::]:12346".parse().expect("address"));
        assert_eq!(config.exclude_ports, [(22, 22), (2222, 2222), (60_000, 60_999)]);
        assert_eq!(config.sandbox.user.as_deref(), Some("spip"));
        assert_eq!(
            (config.log.rotate_bytes, config.log.keep_files, config.log.keep_bytes),
            (256_000_000, 0, 4_864_000_000)
        );
    }

    #[test]
    fn uncommenting_every_default_changes_nothing() {
        let page = page(&proposed());
        let is_example = |above: &str| above.ends_with("For example:");
        let all: String = page
            .lines()
            .zip(std::iter::once("").chain(page.lines()))
            .map(|(line, above)| match line.strip_prefix('#') {
                Some(rest) if is_key(rest) && !is_example(above) => format!("{rest}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        assert_ne!(all, page);
        assert_eq!(loaded(&all), loaded(&page));
    }

    /// Keys that stand in the file twice would be a mistake in it, and so would one that needs another: those two go
    /// together.
    #[test]
    fn without_its_mark_any_line_holds() {
        const TOGETHER: [(&str, &str); 3] = [("cert_path", "key_path"), ("key_path", "cert_path"), ("group", "user")];
        let directory = std::env::temp_dir().join(format!("spip-init-lines-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("directory");
        for file in ["cert.pem", "key.pem", "persona.toml"] {
            std::fs::write(directory.join(file), "").expect("file");
        }
        let mut tried = 0;
        for page in [page(&proposed()), page(&Answers { user: None, log_file: None, ..proposed() }), packaged()] {
            let keys = page.lines().filter_map(|line| line.strip_prefix('#').filter(|rest| is_key(rest)));
            for (key, _) in keys.filter_map(|rest| rest.split_once(" = ")) {
                let other = TOGETHER.iter().find(|(first, _)| *first == key).map_or(key, |(_, other)| other);
                let text: String = page
                    .lines()
                    .map(|line| match line.strip_prefix('#').and_then(|rest| Some((rest, rest.split_once(" = ")?.0))) {
                        Some((rest, found)) if found == key || found == other => format!("{rest}\n"),
                        _ => format!("{line}\n"),
                    })
                    .collect();
                assert_ne!(text, page);
                let loaded = Config::from_str(&text, &directory.join("spip.toml"));
                let warnings = loaded.unwrap_or_else(|error| panic!("{key}: {error}\n{text}")).warnings;
                assert_eq!(warnings, Vec::<String>::new(), "{key}");
                tried += 1;
            }
        }
        std::fs::remove_dir_all(&directory).expect("ours");
        assert!(tried > 100, "{tried}");
    }

    #[test]
    fn the_file_says_what_each_key_takes() {
        let page = page(&Answers { user: None, ..proposed() });
        for text in [
            "# Accepted: \"flat\", \"ecs\", \"eve\".\n#log_format = ",
            "# Accepted: \"never\", \"interval\", \"always\".\n#fsync = ",
            "# Accepted: \"none\", \"zstd\".\nlog_compress = ",
            "# Accepted: \"auto\", \"off\".\n#tls = ",
            "# Accepted: \"auto\", \"required\", \"off\".\n#sandbox = ",
            "# Accepted: \"auto\", \"off\", \"required\".\n#ebpf = ",
            "# Accepted: \"redirect\", \"sk_lookup\".\n",
            "# Accepted: \"banners\", \"off\".\n#respond = ",
            "# Accepted: 0.001 to 86400.\n#read_timeout_seconds = ",
            "For example:\n#metrics = \"127.0.0.1:9464\"\n",
            "For example:\n#user = \"spip\"\n",
            "For example:\n#cert_path = \"cert.pem\"\n",
            "For example:\n#payload_dir = \"/var/lib/spip/payloads\"\n",
        ] {
            assert!(page.contains(text), "{text} is missing in\n{page}");
        }
        assert!(!page.contains("]("), "links are left");
    }

    #[test]
    fn words_of_code_stay_marked_and_values_do_not() {
        assert_eq!(unquoted("`\"off\"` says `a`, not a"), "\"off\" says `a`, not a");
    }

    #[test]
    fn long_texts_are_broken_between_words() {
        let text = commented(&"word ".repeat(50));
        assert!(text.lines().all(|line| line.len() <= 110 && line.starts_with("# word")), "{text}");
    }

    #[test]
    fn every_key_is_explained() {
        let effective = loaded("ip = \"::\"\nport = 1").to_toml();
        for line in effective.lines() {
            let key = line.split_once(" = ").or_else(|| line.strip_prefix("# ").and_then(|line| line.split_once(": ")));
            if let Some((key, _)) = key {
                assert!(keys::of(key).is_some(), "the table of keys lacks {key}");
            }
        }
    }

    #[test]
    fn the_operators_ports_are_named_with_their_reasons() {
        assert!(page(&proposed()).contains("22 (sshd listens on 0.0.0.0); 2222 (this session)"));
    }

    #[test]
    fn what_a_package_installs_loads_and_knows_nothing_of_a_machine() {
        let text = packaged();
        let config = loaded(&text);
        assert_eq!(config.log.file.as_deref(), Some(Path::new("/var/log/spip/spip.jsonl")));
        assert!(text.contains("\n#name = \"sensor\"\n"), "{text}");
    }

    #[test]
    fn hostile_answers_stay_values() {
        let answers = Answers { name: Some("a\"\nport = 2 # \u{1b}".to_owned()), ..proposed() };
        assert!(Config::from_str(&page(&answers), Path::new("/x")).is_err(), "control characters are refused");
        let answers = Answers { name: Some("a\" # \\".to_owned()), ..proposed() };
        assert_eq!(loaded(&page(&answers)).name, "a\" # \\");
    }
}
