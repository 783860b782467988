//! Writes what packages hold beside the programs and what follows from their command lines: man pages, completions of
//! three shells, and the agent's commented default configuration.
//!
//! A program of its own, so that the others carry none of it, and the tasks can be compiled without them.
//! `cargo xtask package` runs it: `spip-pages FOLDER`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Command;
use clap_complete::{Shell, generate_to};
use spip_agent::tools::cli;
use spip_agent::tools::init;

fn main() -> Result<()> {
    let folder = std::env::args_os().nth(1).map(PathBuf::from).context("name the folder to write to")?;
    write(&folder)
}

/// Returns the command lines of the programs of a package.
fn programs() -> [Command; 3] {
    [
        // A usage of several lines reads well in a terminal, and as one broken line in a page.
        cli::definition().override_usage("spip-agent [OPTIONS] [COMMAND]"),
        spip_view::cli::definition(),
        spip_ship::cli::definition(),
    ]
}

fn write(folder: &Path) -> Result<()> {
    let (man, completions) = (folder.join("man"), folder.join("completions"));
    for folder in [&man, &completions] {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    for mut program in programs() {
        let name = program.get_name().to_owned();
        clap_mangen::generate_to(program.clone(), &man)
            .with_context(|| format!("cannot write to {}", man.display()))?;
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            generate_to(shell, &mut program, &name, &completions)
                .with_context(|| format!("cannot write to {}", completions.display()))?;
        }
    }
    fs::write(folder.join("spip.toml"), init::packaged())
        .with_context(|| format!("cannot write to {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(folder: &Path, name: &str) -> String {
        let page = folder.join(format!("man/{name}.1"));
        fs::read_to_string(&page).unwrap_or_else(|error| panic!("{}: {error}", page.display()))
    }

    #[test]
    fn every_command_has_a_page_and_every_shell_a_completion() {
        let folder = std::env::temp_dir().join(format!("spip-pages-{}", std::process::id()));
        write(&folder).expect("written");
        for program in programs() {
            let name = program.get_name();
            assert!(page(&folder, name).contains(&format!(".TH {name}")), "{name}");
            for command in program.get_subcommands() {
                page(&folder, &format!("{name}-{}", command.get_name()));
            }
            for completion in [format!("{name}.bash"), format!("_{name}"), format!("{name}.fish")] {
                let text = fs::read_to_string(folder.join("completions").join(&completion)).expect(&completion);
                let command = program.get_subcommands().next().expect("a command").get_name();
                assert!(text.contains(command), "{completion} without {command}");
            }
        }
        fs::remove_dir_all(&folder).expect("ours");
    }

    /// Returns the text of an example, and with every line that is commented out switched on.
    fn example(name: &str) -> [String; 2] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name);
        let text = fs::read_to_string(path).expect(name);
        let is_off = |line: &str| line.starts_with('#') && !line.starts_with("# ");
        let on = text.lines().map(|line| if is_off(line) { &line[1..] } else { line }).collect::<Vec<_>>().join("\n");
        assert_ne!(text.trim_end(), on);
        [text, on]
    }

    #[test]
    fn the_examples_are_accepted_as_they_are_and_with_every_line() {
        let file = std::env::temp_dir().join(format!("spip-pages-example-{}.toml", std::process::id()));
        for text in example("view.toml") {
            fs::write(&file, text).expect("written");
            let view = spip_view::config::Given::read(&file).expect("view.toml").check().expect("view.toml");
            assert_eq!(view.logs, [PathBuf::from("/var/log/spip/spip.jsonl")]);
            assert_eq!(view.keep, spip_view::store::Keep::default(), "what the example calls the default");
        }
        for (text, sinks) in example("ship.toml").into_iter().zip([1, 4]) {
            fs::write(&file, text).expect("written");
            assert_eq!(spip_ship::config::Config::load(&file).expect("ship.toml").sinks.len(), sinks);
        }
        fs::remove_file(&file).expect("ours");
    }
}
