//! The thread that keeps steering current, and answers those who ask about it.

use std::io;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, SyncSender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use spip_common::steer::SteerCounters;

use super::reasons::{self, Reason};
use super::{Confinement, Error, Steering};
use crate::config::{Config, SteeringMode};
use crate::kernel::ebpf::{PinState, PinnedSteering};
use crate::process::critical;

/// Interval at which listeners of the machine are looked up.
const INTERVAL: Duration = Duration::from_millis(250);
// A service has its port within a second: a look that just misses it, the next one, and time for both.
const _: () = assert!(INTERVAL.as_millis() * 3 < 1_000);
/// Changes are told at most this often: clients may make services begin and end, as those of FTP.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);
/// For how long an agent that was relieved still takes connections: those that had begun come to their handshake's end.
const RELIEVED: Duration = Duration::from_secs(3);
/// Time to wait for an answer of the thread.
const PATIENCE: Duration = Duration::from_secs(2);

/// The running thread; dropping this ends it.
pub struct Watch {
    requests: Mutex<Option<Sender<Request>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// State of the program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Attachment {
    /// It is attached.
    #[default]
    Attached,
    /// The pin was removed, and with it the program.
    Removed,
    /// Another agent has taken over.
    Relieved,
}

/// Steering as it is now.
#[derive(Clone, Debug)]
pub struct Description {
    /// State of the program.
    pub attachment: Attachment,
    /// Confinement of the program.
    pub confinement: Confinement,
    /// Exclusions, each with its reason.
    pub reasons: Vec<Reason>,
    /// Counters of the program; absent when the kernel does not give them.
    pub counters: Option<SteerCounters>,
}

enum Request {
    Reload(Box<Config>),
    Describe(SyncSender<Description>),
}

/// State of the thread beside the maps.
struct Watcher {
    steering: Steering,
    pinned: Option<PinnedSteering>,
    pin_links: bool,
    /// Called once, when another agent has taken over and this one has seen its last connections come.
    relieved: Option<Box<dyn FnOnce() + Send>>,
    relieved_at: Option<Instant>,
    attachment: Attachment,
    told: Vec<Reason>,
    told_at: Option<Instant>,
    /// Interfaces that were told to be missing.
    told_missing: Vec<String>,
    told_missing_at: Option<Instant>,
    /// Services have changed, and it was not told yet.
    changed: bool,
    failed: bool,
}

impl Watch {
    /// Starts the thread. With a pinned link, `relieved` is called when another agent has taken over.
    ///
    /// # Errors
    /// The kernel refuses a thread.
    pub fn spawn(
        steering: Steering,
        pinned: Option<PinnedSteering>,
        relieved: impl FnOnce() + Send + 'static,
    ) -> io::Result<Self> {
        let (sender, requests) = mpsc::channel();
        let told = steering.reasons();
        let watcher = Watcher {
            steering,
            pin_links: pinned.is_some(),
            pinned,
            relieved: Some(Box::new(relieved)),
            relieved_at: None,
            attachment: Attachment::default(),
            told,
            told_at: None,
            told_missing: Vec::new(),
            told_missing_at: None,
            changed: false,
            failed: false,
        };
        let thread = critical::spawn("steering", move || watcher.run(&requests))?;
        Ok(Self { requests: Mutex::new(Some(sender)), thread: Mutex::new(Some(thread)) })
    }

    /// Takes over what a configuration says, soon.
    pub fn reload(&self, config: Config) {
        self.send(Request::Reload(Box::new(config)));
    }

    /// Returns exclusions and counters; `None` when the thread does not answer.
    #[must_use]
    pub fn describe(&self) -> Option<Description> {
        let (answer, answered) = mpsc::sync_channel(1);
        self.send(Request::Describe(answer));
        answered.recv_timeout(PATIENCE).ok()
    }

    fn send(&self, request: Request) {
        if let Some(requests) = self.requests.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            // A thread that has ended has said why.
            let _ = requests.send(request);
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        *self.requests.lock().unwrap_or_else(PoisonError::into_inner) = None;
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = thread.join();
        }
    }
}

