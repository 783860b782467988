//! Reads all logs in turn and commits what came: after [`BATCH_LINES`] lines, or as soon as nothing more waits, so that a
//! record is seen within a moment of its being logged. While lines wait, the catalog follows the days after several
//! batches: its counts are spread over all of it, and each commit writes them where they are.
//!
//! When the store cannot be written (a full disk), everything since the last commit is given up, the readers go back to
//! their positions, and it is tried again until it works: the log waits.

use std::io::{BufRead as _, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

use spip_enrich::{Change, Enricher};
use spip_record::log::{Content, Files, Options, Position, Reader, Step};

use super::{Arrived, Log};
use crate::config::Config;
use crate::store::{LogState, Result, Store, Writer};

/// Lines of one commit: a second of a busy sensor, some tens of MB in memory.
const BATCH_LINES: u64 = 20_000;

/// Batches of rows after which the catalog follows: lines that are read again after a crash.
const BATCHES: u32 = 8;

/// Longest time between two commits while lines wait.
const BATCH_TIME: Duration = Duration::from_secs(2);

/// Bytes that are read of one log before the next one has its turn.
const BATCH_BYTES: usize = 1 << 20;

/// Longest line that is read: the agent's bound with a payload of some megabytes.
const MAX_LINE_BYTES: usize = 64 << 20;

/// Time between two looks at logs that have nothing new.
const PATIENCE: Duration = Duration::from_millis(200);

/// Time between two looks at the bounds of the store.
const UPKEEP: Duration = Duration::from_secs(15);

/// Time between two looks at how much of the logs is not read yet.
const LAG: Duration = Duration::from_secs(2);

/// Longest time between two attempts to write to a store that refuses.
const MAX_DELAY: Duration = Duration::from_secs(30);

/// Inputs of the reader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Logs that are followed; `-` is standard input, a directory stands for the logs in it.
    Follow(Vec<PathBuf>),
    /// Files that are read once, as they are named.
    Once(Vec<PathBuf>),
    /// Logs with everything that is there already, not followed.
    All(Vec<PathBuf>),
}

/// Settings of the ingestion.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Keeps records in the store.
    pub keeps_records: bool,
    /// Works out what records mean.
    pub enricher: Option<Enricher>,
}

impl Settings {
    /// Returns those of a configuration, with the data that it names.
    ///
    /// # Errors
    /// Data for the enrichment cannot be used.
    pub fn of(config: &Config) -> std::result::Result<Self, spip_enrich::Error> {
        Ok(Self { keeps_records: config.keeps_records, enricher: Some(Enricher::open(config.enrich.clone())?) })
    }
}

/// Result of reading everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Lines.
    pub lines: u64,
    /// Records that were taken.
    pub records: u64,
    /// Lines that are no record.
    pub foreign: u64,
    /// Records that came twice.
    pub duplicates: u64,
    /// Files that could not be read, or not wholly.
    pub lost_files: u64,
}

enum Source {
    Log(Box<Reader>),
    File { files: Box<Files>, passed: u64, is_over: bool },
    Input { lines: Receiver<Vec<u8>>, is_over: bool },
}

struct Feed {
    name: String,
    log: Log,
    source: Source,
}

/// Result of one turn of reading a log.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    Lines,
    Idle,
    Over,
}

