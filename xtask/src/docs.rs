//! `cargo xtask docs`: the documentation as a book with search, in `target/book`.
//!
//! The pages stay readable as they are: this copies `docs`, and the pages of the root beside it, and adjusts their links. A link to
//! a source file becomes its text, because the book has no sources.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::lint;
use crate::markdown;
use crate::process;
use crate::project::Project;
use crate::report;
use crate::setup;

/// Contents of the book, in `docs`.
const CONTENTS: &str = "SUMMARY.md";

/// Pages of the root that the contents list. mdBook makes `index.html` of the first one.
const ROOT_PAGES: [&str; 3] = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"];

/// Checks the links, then builds the book.
pub(crate) fn run(project: &Project) -> Result<()> {
    lint::check_links(project)?;
    let mdbook = setup::for_docs(project)?;
    let book = project.target.join("book");
    let source = book.join("src");
    if book.exists() {
        fs::remove_dir_all(&book).with_context(|| format!("cannot remove {}", book.display()))?;
    }
    copy(&project.root.join("docs"), &source)?;
    for name in ROOT_PAGES {
        page(&project.root.join(name), &source.join(name))?;
    }
    fs::rename(source.join("book.toml"), book.join("book.toml")).context("docs/book.toml")?;
    process::run(Command::new(mdbook).arg("build").arg("--dest-dir").arg(book.join("html")).arg(&book))?;
    report::step("Built", project.relative(&book.join("html/index.html")));
    Ok(())
}

/// Copies a folder with everything below it.
fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| to.display().to_string())?;
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let path = entry?.path();
        let place = to.join(path.file_name().unwrap_or_default());
        if path.is_dir() {
            copy(&path, &place)?;
        } else if path.extension().is_some_and(|extension| extension == "md") {
            page(&path, &place)?;
        } else {
            fs::copy(&path, &place).with_context(|| path.display().to_string())?;
        }
    }
    Ok(())
}

fn page(from: &Path, to: &Path) -> Result<()> {
    let text = fs::read_to_string(from).with_context(|| from.display().to_string())?;
    let is_contents = to.file_name().is_some_and(|name| name == CONTENTS);
    fs::write(to, adjusted(&text, is_contents)).with_context(|| to.display().to_string())
}

/// Returns a page with the links that it has in the book, where all pages are in one folder. The contents name files; other pages
/// link to what mdBook makes of them.
fn adjusted(page: &str, is_contents: bool) -> String {
    let mut text = String::with_capacity(page.len());
    let mut end = 0;
    for link in markdown::links(page).iter().filter(|link| link.is_local()) {
        let (file, _) = link.parts();
        let above = file.strip_prefix("../");
        let target = link.target.strip_prefix("../").or(link.target.strip_prefix("docs/")).unwrap_or(link.target);
        let changed = match above {
            Some("README.md") if !is_contents => {
                format!("[{}]({})", link.text, target.replacen("README.md", "index.md", 1))
            }
            Some(above) if !ROOT_PAGES.contains(&above) => link.text.to_owned(),
            _ if target == CONTENTS => link.text.to_owned(),
            _ => format!("[{}]({target})", link.text),
        };
        text.push_str(&page[end..link.range.start]);
        text.push_str(&changed);
        end = link.range.end;
    }
    text + &page[end..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_to_the_pages_of_the_book() {
        let page = "[a](docs/a.md#x) ![b](docs/b.svg) [c](../README.md#y) [`d.rs`](../d.rs) [e](e.md) [f](https://f.example) `[g](docs/g.md)` [h](docs/SUMMARY.md)";
        let book = "[a](a.md#x) ![b](b.svg) [c](index.md#y) `d.rs` [e](e.md) [f](https://f.example) `[g](docs/g.md)` h";
        assert_eq!(adjusted(page, false), book);
        assert_eq!(adjusted("- [a](../README.md)", true), "- [a](README.md)");
    }
}
