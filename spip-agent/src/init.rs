//! `spip-agent init`: a commented configuration that fits this machine, and what to do next.
//!
//! It looks (who listens, where sshd is, which port is free, how much room there is), asks where there is somebody to
//! ask, writes one file, and shows the commands that start the sensor and those that undo it. It runs none of them:
//! steering every port of a machine is the operator's step. A file that exists is never replaced without `--force`.
//!
//! Every key stands in the file, with its meaning: the words are those of docs/configuration.md, the defaults those of
//! the program, so that neither can fall behind.

mod answers;
mod ask;
mod found;
mod meanings;
mod next;
mod page;
mod ssh;

use std::fs;
use std::io::{self, IsTerminal as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use thiserror::Error;

pub use page::packaged;

use answers::Answers;
use found::Found;

/// What the operator asked for. What is not given is asked, or taken as it was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct Options {
    /// Where to write; - is standard output [default: /etc/spip/spip.toml as root, else spip.toml here]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// Replace a file that exists.
    #[arg(short, long)]
    pub force: bool,

    /// Do not ask: take what was found where no flag says otherwise. So it is, too, without a terminal.
    #[arg(short, long)]
    pub yes: bool,

    /// Name of the sensor in its records.
    #[arg(long)]
    pub name: Option<String>,

    /// Address to listen on: :: for IPv4 and IPv6, 0.0.0.0 for IPv4 alone.
    #[arg(long)]
    pub ip: Option<std::net::IpAddr>,

    /// Port to listen on, a high one; all others are led there.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,

    /// Where records go; - is standard output.
    #[arg(long, value_name = "FILE")]
    pub log_file: Option<PathBuf>,

    /// User that the agent becomes after its start.
    #[arg(long)]
    pub user: Option<String>,

    /// How connections to other ports are to reach the agent: by rules, or by a program in the kernel.
    #[arg(long, value_parser = ["redirect", "sk_lookup"])]
    pub steering: Option<String>,

    /// Further ports to leave alone, such as 443,8000-8100. Those of sshd are in any case.
    #[arg(long, value_name = "PORTS", value_delimiter = ',')]
    pub exclude_ports: Vec<String>,
}

/// Why no file was written.
#[derive(Debug, Error)]
pub enum Error {
    /// There is one.
    #[error("{0} exists: --force replaces it, --output names another file, and - shows it only")]
    Exists(PathBuf),
    /// The disk, or the rights.
    #[error("cannot write {0}: {1}; as another user or with --output it may work")]
    Write(PathBuf, #[source] io::Error),
    /// The terminal went away.
    #[error("cannot ask: {0}; --yes takes what was found")]
    Ask(#[source] io::Error),
    /// An answer is not one; with what would be.
    #[error("{0}")]
    Answer(String),
    /// Without the ports of sshd, the operator might be locked out.
    #[error("{0}")]
    Sockets(#[from] crate::rules::Error),
}

/// Looks, asks, writes, and says what to do next.
#[must_use]
pub fn run(config: Option<PathBuf>, options: Options) -> ExitCode {
    let output = options.output.clone().or(config).unwrap_or_else(usual_output);
    match write(&output, &options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "spip-agent: {error}");
            ExitCode::from(if matches!(error, Error::Answer(_)) { crate::cli::USAGE } else { 1 })
        }
    }
}

fn usual_output() -> PathBuf {
    if nix::unistd::geteuid().is_root() { crate::doctor::USUAL_CONFIG.into() } else { "spip.toml".into() }
}

fn write(output: &Path, options: &Options) -> Result<(), Error> {
    let to_stdout = output == Path::new("-");
    // Before anybody is asked anything.
    if !to_stdout && !options.force && fs::symlink_metadata(output).is_ok() {
        return Err(Error::Exists(output.to_owned()));
    }
    let found = Found::look(Path::new("/"))?;
    let mut answers = Answers::proposed(&found, options)?;
    // Questions are no part of the file, which may go to standard output.
    let mut terminal = io::stderr();
    if !options.yes && io::stdin().is_terminal() {
        ask::all(&mut answers, options, &mut io::stdin().lock(), &mut terminal)?;
    }
    let text = page::page(&answers);
    // What was asked for one by one may still not go together.
    if let Err(error) = crate::config::Config::from_str(&text, output) {
        return Err(Error::Answer(error.to_string()));
    }
    let failed = |error| Error::Write(output.to_owned(), error);
    if to_stdout {
        io::stdout().write_all(text.as_bytes()).map_err(failed)?;
    } else {
        place(output, &text, options.force).map_err(failed)?;
    }
    let shown = if to_stdout { Path::new("FILE") } else { output };
    let _ = terminal.write_all(next::page(&found, &answers, shown).as_bytes());
    Ok(())
}

/// Puts a whole file in place, or none.
fn place(output: &Path, text: &str, force: bool) -> io::Result<()> {
    if let Some(directory) = output.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        fs::create_dir_all(directory)?;
    }
    let mut partial = output.as_os_str().to_owned();
    partial.push(format!(".{}.partial", std::process::id()));
    let partial = PathBuf::from(partial);
    let written = (|| {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(&partial)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        // A link, unlike a renaming, never replaces what has come meanwhile.
        if force { fs::rename(&partial, output) } else { fs::hard_link(&partial, output) }
    })();
    let _ = fs::remove_file(&partial);
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_exists_is_replaced_by_force_only() {
        let path = std::env::temp_dir().join(format!("spip-init-{}.toml", std::process::id()));
        place(&path, "one", false).expect("a new file");
        assert!(place(&path, "two", false).is_err());
        assert_eq!(fs::read_to_string(&path).expect("file"), "one");
        place(&path, "three", true).expect("by force");
        assert_eq!(fs::read_to_string(&path).expect("file"), "three");
        let error = write(&path, &Options::default()).expect_err("it exists");
        assert!(matches!(error, Error::Exists(_)), "{error}");
        fs::remove_file(&path).expect("ours");
    }
}