/// Reads until `stop` is set, or until everything is read where nothing is followed. `arrived` hears of each record.
///
/// # Errors
/// The store cannot be opened for writing.
pub fn run(
    store: &Store,
    input: &Input,
    settings: &Settings,
    stop: &Arc<AtomicBool>,
    arrived: &mut dyn FnMut(Arrived),
) -> Result<Outcome> {
    let mut ingest = Ingest {
        writer: Writer::open(store, settings.keeps_records)?,
        keeps_records: settings.keeps_records,
        enricher: settings.enricher.clone(),
        feeds: Vec::new(),
        is_named: Vec::new(),
        measured: None,
    };
    ingest.writer.retain()?;
    ingest.open(input)?;
    let (mut pending, mut batches, mut committed, mut kept) = (0, 0, Instant::now(), Instant::now());
    let mut delay = Duration::ZERO;
    loop {
        let is_stopped = stop.load(Ordering::Relaxed);
        let turn = if is_stopped { Ok(Turn::Over) } else { ingest.turn(arrived, &mut pending) };
        let done = turn.and_then(|turn| {
            let is_due = pending >= BATCH_LINES || committed.elapsed() >= BATCH_TIME || turn != Turn::Lines;
            if (pending > 0 || batches > 0) && is_due {
                batches += 1;
                if batches >= BATCHES || turn != Turn::Lines {
                    ingest.commit()?;
                    batches = 0;
                } else {
                    ingest.writer.commit_rows()?;
                }
                (pending, committed) = (0, Instant::now());
            }
            if kept.elapsed() >= UPKEEP || (turn == Turn::Over && !is_stopped) {
                ingest.upkeep(input)?;
                (pending, batches, kept) = (0, 0, Instant::now());
            }
            Ok(turn)
        });
        match done {
            Ok(Turn::Lines) => delay = Duration::ZERO,
            Ok(Turn::Idle) => ingest.wait(PATIENCE),
            Ok(Turn::Over) => return Ok(ingest.outcome()),
            Err(error) => {
                delay = (delay * 2).clamp(Duration::from_secs(1), MAX_DELAY);
                log::error!("cannot write to the store; trying again in {} s: {error}", delay.as_secs());
                if is_stopped {
                    return Err(error);
                }
                (pending, batches) = (0, 0);
                ingest.go_back(input, delay, stop)?;
            }
        }
    }
}

struct Ingest {
    writer: Writer,
    keeps_records: bool,
    enricher: Option<Enricher>,
    feeds: Vec<Feed>,
    /// Logs that could not be read, and were named.
    is_named: Vec<String>,
    /// Time at which the lag of the readers was last measured.
    measured: Option<Instant>,
}

impl Ingest {
    fn open(&mut self, input: &Input) -> Result<()> {
        match input {
            Input::Follow(paths) | Input::All(paths) => {
                let follow = matches!(input, Input::Follow(_));
                for path in paths.iter().filter(|path| !is_part_of_another(path, paths)).flat_map(|path| logs_in(path))
                {
                    let name = path.display().to_string();
                    if self.feeds.iter().any(|feed| feed.name == name) {
                        continue;
                    }
                    let state = self.writer.log(&name)?;
                    let source = if path == Path::new("-") {
                        Source::Input { lines: standard_input(), is_over: false }
                    } else {
                        let options = Options { follow, max_line_bytes: MAX_LINE_BYTES, ..Options::default() };
                        Source::Log(Box::new(Reader::open(&path, options, position(&state).as_ref())))
                    };
                    self.feeds.push(Feed { name, log: Log::new(state, self.enricher.clone()), source });
                }
            }
            Input::Once(paths) => {
                let paths = Files::expand(paths).unwrap_or_else(|_| paths.clone());
                for path in paths {
                    let name = path.display().to_string();
                    let state = self.writer.log(&name)?;
                    let files = Box::new(Files::new(vec![path], MAX_LINE_BYTES));
                    let passed = state.lines;
                    self.feeds.push(Feed {
                        name,
                        log: Log::new(state, self.enricher.clone()),
                        source: Source::File { files, passed, is_over: false },
                    });
                }
            }
        }
        Ok(())
    }

    /// Reads some lines of each log.
    fn turn(&mut self, arrived: &mut dyn FnMut(Arrived), pending: &mut u64) -> Result<Turn> {
        let mut turns = Vec::new();
        for feed in &mut self.feeds {
            let before = feed.log.state.lines;
            let turn = feed.turn(&mut self.writer, &mut self.is_named, self.keeps_records, arrived)?;
            *pending += (feed.log.state.lines - before).max(u64::from(turn == Turn::Lines));
            turns.push(turn);
            // Copied files are read one after the other, in their order.
            if turn == Turn::Lines && matches!(feed.source, Source::File { .. }) {
                break;
            }
        }
        Ok(if turns.contains(&Turn::Lines) {
            Turn::Lines
        } else if turns.contains(&Turn::Idle) {
            Turn::Idle
        } else {
            Turn::Over
        })
    }

