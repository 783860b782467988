//! The Debian package: the folder with a `DEBIAN` beside it, built by dpkg-deb.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::needs::Needs;
use super::tree::CONFIGURATIONS;
use super::{Release, archive};
use crate::architecture::Architecture;
use crate::process;
use crate::project::Project;

const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];

/// Builds `spip-agent_VERSION_ARCHITECTURE.deb` in `folder`.
pub(super) fn build(
    project: &Project,
    release: &Release,
    architecture: Architecture,
    needs: &Needs,
    root: &Path,
    folder: &Path,
) -> Result<PathBuf> {
    let staged = stage(root, &folder.join("deb"))?;
    let debian = staged.join("DEBIAN");
    let sources = project.root.join("dist/debian");
    for script in SCRIPTS {
        let to = debian.join(script);
        fs::copy(sources.join(script), &to).with_context(|| format!("dist/debian/{script}"))?;
        fs::set_permissions(&to, fs::Permissions::from_mode(0o755))?;
    }
    let conffiles: String = CONFIGURATIONS.iter().map(|file| format!("/{file}\n")).collect();
    write(&debian.join("conffiles"), &conffiles)?;
    finish(project, release, architecture, root, folder, "control", &[("@LIBRARIES@", &needs.packages()?)])
}

/// Builds `spip-agent-dbgsym_VERSION_ARCHITECTURE.deb` in `folder`.
pub(super) fn build_debug(
    project: &Project,
    release: &Release,
    architecture: Architecture,
    root: &Path,
    folder: &Path,
) -> Result<PathBuf> {
    stage(root, &folder.join("deb"))?;
    finish(project, release, architecture, root, folder, "control.dbgsym", &[])
}

/// Copies what a package installs, with a folder for what describes it.
fn stage(root: &Path, staged: &Path) -> Result<PathBuf> {
    if staged.exists() {
        fs::remove_dir_all(staged)?;
    }
    process::output(Command::new("cp").arg("-a").arg(root).arg(staged))?;
    fs::create_dir(staged.join("DEBIAN"))?;
    Ok(staged.to_owned())
}

/// Describes what is staged by a template of dist/debian, and builds the package that the template names.
fn finish(
    project: &Project,
    release: &Release,
    architecture: Architecture,
    root: &Path,
    folder: &Path,
    template: &str,
    values: &[(&str, &str)],
) -> Result<PathBuf> {
    let staged = folder.join("deb");
    let architecture = architecture.debian();
    let version = format!("{}-1", release.version);
    let size = (bytes_below(root)? / 1024).to_string();
    let file = project.root.join("dist/debian").join(template);
    let mut control = fs::read_to_string(&file).with_context(|| format!("dist/debian/{template}"))?;
    let own = [("@VERSION@", version.as_str()), ("@ARCHITECTURE@", architecture), ("@SIZE@", &size)];
    for (name, value) in own.iter().chain(values) {
        control = control.replace(name, value);
    }
    write(&staged.join("DEBIAN/control"), &control)?;
    write(&staged.join("DEBIAN/md5sums"), &sums(root)?)?;
    archive::set_times(&staged, release.time)?;
    let name = control.lines().find_map(|line| line.strip_prefix("Package: ")).context("the template has no name")?;
    let package = folder.join(format!("{name}_{version}_{architecture}.deb"));
    process::output(
        Command::new("dpkg-deb")
            .args(["--root-owner-group", "-Zxz", "--build"])
            .args([&staged, &package])
            .env("SOURCE_DATE_EPOCH", release.time.to_string()),
    )?;
    Ok(package)
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644))?;
    Ok(())
}

fn sums(root: &Path) -> Result<String> {
    let mut text = String::new();
    for file in archive::all_files(root)? {
        let inside = file.strip_prefix(root)?;
        // Configuration is kept track of by conffiles.
        if !CONFIGURATIONS.iter().any(|file| inside == Path::new(file)) {
            let sum = process::output(Command::new("md5sum").arg(&file))?;
            let sum = sum.split(' ').next().context("md5sum says nothing")?;
            writeln!(text, "{sum}  {}", inside.display())?;
        }
    }
    Ok(text)
}

fn bytes_below(root: &Path) -> Result<u64> {
    archive::all_files(root)?.iter().map(|file| Ok(fs::metadata(file)?.len())).sum()
}
