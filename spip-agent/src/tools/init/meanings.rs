//! What each key means and takes, out of the documentation: the last columns of its tables, and its full file.

/// The page that has a row for every key.
const DOCUMENTATION: &str = include_str!("../../../../docs/configuration.md");

/// The meaning of a key in plain text; none where the documentation has no row for it.
pub(super) fn of(key: &str) -> Option<String> {
    Some(plain(row(key)?[3]))
}

/// What a key takes.
pub(super) fn accepted(key: &str) -> Option<String> {
    Some(plain(row(key)?[2]).replace('`', ""))
}

/// A value of a key, as TOML: that of the full file.
pub(super) fn example(key: &str) -> Option<String> {
    let (_, section) = DOCUMENTATION.split_once("\n## A full file\n")?;
    let (_, file) = section.split_once("```toml\n")?;
    let table: toml::Table = file.split("```").next()?.parse().ok()?;
    table.get(key).map(toml::Value::to_string)
}

/// Key, default, what is accepted, meaning.
fn row(key: &str) -> Option<[&'static str; 4]> {
    let rows = DOCUMENTATION.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    // Bars inside of code would be escaped; none is.
    let mut rows = rows.filter_map(|row| <[&str; 4]>::try_from(row.split(" | ").collect::<Vec<_>>()).ok());
    rows.find(|row| row[0].trim_matches('`') == key)
}

/// Of a link the page that it leads to. Code stays marked where it is a word, which would read as one of the sentence;
/// values show by themselves what they are.
fn plain(markdown: &str) -> String {
    let mut text = String::new();
    let mut rest = markdown;
    while let Some((before, link)) = rest.split_once('[') {
        text.push_str(before);
        match link.split_once("](").and_then(|(name, target)| Some((name, target.split_once(')')?))) {
            // Brackets in values, such as `[22]`, are no links.
            Some((name, (target, after))) if !name.contains(['[', ']', '`']) => {
                text.push_str(target.split('#').next().unwrap_or_default());
                rest = after;
            }
            _ => {
                text.push('[');
                rest = link;
            }
        }
    }
    text.push_str(rest);
    let is_word = |code: &str| !code.contains(['"', '[', '{']);
    let parts = text.split('`').enumerate();
    parts.map(|(n, part)| if n % 2 == 1 && is_word(part) { format!("`{part}`") } else { part.to_owned() }).collect()
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
    fn links_become_their_pages_and_words_of_code_stay_marked() {
        assert_eq!(plain("see [scans](scans.md#x), `[22]` and [x"), "see scans.md, [22] and [x");
        assert_eq!(plain("`\"off\"` says `a`, not a"), "\"off\" says `a`, not a");
    }

    #[test]
    fn long_texts_are_broken_between_words() {
        let text = commented(&"word ".repeat(50));
        assert!(text.lines().all(|line| line.len() <= 110 && line.starts_with("# word")), "{text}");
    }
}
