//! Files that the agent uses after its start, by its configuration: for the sandbox, which opens no
//! others, and for doctor, which judges them before the start.

use std::path::{Path, PathBuf};

use crate::config::{Config, SystemLog};
use crate::kernel::ebpf;
use crate::respond::persona::Persona;

/// Files and directories, by what is done with them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// Files that are read again at SIGHUP, and may be others under the same names by then.
    pub replaced: Vec<PathBuf>,
    /// Files and directories that are read as they are.
    pub readable: Vec<PathBuf>,
    /// Logs, which are opened again.
    pub logs: Vec<PathBuf>,
    /// Directories in which files are created, renamed and removed.
    pub writable: Vec<PathBuf>,
    /// Those of the configuration that the start makes or opens before the user is changed, which the new user gets.
    pub owned: Vec<PathBuf>,
}

impl Files {
    /// Those of a configuration, which was read from the file `path`.
    #[must_use]
    pub fn of(config: &Config, path: &Path) -> Self {
        let certificates = config.tls.certificate.iter().flat_map(|files| [&files.chain, &files.key]);
        let respond = &config.respond;
        let state = respond.enabled.then(|| [respond.state_dir.clone(), Persona::kept_in(&respond.state_dir)]);
        let system_log = match &config.messages.target {
            SystemLog::File(path) => Some(path),
            SystemLog::Stream | SystemLog::Stderr => None,
        };
        let logs: Vec<_> = config.log.file.iter().chain(system_log).cloned().collect();
        let payloads = config.payload_store.directory.iter();
        let persona = respond.enabled.then(|| Persona::kept_in(&respond.state_dir));
        Self {
            owned: logs.iter().chain(payloads.clone()).cloned().chain(persona).collect(),
            replaced: certificates.chain(&respond.persona).cloned().chain([path.to_owned()]).collect(),
            readable: state.into_iter().flatten().chain([PathBuf::from(ebpf::CPUS)]).collect(),
            writable: logs.iter().flat_map(|file| directories_of(file)).chain(payloads.cloned()).collect(),
            logs,
        }
    }
}

/// The directory that a file is in, and that which it leads to where it is a symbolic link.
pub fn directories_of(file: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let directory = |file: PathBuf| file.parent().unwrap_or(Path::new("/")).to_owned();
    let named = std::path::absolute(file).ok().map(directory);
    let meant = file.canonicalize().ok().map(directory).filter(|meant| named.as_ref() != Some(meant));
    named.into_iter().chain(meant)
}
