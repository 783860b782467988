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

/// Makes a directory that belongs to the user `nobody`.
fn theirs(net: &Net, name: &str) -> PathBuf {
    let path = net.path().join(name);
    fs::create_dir(&path).expect("the test's directory is its own");
    chown(&path, Some(NOBODY), Some(NOBODY)).expect("root");
    path
}

/// Makes a symbolic link as the user `nobody`.
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

/// A configuration in a file of its own, with `text` at its end.
fn configuration(path: &Path, text: &str) {
    fs::write(path, format!("ip = \"::\"\nport = 1\nstatus_socket = \"off\"\n{text}")).expect("own directory");
}

#[test]
fn root_obeys_no_configuration_that_another_user_can_change() {
    let Some(net) = Net::new() else { return };
    fs::set_permissions(net.path(), fs::Permissions::from_mode(0o755)).expect("own directory");
    let text = |path: &Path| path.to_str().expect("text").to_owned();
    let check = |path: &Path| {
        let ended = net.agent().arguments(&["--check", "--config", &text(path)]).run();
        (ended.status.success(), ended.stderr)
    };
    let directory = theirs(&net, "theirs");
    let (foreign, ours) = (net.path().join("foreign.toml"), directory.join("ours.toml"));
    for path in [&foreign, &ours] {
        configuration(path, "");
    }
    chown(&foreign, Some(NOBODY), Some(NOBODY)).expect("root");
    let planted = directory.join("planted.toml");
    plant(&net.path().join("good.toml"), &planted);
    configuration(&net.path().join("good.toml"), "");
    for (path, reason) in [
        (&foreign, format!("{} belongs to the user 65534", foreign.display())),
        (&ours, format!("{} belongs to the user 65534", directory.display())),
        (&planted, format!("{} is a symbolic link that the user 65534 has made", planted.display())),
    ] {
        let (accepted, said) = check(path);
        assert!(!accepted && said.contains(&reason), "{said}");
        assert!(said.contains("chown it to root") || path == &planted, "{said}");
    }
    // The user that it names has no part in it: who may change it may have root write to any file.
    configuration(&foreign, "user = \"65534\"\n");
    assert!(!check(&foreign).0);
    assert!(check(&net.path().join("good.toml")).0);
    // As in /tmp.
    let sticky = net.path().join("sticky");
    fs::create_dir(&sticky).expect("own directory");
    fs::set_permissions(&sticky, fs::Permissions::from_mode(0o1777)).expect("own");
    configuration(&sticky.join("spip.toml"), "");
    let (accepted, said) = check(&sticky.join("spip.toml"));
    assert!(accepted, "{said}");
    // Another user's agent is that user's business.
    let ended = net.agent().unprivileged().arguments(&["--check", "--config", &text(&foreign)]).run();
    assert!(!ended.stderr.contains("belongs to"), "{}", ended.stderr);
}

#[test]
fn root_reads_no_certificate_key_or_persona_that_another_user_can_change() {
    let Some(net) = Net::new() else { return };
    fs::set_permissions(net.path(), fs::Permissions::from_mode(0o755)).expect("own directory");
    let fixture = |name: &str| format!("{}/../spip-agent/fixtures/tls/{name}", env!("CARGO_MANIFEST_DIR"));
    let directory = theirs(&net, "theirs");
    let place = |directory: &Path| {
        fs::copy(fixture("ecdsa-chain.crt"), directory.join("cert.pem")).expect("a fixture");
        fs::copy(fixture("ecdsa-sec1.key"), directory.join("key.pem")).expect("a fixture");
        fs::write(directory.join("persona.toml"), "ssh = \"SSH-2.0-OpenSSH_9.9\"\n").expect("own directory");
    };
    let good = net.path().join("good");
    fs::create_dir(&good).expect("own directory");
    place(&good);
    place(&directory);
    let keys = [("cert_path", "cert.pem"), ("key_path", "key.pem"), ("persona", "persona.toml")];
    let launch = |changed: &str, path: &Path| {
        keys.iter().fold(net.agent().arguments(&["--check", "--config", "{config}"]), |launch, (key, name)| {
            let path = if *key == changed { path.to_owned() } else { good.join(name) };
            launch.set(key, path.to_str().expect("text"))
        })
    };
    let ended = launch("", Path::new("")).run();
    assert!(ended.status.success(), "{}", ended.stderr);
    for (key, name) in keys {
        let planted = directory.join(format!("planted-{name}"));
        plant(&good.join(name), &planted);
        let group = good.join(format!("group-{name}"));
        fs::copy(good.join(name), &group).expect("own");
        chown(&group, None, Some(NOBODY)).expect("root");
        fs::set_permissions(&group, fs::Permissions::from_mode(0o660)).expect("own");
        for (path, reason, remedy) in [
            (&directory.join(name), "theirs belongs to the user 65534", "chown it to root, or set user to its owner"),
            (&planted, "is a symbolic link that the user 65534 has made", ""),
            (&group, "may be written to by the group 65534", "chmod g-w it"),
        ] {
            let said = launch(key, path).run().stderr;
            let names = key == "persona" && said.contains("the persona") || said.contains(key);
            assert!(names && said.contains(path.to_str().expect("text")), "{key}: {said}");
            assert!(said.contains(reason) && said.contains(remedy), "{key}: {said}");
        }
        // The user that it becomes reads them anyway.
        chown(directory.join(name), Some(NOBODY), Some(NOBODY)).expect("root");
        let ended = launch(key, &directory.join(name)).set("user", "65534").run();
        assert!(ended.status.success(), "{key}: {}", ended.stderr);
    }
}

#[test]
fn what_others_plant_in_a_bpf_file_system_leads_no_pin_elsewhere() {
    let Some(net) = Net::new() else { return };
    if !net.has_bpffs() {
        eprintln!("skipped: the kernel mounts no BPF file system here");
        return;
    }
    let bpffs = net.path().join("bpf");
    fs::set_permissions(net.path(), fs::Permissions::from_mode(0o755)).expect("own directory");
    fs::set_permissions(&bpffs, fs::Permissions::from_mode(0o1777)).expect("own");
    let precious = bpffs.join("precious");
    fs::create_dir(&precious).expect("own");
    let link = bpffs.join("link");
    plant(&precious, &link);
    let planted = bpffs.join("planted");
    fs::create_dir(&planted).expect("own");
    chown(&planted, Some(NOBODY), Some(NOBODY)).expect("root");
    for (path, reason) in [
        (link.clone(), "is a symbolic link that"),
        (link.join("below"), "is a symbolic link that"),
        (planted, "user 65534"),
    ] {
        let said = run(&net.agent().set("bpf_pin_path", path.to_str().expect("text")));
        assert!(said.contains("the eBPF maps are not pinned") && said.contains(reason), "{}: {said}", path.display());
        assert_eq!(fs::read_dir(&precious).expect("own").count(), 0);
    }
}
