//! Every link of the documentation leads somewhere, and every page of `docs` is in the contents.
//!
//! Checks local targets only: the file exists, and a page has the anchor. Addresses on the internet are not fetched, because the
//! result would depend on the day.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::markdown;

/// Contents of the book, relative to the root.
const CONTENTS: &str = "docs/SUMMARY.md";

/// Checks the pages in the root and in `docs`.
pub(super) fn check(root: &Path) -> Result<()> {
    let pages = pages(root)?;
    let mut problems = Vec::new();
    for page in &pages {
        let text = read(page)?;
        for link in markdown::links(&text) {
            if let Some(problem) = link.is_local().then(|| problem(page, &text, &link)).transpose()?.flatten() {
                problems.push(format!("{}:{}: {}: {problem}", page.display(), link.line, link.target));
            }
        }
    }
    let contents = root.join(CONTENTS);
    let listed = read(&contents)?;
    for page in pages.iter().filter(|page| page.parent() == contents.parent() && **page != contents) {
        let name = page.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if markdown::links(&listed).iter().filter(|link| link.target == name).count() != 1 {
            problems.push(format!("{CONTENTS} must list {name} once"));
        }
    }
    if !problems.is_empty() {
        bail!("links:\n  {}", problems.join("\n  "));
    }
    Ok(())
}

/// Returns what is wrong with a link, if anything.
fn problem(page: &Path, text: &str, link: &markdown::Link<'_>) -> Result<Option<String>> {
    let (file, anchor) = link.parts();
    let target = page.parent().unwrap_or(Path::new(".")).join(file);
    if !file.is_empty() && !target.exists() {
        return Ok(Some("no such file".to_owned()));
    }
    if anchor.is_empty() {
        return Ok(None);
    }
    let anchors = if file.is_empty() { markdown::anchors(text) } else { markdown::anchors(&read(&target)?) };
    Ok((!anchors.iter().any(|known| known == anchor)).then(|| "no such heading".to_owned()))
}

/// Returns the Markdown files of the root and of `docs`.
fn pages(root: &Path) -> Result<Vec<PathBuf>> {
    let mut pages = Vec::new();
    for folder in [root.to_owned(), root.join("docs")] {
        for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path);
            }
        }
    }
    pages.sort();
    Ok(pages)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_link_of_the_documentation_leads_somewhere() {
        check(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..")).expect("links");
    }

    #[test]
    fn a_missing_file_a_missing_heading_and_an_unlisted_page_are_named() {
        let root = std::env::temp_dir().join(format!("spip-links-{}", std::process::id()));
        fs::create_dir_all(root.join("docs")).expect("a directory");
        fs::write(
            root.join("README.md"),
            "[a](docs/a.md#there) [b](docs/b.md) [c](docs/a.md#not) [d](https://x.example)\n",
        )
        .expect("a file");
        fs::write(root.join("docs/a.md"), "# There\n").expect("a file");
        fs::write(root.join("docs/SUMMARY.md"), "# Contents\n").expect("a file");
        let found = check(&root).expect_err("three problems").to_string();
        fs::remove_dir_all(&root).expect("ours");
        assert!(found.contains("README.md:1: docs/b.md: no such file"), "{found}");
        assert!(found.contains("docs/a.md#not: no such heading"), "{found}");
        assert!(found.contains("docs/SUMMARY.md must list a.md once"), "{found}");
        assert_eq!(found.lines().count(), 4, "{found}");
    }
}
