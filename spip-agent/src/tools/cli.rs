//! The command line: the arguments, their help, and the command that they ask for.
//!
//! Single-dash `-config` is the way in which the Go predecessor was started, and is understood wherever `--config` is.
//! Usage errors end with status 2 before anything is read or bound.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser, Subcommand};
use log::LevelFilter;

use crate::tools::convert;
use crate::tools::doctor;
use crate::tools::init;
use crate::tools::rules;

/// The operator's request.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// Run the agent.
    Run {
        /// The configuration file.
        config: PathBuf,
        /// Level of the eBPF programs' messages that become system messages.
        ebpf_log: LevelFilter,
    },
    /// Print the effective configuration and exit.
    Check {
        /// The configuration file.
        config: PathBuf,
    },
    /// Write a log in another format and exit.
    Convert(convert::Request),
    /// Show, install or remove firewall rules and exit.
    Rules {
        /// Action.
        action: rules::Action,
        /// The configuration file; [`rules::Action::Remove`] does without.
        config: Option<PathBuf>,
        /// Options of the action.
        options: rules::Options,
    },
    /// Write a configuration and exit.
    Init {
        /// Answers and place of the file.
        options: init::Options,
    },
    /// Examine the machine, the configuration and the agent, and exit.
    Doctor {
        /// The configuration file; without it only the machine.
        config: Option<PathBuf>,
        /// Options of the examination.
        options: doctor::Options,
    },
    /// Ask the running agent what it is doing, print it and exit.
    Status {
        /// The configuration file; defaults without it.
        config: Option<PathBuf>,
        /// As JSON instead of a table.
        json: bool,
    },
}

/// Records every TCP connection that reaches this machine, on any port, as one line of JSON.
#[derive(Debug, Parser)]
#[command(
    name = "spip-agent",
    bin_name = "spip-agent",
    version,
    override_usage = "spip-agent --config FILE [--check] [--ebpf-log LEVEL]\n       \
                      spip-agent rules show|install|remove --config FILE\n       \
                      spip-agent init [OPTIONS]\n       \
                      spip-agent doctor [--config FILE] [--json] [--probe]\n       \
                      spip-agent status [--json] [--config FILE]\n       \
                      spip-agent convert --to FORMAT [FILES]",
    disable_help_subcommand = true
)]
#[command(after_help = "\
Examples:
  spip-agent init                               write a configuration for this machine, and print the next steps
  spip-agent --config spip.toml                 run; Ctrl-C or SIGTERM stops it, and every open session is recorded
  spip-agent --config spip.toml --check         check the file and print the effective configuration
  spip-agent rules show --config spip.toml      print firewall rules that redirect every port to the agent
  spip-agent doctor --config spip.toml --probe  check the machine, and record one test connection
  spip-agent status                             print the state of the running agent

-config FILE and -config=FILE mean the same as --config FILE.
Status: 0 done, 1 failed, 2 wrong usage or configuration.")]
struct Arguments {
    /// The configuration, a TOML file.
    #[arg(short, long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,

    /// Check the configuration, print the effective one, and exit.
    #[arg(long)]
    check: bool,

    /// Messages of the eBPF programs that become system messages, for debugging.
    #[arg(long, value_name = "LEVEL", default_value = "off", value_parser = level())]
    ebpf_log: LevelFilter,

    #[command(subcommand)]
    subcommand: Option<Sub>,
}

#[derive(Debug, Subcommand)]
enum Sub {
    /// Write a log in another format.
    ///
    /// Reads FILES one after the other, or standard input; names that end in .gz or .zst are decompressed. A line that
    /// is no record is named on standard error and left out; the status is then 1. System messages are left out.
    Convert {
        /// The format of FILES.
        #[arg(long, value_parser = ["flat"], default_value = "flat")]
        from: String,

        /// Target: a log in another format, or the indicators of all records.
        #[arg(long, value_name = "FORMAT", value_enum)]
        to: convert::Target,

        /// File to write; - is standard output, the default. Compressed when it ends in .gz or .zst. Must not exist.
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,

        /// Longest line that is read, in bytes; longer ones are left out as if they were no record.
        #[arg(long, value_name = "BYTES", default_value_t = convert::MAX_LINE_BYTES)]
        max_line_bytes: usize,

        #[command(flatten)]
        enrich: convert::Enrich,

        /// Logs in the flat format; - is standard input.
        files: Vec<PathBuf>,

        #[command(flatten)]
        unused: Unused,
    },

