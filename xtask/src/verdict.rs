//! Parses the output of a machine: each step with its status, each test program with its counts.
//!
//! The steps are framed by lines of the guest's script. A step without an end, a program that is missing, or a machine
//! that never said that it was done, is a failure: silence is no success.

use std::fmt;

use anyhow::{Result, bail};

use crate::test::Counts;

const BEGIN: &str = "== begin ";
const END: &str = "== end ";
const DONE: &str = "== done";
const KERNEL: &str = "== kernel ";

/// One step of the guest.
#[derive(Debug, Default)]
struct Step {
    name: String,
    /// The status of its command; none when it never ended.
    status: Option<i32>,
    counts: Counts,
}

/// All of it.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    kernel: String,
    steps: Vec<Step>,
    done: bool,
}

impl Verdict {
    pub(crate) fn read(lines: &[String]) -> Self {
        let mut verdict = Self::default();
        for line in lines {
            if let Some(kernel) = line.strip_prefix(KERNEL) {
                kernel.clone_into(&mut verdict.kernel);
            } else if let Some(name) = line.strip_prefix(BEGIN) {
                verdict.steps.push(Step { name: name.to_owned(), ..Step::default() });
            } else if let Some((name, status)) = line.strip_prefix(END).and_then(|rest| rest.rsplit_once(' ')) {
                if let Some(step) = verdict.steps.iter_mut().rfind(|step| step.name == name) {
                    step.status = status.parse().ok();
                }
            } else if line == DONE {
                verdict.done = true;
            } else if let Some(step) = verdict.steps.last_mut() {
                step.counts.read(line);
            }
        }
        verdict
    }

    /// An error when anything failed or never came.
    pub(crate) fn check(&self) -> Result<()> {
        let failed: Vec<_> =
            self.steps.iter().filter(|step| step.status != Some(0)).map(|step| step.name.as_str()).collect();
        if !failed.is_empty() {
            bail!("under {}: {} failed", self.kernel, failed.join(", "));
        }
        if !self.done || self.steps.is_empty() {
            bail!("the machine never said that it was done");
        }
        Ok(())
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Linux {}", self.kernel)?;
        for step in &self.steps {
            let status = match step.status {
                Some(0) => "ok".to_owned(),
                Some(status) => format!("status {status}"),
                None => "never ended".to_owned(),
            };
            write!(f, "{:>18}: {status}", step.name)?;
            let Counts { passed, failed, ignored, .. } = step.counts;
            if passed + failed + ignored > 0 {
                write!(f, ", {passed} passed, {failed} failed, {ignored} ignored")?;
            }
            writeln!(f)?;
            for name in step.counts.names() {
                writeln!(f, "{:>18}  failed: {name}", "")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Verdict {
        Verdict::read(&text.lines().map(str::to_owned).collect::<Vec<_>>())
    }

    const GOOD: &str = "noise\n== kernel 6.1.0\n== begin origin\ntest a ... ok\n\
        test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured\n== end origin 0\n== done\n";

    #[test]
    fn a_machine_that_is_done_without_a_failure_passes() {
        let verdict = read(GOOD);
        verdict.check().expect("all well");
        assert!(verdict.to_string().contains("origin: ok, 3 passed, 0 failed"), "{verdict}");
    }

    #[test]
    fn a_step_that_fails_or_never_ends_and_a_machine_that_falls_silent_fail() {
        assert!(read(&GOOD.replace("origin 0", "origin 101")).check().is_err());
        assert!(read(&GOOD.replace("== end origin 0\n", "")).check().is_err());
        assert!(read(&GOOD.replace("== done\n", "")).check().is_err());
        assert!(read("").check().is_err());
    }
}
