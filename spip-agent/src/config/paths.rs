//! Paths that the configuration names. All become absolute when the file is read: nothing depends on the working
//! directory after the start. Files that must exist are opened once, so that a wrong path or a missing right is known
//! before anything is bound; what is in them is for those who use them.

use std::path::{Path, PathBuf};

use super::load::Loading;
use super::values::Found;
use crate::process::reach;
use crate::process::walk::read;

impl<'i> Loading<'i> {
    /// A file that the operator named, relative to the directory of the configuration file, and can be read; `kind`
    /// says what it is.
    pub(super) fn readable(&mut self, key: &'static str, kind: &str) -> Option<(PathBuf, Found<'i>)> {
        let (text, found) = self.read.string(key, &format!("must be the path of a {kind} file"))?;
        let directory = self.path.parent().unwrap_or(Path::new(""));
        let path = self.made_absolute(&directory.join(text), &found)?;
        match read::look(&path) {
            Ok(()) => Some((path, found)),
            Err(error) => {
                let why = match error.kind() {
                    std::io::ErrorKind::InvalidInput | std::io::ErrorKind::IsADirectory => {
                        "not a regular file".to_owned()
                    }
                    _ => error.to_string(),
                };
                let remedy = match error.kind() {
                    std::io::ErrorKind::PermissionDenied if reach::cannot_read(&path) => reach::OUTSIDE.to_owned(),
                    _ => format!("must be a {kind} file that the agent may read"),
                };
                let why = format!("cannot read {}: {why}; {remedy}", path.display());
                self.read.refuse(&found, &why);
                // It was given all the same: the other of the pair must not be called alone.
                Some((path, found))
            }
        }
    }

    /// A path, relative to the working directory.
    pub(super) fn path(&mut self, key: &'static str) -> Option<PathBuf> {
        let (text, found) = self.read.string(key, "must be a path")?;
        self.made_absolute(Path::new(&text), &found)
    }

    /// A path into a file system of the kernel, where a relative one could only be a mistake.
    pub(super) fn absolute(&mut self, key: &'static str) -> Option<PathBuf> {
        const ACCEPTED: &str = "must be an absolute path, beginning with /";
        let (text, found) = self.read.string(key, ACCEPTED)?;
        if !text.starts_with('/') {
            self.read.refuse(&found, ACCEPTED);
        }
        Some(PathBuf::from(text))
    }

    /// The absolute form, in UTF-8: otherwise the effective configuration could not be written down.
    pub(super) fn made_absolute(&mut self, path: &Path, found: &Found<'_>) -> Option<PathBuf> {
        let absolute = std::path::absolute(path).ok().filter(|path| path.to_str().is_some());
        if absolute.is_none() {
            self.read.refuse(found, "cannot be made absolute in UTF-8; write an absolute path");
        }
        absolute
    }
}
