//! Writes what packages hold beside the program and what follows from its command line: man pages, completions of three
//! shells, and the commented default configuration.
//!
//! A program of its own, so that the agent carries none of it, and the tasks can be compiled without the agent.
//! `cargo xtask package` runs it: `spip-pages FOLDER`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap_complete::{Shell, generate_to};
use spip_agent::tools::cli;
use spip_agent::tools::init;

const NAME: &str = "spip-agent";

fn main() -> Result<()> {
    let folder = std::env::args_os().nth(1).map(PathBuf::from).context("name the folder to write to")?;
    write(&folder)
}

fn write(folder: &Path) -> Result<()> {
    let (man, completions) = (folder.join("man"), folder.join("completions"));
    for folder in [&man, &completions] {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    // A usage of several lines reads well in a terminal, and as one broken line in a page.
    clap_mangen::generate_to(cli::definition().override_usage("spip-agent [OPTIONS] [COMMAND]"), &man)
        .with_context(|| format!("cannot write to {}", man.display()))?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        generate_to(shell, &mut cli::definition(), NAME, &completions)
            .with_context(|| format!("cannot write to {}", completions.display()))?;
    }
    fs::write(folder.join("spip.toml"), init::packaged())
        .with_context(|| format!("cannot write to {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_and_every_shell_a_completion() {
        let folder = std::env::temp_dir().join(format!("spip-pages-{}", std::process::id()));
        write(&folder).expect("written");
        for command in cli::definition().get_subcommands() {
            let page = folder.join(format!("man/{NAME}-{}.1", command.get_name()));
            assert!(page.exists(), "{}", page.display());
        }
        for completion in ["spip-agent.bash", "_spip-agent", "spip-agent.fish"] {
            let text = fs::read_to_string(folder.join("completions").join(completion)).expect(completion);
            assert!(text.contains("doctor"), "{completion}");
        }
        let page = fs::read_to_string(folder.join("man/spip-agent.1")).expect("page");
        assert!(page.contains(".TH spip"), "{page}");
        fs::remove_dir_all(&folder).expect("ours");
    }
}
