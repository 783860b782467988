//! Full disks: small ones, mounted where only the test sees them.

use std::process::Command;

use super::*;

/// Tells the test that it runs in a process of its own, with a file system of 256 KiB at this path.
const SMALL_DISK: &str = "SPIP_TEST_SMALL_DISK";

/// Runs `test` again in a process of its own, with a small disk that only it sees. Returns what it said on standard
/// error, or `None` in a place where nothing can be mounted.
fn on_a_small_disk(test: &str) -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("{test}: left out, mounting a small disk needs root");
        return None;
    }
    let directory = Directory::new();
    let output = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", &format!("log::writer::tests::disk::{test}"), "--nocapture"])
        .env(SMALL_DISK, &directory.0)
        .output()
        .expect("the process starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{}\n{said}", String::from_utf8_lossy(&output.stdout));
    Some(said)
}

/// In the process of its own: the small disk, mounted. Threads that are started from here on see it.
fn small_disk() -> Option<PathBuf> {
    use nix::mount::{MsFlags, mount};
    let path = PathBuf::from(std::env::var_os(SMALL_DISK)?);
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("a mount namespace");
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .expect("private mounts");
    mount(Some("tmpfs"), &path, Some("tmpfs"), MsFlags::empty(), Some("size=256k")).expect("a small disk");
    Some(path)
}

#[test]
fn a_full_disk_makes_records_wait_and_is_said_once() {
    if let Some(disk) = small_disk() {
        let path = disk.join("log");
        fs::write(disk.join("filler"), vec![0; 200_000]).expect("a filler");
        let (log, thread) = started(&config::Log { fsync: Fsync::Interval, ..config(&path) });
        let mut count = 0;
        until("the queue is full for good", || {
            while log.try_record(&record(0, count)) {
                count += 1;
            }
            log.stats().write_failures == 1
        });
        while log.try_record(&record(0, count)) {
            count += 1;
        }
        thread::sleep(5 * fast().retry);
        assert_eq!(log.stats().write_failures, 1);
        fs::remove_file(disk.join("filler")).expect("room again");
        block_on(log.record(&record(1, 0)));
        assert!(end(thread).complete);
        // Also the line in whose middle the disk was full is whole.
        assert_complete(&lines(&path), count as u64 + 1);
        return;
    }
    let Some(said) = on_a_small_disk("a_full_disk_makes_records_wait_and_is_said_once") else {
        return;
    };
    let messages: Vec<Value> = said
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).expect("a JSON line"))
        .collect();
    assert_eq!(messages.len(), 2, "{said}");
    assert_eq!(messages[0]["level"], "error");
    let text = messages[0]["message"].as_str().expect("text");
    assert!(text.contains("No space left on device") && text.contains("records wait"), "{text}");
    assert_eq!(messages[1]["level"], "info");
}

#[test]
fn a_line_that_a_full_disk_cut_is_ended_by_another_agent_and_written_again() {
    if let Some(disk) = small_disk() {
        let path = disk.join("log");
        fs::write(disk.join("filler"), vec![0; 230_000]).expect("a filler");
        // The first agent comes back late enough for the other one to write before.
        let slow = Pace { retry: Duration::from_secs(1), ..fast() };
        let (first, writer) = open_with("log_file", &config(&path), Target::file(&path), &slow).expect("the log opens");
        let filled = (0..).take_while(|&number| first.try_record(&record(1, number))).count() as u64;
        let first_thread = writer.spawn().expect("the thread starts");
        until("the disk is full", || first.stats().write_failures == 1);
        let cut = fs::read(&path).expect("the log");
        assert_ne!(cut.last(), Some(&b'\n'), "the disk was full between two lines");
        fs::remove_file(disk.join("filler")).expect("room again");
        let (second, second_thread) = started(&config(&path));
        block_on(second.record(&record(2, 0)));
        assert!(end(second_thread).complete && end(first_thread).complete);

        let text = fs::read_to_string(&path).expect("the log");
        assert!(text.ends_with('\n'));
        let (whole, parts): (Vec<_>, Vec<_>) = text.lines().map(serde_json::from_str::<Value>).partition(Result::is_ok);
        let whole: Vec<Value> = whole.into_iter().flatten().collect();
        assert_eq!(parts.len(), 1);
        let of = |thread| -> Vec<Value> { whole.iter().filter(|line| line["thread"] == thread).cloned().collect() };
        assert_complete(&of(1), filled);
        assert_complete(&of(2), 1);
        return;
    }
    on_a_small_disk("a_line_that_a_full_disk_cut_is_ended_by_another_agent_and_written_again");
}

#[test]
fn two_agents_on_a_full_disk_lose_no_record_and_glue_no_lines() {
    if let Some(disk) = small_disk() {
        let path = disk.join("log");
        fs::write(disk.join("filler"), vec![0; 220_000]).expect("a filler");
        let logs = [started(&config(&path)), started(&config(&path))];
        let mut counts = [0; 2];
        until("both are at their limit", || {
            for ((log, _), count) in logs.iter().zip(&mut counts) {
                for _ in 0..20 {
                    *count += usize::from(log.try_record(&record(0, *count)));
                }
            }
            logs.iter().all(|(log, _)| log.stats().write_failures > 0)
        });
        fs::remove_file(disk.join("filler")).expect("room again");
        for (_, thread) in logs {
            assert!(end(thread).complete);
        }
        let text = fs::read_to_string(&path).expect("the log");
        assert!(text.ends_with('\n'));
        let (whole, parts): (Vec<_>, Vec<_>) = text.lines().map(serde_json::from_str::<Value>).partition(Result::is_ok);
        assert_eq!(whole.len(), counts[0] + counts[1], "{} parts", parts.len());
        // At most each agent was interrupted once.
        assert!(parts.len() <= 2, "{} parts", parts.len());
        return;
    }
    on_a_small_disk("two_agents_on_a_full_disk_lose_no_record_and_glue_no_lines");
}
