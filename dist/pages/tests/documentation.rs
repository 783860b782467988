//! The examples of the documentation are right: each configuration loads, each command line is one that its program takes, each
//! record is valid, each jq program runs.
//!
//! Here, because this crate knows the command lines of all programs. `queries.md` is run over a real log by the end-to-end tests.

use std::ffi::OsString;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::error::{ContextKind, ErrorKind};
use serde_json::Value;
use spip_agent::respond::persona::Persona;

/// Keys that only the configuration of `spip-view` has.
const VIEW: [&str; 7] = ["listen", "token_file", "keep_days", "keep_bytes", "records", "hosts", "geo"];
/// Keys that only a persona has.
const PERSONA: [&str; 3] = ["host", "ssh", "http"];
/// Keys that every configuration of the agent needs; examples of single keys leave them out.
const AGENT_LEAST: [(&str, &str); 2] = [("ip", "ip = \"::\"\n"), ("port", "port = 12345\n")];
/// Source of an example that shows a sink only.
const SHIP_LEAST: &str = "state_dir = \"/var/lib/spip-ship\"\nlog = \"/var/log/spip/spip.jsonl\"\n";

/// Returns the Markdown pages: name and text.
fn pages() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let docs = fs::read_dir(root.join("docs")).expect("docs").map(|entry| entry.expect("an entry").path());
    let mut paths: Vec<PathBuf> = docs.filter(|path| path.extension().is_some_and(|end| end == "md")).collect();
    paths.extend(["README.md", "CONTRIBUTING.md"].map(|name| root.join(name)));
    paths.sort();
    let name = |path: &Path| path.file_name().expect("a name").to_string_lossy().into_owned();
    paths.iter().map(|path| (name(path), fs::read_to_string(path).expect("text"))).collect()
}

/// Returns the fenced blocks of a page: language and text.
fn blocks(page: &str) -> Vec<(&str, &str)> {
    let parts = page.split("\n```").collect::<Vec<_>>();
    // Every second part is inside of a block.
    parts.iter().skip(1).step_by(2).filter_map(|part| part.split_once('\n')).collect()
}

