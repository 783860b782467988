//! `cargo xtask lines`: lines of code, of comments and of tests, for each wing of the agent and each other crate.
//!
//! A line counts as code or as a comment where something is written on it. Tests are files named after tests or below such a
//! folder, and the module of tests at the end of a file.

use std::fs;
use std::ops::AddAssign;
use std::path::Path;

use anyhow::{Context, Result};

use crate::lint::{WINGS, without_tests};
use crate::project::Project;

/// Folders with sources that are no wing of the agent.
const CRATES: [&str; 11] = [
    "spip-common/src",
    "spip-protocol/src",
    "spip-record/src",
    "spip-enrich/src",
    "spip-notify/src",
    "spip-ebpf/src",
    "spip-view",
    "spip-ship",
    "tests",
    "fuzz",
    "xtask/src",
];

/// Lines of some files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Lines {
    code: usize,
    comments: usize,
    tests: usize,
}

impl AddAssign for Lines {
    fn add_assign(&mut self, other: Self) {
        self.code += other.code;
        self.comments += other.comments;
        self.tests += other.tests;
    }
}

impl Lines {
    /// Counts the lines of one file by its name.
    fn of(name: &str, text: &str) -> Self {
        let is_test = |part: &str| part == "tests" || part.ends_with("tests.rs");
        let written = |text: &str| text.lines().filter(|line| !line.trim().is_empty()).count();
        let code = if name.split('/').any(is_test) { "" } else { without_tests(text) };
        let comments = code.lines().filter(|line| line.trim_start().starts_with("//")).count();
        Self { code: written(code) - comments, comments, tests: written(&text[code.len()..]) }
    }

    /// Counts those of a file, or of all Rust files below a folder.
    fn below(path: &Path, root: &Path) -> Result<Self> {
        let mut lines = Self::default();
        if path.is_dir() {
            for entry in fs::read_dir(path).with_context(|| path.display().to_string())? {
                lines += Self::below(&entry?.path(), root)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
            lines = Self::of(&path.strip_prefix(root)?.display().to_string(), &text);
        }
        Ok(lines)
    }

    fn print(self, name: &str) {
        println!("{name:<14} {:>7} {:>9} {:>7}", self.code, self.comments, self.tests);
    }
}

/// Prints the table.
pub(crate) fn run(project: &Project) -> Result<()> {
    let source = project.root.join("spip-agent/src");
    println!("{:<14} {:>7} {:>9} {:>7}", "agent's wing", "code", "comments", "tests");
    let (mut sensor, mut tools) = (Lines::default(), Lines::default());
    for wing in WINGS {
        let mut lines = Lines::below(&source.join(wing), &source)?;
        lines += Lines::below(&source.join(wing).with_extension("rs"), &source)?;
        lines.print(wing);
        *(if wing == "tools" { &mut tools } else { &mut sensor }) += lines;
    }
    println!();
    sensor.print("without tools");
    tools.print("tools");
    println!("\n{:<14} {:>7} {:>9} {:>7}", "crate", "code", "comments", "tests");
    for folder in CRATES {
        let name = folder.trim_end_matches("/src");
        let root = project.root.join(folder);
        // Below the crate of the end-to-end tests everything is of tests.
        let lines = Lines::below(&root, if folder == "tests" { &project.root } else { &root })?;
        lines.print(name);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_of_code_of_comments_or_of_tests() {
        let text = "//! Head.\n\nfn f() {\n    // Why.\n}\n\n#[cfg(test)]\nmod tests {\n    // Why.\n}\n";
        assert_eq!(Lines::of("a.rs", text), Lines { code: 2, comments: 2, tests: 4 });
        for name in ["a/tests.rs", "a/tests/b.rs"] {
            assert_eq!(Lines::of(name, text), Lines { tests: 8, ..Lines::default() });
        }
    }
}
