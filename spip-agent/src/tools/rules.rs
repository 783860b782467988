//! Firewall rules that lead every port to the agent: shown, installed, removed.
//!
//! They are made with what the machine uses ([`backend`]): `iptables`, or `nft` with a table of our own ([`nft`]).
//!
//! With `iptables` all of it lives in two chains of our own in the table `nat`, `SPIP` for connections from outside and `SPIP_LOCAL`
//! for clients on this machine, and in one jump to each. Nothing else is ever touched: no chain is flushed but these,
//! no foreign rule is moved or read for anything but a jump to them. Each address family changes in one transaction of
//! `iptables-restore --noflush`, so a port is never half steered; across the two families there is no transaction.
//!
//! What the machine itself offers keeps its ports: `sshd` and the operator's own SSH session always, everything else
//! that listens unless the operator says otherwise. That is a look at one moment: a service that starts later
//! needs another `rules install`.

mod backend;
mod exclusions;
mod filter;
mod installed;
mod iptables;
mod nft;
mod plan;
mod programs;
mod saved;

use std::fmt::Write as _;
use std::io::{self, BufRead as _, IsTerminal as _};
use std::path::Path;

use thiserror::Error;

use crate::config::{Config, SteeringMode};
use crate::kernel::early_demux;
use crate::kernel::sockets::{self, Sockets};
use backend::Backend;
use exclusions::Exclusions;
pub use installed::{Found, RuleState, any_installed, filtered, states};
use iptables::{Family, Iptables};
use nft::Ruleset;
use plan::{Chain, Scope};
use programs::Programs;
use saved::Saved;

/// Actions on the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Print the commands that `Install` would run.
    Show,
    /// Make the rules as they should be.
    Install,
    /// Take away everything that `Install` made.
    Remove,
}

/// Options of an action.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Steer clients on this machine, too, whatever of its addresses they connect to.
    pub local: bool,
    /// Steer ports on which something listens, other than `sshd`.
    pub include_listening: bool,
    /// Do not ask.
    pub yes: bool,
}

/// Results of an action that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The rules are as they were asked for, or were shown.
    Done,
    /// The operator said no, and nothing was changed.
    Declined,
}

