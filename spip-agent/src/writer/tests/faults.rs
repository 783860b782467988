//! Kills, full disks, files that are removed, directories that go and come back, rights that are lost.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;

use super::*;

#[test]
fn the_part_of_a_line_that_a_kill_left_is_ended_before_the_next_record() {
    let directory = Directory::new();
    let path = directory.file("log");
    fs::write(&path, "{\"whole\":1}\n{\"torn\":").expect("the file");
    let (log, thread) = started(&config(&path));
    block_on(log.record(&record(0, 0)));
    assert!(end(thread).complete);
    let text = fs::read(&path).expect("the file");
    let rest = text.strip_prefix(b"{\"whole\":1}\n{\"torn\":\n").expect("the part is ended once");
    assert_complete(&parse(rest), 1);
}

#[test]
fn a_part_that_another_agent_leaves_while_both_run_is_ended_too() {
    let directory = Directory::new();
    let path = directory.file("log");
    let (log, thread) = started(&config(&path));
    block_on(log.record(&record(0, 0)));
    until("written", || log.stats().lines == 1);
    let before = fs::read(&path).expect("the file");
    fs::write(&path, [&before[..], b"{\"torn\":"].concat()).expect("the file");
    block_on(log.record(&record(0, 1)));
    assert!(end(thread).complete);
    let text = fs::read_to_string(&path).expect("the file");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[1], "{\"torn\":");
    assert!(lines[2].ends_with("\"seq\":2}"));
}

#[test]
fn two_agents_share_a_file_without_tearing_a_line() {
    let directory = Directory::new();
    let path = directory.file("log");
    let logs = [started(&config(&path)), started(&config(&path))];
    thread::scope(|scope| {
        for (number, (log, _)) in logs.iter().enumerate() {
            scope.spawn(move || {
                block_on(async {
                    for index in 0..20_000 {
                        log.record(&record(number, index)).await;
                    }
                });
            });
        }
    });
    for (_, thread) in logs {
        assert!(end(thread).complete);
    }
    let lines = lines(&path);
    for number in 0..2 {
        let own: Vec<Value> = lines.iter().filter(|line| line["thread"] == number).cloned().collect();
        assert_complete(&own, 20_000);
    }
}

#[test]
fn a_new_file_is_readable_by_its_owner_and_group_only() {
    let directory = Directory::new();
    let path = directory.file("log");
    let (_log, _writer) = opened(&config(&path));
    assert_eq!(fs::metadata(&path).expect("the file").mode() & 0o137, 0);
}

#[test]
fn a_removed_file_is_made_again() {
    let directory = Directory::new();
    let path = directory.file("log");
    let (log, thread) = started(&config(&path));
    block_on(log.record(&record(0, 0)));
    until("written", || log.stats().lines == 1);
    fs::remove_file(&path).expect("removed");
    block_on(log.record(&record(0, 1)));
    assert!(end(thread).complete);
    assert_eq!(numbers(&lines(&path), "seq"), [2]);
    assert_eq!(log.stats().write_failures, 0);
}

#[test]
fn a_renamed_file_is_let_go_when_asked_and_also_unasked() {
    let directory = Directory::new();
    let path = directory.file("log");
    let (log, thread) = started(&config(&path));
    block_on(log.record(&record(0, 0)));
    until("written", || log.stats().lines == 1);
    fs::rename(&path, directory.file("old")).expect("renamed");
    log.reopen();
    until("opened again", || path.exists());
    block_on(log.record(&record(0, 1)));
    until("written", || log.stats().lines == 2);
    assert_eq!(numbers(&lines(&path), "seq"), [2]);

    fs::rename(&path, directory.file("older")).expect("renamed");
    thread::sleep(fast().retry);
    block_on(log.record(&record(0, 2)));
    assert!(end(thread).complete);
    assert_eq!(numbers(&lines(&path), "seq"), [3]);
    assert_eq!(numbers(&lines(&directory.file("old")), "seq"), [1]);
    assert_eq!(numbers(&lines(&directory.file("older")), "seq"), [2]);
}

