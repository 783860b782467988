//! `cargo xtask demo`: the sensor at work, without touching this machine's network.
//!
//! Two namespaces stand for two hosts. The sensor's gets the agent's own rules and a debug agent, which builds in half the
//! time; real clients visit from the other one and over loopback. Each record appears when it is written; a table at the
//! end says how each destination was known. The demo fails when a visit left no record, so that it
//! proves what it shows. `--view` serves the page of spip-view on these records afterwards; `--fleet` shows
//! two sensors that ship to a hub with a page (`fleet`). All that it makes belongs to
//! values whose drop removes it: the way out is the same at the end, after an error and after Ctrl-C.

mod clients;
mod fleet;
mod sensor;
mod table;
mod view;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::Value;

use self::clients::Visit;
use self::sensor::{Files, Sensor};
use self::table::Table;
use self::view::View;
use crate::build::Libraries;
use crate::interrupt;
use crate::network::{self, Link};
use crate::privilege::{self, Root};
use crate::process;
use crate::project::Project;
use crate::report;
use crate::setup::{self, Need};

/// Prefix of the names of namespaces, folders and pins.
const PURPOSE: &str = "spip-demo";

/// From the end of a visit to its record: the agent flushes within 200 ms.
const RECORD_LIMIT: Duration = Duration::from_secs(5);

#[derive(Args)]
pub(crate) struct Options {
    /// Serve the page of spip-view on the records of the demo, until Ctrl-C
    #[arg(long)]
    view: bool,
    /// Two sensors, a hub and its page instead, until Ctrl-C
    #[arg(long, conflicts_with = "view")]
    fleet: bool,
    /// The agent that was built already: the part of the demo that runs as root
    #[arg(long, hide = true)]
    agent: Option<PathBuf>,
    /// The page's program that was built already
    #[arg(long, hide = true, requires = "agent")]
    page: Option<PathBuf>,
    /// The shipper and the NATS server of a fleet, likewise
    #[arg(long, hide = true, num_args = 2, requires = "page")]
    programs: Option<Vec<PathBuf>>,
}

/// Sets up, builds and shows.
pub(crate) fn run(options: &Options) -> Result<()> {
    if let Some(agent) = &options.agent {
        return match (&options.page, options.programs.as_deref()) {
            (Some(page), Some([ship, nats])) => {
                fleet(agent, page, &fleet::Programs { ship: ship.clone(), nats: nats.clone() })
            }
            _ => show(agent, options.page.as_deref()),
        };
    }
    let root = Root::detect();
    if root == Root::No {
        bail!("the demo makes network namespaces and needs root: {}", privilege::REMEDY);
    }
    let project = Project::locate()?;
    let libraries = Libraries::compile(&project)?;
    let toolchain = setup::toolchain(&project, Need::Demo)?;
    let agent = libraries.agent(&project, &toolchain)?;
    let page = if options.view || options.fleet { Some(view::build(&project)?) } else { None };
    let programs = if options.fleet { Some(fleet::Programs::ready(&project)?) } else { None };
    if root == Root::Already {
        return match (&page, &programs) {
            (Some(page), Some(programs)) => fleet(&agent, page, programs),
            _ => show(&agent, page.as_deref()),
        };
    }
    let own = std::env::current_exe().context("cannot find this program")?;
    let mut command = root.command(own, &[("PATH", process::full_path())]).unwrap_or_else(|| Command::new("false"));
    command.arg("demo").arg("--agent").arg(agent);
    if let Some(page) = page {
        command.arg("--page").arg(page);
    }
    if let Some(programs) = programs {
        command.arg("--programs").args([programs.ship, programs.nats]);
    }
    process::run(&mut command)
}

fn fleet(agent: &Path, page: &Path, programs: &fleet::Programs) -> Result<()> {
    interrupt::catch()?;
    sensor::remove_stale();
    fleet::show(agent, page, programs)
}

fn show(agent: &Path, page: Option<&Path>) -> Result<()> {
    interrupt::catch()?;
    network::remove_stale(PURPOSE)?;
    sensor::remove_stale();
    // Dropped last, after the agent in it has ended.
    let link = Link::create(PURPOSE)?;
    let files = Files::create("demo", link.has_ipv6)?;
    let mut sensor = Sensor::start(agent, &link.sensor, &files)?;
    if !link.has_ipv6 {
        report::note("this kernel has no IPv6: the demo makes no IPv6 connections");
    }
    let mut outcomes: Vec<(Visit, Option<Value>)> = Vec::new();
    for visit in clients::visits(link.has_ipv6) {
        interrupt::check()?;
        visit.make(&link)?;
        let end = Instant::now() + RECORD_LIMIT;
        let record = sensor.record(end, |record| is_to(record, visit.destination))?;
        outcomes.push((visit, record));
    }
    sensor.stop()?;
    let table = Table(&outcomes);
    println!("\n{table}");
    match table.unrecorded() {
        0 => match page {
            Some(program) => View::of(program, &files)?.show(),
            None => Ok(()),
        },
        missing => bail!("{missing} of {} visits left no record", outcomes.len()),
    }
}

fn is_to(record: &Value, destination: SocketAddr) -> bool {
    table::endpoint(record, "destination") == destination.to_string()
}
