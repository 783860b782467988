//! What each key means, out of the documentation: the last column of its tables.

/// The page that has a row for every key.
const DOCUMENTATION: &str = include_str!("../../../docs/configuration.md");

/// The meaning of a key in plain text; none where the documentation has no row for it.
pub(super) fn of(key: &str) -> Option<String> {
    let row = DOCUMENTATION.lines().filter_map(|line| line.strip_prefix("| ")).find(|row| {
        let names = row.split(" | ").next().unwrap_or_default();
        names.split(", ").any(|name| name.trim_matches('`') == key)
    })?;
    // Bars inside of code would be escaped; none is.
    let meaning = row.trim_end().strip_suffix('|')?.rsplit(" | ").next()?;
    Some(plain(meaning.trim()))
}

/// Without links and marks of code.
fn plain(markdown: &str) -> String {
    let mut text = String::new();
    let mut rest = markdown;
    while let Some((before, link)) = rest.split_once('[') {
        text.push_str(before);
        match link.split_once("](").and_then(|(name, target)| Some((name, target.split_once(')')?))) {
            // Brackets in values, such as `[22]`, are no links.
            Some((name, (_, after))) if !name.contains(['[', ']', '`']) => {
                text.push_str(name);
                rest = after;
            }
            _ => {
                text.push('[');
                rest = link;
            }
        }
    }
    text.push_str(rest);
    text.replace('`', "")
}

/// As comment lines of bounded width.
pub(super) fn commented(text: &str) -> String {
    const WIDTH: usize = 110;
    let mut lines = String::new();
    let mut line = String::from("#");
    for word in text.split_ascii_whitespace() {
        if line.len() > 1 && line.len() + 1 + word.len() > WIDTH {
            lines.push_str(&line);
            lines.push('\n');
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    lines.push_str(&line);
    lines.push('\n');
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_meaning_of_a_key_is_that_of_the_documentation() {
        assert_eq!(
            of("port").as_deref(),
            Some("The one port on which the agent listens; the rules lead all others there.")
        );
        assert_eq!(of("no_such_key"), None);
    }

    #[test]
    fn links_and_code_become_plain_text() {
        assert_eq!(plain("see [scans](scans.md), `[22]` and [x"), "see scans, [22] and [x");
    }

    #[test]
    fn long_texts_are_broken_between_words() {
        let text = commented(&"word ".repeat(50));
        assert!(text.lines().all(|line| line.len() <= 110 && line.starts_with("# word")), "{text}");
    }
}
