//! Links and anchors of the project's Markdown pages: enough of the syntax for `lint`, which checks links, and for `docs`, which
//! moves pages into a book.
//!
//! Fenced blocks and code spans are text. Anchors are those that GitHub and mdBook make of a heading.

use std::collections::BTreeMap;
use std::ops::Range;

/// A link `[text](target)` of a page.
pub(crate) struct Link<'a> {
    /// Bytes of the page from `[` to `)`; an image's `!` is not among them.
    pub(crate) range: Range<usize>,
    /// Text between the brackets.
    pub(crate) text: &'a str,
    /// Target between the parentheses.
    pub(crate) target: &'a str,
    /// Line of the page, from 1.
    pub(crate) line: usize,
}

impl Link<'_> {
    /// Reports whether the target is a file of the project or an anchor, not an address.
    pub(crate) fn is_local(&self) -> bool {
        !self.target.contains("://") && !self.target.starts_with("mailto:")
    }

    /// Splits the target into file and anchor; either may be empty.
    pub(crate) fn parts(&self) -> (&str, &str) {
        self.target.split_once('#').unwrap_or((self.target, ""))
    }
}

/// Returns the links of a page in their order.
pub(crate) fn links(page: &str) -> Vec<Link<'_>> {
    let mut links = Vec::new();
    for (line, start, text) in prose(page) {
        let masked = without_code(text);
        let mut from = 0;
        while let Some(middle) = masked[from..].find("](").map(|at| from + at) {
            from = middle + 2;
            let opening = opening(&masked[..middle]);
            let (Some(opening), Some(length)) = (opening, masked[from..].find(')')) else { continue };
            links.push(Link {
                range: start + opening..start + from + length + 1,
                text: &text[opening + 1..middle],
                target: &text[from..from + length],
                line,
            });
        }
    }
    links
}

/// Returns the anchors of a page: those of its headings, and every `id="…"`.
pub(crate) fn anchors(page: &str) -> Vec<String> {
    let mut seen = BTreeMap::<String, usize>::new();
    let mut anchors = Vec::new();
    for (_, _, text) in prose(page) {
        if let Some(heading) = text.starts_with('#').then(|| text.trim_start_matches('#')) {
            let slug = slug(heading.trim());
            let count = seen.entry(slug.clone()).or_default();
            anchors.push(if *count == 0 { slug } else { format!("{slug}-{count}") });
            *count += 1;
        }
        anchors.extend(text.split("id=\"").skip(1).filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
    }
    anchors
}

/// Returns the lines outside of fenced blocks, each with its number and its offset in the page.
fn prose(page: &str) -> impl Iterator<Item = (usize, usize, &str)> {
    let mut offset = 0;
    let mut is_fenced = false;
    page.split_inclusive('\n').enumerate().filter_map(move |(at, text)| {
        let start = offset;
        offset += text.len();
        let is_fence = text.trim_start().starts_with("```");
        is_fenced ^= is_fence;
        (!is_fenced && !is_fence).then(|| (at + 1, start, text.trim_end_matches('\n')))
    })
}

/// Replaces code spans by spaces of the same length. A backtick without a partner on its line stays.
fn without_code(line: &str) -> String {
    let mut masked = line.to_owned();
    let mut from = 0;
    while let Some(start) = masked[from..].find('`').map(|at| from + at) {
        let Some(length) = masked[start + 1..].find('`') else { break };
        from = start + length + 2;
        masked.replace_range(start..from, &" ".repeat(from - start));
    }
    masked
}

/// Returns where the bracket begins that closes at the end of `text`.
fn opening(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, byte) in text.bytes().enumerate().rev() {
        match byte {
            b']' => depth += 1,
            b'[' if depth == 0 => return Some(at),
            b'[' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// Returns the anchor of a heading.
fn slug(heading: &str) -> String {
    let mut text = heading.to_owned();
    while let Some(link) = links(&text).first().map(|link| (link.range.clone(), link.text.to_owned())) {
        text.replace_range(link.0, &link.1);
    }
    text.to_lowercase()
        .chars()
        .filter_map(|c| match c {
            ' ' => Some('-'),
            c if c.is_alphanumeric() || "-_".contains(c) => Some(c),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_found_outside_of_code() {
        let page = "See [a](a.md#x), `[b](b.md)` and ![picture](c.svg).\n```\n[d](d.md)\n```\n[`e` [f]](e.md)\n";
        let found: Vec<_> = links(page).iter().map(|link| (link.text, link.target, link.line)).collect();
        assert_eq!(found, [("a", "a.md#x", 1), ("picture", "c.svg", 1), ("`e` [f]", "e.md", 5)]);
        assert_eq!(&page[links(page)[0].range.clone()], "[a](a.md#x)");
    }

    #[test]
    fn anchors_are_those_of_headings_and_ids() {
        let page =
            "# A page\n## `syn` in [records](r.md): what?\n```sh\n# no heading\n```\n# A page\n<a id=\"here\"></a>\n";
        assert_eq!(anchors(page), ["a-page", "syn-in-records-what", "a-page-1", "here"]);
    }
}
