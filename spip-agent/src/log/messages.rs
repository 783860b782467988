//! System messages: what the agent says of itself, in the same stream as the records, on standard error, or in a file
//! of their own.
//!
//! The agent's code uses the macros of the `log` crate with fields; each message becomes one JSON line with
//! `record_type: "log"`. Until the log is open, and when it cannot take a message, warnings go to standard error in the
//! same form. No message ever waits: the sensor does not stand still because it has something to say.
//!
//! Text in messages can come from clients, and clients can provoke events. So text is escaped and cut, and a place
//! in the code is heard at most ten times a second; what is left out is counted and summed up in one line.

mod repeats;

use std::sync::{Mutex, OnceLock, PoisonError, RwLock};
use std::time::Instant;

use log::{Level, Metadata, Record};

use crate::config::{self, Levels};
use crate::log::writer;
use crate::process::{run, stderr};
use repeats::{LeftOut, Repeats};
use spip_record::message::Shape;

/// The process has one.
static MESSAGES: OnceLock<Messages> = OnceLock::new();

/// Lets messages up to `levels` out, to standard error until [`init`]; or from now on others than before.
pub fn start(levels: Levels) {
    let messages = MESSAGES.get_or_init(Messages::new);
    // Refused only when there is one already, which is this one, or another program's that uses this library.
    let _ = log::set_logger(messages);
    log::set_max_level(levels.most());
    *messages.levels.write().unwrap_or_else(PoisonError::into_inner) = levels;
}

/// Sends messages to `log` from now on, or, without one, still to standard error; in the format and within the line
/// that `config` sets, as those of the sensor `name`. The first log stays.
pub fn init(log: Option<writer::Log>, config: &config::Log, name: &str) {
    let messages = MESSAGES.get_or_init(Messages::new);
    shape(config, name);
    if let Some(log) = log {
        let _ = messages.log.set(log);
    }
}

/// Changes format, longest line and the sensor's name.
pub fn shape(config: &config::Log, name: &str) {
    let shape =
        Shape { format: config.format, name: name.into(), run: run::id().into(), max_bytes: config.max_line_bytes };
    *MESSAGES.get_or_init(Messages::new).shape.write().unwrap_or_else(PoisonError::into_inner) = shape;
}

/// Returns the shape of messages from now on.
#[cfg(test)]
pub fn shaped() -> Shape {
    MESSAGES.get_or_init(Messages::new).shape()
}

/// Turns messages into lines.
#[derive(Debug)]
struct Messages {
    log: OnceLock<writer::Log>,
    shape: RwLock<Shape>,
    levels: RwLock<Levels>,
    repeats: Mutex<Repeats>,
    start: Instant,
}

impl Messages {
    fn new() -> Self {
        let levels = RwLock::new(Levels::default());
        let shape = RwLock::new(Shape::default());
        Messages { log: OnceLock::new(), shape, levels, repeats: Mutex::new(Repeats::new()), start: Instant::now() }
    }

    fn emit(&self, level: Level, line: Vec<u8>) {
        let taken = match self.log.get() {
            Some(log) => log.message(&line) || (level > Level::Warn && !log.failed()),
            None => false,
        };
        if !taken {
            stderr::write(line);
        }
    }

    fn sum_up(&self, left_out: &LeftOut) {
        let line = self.shape().line(
            &Record::builder()
                .level(left_out.level)
                .target(&left_out.target)
                .args(format_args!("{} more messages like this were left out: {}", left_out.count, left_out.example))
                .key_values(&("repeated", left_out.count))
                .build(),
        );
        self.emit(left_out.level, line);
    }

