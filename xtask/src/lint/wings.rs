//! The order of the agent's wings, and what the pure crates may link: a build cannot show either, so this does.
//!
//! A wing imports those before it in [`ORDER`] and none behind it; so no circle of wings can be. Code under
//! `#[cfg(test)]` may look anywhere. A module that is in no wing is refused, too: the root has a dozen rooms.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::project::Project;

/// The wings of `spip-agent`, from the lowest.
pub(crate) const ORDER: [&str; 12] = [
    "process", "config", "kernel", "tls", "respond", "confine", "log", "scans", "session", "observe", "start", "tools",
];

/// Crates that readers of records link, so that these must not bring in the sensor's libraries.
const PURE: [&str; 2] = ["spip-protocol", "spip-record"];

/// Libraries of the kernel side, of TLS and of runtimes.
const FORBIDDEN: [&str; 9] =
    ["aya", "aya-log", "aya-obj", "landlock", "openssl", "rcgen", "rustls", "seccompiler", "tokio"];

/// Checks both.
pub(super) fn check(project: &Project) -> Result<()> {
    let mut problems = Vec::new();
    let source = project.root.join("spip-agent/src");
    walk(&source, &source, &mut problems)?;
    for package in PURE {
        let mut tree = project.cargo("tree");
        tree.args(["--locked", "--edges", "normal", "--prefix", "none", "--format", "{p}", "--package", package]);
        let output = tree.output().context("cargo tree")?;
        if !output.status.success() {
            bail!("cargo tree of {package} failed: {}", String::from_utf8_lossy(&output.stderr));
        }
        problems
            .extend(forbidden(&String::from_utf8_lossy(&output.stdout)).map(|name| format!("{package} links {name}")));
    }
    if !problems.is_empty() {
        bail!("order of the crates and wings:\n  {}", problems.join("\n  "));
    }
    Ok(())
}

/// The forbidden crates in the output of `cargo tree`.
fn forbidden(tree: &str) -> impl Iterator<Item = &'static str> + use<'_> {
    let linked = |name: &&'static str| tree.lines().any(|line| line.split(' ').next() == Some(*name));
    FORBIDDEN.into_iter().filter(move |name| linked(name))
}

fn walk(source: &Path, folder: &Path, problems: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            walk(source, &path, problems)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(source)?.display().to_string();
            let text = fs::read_to_string(&path).with_context(|| name.clone())?;
            problems.extend(violations(&name, &text));
        }
    }
    Ok(())
}

/// The imports of one file that go against the order.
fn violations(name: &str, text: &str) -> Vec<String> {
    let wing = name.split('/').next().unwrap_or_default().trim_end_matches(".rs");
    if ["lib", "main"].contains(&wing) || name.contains("/tests/") || name.ends_with("tests.rs") {
        return Vec::new();
    }
    let Some(place) = ORDER.iter().position(|known| *known == wing) else {
        return vec![format!("{name} is in no wing: {}", ORDER.join(", "))];
    };
    let code: Vec<&str> = without_tests(text).lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let code = code.join("\n");
    let imported = code.split("crate::").skip(1).flat_map(wings_of);
    let mut later: Vec<_> =
        imported.filter(|other| ORDER.iter().position(|known| known == other).is_some_and(|at| at > place)).collect();
    later.sort_unstable();
    later.dedup();
    later.into_iter().map(|other| format!("{name} imports {other}, which comes after {wing}")).collect()
}

/// The text up to a module of tests, which is the last thing in a file.
pub(crate) fn without_tests(text: &str) -> &str {
    let is_module = |after: &str| {
        let line = after.lines().find(|line| !line.starts_with("#[")).unwrap_or_default();
        line.contains("mod tests {")
    };
    let starts = text.match_indices("#[cfg(test)]\n").map(|(at, mark)| (at, at + mark.len()));
    let end = starts.into_iter().find(|(_, after)| is_module(&text[*after..]));
    end.map_or(text, |(at, _)| &text[..at])
}

/// The modules at the root that a path behind `crate::` names: one, or those of a list.
fn wings_of(path: &str) -> Vec<&str> {
    let name = |text: &'_ str| text.find(|c: char| !c.is_ascii_lowercase() && c != '_').unwrap_or(text.len());
    let Some(list) = path.strip_prefix('{') else {
        return vec![&path[..name(path)]];
    };
    let mut names = Vec::new();
    let (mut depth, mut start) = (0, 0);
    for (at, c) in list.char_indices() {
        let ends = depth == 0 && matches!(c, ',' | '}');
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if ends {
            let item = list[start..at].trim_start();
            names.push(&item[..name(item)]);
            start = at + 1;
        }
        if depth < 0 {
            break;
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_import_of_a_later_wing_is_found_however_it_is_written() {
        for text in [
            "use crate::session::record::Session;",
            "use crate::{config, session};",
            "use crate::{\n    config::{Config, Levels},\n    session::{self},\n};",
            "fn f() { crate::session::f() }",
        ] {
            assert_eq!(violations("log/writer.rs", text), ["log/writer.rs imports session, which comes after log"]);
        }
    }

    #[test]
    fn earlier_wings_comments_and_tests_are_no_violation() {
        let text = "//! [`crate::session`]\nuse crate::config::Config;\nuse crate::log::sensor;\n\
                    #[cfg(test)]\nmod tests {\n    use crate::start::app;\n}\n";
        assert_eq!(violations("log/writer.rs", text), [""; 0]);
        assert_eq!(violations("session/record/tests/sample.rs", "use crate::start::app;"), [""; 0]);
        assert_eq!(violations("main.rs", "use crate::start::app;"), [""; 0]);
    }

    #[test]
    fn a_module_of_tests_may_be_visible_or_have_attributes() {
        for head in ["pub(crate) mod tests {", "#[allow(dead_code)]\nmod tests {"] {
            let text = format!("fn f() {{}}\n#[cfg(test)]\n{head}\n    use crate::start::app;\n}}\n");
            assert_eq!(violations("log/writer.rs", &text), [""; 0], "{head}");
        }
    }

    #[test]
    fn the_tree_keeps_the_order() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../spip-agent/src");
        let mut problems = Vec::new();
        walk(&source, &source, &mut problems).expect("the sources");
        assert_eq!(problems, [""; 0]);
    }

    #[test]
    fn a_module_outside_of_the_wings_is_refused() {
        assert_eq!(violations("helpers.rs", "").len(), 1);
    }

    #[test]
    fn only_what_is_linked_is_forbidden() {
        let tree = "spip-record v0.1.0 (/x)\nrustls-pki-types v1.0.0\ntokio v1.0.0\n";
        assert_eq!(forbidden(tree).collect::<Vec<_>>(), ["tokio"]);
    }
}