    fn commit(&mut self) -> Result<()> {
        let is_due = self.measured.is_none_or(|measured| measured.elapsed() >= LAG);
        if is_due {
            self.measured = Some(Instant::now());
        }
        for feed in self.feeds.iter_mut().filter(|_| is_due) {
            if let Source::Log(reader) = &mut feed.source {
                feed.log.state.behind_bytes = reader.lag().map_or(0, |lag| lag.bytes);
            }
        }
        let states: Vec<&LogState> = self.feeds.iter().map(|feed| &feed.log.state).collect();
        self.writer.commit(&states)
    }

    fn upkeep(&mut self, input: &Input) -> Result<()> {
        self.commit()?;
        self.writer.retain()?;
        for change in self.enricher.as_ref().map(Enricher::refresh).unwrap_or_default() {
            match change {
                Change::Updated { part, summary } => self.writer.event(&format!(
                    "{part}: new files are in use ({summary}); `spip-view retag` applies them to what is stored"
                ))?,
                Change::Refused(error) => {
                    self.writer
                        .event(&format!("new data or rules are refused, the previous ones stay in use: {error}"))?;
                }
            }
        }
        if matches!(input, Input::Follow(_)) {
            self.open(input)?;
        }
        Ok(())
    }

    /// Waits for one of the logs to change.
    fn wait(&mut self, time: Duration) {
        let share = time / u32::try_from(self.feeds.len()).unwrap_or(1).max(1);
        let mut has_waited = false;
        for feed in &mut self.feeds {
            if let Source::Log(reader) = &mut feed.source {
                reader.wait(share);
                has_waited = true;
            }
        }
        if !has_waited {
            std::thread::sleep(PATIENCE / 4);
        }
    }

    /// Returns to the last commit, after `delay`.
    fn go_back(&mut self, input: &Input, delay: Duration, stop: &AtomicBool) -> Result<()> {
        let until = Instant::now() + delay;
        while Instant::now() < until && !stop.load(Ordering::Relaxed) {
            std::thread::sleep(PATIENCE);
        }
        // Standard input cannot be read twice: its lines since the last commit are lost, and counted as such.
        self.writer.roll_back()?;
        if let Err(error) = self.writer.retain() {
            log::error!("cannot make room in the store: {error}");
        }
        let kept: Vec<Feed> = std::mem::take(&mut self.feeds);
        for mut feed in kept {
            if matches!(feed.source, Source::Input { .. }) {
                feed.log.state.lost_files += 1;
                self.feeds.push(feed);
            }
        }
        self.open(input)
    }

    fn outcome(&self) -> Outcome {
        self.feeds.iter().fold(Outcome::default(), |sum, feed| Outcome {
            lines: sum.lines + feed.log.state.lines,
            records: sum.records + feed.log.records,
            foreign: sum.foreign + feed.log.state.foreign,
            duplicates: sum.duplicates + feed.log.duplicates,
            lost_files: sum.lost_files + feed.log.state.lost_files,
        })
    }
}