    fn shape(&self) -> Shape {
        self.shape.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl log::Log for Messages {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let levels = self.levels.read().unwrap_or_else(PoisonError::into_inner);
        metadata.level() <= levels.of(metadata.target())
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let (admitted, left_out) = {
            let mut repeats = self.repeats.lock().unwrap_or_else(PoisonError::into_inner);
            let now = self.now_ms();
            (repeats.admits(record, now), repeats.due(now))
        };
        left_out.iter().for_each(|left_out| self.sum_up(left_out));
        if admitted {
            self.emit(record.level(), self.shape().line(record));
        }
    }

    /// Sums up what was left out more than a second ago. The next message does it too; this is for quiet times and the
    /// end.
    fn flush(&self) {
        let left_out = {
            let mut repeats = self.repeats.lock().unwrap_or_else(PoisonError::into_inner);
            repeats.due(self.now_ms())
        };
        left_out.iter().for_each(|left_out| self.sum_up(left_out));
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::process::Command;
    use std::time::Duration;

    use serde_json::Value;

    use super::*;
    use crate::config::{self, Compress, Fsync};

    /// Tells the test below that it runs in a process of its own, and where its log is.
    const CHILD: &str = "SPIP_TEST_MESSAGES";

    /// Messages of one place: so many that some are left out also where a busy machine spreads them over two seconds.
    const FLOOD: u64 = 25;

    fn in_child(path: PathBuf) {
        start(Levels::default());
        log::info!(target: "early", port = 8080; "before the log is open");
        let config = config::Log {
            file: Some(path),
            fsync: Fsync::Never,
            rotate_bytes: 0,
            rotate_age: None,
            keep_files: 0,
            keep_bytes: 0,
            min_free_bytes: None,
            compress: Compress::None,
            format: spip_record::Format::Flat,
            max_line_bytes: 1 << 20,
            queue_bytes: 64 * 1024,
        };
        let (log, writer) = writer::open(&config).expect("the log opens");
        init(Some(log.clone()), &config, "test");
        log::info!(target: "ready", port = 8080, reason = "it\u{1b}s up"; "ready");
        log::debug!(target: "ready", "not at this level");
        for number in 0..FLOOD {
            log::info!(target: "flood", number; "again");
        }
        let thread = writer.spawn().expect("the thread starts");
        while log.stats().queued_bytes > 0 || log.stats().lines < 11 {
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(Duration::from_millis(1100));
        log::logger().flush();
        let summary = thread.finish(Instant::now() + Duration::from_secs(10));
        assert!(summary.complete);
        log::info!(target: "late", "nobody can take this");
        log::warn!(target: "late", "this is for standard error");
    }

    #[test]
    fn messages_go_to_the_log_and_what_it_cannot_take_goes_to_standard_error() {
        if let Some(path) = std::env::var_os(CHILD) {
            return in_child(path.into());
        }
        let path = std::env::temp_dir().join(format!("spip-messages-{}", std::process::id()));
        let output = Command::new(std::env::current_exe().expect("this program"))
            .args([
                "--exact",
                "log::messages::tests::messages_go_to_the_log_and_what_it_cannot_take_goes_to_standard_error",
                "--nocapture",
            ])
            .env(CHILD, &path)
            .output()
            .expect("the process starts");
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let _ = std::fs::remove_file(&path);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        let parse = |text: &str| -> Vec<Value> {
            text.lines()
                .filter(|line| line.starts_with('{'))
                .map(|line| serde_json::from_str(line).expect("a JSON line"))
                .collect()
        };
        let stderr: Vec<Value> = parse(&said);
        let targets: Vec<_> = stderr.iter().map(|line| &line["target"]).collect();
        assert_eq!(targets, ["early", "late"], "{said}");
        assert_eq!(stderr[1]["level"], "warn");

        let lines = parse(&text);
        assert!(lines.iter().all(|line| line["record_type"] == "log" && line.get("seq").is_none()));
        assert_eq!(lines[0]["message"], "ready");
        assert_eq!(lines[0]["port"], 8080);
        assert_eq!(lines[0]["reason"], "it\u{1b}s up");
        assert!(!text.contains('\u{1b}'));
        assert!(lines[1..].iter().all(|line| line["target"] == "flood"), "{text}");
        let again = lines.iter().filter(|line| line["message"] == "again").count() as u64;
        let repeated: u64 = lines.iter().filter_map(|line| line["repeated"].as_u64()).sum();
        assert!(repeated > 0 && again + repeated == FLOOD, "{text}");
    }
}
