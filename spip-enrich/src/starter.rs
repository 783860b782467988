//! The rules that come with the program: what really arrives at sensors.
//!
//! They stand in `starter/spip.rules`, each with a case that it matches and one that it must not match in
//! `starter/cases.txt`. Rules of the operator come in addition, or instead.

/// The text of the rules.
pub const RULES: &str = include_str!("../starter/spip.rules");

/// The name under which reports list them.
pub const NAME: &str = "spip.rules";

#[cfg(test)]
mod tests;
