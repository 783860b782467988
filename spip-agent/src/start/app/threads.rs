//! The threads of the agent beside its workers: each is started after the sandbox was entered, with what it needs of the
//! agent.

use std::io;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use jiff::Timestamp;
use nix::sys::signal::Signal;
use spip_record::{DestinationSource, Limit};
use tokio::runtime;
use tokio::sync::{oneshot, watch};

use super::{Agent, monitor};
use crate::config::Config;
use crate::kernel::addr::{ClientAddr, Destination};
use crate::kernel::origin::Origin;
use crate::kernel::steering::Watch;
use crate::observe::status;
use crate::process::counters::TALLY;
use crate::process::critical;
use crate::scans::{self, Scans};
use crate::session::accept;
use crate::session::record::Moment;
use crate::start::reload::Reload;

impl Agent {
    /// Starts to answer those who ask what the agent does.
    pub(super) fn answer_status(
        &self,
        config: &Config,
        pinned_link: Option<PathBuf>,
        steering: Option<Arc<Watch>>,
        scans: Option<&Scans>,
    ) -> io::Result<()> {
        let Some(server) = &self.status else { return Ok(()) };
        server.spawn(status::Sources {
            config: config.clone(),
            path: self.options.path.clone(),
            listen: self.listeners.address,
            workers: self.listeners.sockets.len(),
            passed_socket: self.listeners.passed,
            families: self.listeners.families,
            pinned_link,
            intake: Arc::clone(&self.intake),
            messages: self.messages.clone(),
            attached: self.attached.as_ref().map(Arc::downgrade).unwrap_or_default(),
            unattached: self.unattached.clone(),
            steering,
            sandbox: self.sandbox.clone(),
            scans: scans.map(Scans::counts),
            deafness: scans.map(Scans::deafness),
            started: (Timestamp::now(), Instant::now()),
        })
    }

    /// Starts to keep steering current. An agent that is relieved stops as if it had been told to.
    pub(super) fn watch_steering(&mut self) -> io::Result<Option<Watch>> {
        let Some(steering) = self.steering.take() else { return Ok(None) };
        let pinned = self.pinned.take();
        let intake = Arc::clone(&self.intake);
        let relieved = move || {
            intake.stop();
        };
        Watch::spawn(steering, pinned, relieved).map(Some)
    }

    pub(super) fn take_signals(
        &mut self,
        config: &Config,
        scans: watch::Sender<scans::Current>,
        steering: Option<Arc<Watch>>,
    ) -> io::Result<()> {
        let Some(signals) = self.signals.take() else { return Ok(()) };
        let mut reload = Reload {
            path: self.options.path.clone(),
            started: config.clone(),
            config: config.clone(),
            intake: Arc::clone(&self.intake),
            scans,
            steering,
            messages: self.messages.clone(),
            kernel_level: self.kernel_level(),
            resources: self.resources,
            notifier: self.notifier.clone(),
        };
        let intake = Arc::clone(&self.intake);
        let on_stop = move |signal: Signal| {
            log::info!(target: "agent", signal = signal.as_str(); "stopping");
            intake.stop();
        };
        signals.spawn(on_stop, move || reload.run())
    }

    /// Starts to watch for scans, where the kernel side tells of them.
    pub(super) fn watch_scans(
        &mut self,
        config: &Config,
        current: watch::Receiver<scans::Current>,
    ) -> io::Result<Option<Scans>> {
        let Some(events) = self.attached.as_ref().and_then(|attached| attached.take_events()) else {
            return Ok(None);
        };
        let capacity = usize::try_from(config.ebpf.syn_entries).unwrap_or(usize::MAX);
        let Some(surroundings) = self.surroundings.take() else { return Ok(None) };
        let capacity = NonZeroUsize::new(capacity).unwrap_or(NonZeroUsize::MIN);
        let Some(origins) = self.intake.engine().origins.clone() else { return Ok(None) };
        let rejections = self.intake.rejections.clone();
        let note = Box::new(move |refused: &scans::Refused| {
            let scans::Refused { client, destination, syn, data, at: (wall, steady) } = refused;
            let (client, destination, moment) = (*client, *destination, Moment { wall: *wall, steady: *steady });
            let origin = || Origin {
                client: ClientAddr::new(client),
                destination: Destination::new(destination),
                source: DestinationSource::Ebpf,
                conflict: None,
                syn: Some(*syn),
                syn_data: data.clone(),
            };
            rejections.note(client, Limit::AcceptQueue, moment, origin, || destination.port());
            TALLY.rejected(Limit::AcceptQueue);
        });
        let refusals = scans::Refusals { origins, note };
        let setting = scans::Setting { events, current, capacity, surroundings, refusals };
        Scans::spawn(setting).map(Some)
    }

    /// Starts to answer those who ask what the agent has done.
    pub(super) fn serve_metrics(&mut self, scans: Option<&Scans>, steering: Option<Arc<Watch>>) -> io::Result<()> {
        let (Some(server), Some(mut sources)) = (&self.metrics, self.sources.take()) else { return Ok(()) };
        sources.messages.clone_from(&self.messages);
        sources.kernel = self.attached.as_ref().map(|attached| attached.kernel_counters());
        sources.steering = steering;
        sources.scans = scans.map(Scans::counts);
        sources.deafness = scans.map(Scans::deafness);
        server.spawn(sources)
    }

    /// The thread for what belongs to no connection: summaries of refusals, reports, the end of the log's reader, and
    /// word to the service manager.
    ///
    /// After the stop it waits until `refusals_due`, and ends with the last of the summaries.
    pub(super) fn spawn_service(&self, refusals_due: oneshot::Receiver<()>) -> io::Result<JoinHandle<()>> {
        let runtime = runtime::Builder::new_current_thread().enable_time().build()?;
        let intake = Arc::clone(&self.intake);
        let (notifier, heartbeat) = (self.notifier.clone(), self.heartbeat.clone());
        critical::spawn("service", move || {
            runtime.block_on(async {
                let stopped = || intake.stopped();
                let rejections = accept::report_rejections(&intake, stopped());
                let faults = monitor::report_faults(&intake, stopped());
                let alive = monitor::say_alive(&notifier, &heartbeat, stopped());
                let engine = intake.engine();
                let log = monitor::watch_log(&engine.log, &notifier, stopped());
                let stopping = monitor::say_stopping(&notifier, stopped());
                let closed = monitor::stop_when_log_closes(&intake, stopped());
                let memory = monitor::give_memory_back(&intake, stopped());
                let disk = monitor::watch_disk(&intake, stopped());
                tokio::join!(rejections, faults, alive, log, disk, stopping, closed, memory);
                // What the workers refused until they ended.
                let _ = refusals_due.await;
                accept::record_rejections(&intake, &stopped()).await;
            });
        })
    }
}
