//! One sink at work: batch after batch out of the source, into the engine, and only then into the state.
//!
//! The order is what makes delivery exact: the cut of a batch is stored before it is sent, where the engine recognises a
//! repeated batch by its cut; the place behind it is stored after the acknowledgement. Whatever fails in between is tried
//! again with growing pauses. Reading stops meanwhile: the log is the buffer.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crate::batch::{Batch, Reject};
use crate::config::Limits;
use crate::hold::Hold;
use crate::metrics::Counters;
use crate::pause::{Pauses, Stop};
use crate::quarantine::Quarantine;
use crate::sink::{Delivery, Failure, Sink};
use crate::source::{Next, Source};
use crate::state::{Found, State, Store};

/// Time of one wait for the source; an upper bound of the time that a shutdown takes.
const WAIT: Duration = Duration::from_millis(500);

/// Between two looks at how far the source is ahead.
const MEASURE: Duration = Duration::from_secs(2);

/// An error that lasts is logged again after this time.
const REMIND: Duration = Duration::from_secs(300);

/// Everything that one sink needs.
pub struct Pipeline {
    /// Name of the sink.
    pub name: String,
    /// Bounds of a batch.
    pub limits: Limits,
    /// Source of the batches.
    pub source: Box<dyn Source>,
    /// Destination of the batches.
    pub sink: Box<dyn Sink>,
    /// Store of the state.
    pub store: Store,
    /// Quarantine of refused lines.
    pub quarantine: Quarantine,
    /// Counters of the sink.
    pub counters: Arc<Counters>,
    /// Flag that ends the pipeline.
    pub stop: Stop,
    /// End when everything is delivered; give up when nothing was for this long.
    pub once: Option<Duration>,
    /// The marker by which the agent keeps files.
    pub hold: Option<Hold>,
    /// Unshipped closed files from which on to warn.
    pub warn_files: u64,
}

/// Ways in which a pipeline ends.
#[derive(Debug)]
pub enum End {
    /// Everything that was there is delivered: this many lines.
    Done(u64),
    /// The process was asked to end.
    Stopped,
    /// It cannot go on.
    Failed(String),
}

/// Says the same thing once, until it changes or has lasted for [`REMIND`].
#[derive(Default)]
struct Complaint {
    last: Option<(String, Instant)>,
}

impl Complaint {
    fn say(&mut self, name: &str, message: &str, store: &Store) {
        let is_known = self.last.as_ref().is_some_and(|(last, when)| last == message && when.elapsed() < REMIND);
        if !is_known {
            log::error!("{name}: {message}; trying again, nothing is dropped");
            if self.last.as_ref().is_none_or(|(last, _)| last != message) {
                store.note_trouble(Some(message));
            }
            self.last = Some((message.to_owned(), Instant::now()));
        }
    }

    fn over(&mut self, name: &str, store: &Store) {
        if self.last.take().is_some() {
            log::info!("{name}: delivery works again");
            store.note_trouble(None);
        }
    }
}

struct Running {
    pipeline: Pipeline,
    state: State,
    complaint: Complaint,
    pauses: Pauses,
    progress: Instant,
    measured: Option<Instant>,
    warned_files: u64,
    shipped: u64,
}

impl Pipeline {
    /// Delivers until the process is asked to end, or, with `once`, until everything is delivered.
    pub fn run(self) -> End {
        let state = match load(&self.store, &self.name) {
            Ok(state) => state,
            Err(message) => return End::Failed(message),
        };
        // One that a killed process left.
        self.store.note_trouble(None);
        let mut running = Running {
            pipeline: self,
            state,
            complaint: Complaint::default(),
            pauses: Pauses::default(),
            progress: Instant::now(),
            measured: None,
            warned_files: 0,
            shipped: 0,
        };
        match running.run() {
            Ok(()) => End::Done(running.shipped),
            Err(end) => end,
        }
    }
}

fn load(store: &Store, name: &str) -> Result<State, String> {
    let shown = store.path().display();
    match store.load() {
        Ok(Found::State(state)) => Ok(*state),
        Ok(Found::Missing) => {
            log::info!("{name}: no state in {shown}: resumes at the engine's position, or else at the oldest line");
            Ok(State::new())
        }
        Ok(Found::Damaged(why)) => {
            let aside = store.put_aside().map_or_else(|error| error.to_string(), |path| path.display().to_string());
            log::warn!("{name}: {shown} is damaged ({why}), moved to {aside}: resumes at the engine's position");
            Ok(State::new())
        }
        Err(error) => Err(format!("{name}: cannot use the state {shown}: {error}")),
    }
}

