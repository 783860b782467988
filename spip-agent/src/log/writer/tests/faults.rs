//! Kills, files that are removed, directories that go and come back, rights that are lost.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;

use crate::process::walk;

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
fn a_file_that_cannot_be_opened_again_is_said_to_those_who_asked_for_it() {
    let directory = Directory::new();
    let path = directory.file("log");
    let (log, thread) = started(&config(&path));
    fs::rename(&path, directory.file("old")).expect("renamed");
    fs::create_dir(&path).expect("a directory under its name");
    let reason = log.reopen().wait(PATIENCE).expect_err("a directory is no log");
    assert_eq!(reason, format!("cannot append to log_file {}: it is a directory; name a file", path.display()));
    fs::remove_dir(&path).expect("empty");
    assert_eq!(log.reopen().wait(PATIENCE), Ok(()));
    assert!(end(thread).complete);
    // A writer that is busy with a disk that hangs, or gone, is not waited for.
    log.reopen().wait(Duration::ZERO).expect_err("nobody opens it");
}

#[test]
fn what_is_wrong_with_another_log_is_said_by_its_own_key() {
    let directory = Directory::new();
    let path = directory.file("missing/log");
    let error = open_as("system_log", &config(&path)).expect_err("no directory").to_string();
    assert!(error.starts_with(&format!("cannot open system_log {}: ", path.display())), "{error}");
    let error = Log::look("system_log", &directory.0).expect_err("a directory").to_string();
    assert!(error.starts_with("cannot append to system_log "), "{error}");
}

#[test]
fn a_renamed_file_is_let_go_when_asked_and_also_unasked() {
    let directory = Directory::new();
    let path = directory.file("log");
    let (log, thread) = started(&config(&path));
    block_on(log.record(&record(0, 0)));
    until("written", || log.stats().lines == 1);
    fs::rename(&path, directory.file("old")).expect("renamed");
    assert_eq!(log.reopen().wait(PATIENCE), Ok(()));
    assert!(path.exists());
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
    if nix::unistd::geteuid().is_root() {
        std::os::unix::fs::chown(&directory.0, Some(65_534), Some(65_534)).expect("root");
        walk::expect_user(Some(65_534));
    }
    let rights = |mode| fs::set_permissions(&directory.0, fs::Permissions::from_mode(mode)).expect("rights");
    let (log, thread) = without_privileges(|| started(&config(&path)));
    block_on(log.record(&record(0, 0)));
    until("written", || log.stats().lines == 1);
    fs::remove_file(&path).expect("removed");
    rights(0o555);
    block_on(log.record(&record(0, 1)));
    until("the fault is seen", || log.stats().write_failures == 1);
    rights(0o755);
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

/// Tells the test that it runs in a process of its own, which writes to the log of this name until it is killed.
const VICTIM: &str = "SPIP_TEST_VICTIM";

#[test]
fn a_kill_under_load_costs_the_end_of_the_log_and_nothing_before() {
    if let Some(path) = std::env::var_os(VICTIM) {
        let (log, _thread) = started(&config(Path::new(&path)));
        // Ends by itself if it is not killed.
        let end = Instant::now() + Duration::from_secs(20);
        block_on(async {
            while Instant::now() < end {
                log.record(&record(1, 250)).await;
            }
        });
        return;
    }
    let directory = Directory::new();
    let path = directory.file("log");
    for round in 0..5_u64 {
        let _ = fs::remove_file(&path);
        let mut victim = Command::new(std::env::current_exe().expect("this program"))
            .args([
                "--exact",
                "log::writer::tests::faults::a_kill_under_load_costs_the_end_of_the_log_and_nothing_before",
            ])
            .env(VICTIM, &path)
            .stdout(std::process::Stdio::null())
            .spawn()
            .expect("the process starts");
        until("it writes", || fs::metadata(&path).is_ok_and(|metadata| metadata.len() > 200_000 + round * 37_000));
        victim.kill().expect("killed");
        victim.wait().expect("gone");

        let before = fs::read(&path).expect("the log");
        let whole = before.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        let count = parse(&before[..whole]).len() as u64;
        assert_complete(&parse(&before[..whole]), count);
        // The next start goes on behind it.
        let (log, thread) = started(&config(&path));
        block_on(log.record(&record(2, 0)));
        assert!(end(thread).complete);
        let after = fs::read(&path).expect("the log");
        assert_eq!(&after[..before.len()], before);
        let separator = if whole == before.len() { &b""[..] } else { &b"\n"[..] };
        let added = after[before.len()..].strip_prefix(separator).expect("the part is ended");
        assert_complete(&parse(added), 1);
    }
}
