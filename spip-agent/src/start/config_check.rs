//! Reads what the configuration names on this machine, and checks that it can be used: user and group, certificate and
//! key, persona.
//!
//! None of it is part of the file's own rules, which hold on any machine; the start needs all of it. `--check`, the
//! doctor, the start and a reload ask here, and name every mistake at once, in its place in the file. Start and reload then use
//! what was read here: no file is read a second time, when it may have changed. Nothing is
//! written.

use anyhow::Error;

use crate::config::{Config, ConfigError, Spans};
use crate::confine::sandbox;
use crate::kernel::steering;
use crate::respond::persona::Written;
use crate::tls::{self, Identity};

/// The files that a configuration names, read and found usable.
#[derive(Debug, Default)]
pub struct NamedFiles {
    /// The operator's certificate, where TLS is answered with one.
    pub certificate: Option<Identity>,
    /// The persona, where clients are answered.
    pub persona: Option<Written>,
}

/// Looks up users and groups, and reads the files.
///
/// # Errors
/// All that cannot be used.
pub fn check(config: &Config, spans: &Spans) -> Result<NamedFiles, ConfigError> {
    sandbox::expect_user(&config.sandbox);
    let (files, mistakes) = read(config);
    let unknown = steering::unknown_users(&config.steering.exempt_services_of);
    let unknown = unknown.into_iter().map(|name| {
        ("exempt_services_of", format!("exempt_services_of: there is no user {name:?}; create it, or leave it out"))
    });
    spans.refuse(sandbox::look_up(&config.sandbox).into_iter().chain(unknown).chain(mistakes))?;
    Ok(files)
}

/// Reads the files.
///
/// # Errors
/// All that cannot be used.
pub fn check_files(config: &Config, spans: &Spans) -> Result<NamedFiles, ConfigError> {
    sandbox::expect_user(&config.sandbox);
    let (files, mistakes) = read(config);
    spans.refuse(mistakes)?;
    Ok(files)
}

/// Reads the files. Returns the mistakes in them, too, each by its key.
fn read(config: &Config) -> (NamedFiles, Vec<(&'static str, String)>) {
    let (mut files, mut mistakes) = (NamedFiles::default(), Vec::new());
    let certificate = config.tls.certificate.as_ref().filter(|_| config.tls.enabled);
    match certificate.map(tls::read_certificate).transpose() {
        Ok(certificate) => files.certificate = certificate,
        Err(error) => mistakes.push((error.key(), said(error))),
    }
    let respond = Some(&config.respond).filter(|respond| respond.enabled);
    match respond.map(|respond| Written::read(respond.persona.as_deref(), &respond.state_dir)).transpose() {
        Ok(persona) => files.persona = persona,
        Err(errors) => mistakes.extend(errors.into_iter().map(|(key, error)| (key, said(error)))),
    }
    (files, mistakes)
}

/// An error with its causes.
fn said(error: impl Into<Error>) -> String {
    format!("{:#}", error.into())
}

/// Reports whether a failure is one that [`check`] has found.
#[must_use]
pub fn is_mistake(error: &Error) -> bool {
    error.chain().any(|cause| cause.is::<ConfigError>())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn every_mistake_is_named_at_once_and_once_in_its_place() {
        let directory = std::env::temp_dir().join(format!("spip-named-{}", std::process::id()));
        fs::create_dir(&directory).expect("a directory for the test");
        let path = directory.join("spip.toml");
        fs::write(directory.join("no.pem"), "nothing").expect("a file for the test");
        fs::write(directory.join("persona.toml"), "ftp = \"a\"\nssh = \"OpenSSH\"\n").expect("a file for the test");
        let text = "ip = \"::\"\nport = 1\nkey_path = \"no.pem\"\ncert_path = \"no.pem\"\npersona = \"persona.toml\"\n\
                    user = \"no-such-user\"\ngroup = \"no-such-group\"\n";
        let loaded = Config::from_str(text, &path).expect("valid by itself");
        let error = Error::from(check(&loaded.config, &loaded.spans).expect_err("nothing of it can be used"));
        fs::remove_dir_all(&directory).expect("the directory goes");
        assert!(is_mistake(&error));
        let (file, directory) = (path.display(), directory.display());
        assert_eq!(
            format!("{error:#}"),
            format!(
                "{file}:4: cert_path {directory}/no.pem holds no certificate: expected PEM with BEGIN CERTIFICATE, the \
                 server's own first\n\
                 {file}:5: the persona {directory}/persona.toml:2: ssh: must begin with SSH-2.0-\n\
                 {file}:6: user = \"no-such-user\": there is no such user; create it, or name another\n\
                 {file}:7: group = \"no-such-group\": there is no such group; create it, or name another"
            )
        );
    }
}