impl Running {
    fn run(&mut self) -> Result<(), End> {
        self.pipeline.source.assume_sensor(self.state.sensor.as_deref());
        self.open()?;
        loop {
            self.measure();
            let exact = self.state.under_way.filter(|_| self.pipeline.sink.needs_same_cuts());
            let next = self.pipeline.source.next(self.pipeline.limits, exact, WAIT);
            for notice in self.pipeline.source.notices() {
                log::warn!("{}: {notice}", self.pipeline.name);
            }
            match next {
                Ok(Next::Batch(batch)) => self.ship(batch)?,
                Ok(Next::Idle) => self.idle(exact)?,
                Ok(Next::End) => {
                    self.measure();
                    return Ok(());
                }
                Err(message) => self.failed(&Failure::new(message))?,
            }
            self.pipeline.counters.beat();
            if self.pipeline.stop.is_set() {
                return Err(End::Stopped);
            }
        }
    }

    /// Connects, and goes to where the engine is.
    fn open(&mut self) -> Result<(), End> {
        // The identity has to outlive a crash before the first acknowledgement.
        self.store()?;
        let place = loop {
            match self.pipeline.sink.open(&self.state) {
                Ok(place) => break place,
                Err(failure) => self.failed(&failure)?,
            }
        };
        self.works();
        if let Some(place) = place {
            self.state.place = place;
            self.state.under_way = None;
            self.save()?;
        }
        self.hold();
        self.seek()
    }

    /// Tells the agent which closed files are still needed.
    fn hold(&mut self) {
        if let Some(hold) = &mut self.pipeline.hold
            && let Err(error) = hold.update(&self.state.place)
        {
            log::warn!("{}: cannot tell the agent which files to keep: {error}", self.pipeline.name);
            self.pipeline.hold = None;
        }
    }

    fn seek(&mut self) -> Result<(), End> {
        while let Err(message) = self.pipeline.source.seek(&self.state.place) {
            self.failed(&Failure::new(message))?;
        }
        Ok(())
    }

    fn idle(&mut self, exact: Option<u64>) -> Result<(), End> {
        if exact.is_some() {
            // The lines of the batch that was under way are not there any more: what is left is a batch of its own.
            log::warn!("{}: the log changed: the last batch cannot be read again", self.pipeline.name);
            self.state.under_way = None;
            self.seek()?;
        }
        if self.pipeline.source.behind().is_nothing() {
            self.pipeline.counters.caught_up();
        }
        Ok(())
    }

    /// Delivers one batch, however often it takes.
    fn ship(&mut self, batch: Batch) -> Result<(), End> {
        while let Err(failure) = self.pipeline.sink.prepare(&batch) {
            self.failed(&failure)?;
        }
        if self.pipeline.sink.needs_same_cuts() && self.state.under_way != Some(batch.lines_read()) {
            self.state.under_way = Some(batch.lines_read());
            self.save()?;
        }
        let mut rejects = batch.rejects.clone();
        let mut duplicates = 0;
        if batch.count() > 0 {
            loop {
                match self.pipeline.sink.deliver(&batch, &self.state) {
                    Ok(Delivery::Stored { duplicates: known, rejects: refused }) => {
                        duplicates = known;
                        rejects.extend(refused);
                        break;
                    }
                    Ok(Delivery::Elsewhere(place)) => {
                        self.state.place = place;
                        self.state.under_way = None;
                        self.save()?;
                        return self.seek();
                    }
                    Ok(Delivery::TooLarge(why)) if batch.lines_read() > 1 => {
                        log::debug!("{}: {why}: cut in two", self.pipeline.name);
                        return self.halve(&batch);
                    }
                    Ok(Delivery::TooLarge(reason)) => {
                        rejects.extend(batch.parts.iter().map(|part| Reject {
                            sensor: part.sensor.clone(),
                            reason: reason.clone(),
                            line: part.bytes.strip_suffix(b"\n").unwrap_or(&part.bytes).to_vec(),
                        }));
                        break;
                    }
                    Err(failure) => self.failed(&failure)?,
                }
            }
        }
        self.works();
        self.commit(&batch, &rejects, duplicates)
    }

    /// Delivers the first half of a batch that is too large; the rest is read again behind it.
    fn halve(&mut self, batch: &Batch) -> Result<(), End> {
        let half = batch.lines_read() / 2;
        self.state.under_way = Some(half);
        self.seek()?;
        loop {
            match self.pipeline.source.next(self.pipeline.limits, Some(half), WAIT) {
                Ok(Next::Batch(first)) => return self.ship(first),
                Ok(Next::Idle | Next::End) => return self.seek(),
                Err(message) => self.failed(&Failure::new(message))?,
            }
        }
    }

