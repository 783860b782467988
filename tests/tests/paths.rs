//! Paths that an agent opens while it is root: no other user decides which file or directory that is.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use spip_tests::{Launch, Net};

/// `nobody` of every distribution.
const NOBODY: u32 = 65_534;

/// Something of root's that must stay as it is.
struct Precious {
    directory: PathBuf,
    file: PathBuf,
}

impl Precious {
    fn new(net: &Net) -> Self {
        let directory = net.path().join("precious");
        fs::create_dir(&directory).expect("the test's directory is its own");
        let file = directory.join("file");
        fs::write(&file, "as it was").expect("own directory");
        Self { directory, file }
    }

    fn expect_untouched(&self, what: &str) {
        assert_eq!(fs::read_to_string(&self.file).expect("it is there"), "as it was", "{what}");
        let names: Vec<_> =
            fs::read_dir(&self.directory).expect("own").map(|entry| entry.expect("own").file_name()).collect();
        assert_eq!(names, ["file"], "{what}");
        for path in [&self.directory, &self.file] {
            assert_eq!(fs::metadata(path).expect("own").uid(), 0, "{what}");
        }
    }
}

/// A directory of nobody's.
fn theirs(net: &Net, name: &str) -> PathBuf {
    let path = net.path().join(name);
    fs::create_dir(&path).expect("the test's directory is its own");
    chown(&path, Some(NOBODY), Some(NOBODY)).expect("root");
    path
}

/// Makes a symbolic link as nobody does.
fn plant(target: &Path, link: &Path) {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "ln", "-s"]).args([target, link]);
    let output = command.output().expect("setpriv of util-linux starts");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(fs::symlink_metadata(link).expect("there").uid(), NOBODY);
}

/// Runs an agent for as long as it takes to do harm; what it said.
fn run(launch: &Launch) -> String {
    let ended = launch.clone().within(r#"timeout -s TERM 4 "$@""#).run();
    let lines = ended.log.lines.iter().map(|line| line.text.clone());
    lines.fold(ended.stderr, |said, line| said + &line + "\n")
}

#[test]
fn what_the_owner_of_a_directory_plants_leads_root_nowhere() {
    let Some(net) = Net::new() else { return };
    fs::set_permissions(net.path(), fs::Permissions::from_mode(0o755)).expect("own directory");
    let precious = Precious::new(&net);
    let text = |path: &Path| path.to_str().expect("text").to_owned();
    for key in ["log_file", "system_log", "payload_dir", "status_socket", "state_dir"] {
        let directory = theirs(&net, key);
        let (link, way) = (directory.join("link"), directory.join("way"));
        let is_file = matches!(key, "log_file" | "system_log");
        plant(if is_file { &precious.file } else { &precious.directory }, &link);
        plant(&precious.directory, &way);
        let named = if key == "status_socket" { link.join("s.sock") } else { link.clone() };
        for path in [named, way.join("made")] {
            for user in [None, Some("65534")] {
                let mut launch = net.agent().set(key, text(&path));
                if let Some(user) = user {
                    launch = launch.set("user", user);
                }
                let said = run(&launch);
                let what = format!("{key} = {}, user = {user:?}: {said}", path.display());
                precious.expect_untouched(&what);
                assert!(said.contains("symbolic link") || !is_file, "{what}");
            }
        }
    }
}

#[test]
fn a_log_in_a_directory_of_another_user_is_refused_to_root_with_the_remedy() {
    let Some(net) = Net::new() else { return };
    fs::set_permissions(net.path(), fs::Permissions::from_mode(0o755)).expect("own directory");
    let directory = theirs(&net, "logs");
    let log = directory.join("spip.json");
    let ended = net.agent().log_to(&log).run();
    assert!(!ended.status.success() && !log.exists());
    assert!(
        ended
            .stderr
            .contains("belongs to the user 65534, and the agent is started as root: chown it to root, or set user"),
        "{}",
        ended.stderr
    );
    // The user that it becomes is another matter; only what that user cannot have made is its own.
    let launch = net.agent().log_to(&log).set("user", "65534");
    let agent = launch.clone().start();
    assert!(agent.stop().status.success());
    assert_eq!(fs::metadata(&log).expect("a log").uid(), NOBODY);
    let precious = Precious::new(&net);
    fs::remove_file(&log).expect("own");
    fs::hard_link(&precious.file, &log).expect("as where fs.protected_hardlinks is 0");
    let ended = launch.run();
    assert!(ended.stderr.contains("is a file with another name, too"), "{}", ended.stderr);
    assert_eq!(fs::read_to_string(&precious.file).expect("own"), "as it was");
    assert_eq!(fs::metadata(&precious.file).expect("own").uid(), 0);
    // In which everybody may rename.
    chown(&directory, Some(0), Some(0)).expect("root");
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).expect("own");
    let ended = net.agent().log_to(&directory.join("other")).run();
    assert!(ended.stderr.contains("may be written to by everybody"), "{}", ended.stderr);
}
