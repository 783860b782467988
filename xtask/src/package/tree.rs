//! The files of a package, each where it belongs on a Linux machine, below one folder.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::PROGRAMS;
use crate::architecture::Programs;
use crate::debug_info;
use crate::process;
use crate::project::Project;
use crate::report;

/// Directory of documentation and licences.
pub(super) const DOCUMENTATION: &str = "usr/share/doc/spip-agent";
/// Directory of the licences, which Debian wants of every package.
const DEBUG_DOCUMENTATION: &str = "usr/share/doc/spip-agent-dbgsym";
/// The configurations, which belong to the operator once they are installed. That of `spip-ship` is none: it names servers.
pub(super) const CONFIGURATIONS: [&str; 2] = ["etc/spip/spip.toml", "etc/spip/view.toml"];

/// Endings of the files in `dist/systemd`, where they go, and under which ending.
const SYSTEMD: [(&str, &str, &str); 5] = [
    (".service", "usr/lib/systemd/system", ".service"),
    (".socket", "usr/lib/systemd/system", ".socket"),
    (".timer", "usr/lib/systemd/system", ".timer"),
    (".sysusers.conf", "usr/lib/sysusers.d", ".conf"),
    (".tmpfiles.conf", "usr/lib/tmpfiles.d", ".conf"),
];

/// Makes the folder anew.
pub(super) fn make(project: &Project, programs: &Programs, root: &Path) -> Result<()> {
    if root.exists() {
        fs::remove_dir_all(root).with_context(|| format!("cannot remove {}", root.display()))?;
    }
    binaries(project, programs, root)?;
    systemd(project, root)?;
    pages(project, root)?;
    documentation(project, root)?;
    make_modes(root)
}

/// Copies the programs, whose debug information has a package of its own.
fn binaries(project: &Project, programs: &Programs, root: &Path) -> Result<()> {
    let object = fs::metadata(project.ebpf_object()).map_or(0, |object| object.len());
    if object == 0 {
        bail!("there is no kernel object, so the agent was built without eBPF: cargo xtask build");
    }
    for name in PROGRAMS {
        let program = root.join("usr/bin").join(name);
        debug_info::split(&programs.path(name), programs.architecture)?;
        copy(&programs.path(name), &program)?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// Makes the folder of the debug information anew, and returns whether there is any.
pub(super) fn debug(project: &Project, programs: &Programs, root: &Path) -> Result<bool> {
    if root.exists() {
        fs::remove_dir_all(root).with_context(|| format!("cannot remove {}", root.display()))?;
    }
    for name in PROGRAMS {
        let debug = debug_info::beside(&programs.path(name));
        if !debug.exists() {
            return Ok(false);
        }
        // Where debuggers look for what belongs to /usr/bin/NAME.
        copy(&debug, &root.join("usr/lib/debug/usr/bin").join(format!("{name}.debug")))?;
    }
    copy(&project.root.join("dist/debian/copyright"), &root.join(DEBUG_DOCUMENTATION).join("copyright"))?;
    make_modes(root)?;
    Ok(true)
}

/// Copies the files of `dist/systemd`.
fn systemd(project: &Project, root: &Path) -> Result<()> {
    let folder = project.root.join("dist/systemd");
    let mut count = 0;
    for file in files(&folder) {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let place = SYSTEMD.iter().find_map(|(ending, place, kept)| Some((name.strip_suffix(ending)?, place, kept)));
        let Some((stem, place, ending)) = place else {
            bail!("{} has an ending that no place is known for", file.display());
        };
        copy(&file, &root.join(place).join(format!("{stem}{ending}")))?;
        count += 1;
    }
    if count == 0 {
        report::note("dist/systemd holds nothing: the package has no systemd unit");
    }
    Ok(())
}

/// Generates the pages from the programs' own definitions, by a debug build for this machine: the pages are the same,
/// and it exists wherever tests ran. Copies the examples.
fn pages(project: &Project, root: &Path) -> Result<()> {
    let folder = project.target.join("package/pages");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    process::run(
        project
            .cargo("run")
            .args(["--quiet", "--locked", "--package", "spip-pages", "--"])
            .arg(&folder)
            .env_remove("CARGO_BUILD_TARGET"),
    )?;
    for page in files(&folder.join("man")) {
        let name = page.file_name().unwrap_or_default().to_string_lossy().into_owned();
        compressed(&page, &root.join("usr/share/man/man1").join(format!("{name}.gz")))?;
    }
    for name in PROGRAMS {
        for (file, place) in [
            (format!("{name}.bash"), format!("usr/share/bash-completion/completions/{name}")),
            (format!("_{name}"), format!("usr/share/zsh/vendor-completions/_{name}")),
            (format!("{name}.fish"), format!("usr/share/fish/vendor_completions.d/{name}.fish")),
        ] {
            copy(&folder.join("completions").join(file), &root.join(place))?;
        }
    }
    copy(&folder.join("spip.toml"), &root.join("etc/spip/spip.toml"))?;
    let examples = project.root.join("dist/examples");
    copy(&examples.join("view.toml"), &root.join("etc/spip/view.toml"))?;
    copy(&examples.join("ship.toml"), &root.join(DOCUMENTATION).join("examples/ship.toml"))
}

fn documentation(project: &Project, root: &Path) -> Result<()> {
    let place = root.join(DOCUMENTATION);
    for name in ["README.md", "LICENSE-MIT", "LICENSE-APACHE"] {
        copy(&project.root.join(name), &place.join(name))?;
    }
    copy(&project.root.join("dist/debian/copyright"), &place.join("copyright"))?;
    copy_all(&project.root.join("docs"), &place.join("docs"))?;
    let mut tree = project.cargo("tree");
    tree.args(["--locked", "--edges", "normal", "--prefix", "none", "--format", "{p} | {l}"]);
    PROGRAMS.iter().for_each(|name| {
        tree.args(["--package", name]);
    });
    let crates = process::output(&mut tree)?;
    fs::write(place.join("THIRD-PARTY.txt"), third_party(&crates))?;
    Ok(())
}

/// A line for each crate of `cargo tree`: name, version, licence; sorted, without those of this project.
fn third_party(tree: &str) -> String {
    let mut lines: Vec<String> = tree
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with("spip-"))
        .map(|line| line.trim_end_matches(" (*)").replace(" (proc-macro)", ""))
        .collect();
    lines.sort();
    lines.dedup();
    let mut text = "Crates that the programs are linked with, and their licences.\n\n".to_owned();
    for line in lines {
        text.push_str(&line);
        text.push('\n');
    }
    text
}

/// Regular files of a folder, sorted; none where there is no folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    files.sort();
    files
}