    /// Stores that `batch` is delivered.
    fn commit(&mut self, batch: &Batch, rejects: &[Reject], duplicates: u64) -> Result<(), End> {
        while let Err(error) = self.pipeline.quarantine.keep(rejects) {
            let path = self.pipeline.quarantine.path().display();
            self.failed(&Failure::new(format!("cannot write the quarantine {path}: {error}; free space for it")))?;
        }
        let refused = rejects.len() as u64;
        if let Some(first) = rejects.first() {
            let path = self.pipeline.quarantine.path().display();
            log::warn!(
                "{}: {refused} lines put into the quarantine {path}; reason of the first: {}",
                self.pipeline.name,
                first.reason
            );
        }
        let shipped = batch.count().saturating_sub(refused.saturating_sub(batch.rejects.len() as u64));
        self.state.place = batch.end.clone();
        self.state.under_way = None;
        self.state.shipped += shipped;
        self.state.quarantined += refused;
        if let Some(part) = batch.parts.last() {
            self.state.sensor = Some(part.sensor.clone());
        }
        self.save()?;
        if let Err(message) = self.pipeline.source.release(&self.state.place) {
            log::debug!("{}: {message}", self.pipeline.name);
        }
        self.hold();
        self.shipped += shipped;
        self.progress = Instant::now();
        let counters = &self.pipeline.counters;
        counters.shipped.fetch_add(shipped, Relaxed);
        counters.shipped_bytes.fetch_add(batch.bytes(), Relaxed);
        counters.duplicates.fetch_add(duplicates, Relaxed);
        counters.quarantined.fetch_add(refused, Relaxed);
        Ok(())
    }

    /// Stores the state. An engine that knows the place does not have to wait for a full disk.
    fn save(&mut self) -> Result<(), End> {
        self.state.own = self.pipeline.sink.own_state();
        self.store()
    }

    fn store(&mut self) -> Result<(), End> {
        loop {
            self.state.updated = jiff::Timestamp::now().as_second();
            let Err(error) = self.pipeline.store.save(&self.state) else { return Ok(()) };
            let path = self.pipeline.store.path().display();
            let message = format!("cannot write the state {path}: {error}; free space or let this user write there");
            if self.pipeline.sink.knows_place() && self.pipeline.once.is_none() {
                self.complaint.say(&self.pipeline.name, &message, &self.pipeline.store);
                return Ok(());
            }
            self.failed(&Failure::new(message))?;
        }
    }

    /// Notes a failure and pauses. Returns an end when there is no use in trying again.
    fn failed(&mut self, failure: &Failure) -> Result<(), End> {
        let counters = Arc::clone(&self.pipeline.counters);
        counters.retries.fetch_add(1, Relaxed);
        counters.set_trouble(Some(failure.message.clone()));
        self.complaint.say(&self.pipeline.name, &failure.message, &self.pipeline.store);
        if let Some(limit) = self.pipeline.once
            && self.progress.elapsed() >= limit
        {
            return Err(End::Failed(failure.message.clone()));
        }
        self.measure();
        let deadline = Instant::now() + self.pauses.next(failure.after);
        while let Some(left) = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            counters.beat();
            if self.pipeline.stop.sleep(left.min(Duration::from_secs(1))) {
                return Err(End::Stopped);
            }
        }
        Ok(())
    }

    /// Notes that the engine does what it should.
    fn works(&mut self) {
        self.complaint.over(&self.pipeline.name, &self.pipeline.store);
        self.pauses.reset();
        self.pipeline.counters.set_trouble(None);
    }

    /// Looks how far the source is ahead, and warns of closed files that wait.
    fn measure(&mut self) {
        if self.measured.is_some_and(|measured| measured.elapsed() < MEASURE) {
            return;
        }
        self.measured = Some(Instant::now());
        let behind = self.pipeline.source.behind();
        let counters = &self.pipeline.counters;
        counters.lag_bytes.store(behind.bytes, Relaxed);
        counters.unshipped_files.store(behind.files, Relaxed);
        counters.lag_messages.store(behind.messages, Relaxed);
        if is_worth_a_warning(behind.files, self.pipeline.warn_files, self.warned_files) {
            log::warn!(
                "{}: {} closed files ({} bytes) are not shipped; the agent may have to remove the oldest",
                self.pipeline.name,
                behind.files,
                behind.bytes
            );
        }
        self.warned_files = behind.files;
    }
}

/// Reports whether the operator is warned of closed files that wait: of `least` and more, and only while they become more.
fn is_worth_a_warning(files: u64, least: u64, before: u64) -> bool {
    files >= least && files > before
}

#[cfg(test)]
mod tests;