impl Feed {
    fn turn(
        &mut self,
        writer: &mut Writer,
        is_named: &mut Vec<String>,
        keeps_records: bool,
        arrived: &mut dyn FnMut(Arrived),
    ) -> Result<Turn> {
        match &mut self.source {
            Source::Log(reader) => match reader.next_batch(BATCH_BYTES) {
                Ok(Step::Batch(batch)) => {
                    if !keeps_records {
                        let before = self.log.state.position.clone();
                        self.log.anchor(Path::new(&self.name), &before, &batch);
                    }
                    self.log.take(&batch, writer, arrived)?;
                    self.log.state.position = serde_json::to_string(batch.position()).unwrap_or_default();
                    is_named.retain(|name| *name != self.name);
                    Ok(Turn::Lines)
                }
                Ok(Step::Idle) => Ok(Turn::Idle),
                Ok(Step::End) => Ok(Turn::Over),
                Err(error) => {
                    if !is_named.contains(&self.name) {
                        is_named.push(self.name.clone());
                        writer.event(&error.to_string())?;
                    }
                    Ok(Turn::Idle)
                }
            },
            Source::File { is_over: true, .. } | Source::Input { is_over: true, .. } => Ok(Turn::Over),
            Source::File { files, passed, is_over } => match files.next_batch(BATCH_BYTES) {
                Step::Batch(batch) => {
                    let lines = batch.len() as u64;
                    if *passed >= lines && batch.notices().is_empty() {
                        // An earlier start has read these.
                        *passed -= lines;
                        return Ok(Turn::Lines);
                    }
                    self.log.skip(&batch, usize::try_from(std::mem::take(passed)).unwrap_or(0), writer, arrived)?;
                    Ok(Turn::Lines)
                }
                Step::Idle | Step::End => {
                    *is_over = true;
                    Ok(Turn::Over)
                }
            },
            Source::Input { lines, is_over } => {
                let mut turn = Turn::Idle;
                for _ in 0..BATCH_LINES {
                    match lines.try_recv() {
                        Ok(line) => {
                            self.log.content(Content::Whole(&line), writer, arrived)?;
                            turn = Turn::Lines;
                        }
                        Err(TryRecvError::Empty) => break,
                        Err(TryRecvError::Disconnected) => {
                            *is_over = true;
                            break;
                        }
                    }
                }
                Ok(turn)
            }
        }
    }
}

/// Returns the position at which a log continues.
fn position(state: &LogState) -> Option<Position> {
    serde_json::from_str(&state.position).ok()
}

/// Reports whether a path is a closed file of another log in the list, which is read with it.
fn is_part_of_another(path: &Path, paths: &[PathBuf]) -> bool {
    let name = path.as_os_str().as_encoded_bytes();
    paths.iter().any(|other| {
        let rest = name.strip_prefix(other.as_os_str().as_encoded_bytes());
        rest.is_some_and(|rest| matches!(rest.first(), Some(b'.' | b'-')))
    })
}

/// The logs that a path stands for: itself, or those in a directory and in the directories in it (a hub has one a sensor).
fn logs_in(path: &Path) -> Vec<PathBuf> {
    if !path.is_dir() {
        return vec![path.to_owned()];
    }
    let is_log = |path: &Path| {
        matches!(path.extension().and_then(|end| end.to_str()), Some("json" | "jsonl" | "ndjson")) && path.is_file()
    };
    let list = |path: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        paths.sort();
        paths
    };
    let mut logs = Vec::new();
    for path in list(path) {
        if path.is_dir() {
            logs.extend(list(&path).into_iter().filter(|path| is_log(path)));
        } else if is_log(&path) {
            logs.push(path);
        }
    }
    logs
}

/// Reads standard input on a thread of its own, because reading from a pipe waits.
fn standard_input() -> Receiver<Vec<u8>> {
    let (sender, receiver) = sync_channel(1_024);
    let read = move || {
        let mut input = std::io::stdin().lock();
        loop {
            let mut line = Vec::new();
            let limit = MAX_LINE_BYTES as u64 + 1;
            match input.by_ref().take(limit).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) if line.len() > MAX_LINE_BYTES => {
                    // The rest of it is no line of its own.
                    if input.skip_until(b'\n').is_err() {
                        return;
                    }
                }
                Ok(_) => {
                    if line.ends_with(b"\n") {
                        line.pop();
                    }
                    if sender.send(line).is_err() {
                        return;
                    }
                }
            }
        }
    };
    let _ = std::thread::Builder::new().name("stdin".to_owned()).spawn(read);
    receiver
}