/// Reasons of a failure.
#[derive(Debug, Error)]
pub enum Error {
    /// There is no program to change rules with.
    #[error("cannot find {0}: install the package nftables or iptables")]
    NotFound(&'static str),
    /// The program could not be started.
    #[error("cannot run {0}: {1}")]
    NotRun(&'static str, io::Error),
    /// We may not change rules.
    #[error("{0} was refused by the kernel: needs CAP_NET_ADMIN and CAP_NET_RAW, run as root or with sudo")]
    NotPermitted(&'static str),
    /// The program failed; its words.
    #[error("{0} failed, and nothing of {1} was changed: {2}")]
    Failed(&'static str, &'static str, String),
    /// Installing needs to know the port.
    #[error("rules need the configuration of the agent: name it with --config FILE")]
    NoConfiguration,
    /// No rule could reach the agent.
    #[error("no rule would reach the agent at {listen}: {reasons}")]
    Unreachable {
        /// Address of the listener.
        listen: std::net::SocketAddr,
        /// One for each direction.
        reasons: String,
    },
    /// There is no terminal to ask at.
    #[error("cannot ask whether to go on, because the standard input is no terminal: say --yes")]
    NoTerminal,
    /// The listening sockets are unknown, and with them the port of `sshd`.
    #[error(transparent)]
    Sockets(#[from] sockets::Unreadable),
    /// The answer or the output went wrong.
    #[error("cannot talk to the terminal: {0}")]
    Terminal(io::Error),
}

impl Error {
    /// Status of the process: 2 for mistakes that the operator can fix on the command line or in the configuration,
    /// else 1.
    #[must_use]
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::NoTerminal | Self::NoConfiguration | Self::Unreachable { .. } => 2,
            _ => 1,
        }
    }
}

/// Shows, installs or removes the rules, and reports on standard output.
///
/// The configuration may be absent for [`Action::Remove`], so that a broken file does not keep rules in place.
///
/// # Errors
/// See [`Error`]; whatever it is, the rules of the family named in it are as they were before.
pub fn run(action: Action, config: Option<&Config>, options: Options) -> Result<Outcome, Error> {
    let ssh_connection = std::env::var("SSH_CONNECTION").ok();
    let (wanted, mut notes) = match (action, config) {
        (Action::Remove, _) => (Wanted::default(), Vec::new()),
        (_, None) => return Err(Error::NoConfiguration),
        (_, Some(config)) => {
            let sockets = Sockets::read(Path::new("/proc"))?;
            wanted(config, options, &sockets, ssh_connection.as_deref())?
        }
    };
    let backend = Backend::choose(Programs::from_environment);
    if action != Action::Remove {
        notes.insert(0, format!("made with {}", backend.name()));
        if let Some((found, remedy)) = config.and_then(filtered) {
            notes.push(format!("{found}; fix: {remedy}"));
        }
    }
    match backend {
        Backend::Iptables(iptables) => {
            let outcome = carry_out(action, &wanted, &notes, options.yes, &iptables, &mut io::stdout())?;
            // Whatever was made with the other programs goes, too.
            let programs = iptables.programs();
            if action == Action::Remove && nft::listing(programs).is_ok_and(|listing| listing.is_some()) {
                return carry_out_by_nft(action, &wanted.nft, &[], options.yes, programs, &mut io::stdout());
            }
            Ok(outcome)
        }
        Backend::Nft(programs) => {
            carry_out_by_nft(action, &wanted.nft, &notes, options.yes, &programs, &mut io::stdout())
        }
    }
}

/// Shows what is to be done, asks, and does it, with nftables.
fn carry_out_by_nft(
    action: Action,
    wanted: &Ruleset,
    notes: &[String],
    yes: bool,
    programs: &Programs,
    output: &mut dyn io::Write,
) -> Result<Outcome, Error> {
    let mut page = String::new();
    for note in notes {
        let _ = writeln!(page, "# note: {note}");
    }
    let present = match nft::listing(programs) {
        Ok(present) => present,
        Err(error) if action == Action::Show => {
            let _ = writeln!(page, "# note: the present rules are unknown, taken for empty: {error}");
            None
        }
        Err(error) => return Err(error),
    };
    let is_wanted = *wanted != Ruleset::default();
    let is_there = match &present {
        Some(listing) => is_wanted && wanted.is_in(listing),
        None => !is_wanted,
    };
    if is_there && is_wanted {
        let _ = writeln!(page, "# in place already");
    }
    if !is_there || action == Action::Show {
        page.push_str(&nft::script(wanted, if action == Action::Remove { "taken away" } else { "set up" }));
    }
    print(output, &page)?;
    let end = match action {
        Action::Show => return Ok(Outcome::Done),
        _ if is_there => {
            if is_wanted {
                "nothing to change\n"
            } else {
                "nothing to remove: there is no table inet spip\n"
            }
        }
        _ if !yes && !confirmed(output)? => {
            print(output, "nothing was changed\n")?;
            return Ok(Outcome::Declined);
        }
        Action::Remove => {
            nft::apply(programs, wanted)?;
            "removed\n"
        }
        Action::Install => {
            nft::apply(programs, wanted)?;
            "installed; `spip-agent rules remove` takes it away again\n"
        }
    };
    print(output, end)?;
    if action == Action::Install && early_demux::loses_connections() == Some(true) {
        print(output, &format!("note: {}; mend it with: {}\n", early_demux::LOSS, early_demux::REMEDY))?;
    }
    Ok(Outcome::Done)
}

/// Shows what is to be done, asks, and does it.
fn carry_out(
    action: Action,
    wanted: &Wanted,
    notes: &[String],
    yes: bool,
    iptables: &Iptables,
    output: &mut dyn io::Write,
) -> Result<Outcome, Error> {
    let mut page = String::new();
    for note in notes {
        let _ = writeln!(page, "# note: {note}");
    }
    let steps = steps(action, wanted, iptables, &mut page)?;
    print(output, &page)?;
    match action {
        Action::Show => return Ok(Outcome::Done),
        Action::Remove if steps.is_empty() => {
            print(output, "nothing to remove: there is no chain SPIP or SPIP_LOCAL\n")?;
            return Ok(Outcome::Done);
        }
        Action::Install if steps.is_empty() => {
            print(output, "nothing to change\n")?;
            return Ok(Outcome::Done);
        }
        Action::Install | Action::Remove => {}
    }
    if !yes && !confirmed(output)? {
        print(output, "nothing was changed\n")?;
        return Ok(Outcome::Declined);
    }
    apply(iptables, &steps, !wanted.v4.is_empty(), output)?;
    print(
        output,
        match action {
            Action::Remove => "removed\n",
            _ => "installed; `spip-agent rules remove` takes it away again\n",
        },
    )?;
    // By now NAT is there to be asked.
    if action == Action::Install && early_demux::loses_connections() == Some(true) {
        print(output, &format!("note: {}; fix: {}\n", early_demux::LOSS, early_demux::REMEDY))?;
    }
    Ok(Outcome::Done)
}

/// Returns the commands to run, family by family, and writes on the page what the operator sees of them.
fn steps(
    action: Action,
    wanted: &Wanted,
    iptables: &Iptables,
    page: &mut String,
) -> Result<Vec<(Family, String)>, Error> {
    let mut steps = Vec::new();
    for (family, chains) in [(Family::V4, &wanted.v4), (Family::V6, &wanted.v6)] {
        let saved = match iptables.saved(family) {
            Ok(saved) => saved,
            Err(error) if action == Action::Show => {
                if !chains.is_empty() {
                    let _ = writeln!(page, "# note: the present {family} rules are unknown, taken for empty: {error}");
                }
                Saved::default()
            }
            // Where a family has no tables, there are no rules of ours in them either.
            Err(error) if chains.is_empty() && !(action == Action::Remove && family == Family::V4) => {
                if matches!(error, Error::NotFound(_) | Error::Failed(..)) {
                    continue;
                }
                return Err(error);
            }
            Err(error) if family == Family::V6 && !wanted.v4.is_empty() => {
                let _ = writeln!(page, "# note: {family} is left out: {error}");
                continue;
            }
            Err(error) => return Err(error),
        };
        if !plan::is_in_place(chains, &saved) {
            let input = plan::input(chains, &saved);
            page.push_str(&script(iptables, family, &input, action));
            steps.push((family, input));
        } else if !chains.is_empty() {
            let _ = writeln!(page, "# {family}: in place already");
            if action == Action::Show {
                page.push_str(&script(iptables, family, &plan::input(chains, &saved), action));
            }
        }
    }
    Ok(steps)
}

/// Chains by family, and the same for nftables; none means that ours are to go.
#[derive(Default)]
struct Wanted {
    v4: Vec<Chain>,
    v6: Vec<Chain>,
    nft: Ruleset,
}

/// Returns the rules that the configuration asks for, and the notes on them.
fn wanted(
    config: &Config,
    options: Options,
    sockets: &Sockets,
    ssh_connection: Option<&str>,
) -> Result<(Wanted, Vec<String>), Error> {
    let (scope, mut notes) = Scope::of(config.listen, options.local);
    if !scope.any() {
        return Err(Error::Unreachable { listen: config.listen, reasons: notes.join("; ") });
    }
    if !sockets.complete {
        notes.push("not every process is visible: run as root to see who listens where".to_owned());
    }
    if config.steering.mode == SteeringMode::SkLookup {
        notes
            .push("steering = \"sk_lookup\" in the configuration: the agent needs no rules, they only cost".to_owned());
    }
    let exclusions = Exclusions::of(config, sockets, ssh_connection, options.include_listening);
    let chains = |(outside, local)| plan::chains(outside, local, &exclusions, config.listen.port());
    let nft = Ruleset::of(scope, &exclusions, config.listen.port());
    Ok((Wanted { v4: chains(scope.v4), v6: chains(scope.v6), nft }, notes))
}

/// The same step as a person would take it in a shell.
fn script(iptables: &Iptables, family: Family, input: &str, action: Action) -> String {
    let what = if action == Action::Remove { "taken away" } else { "set up" };
    format!("# {family}, {what} in one step\n{} <<'END'\n{input}END\n", iptables.restore_command(family))
}

/// Applies the steps. IPv6 may be missing behind tools that are there: then IPv4 alone is better than nothing.
fn apply(
    iptables: &Iptables,
    steps: &[(Family, String)],
    v4_wanted: bool,
    output: &mut dyn io::Write,
) -> Result<(), Error> {
    for (family, input) in steps {
        match iptables.restore(*family, input) {
            Err(error @ Error::Failed(..)) if *family == Family::V6 && v4_wanted => {
                print(output, &format!("note: {family} is left out: {error}\n"))?;
            }
            other => other?,
        }
    }
    Ok(())
}

/// Asks on the terminal; everything but a yes is a no.
fn confirmed(output: &mut dyn io::Write) -> Result<bool, Error> {
    let input = io::stdin();
    if !input.is_terminal() {
        return Err(Error::NoTerminal);
    }
    print(output, "Run this? [y/N] ")?;
    let mut answer = String::new();
    input.lock().read_line(&mut answer).map_err(Error::Terminal)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes" | "Yes" | "YES"))
}

/// Not `println!`, which panics when the reader has gone.
fn print(output: &mut dyn io::Write, text: &str) -> Result<(), Error> {
    let written = output.write_all(text.as_bytes());
    written.and_then(|()| output.flush()).map_err(Error::Terminal)
}

#[cfg(test)]
mod tests;