#[test]
fn a_directory_that_goes_and_comes_back_costs_no_record() {
    let directory = Directory::new();
    let inner = directory.file("inner");
    let path = inner.join("log");
    fs::create_dir(&inner).expect("a directory");
    let (log, thread) = started(&config(&path));
    block_on(log.record(&record(0, 0)));
    until("written", || log.stats().lines == 1);
    fs::remove_dir_all(&inner).expect("removed");
    block_on(log.record(&record(0, 1)));
    until("the fault is seen", || log.stats().write_failures == 1);
    // The queue fills; then records wait.
    let filled = (2..).take_while(|&number| log.try_record(&record(0, number))).count() as u64;
    thread::sleep(3 * fast().retry);
    assert_eq!(log.stats().write_failures, 1, "retries are not counted");
    assert_eq!(log.stats().lines, 1);
    fs::create_dir(&inner).expect("a directory");
    block_on(log.record(&record(1, 0)));
    assert!(end(thread).complete);
    assert!(numbers(&lines(&path), "seq").into_iter().eq(2..=filled + 3));
}

#[test]
fn a_right_that_is_lost_and_given_again_costs_no_record() {
    let directory = Directory::new();
    let path = directory.file("log");
    fs::set_permissions(&directory.0, fs::Permissions::from_mode(0o777)).expect("rights");
    without_privileges(|| {
        let (log, thread) = started(&config(&path));
        block_on(log.record(&record(0, 0)));
        until("written", || log.stats().lines == 1);
        // Somebody rotates the file away, and the agent may not make a new one.
        fs::rename(&path, directory.file("old")).expect("renamed");
        thread::scope(|scope| {
            // Not by this thread: it has no right to.
            let changer = scope.spawn(|| ());
            changer.join().expect("the thread ends");
        });
        log.reopen();
        until("opened again", || path.exists());
        assert!(end(thread).complete);
    });
    let rights = |mode| fs::set_permissions(&directory.0, fs::Permissions::from_mode(mode)).expect("rights");
    let (log, thread) = without_privileges(|| started(&config(&path)));
    block_on(log.record(&record(0, 0)));
    until("written", || log.stats().lines == 1);
    fs::remove_file(&path).expect("removed");
    rights(0o555);
    block_on(log.record(&record(0, 1)));
    until("the fault is seen", || log.stats().write_failures == 1);
    rights(0o777);
    block_on(log.record(&record(0, 2)));
    assert!(end(thread).complete);
    assert_eq!(numbers(&lines(&path), "seq"), [2, 3]);
}

#[test]
fn a_device_that_is_full_is_tried_until_the_end() {
    let (log, thread) = started(&config(Path::new("/dev/full")));
    block_on(log.record(&record(0, 0)));
    until("the fault is seen", || log.stats().write_failures == 1);
    let summary = thread.finish(Instant::now() + Duration::from_millis(100));
    assert!(!summary.complete);
    assert_eq!((summary.lines, summary.abandoned), (0, 1));
}

#[test]
fn what_cannot_be_opened_is_named_with_a_remedy() {
    let directory = Directory::new();
    let text = |path: &Path| open(&config(path)).expect_err("it cannot be opened").to_string();
    let missing = directory.file("missing/log");
    assert_eq!(
        text(&missing),
        format!(
            "cannot open log_file {}: No such file or directory (os error 2); create its directory",
            missing.display()
        )
    );
    assert!(text(&directory.0).ends_with("it is a directory; name a file"));
    let pipe = directory.file("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    assert!(text(&pipe).ends_with("start the reader of the pipe first"));
    fs::set_permissions(&directory.0, fs::Permissions::from_mode(0o555)).expect("rights");
    let forbidden = without_privileges(|| text(&directory.file("log")));
    assert!(forbidden.contains("allow the agent to read and write"), "{forbidden}");
}

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
        .args(["--exact", &format!("writer::tests::faults::{test}"), "--nocapture"])
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