fn copy_all(from: &Path, to: &Path) -> Result<()> {
    for file in files(from) {
        copy(&file, &to.join(file.file_name().unwrap_or_default()))?;
    }
    let folders =
        fs::read_dir(from).into_iter().flatten().flatten().map(|entry| entry.path()).filter(|path| path.is_dir());
    for folder in folders {
        copy_all(&folder, &to.join(folder.file_name().unwrap_or_default()))?;
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let bytes = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    write(to, &bytes)
}

fn write(to: &Path, bytes: &[u8]) -> Result<()> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    fs::write(to, bytes).with_context(|| format!("cannot write {}", to.display()))
}

/// By gzip, without a name and a time in it.
fn compressed(from: &Path, to: &Path) -> Result<()> {
    let output = Command::new("gzip").args(["-9", "-n", "-c"]).arg(from).output().context("cannot start gzip")?;
    if !output.status.success() {
        bail!("gzip ended with {}", output.status);
    }
    write(to, &output.stdout)
}

/// Sets modes that do not depend on the umask.
fn make_modes(path: &Path) -> Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    let is_program = metadata.is_file() && metadata.permissions().mode() & 0o100 != 0;
    let mode = if metadata.is_dir() || is_program { 0o755 } else { 0o644 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    if metadata.is_dir() {
        for entry in fs::read_dir(path)? {
            make_modes(&entry?.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crates_are_listed_once_and_our_own_are_not() {
        let tree = "spip-agent v0.1.0 (/x) | MIT\n\nspip-view v0.1.0 (/x) | MIT\nsyn v2.0.1 (proc-macro) | MIT OR Apache-2.0\nanyhow v1.0.0 | MIT\n\
                    anyhow v1.0.0 | MIT (*)\n";
        let text = third_party(tree);
        assert!(text.ends_with("\n\nanyhow v1.0.0 | MIT\nsyn v2.0.1 | MIT OR Apache-2.0\n"), "{text}");
    }

    #[test]
    fn every_kind_of_systemd_file_has_a_place() {
        let place =
            |name: &str| SYSTEMD.iter().find(|(ending, _, _)| name.ends_with(ending)).map(|(_, place, _)| *place);
        assert_eq!(place("spip-agent.service"), Some("usr/lib/systemd/system"));
        assert_eq!(place("spip.sysusers.conf"), Some("usr/lib/sysusers.d"));
        assert_eq!(place("spip-report.timer"), Some("usr/lib/systemd/system"));
        assert_eq!(place("spip.path"), None);
    }
}