    /// Manage the firewall rules that redirect every port to the agent.
    ///
    /// Made with iptables or nft, whichever the machine uses. They live in chains of their own, SPIP and SPIP_LOCAL in the table
    /// nat, or in the table inet spip; nothing else is touched. Left alone are the agent's own port, exclude_ports, the port of
    /// sshd and every port on which something listens now.
    #[command(subcommand)]
    Rules(RulesSub),
    /// Write a commented configuration that fits this machine; change nothing else.
    ///
    /// Finds the ports of sshd and of this session, a free port for the agent, and what the kernel can do; asks where there
    /// is a terminal, and takes what it found where there is none. Then prints the commands that start the sensor and
    /// those that undo it. Keeps an existing file unless --force is given.
    Init(init::Options),
    /// Check whether this machine is ready and the sensor works; name the fix for each problem.
    ///
    /// Examines kernel, privileges, limits, rules, listener, clock and disk. For each problem it prints the consequence and
    /// the fix. Changes nothing. Without --config it examines /etc/spip/spip.toml, if that exists.
    /// Status: 0 all is well, 1 warnings, 2 failures.
    Doctor(doctor::Options),
    /// Print the state of the running agent: programs, listener, steering and exclusions, counters, log.
    ///
    /// Asks the agent at its status_socket, as its user or as root. Where that fails, the counters in the pinned maps are
    /// read, and the status is 1. Without a configuration the default socket and directory are used.
    Status {
        /// One JSON document instead of a table.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
enum RulesSub {
    /// Print the commands that install would run, and the excluded ports with their reasons.
    Show(Steered),
    /// Install or update the rules, after asking.
    Install {
        #[command(flatten)]
        steered: Steered,
        /// Do not ask.
        #[arg(short, long)]
        yes: bool,
    },
    /// Remove exactly the rules that install made, after asking. Needs no configuration.
    Remove {
        /// Do not ask.
        #[arg(short, long)]
        yes: bool,
        /// Accepted, so that it can be given as for install; both chains go in any case.
        #[arg(long, hide = true)]
        local: bool,

        #[command(flatten)]
        unused: Unused,
    },
}

// `--config` where nothing depends on it: accepted, so that a command line can stay as it is, and not offered. No text of
// the help.
#[derive(Debug, clap::Args)]
struct Unused {
    #[arg(short, long, value_name = "FILE", hide = true)]
    config: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, clap::Args)]
struct Steered {
    /// Also redirect connections that this machine makes to itself.
    #[arg(long)]
    local: bool,

    /// Also redirect ports on which services listen, which become unreachable. sshd keeps its port.
    #[arg(long)]
    include_listening: bool,
}

impl Steered {
    fn options(self, yes: bool) -> rules::Options {
        rules::Options { local: self.local, include_listening: self.include_listening, yes }
    }
}

fn level() -> impl clap::builder::TypedValueParser<Value = LevelFilter> {
    PossibleValuesParser::new(["off", "error", "warn", "info", "debug", "trace"])
        .try_map(|level| level.parse::<LevelFilter>())
}

/// The command line as clap knows it, for man pages and completions.
#[must_use]
pub fn definition() -> clap::Command {
    Arguments::command()
}

/// Reads the arguments, the name of the program first.
///
/// # Errors
/// A mistake, or the text that `--help` and `--version` ask for: [`clap::Error::exit`] does what is due for each.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, clap::Error> {
    let Arguments { config, check, ebpf_log, subcommand } = Arguments::try_parse_from(with_double_dash(arguments))?;
    let required = || {
        let text = "the configuration is missing: name it with --config FILE";
        Arguments::command().error(ErrorKind::MissingRequiredArgument, text)
    };
    if subcommand.is_some() && (check || ebpf_log != LevelFilter::Off) {
        let text = "--check and --ebpf-log go with the agent itself, not with a subcommand";
        return Err(Arguments::command().error(ErrorKind::ArgumentConflict, text));
    }
    Ok(match subcommand {
        None if check => Command::Check { config: config.ok_or_else(required)? },
        None => Command::Run { config: config.ok_or_else(required)?, ebpf_log },
        Some(Sub::Convert { from: _, to, output, max_line_bytes, enrich, files, unused: _ }) => {
            Command::Convert(convert::Request { to, output, enrich, max_line_bytes, files })
        }
        Some(Sub::Rules(sub)) => {
            let (action, options) = match sub {
                RulesSub::Show(steered) => (rules::Action::Show, steered.options(false)),
                RulesSub::Install { steered, yes } => (rules::Action::Install, steered.options(yes)),
                RulesSub::Remove { yes, local, unused: _ } => {
                    (rules::Action::Remove, rules::Options { local, yes, ..rules::Options::default() })
                }
            };
            if config.is_none() && action != rules::Action::Remove {
                return Err(required());
            }
            Command::Rules { action, config, options }
        }
        Some(Sub::Init(options)) => Command::Init {
            options: init::Options { output: options.output.or(options.config).or(config), config: None, ..options },
        },
        Some(Sub::Doctor(options)) => Command::Doctor { config, options },
        Some(Sub::Status { json }) => Command::Status { config, json },
    })
}

/// The predecessor's `-config` as clap knows it; without this it would be `-c onfig`.
fn with_double_dash(arguments: impl IntoIterator<Item = OsString>) -> impl Iterator<Item = OsString> {
    arguments.into_iter().map(|argument| {
        let bytes = argument.as_encoded_bytes();
        if bytes == b"-config" || bytes.starts_with(b"-config=") {
            let mut double = OsString::from("-");
            double.push(OsStr::new(&argument));
            double
        } else {
            argument
        }
    })
}

#[cfg(test)]
mod tests;
