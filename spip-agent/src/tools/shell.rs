//! Words for commands that are shown to be pasted: whatever is in them, a POSIX shell reads one word.

/// The text as one word: as it is where nothing in it means anything to a shell, else between single quotes.
#[must_use]
pub fn word(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./:@%+,=".contains(&byte);
    if !text.is_empty() && text.bytes().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_each_as_one_word() {
        assert_eq!(word("/etc/spip/spip.toml"), "/etc/spip/spip.toml");
        for text in ["a;rm -r x", "$(id)", "it's", "", "a\nb", "~", "*", "a\\b", "\"", "é"] {
            let command = format!("printf %s {}", word(text));
            let output = std::process::Command::new("sh").arg("-c").arg(&command).output().expect("a shell");
            assert_eq!(String::from_utf8_lossy(&output.stdout), text, "{command}");
        }
    }
}