impl Watcher {
    fn run(mut self, requests: &Receiver<Request>) {
        loop {
            match requests.recv_timeout(INTERVAL) {
                Ok(request) => self.answer(request),
                Err(RecvTimeoutError::Timeout) => self.look(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn answer(&mut self, request: Request) {
        match request {
            Request::Reload(config) => {
                if config.steering.mode != SteeringMode::SkLookup || config.steering.pin_links != self.pin_links {
                    log::warn!(target: "steering", "changes of steering and pin_links take effect when the agent restarts");
                }
                if let Some(what) = self.steering.takes_restart(&config) {
                    log::warn!(target: "steering",
                        "{what} takes effect when the agent restarts: ports excluded at the start stay excluded until then");
                }
                let reloaded = self.steering.reload(&config);
                if self.succeeded(reloaded).is_some() {
                    self.told = self.steering.reasons();
                    log::info!(target: "steering", exclusions = reasons::line(&self.told).as_str(),
                        steer_loopback = config.steering.loopback;
                        "steering follows the configuration again");
                    self.told_missing_at = None;
                    self.tell_missing();
                }
            }
            Request::Describe(answer) => {
                if self.changed {
                    self.steering.name_owners();
                }
                let counters = self.steering.counters().ok();
                let (attachment, reasons) = (self.attachment, self.steering.reasons());
                let confinement = self.steering.confinement();
                let _ = answer.send(Description { attachment, confinement, reasons, counters });
            }
        }
    }

    fn look(&mut self) {
        let refreshed = self.steering.refresh();
        self.changed |= self.succeeded(refreshed) == Some(true);
        self.tell_changes();
        self.tell_missing();
        match self.pinned.as_ref().map(PinnedSteering::state) {
            None | Some(PinState::Ours) => {}
            Some(PinState::Gone) => self.ended(),
            Some(PinState::Replaced) => self.replaced(),
        }
    }

    /// The pin was removed, and with it the link.
    fn ended(&mut self) {
        log::error!(target: "steering",
            "the pinned link was removed: steering has ended; restart the agent to steer again");
        self.pinned = None;
        self.attachment = Attachment::Removed;
    }

    /// Another agent has its link under the name.
    fn replaced(&mut self) {
        self.attachment = Attachment::Relieved;
        let since = *self.relieved_at.get_or_insert_with(|| {
            log::info!(target: "steering", "another agent has taken over: this one records its open sessions and stops");
            Instant::now()
        });
        if since.elapsed() >= RELIEVED
            && let Some(relieved) = self.relieved.take()
        {
            self.pinned = None;
            relieved();
        }
    }

    /// Says what changed since the last time, when that is long enough ago.
    fn tell_changes(&mut self) {
        if !self.changed || self.told_at.is_some_and(|told| told.elapsed() < REPORT_INTERVAL) {
            return;
        }
        self.changed = false;
        self.steering.name_owners();
        let now = self.steering.reasons();
        if now == self.told {
            return;
        }
        let difference = |of: &[Reason], from: &[Reason]| {
            let gone: Vec<Reason> = from.iter().filter(|reason| !of.contains(reason)).cloned().collect();
            reasons::line(&gone)
        };
        let (begun, ended) = (difference(&self.told, &now), difference(&now, &self.told));
        log::info!(target: "steering", begun = begun.as_str(), ended = ended.as_str(); "services have changed");
        self.told = now;
        self.told_at = Some(Instant::now());
    }

    /// Says which interfaces are missing, and when they have come. Some come and go by the minute.
    fn tell_missing(&mut self) {
        let missing = self.steering.missing_interfaces();
        if missing == self.told_missing || self.told_missing_at.is_some_and(|told| told.elapsed() < REPORT_INTERVAL) {
            return;
        }
        if missing.is_empty() {
            log::info!(target: "steering", "all interfaces of steer_interfaces exist");
        } else {
            log::warn!(target: "steering", interfaces = missing.join(", ").as_str();
                "steer_interfaces names missing interfaces: nothing is steered from them; correct the \
                 names, or leave it at that until they come");
        }
        self.told_missing = missing.to_vec();
        self.told_missing_at = Some(Instant::now());
    }

    /// The result, or a message once until things go well again; each look tries it anew.
    fn succeeded<T>(&mut self, result: Result<T, Error>) -> Option<T> {
        match result {
            Ok(value) => {
                if std::mem::take(&mut self.failed) {
                    log::info!(target: "steering", "steering is current again");
                }
                Some(value)
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failed, true) {
                    let reason = format!("{:#}", anyhow::Error::from(error));
                    log::error!(target: "steering", reason = reason.as_str();
                        "steering is incomplete: the kernel refused a part, which is tried again; the rest is in effect");
                }
                None
            }
        }
    }
}
