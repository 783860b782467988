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

/// Pages of the root that the contents list.
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
    fs::write(to, adjusted(&text)).with_context(|| to.display().to_string())
}

/// Returns a page with the links that it has in the book, where all pages are in one folder.
fn adjusted(page: &str) -> String {
    let mut text = String::with_capacity(page.len());
    let mut end = 0;
    for link in markdown::links(page).iter().filter(|link| link.is_local()) {
        let (file, _) = link.parts();
        let target = link.target;
        let changed = match file.strip_prefix("../") {
            Some(above) if ROOT_PAGES.contains(&above) => format!("[{}]({})", link.text, &target["../".len()..]),
            Some(_) => link.text.to_owned(),
            None => format!("[{}]({})", link.text, target.strip_prefix("docs/").unwrap_or(target)),
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
        let page = "[a](docs/a.md#x) ![b](docs/b.svg) [c](../README.md#y) [`d.rs`](../d.rs) [e](e.md) [f](https://f.example) `[g](docs/g.md)`";
        let book = "[a](a.md#x) ![b](b.svg) [c](README.md#y) `d.rs` [e](e.md) [f](https://f.example) `[g](docs/g.md)`";
        assert_eq!(adjusted(page), book);
    }
}
