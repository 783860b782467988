//! The name of this run of the agent, which every line of its log carries: with the sensor's name and `seq` it names
//! a line among all sensors and all runs, so that a reader can tell what is missing.

use std::sync::LazyLock;

use uuid::Uuid;

/// Hexadecimal digits of a name: 48 random bits. Two of a thousand runs of one sensor share a name with a probability
/// of one in 500 million.
const DIGITS: usize = 12;

/// Returns the name of this run: the same until the process ends.
#[must_use]
pub fn id() -> &'static str {
    static ID: LazyLock<String> = LazyLock::new(|| {
        let mut digits = Uuid::new_v4().simple().to_string();
        // The version stands in the 13th digit, so these are random.
        digits.truncate(DIGITS);
        digits
    });
    &ID
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_has_one_short_name() {
        assert_eq!(id(), id());
        assert!(id().len() == DIGITS && id().bytes().all(|digit| b"0123456789abcdef".contains(&digit)), "{}", id());
    }
}
