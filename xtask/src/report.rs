//! Progress of the commands: one line a step, on stderr.
//!
//! stdout is left to what a command produces (the records of `demo`). Colour only where a person reads.

use std::fmt::Display;
use std::io::{IsTerminal, stderr};

const GREEN: &str = "32";
const YELLOW: &str = "33";
const RED: &str = "31";

/// Says what happens next: `verb` is a short capitalised word, as cargo's own.
pub(crate) fn step(verb: &str, what: impl Display) {
    line(GREEN, verb, &what);
}

/// Says what the reader should know, though the command goes on.
pub(crate) fn note(what: impl Display) {
    line(YELLOW, "Note", &what);
}

/// Says why the command ends without success, with the chain of causes.
pub(crate) fn failure(error: &anyhow::Error) {
    line(RED, "Failed", &format!("{error:#}"));
}

fn line(colour: &str, verb: &str, what: &dyn Display) {
    if stderr().is_terminal() {
        eprintln!("\x1b[1;{colour}m{verb:>12}\x1b[0m {what}");
    } else {
        eprintln!("{verb:>12} {what}");
    }
}