#[test]
fn every_configuration_loads() {
    let folder = std::env::temp_dir().join(format!("spip-examples-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a directory");
    // Files that examples name beside themselves; what is in them is not read here.
    for name in ["cert.pem", "key.pem", "persona.toml"] {
        fs::write(folder.join(name), "").expect("written");
    }
    let mut count = [0; 4];
    for (name, page) in pages() {
        for (_, text) in blocks(&page).into_iter().filter(|(language, _)| *language == "toml") {
            let table: toml::Table = text.parse().unwrap_or_else(|error| panic!("{name}: {error}\n{text}"));
            let has = |keys: &[&str]| keys.iter().any(|key| table.contains_key(*key));
            let path = folder.join("example.toml");
            let result = if has(&["sink", "source"]) {
                count[0] += 1;
                let least = if has(&["log", "source"]) { "" } else { SHIP_LEAST };
                fs::write(&path, format!("{least}{text}")).expect("written");
                spip_ship::config::Config::load(&path).map(drop).map_err(|error| error.to_string())
            } else if has(&VIEW) {
                count[1] += 1;
                fs::write(&path, text).expect("written");
                let given = spip_view::config::Given::read(&path);
                given.and_then(spip_view::config::Given::check).map(drop).map_err(|error| error.to_string())
            } else if has(&PERSONA) {
                count[2] += 1;
                Persona::from_text(text, &path).map(drop).map_err(|error| error.to_string())
            } else {
                count[3] += 1;
                let least = AGENT_LEAST.iter().filter(|(key, _)| !table.contains_key(*key)).map(|(_, line)| *line);
                let text = least.collect::<String>() + text;
                match spip_agent::config::Config::from_str(&text, &path) {
                    Ok(loaded) if loaded.warnings.is_empty() => Ok(()),
                    Ok(loaded) => Err(loaded.warnings.join("; ")),
                    Err(error) => Err(error.to_string()),
                }
            };
            assert_eq!(result, Ok(()), "{name}:\n{text}");
        }
    }
    fs::remove_dir_all(&folder).expect("ours");
    assert!(count.iter().all(|count| *count > 0), "no example of one of the programs: {count:?}");
}

/// Returns the words of each command line of a program in a text, without redirections and comments.
fn commands(text: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for line in text.replace("\\\n", " ").lines() {
        let line = line.trim_start_matches("# ").split(" #").next().unwrap_or_default();
        for part in line.split([';', '|', '>', '&', '(', ')']) {
            let mut words =
                part.split_whitespace().map(|word| word.trim_matches(['"', '\'', '`', '…', '[', ']']).to_owned());
            let program = words.find(|word| word != "sudo").unwrap_or_default();
            let program = program.rsplit('/').next().unwrap_or_default().to_owned();
            if ["spip-agent", "spip-view", "spip-ship"].contains(&program.as_str()) {
                found.push(std::iter::once(program).chain(words.filter(|word| !word.is_empty())).collect());
            }
        }
    }
    found
}

/// Parses a command line by its program.
fn parsed(words: &[String]) -> Result<(), clap::Error> {
    let arguments = words.iter().map(OsString::from);
    match words[0].as_str() {
        "spip-agent" => spip_agent::tools::cli::parse(arguments).map(drop),
        "spip-view" => spip_view::cli::definition().try_get_matches_from(arguments).map(drop),
        _ => spip_ship::cli::definition().try_get_matches_from(arguments).map(drop),
    }
}

#[test]
fn every_command_line_is_one_that_its_program_takes() {
    let mut count = 0;
    let mut wrong = Vec::new();
    for (name, page) in pages() {
        for (language, text) in blocks(&page).into_iter().filter(|(language, _)| ["", "sh"].contains(language)) {
            // A drawing has names of programs, too.
            if text.contains('│') {
                continue;
            }
            for words in commands(text) {
                count += 1;
                // A block without a language may be what a program prints: there only options count.
                let is_option = |error: &clap::Error| {
                    let argument = error.get(ContextKind::InvalidArg).map(ToString::to_string);
                    argument.is_some_and(|argument| argument.starts_with("--"))
                };
                match parsed(&words) {
                    Err(error) if error.use_stderr() && (language == "sh" || is_option(&error)) => {
                        wrong.push(format!("{name}: {words:?}: {error}"));
                    }
                    _ => {}
                }
            }
        }
        // In the text a command may be named without all that it needs.
        for span in page.split("```").step_by(2).flat_map(|prose| prose.split('`').skip(1).step_by(2)) {
            for words in commands(span) {
                count += 1;
                let unknown = [ErrorKind::UnknownArgument, ErrorKind::InvalidSubcommand];
                match parsed(&words) {
                    Err(error) if unknown.contains(&error.kind()) => wrong.push(format!("{name}: {words:?}: {error}")),
                    _ => {}
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 50, "{count} command lines");
}

#[test]
fn every_subcommand_is_in_the_page_on_commands() {
    let page = pages().into_iter().find(|(name, _)| name == "commands.md").expect("the page").1;
    for program in [spip_agent::tools::cli::definition(), spip_view::cli::definition(), spip_ship::cli::definition()] {
        for command in program.get_subcommands() {
            let line = format!("`{} {}", program.get_name(), command.get_name());
            assert!(page.contains(&line), "docs/commands.md lacks {line}`");
        }
    }
}

/// Returns the whole records of the pages, with what was cut out of them.
fn records() -> Vec<(String, Value)> {
    let mut records = Vec::new();
    for (name, page) in pages() {
        for (language, text) in blocks(&page) {
            if language == "json" && text.starts_with("{\"timestamp\"") {
                let text = text.replace('…', "");
                records.push((
                    name.clone(),
                    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}")),
                ));
            }
        }
    }
    records
}

#[test]
fn every_record_is_valid() {
    let records = records();
    for (name, record) in &records {
        let schema = match record.get("record_type").and_then(Value::as_str) {
            None => include_str!("../../../docs/schema/flat.schema.json"),
            Some("scan") => include_str!("../../../docs/schema/flat-scan.schema.json"),
            Some(_) => include_str!("../../../docs/schema/flat-log.schema.json"),
        };
        let validator = jsonschema::validator_for(&serde_json::from_str(schema).expect("JSON")).expect("a schema");
        let errors: Vec<_> = validator.iter_errors(record).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{name}: {errors:?}");
    }
    assert!(records.len() >= 2, "a session and a scan");
}

#[test]
fn every_jq_program_runs() {
    if Command::new("jq").arg("--version").stdout(Stdio::null()).status().is_err() {
        assert!(std::env::var_os("CI").is_none(), "CI must not skip what needs jq");
        return eprintln!("skipped: jq is not installed");
    }
    let input: String = records().iter().map(|(_, record)| format!("{record}\n")).collect();
    let mut count = 0;
    for (name, page) in pages().into_iter().filter(|(name, _)| name != "queries.md") {
        for (_, text) in blocks(&page).into_iter().filter(|(language, _)| *language == "sh") {
            for command in text.split("jq -").skip(1).filter(|command| command.contains('\'')) {
                let program = command.split('\'').nth(1).expect("a program");
                let mut jq = Command::new("jq");
                jq.args(["-ac", program]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
                let mut jq = jq.spawn().expect("jq starts");
                jq.stdin.take().expect("piped").write_all(input.as_bytes()).expect("it reads");
                let output = jq.wait_with_output().expect("it ends");
                assert!(output.status.success(), "{name}: {program}: {}", String::from_utf8_lossy(&output.stderr));
                assert!(!output.stdout.is_empty(), "{name}: {program} says nothing");
                count += 1;
            }
        }
    }
    assert!(count >= 3, "{count} programs");
}
