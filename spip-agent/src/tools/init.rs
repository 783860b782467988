//! `spip-agent init`: a commented configuration that fits this machine, and what to do next.
//!
//! It examines listeners, sshd, free ports and free space, asks where there is an operator to
//! ask, writes one file, and shows the commands that start the sensor and those that undo it. It runs none of them:
//! steering every port of a machine is the operator's step. A file that exists is never replaced without `--force`,
//! unless it is the one that a package installed, unchanged.
//!
//! Every key stands in the file, with its meaning: the words are those of the table of keys, the defaults those of
//! the program, so that neither can fall behind.

mod answers;
mod ask;
mod detect;
mod next_steps;
mod page;
mod ssh;
mod validate;

use std::fs;
use std::io::{self, IsTerminal as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use thiserror::Error;

pub use page::packaged;

use answers::Answers;
use detect::Found;

/// Answers of the operator. Those that are absent are asked for, or taken as found.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct Options {
    /// File to write; - is standard output [default: /etc/spip/spip.toml as root, else spip.toml here]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// The same as --output, which comes first.
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,

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

    /// File of the records; - is standard output.
    #[arg(long, value_name = "FILE")]
    pub log_file: Option<PathBuf>,

    /// User that the agent becomes after its start.
    #[arg(long)]
    pub user: Option<String>,

    /// Way in which connections to other ports reach the agent: rules, or a program in the kernel.
    #[arg(long, value_parser = ["redirect", "sk_lookup"])]
    pub steering: Option<String>,

    /// Further ports to leave alone, such as 443,8000-8100. Those of sshd are in any case.
    #[arg(long, value_name = "PORTS", value_delimiter = ',')]
    pub exclude_ports: Vec<String>,
}

/// Reasons why no file was written.
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
    Sockets(#[from] crate::kernel::sockets::Unreadable),
}

/// Looks, asks, writes, and says what to do next.
#[must_use]
pub fn run(options: &Options) -> ExitCode {
    let output = options.output.clone().unwrap_or_else(usual_output);
    match write(&output, options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "spip-agent: {error}");
            ExitCode::from(if matches!(error, Error::Answer(_)) { crate::tools::USAGE } else { 1 })
        }
    }
}

fn usual_output() -> PathBuf {
    if nix::unistd::geteuid().is_root() { crate::tools::doctor::USUAL_CONFIG.into() } else { "spip.toml".into() }
}

fn write(output: &Path, options: &Options) -> Result<(), Error> {
    let to_stdout = output == Path::new("-");
    // Before anybody is asked anything.
    let replaces = options.force || is_packaged(output);
    if !to_stdout && !replaces && fs::symlink_metadata(output).is_ok() {
        return Err(Error::Exists(output.to_owned()));
    }
    let found = Found::look(Path::new("/"))?;
    let mut answers = Answers::proposed(&found, options)?.with_log_apart(output, options);
    // Questions are no part of the file, which may go to standard output.
    let mut terminal = io::stderr();
    if !options.yes && io::stdin().is_terminal() {
        ask::all(&mut answers, &found, options, &mut io::stdin().lock(), &mut terminal)?;
    }
    validate::all(&answers, &found)?;
    let text = page::page(&answers);
    crate::config::Config::from_str(&text, output).map_err(|error| validate::refused(&error))?;
    let failed = |error| Error::Write(output.to_owned(), error);
    let made = if to_stdout {
        io::stdout().write_all(text.as_bytes()).map_err(failed)?;
        None
    } else {
        // It may have been changed while questions were answered.
        let force = options.force || (replaces && is_packaged(output));
        Some(Made { file: output, directories: place(output, &text, force).map_err(failed)? })
    };
    let _ = terminal.write_all(next_steps::page(&found, &answers, made.as_ref()).as_bytes());
    Ok(())
}

/// Reports whether a file is the one that a package brings, to the byte.
fn is_packaged(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file())
        && fs::read(path).is_ok_and(|text| text == page::packaged().as_bytes())
}

/// The written file.
struct Made<'a> {
    file: &'a Path,
    /// Directories that were not there before, the innermost first.
    directories: Vec<PathBuf>,
}

/// Puts a whole file in place, or none. A file that it replaces hands its owner and mode on. Returns the directories
/// that it made.
fn place(output: &Path, text: &str, force: bool) -> io::Result<Vec<PathBuf>> {
    let above = output.ancestors().skip(1).filter(|directory| !directory.as_os_str().is_empty());
    let missing: Vec<_> = above.take_while(|directory| !directory.exists()).map(Path::to_owned).collect();
    let placed = missing.first().map_or(Ok(()), fs::create_dir_all).and_then(|()| place_file(output, text, force));
    if placed.is_err() {
        missing.iter().for_each(|directory| drop(fs::remove_dir(directory)));
    }
    placed.map(|()| missing)
}

fn place_file(output: &Path, text: &str, force: bool) -> io::Result<()> {
    let mut partial = output.as_os_str().to_owned();
    partial.push(format!(".{}.partial", std::process::id()));
    let partial = PathBuf::from(partial);
    let written = (|| {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(&partial)?;
        file.write_all(text.as_bytes())?;
        if let Some(old) = fs::symlink_metadata(output).ok().filter(|old| force && old.is_file()) {
            // Another's file stays another's where that may be done.
            let _ = std::os::unix::fs::fchown(&file, Some(old.uid()), Some(old.gid()));
            file.set_permissions(old.permissions())?;
        }
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
    fn what_a_package_installed_is_replaced_as_long_as_nobody_has_changed_it() {
        let path = std::env::temp_dir().join(format!("spip-init-packaged-{}.toml", std::process::id()));
        fs::write(&path, packaged()).expect("a new file");
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o640)).expect("ours");
        let options = Options {
            yes: true,
            steering: Some("redirect".to_owned()),
            name: Some("mine".to_owned()),
            ..Options::default()
        };
        write(&path, &options).expect("it is the package's");
        let text = fs::read_to_string(&path).expect("file");
        assert!(text.contains("\nname = \"mine\"\n"), "{text}");
        assert_eq!(fs::metadata(&path).expect("file").mode() & 0o777, 0o640);
        let error = write(&path, &options).expect_err("it is the operator's now");
        assert!(matches!(error, Error::Exists(_)), "{error}");
        fs::remove_file(&path).expect("ours");
    }

    #[test]
    fn directories_that_were_made_are_known_and_go_where_no_file_comes() {
        let outer = std::env::temp_dir().join(format!("spip-init-made-{}", std::process::id()));
        let inner = outer.join("inner");
        assert_eq!(place(&inner.join("x.toml"), "one", false).expect("a new file"), [inner.clone(), outer.clone()]);
        assert!(place(&inner.join("y.toml"), "two", false).expect("a new file").is_empty());
        let none = outer.join("none");
        assert!(place(&none.join("deep").join("n".repeat(300)), "three", false).is_err());
        assert!(!none.exists());
        fs::remove_dir_all(&outer).expect("ours");
    }

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
