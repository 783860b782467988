//! Paths that others have a hand in, tried as root.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, lchown, symlink};

use super::*;

/// Not the one that other tests expect.
const OTHER: u32 = 65_533;

struct Directory(PathBuf);

impl Directory {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("spip-walk-{test}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).expect("a directory for the test");
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn make(&self, name: &str, owner: u32, mode: u32) {
        fs::create_dir_all(self.path(name)).expect("a directory for the test");
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).expect("ours");
        chown(self.path(name), Some(owner), Some(owner)).expect("root");
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn append(path: &Path) -> io::Result<File> {
    Place::of(path)?.open(OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_CREAT, 0o640)
}

fn refusal(path: &Path) -> String {
    append(path).expect_err("refused").to_string()
}

fn is_root() -> bool {
    if !geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "only root can give files away");
        eprintln!("skipped: only root can give files away");
    }
    geteuid().is_root()
}

#[test]
fn own_links_are_followed_in_own_directories_and_a_circle_ends() {
    let own = Directory::new("own");
    fs::create_dir_all(own.path("a/b")).expect("ours");
    symlink(own.path("a"), own.path("absolute")).expect("ours");
    symlink("../a/b", own.path("a/relative")).expect("ours");
    symlink("log", own.path("a/b/name")).expect("ours");
    let place = Place::of(&own.path("absolute/relative/name")).expect("own links");
    let directory = own.0.canonicalize().expect("ours");
    assert_eq!(place.path(), directory.join("a/b/log"));
    place.open(OFlag::O_WRONLY | OFlag::O_CREAT, 0o640).expect("ours");
    assert!(own.path("a/b/log").is_file());
    symlink("round", own.path("round")).expect("ours");
    assert_eq!(Place::of(&own.path("round")).expect_err("a circle").raw_os_error(), Some(libc::ELOOP));
    let made = Place::making_directories(&own.path("x/y/z"), 0o750).expect("ours");
    assert!(own.path("x/y").is_dir() && made.path().ends_with("x/y/z"));
    assert!(Place::of(&own.path("no/where")).is_err());
}

#[test]
fn what_others_have_made_does_not_lead_root_to_another_file() {
    if !is_root() {
        return;
    }
    let own = Directory::new("others");
    fs::write(own.path("precious"), "as it was").expect("ours");
    for (name, owner, mode) in
        [("theirs", OTHER, 0o755), ("open", 0, 0o777), ("sticky", 0, 0o1777), ("group", 0, 0o775)]
    {
        own.make(name, owner, mode);
        let link = own.path(&format!("{name}/link"));
        symlink(own.path("precious"), &link).expect("ours");
        lchown(&link, Some(OTHER), Some(OTHER)).expect("root");
        assert!(refusal(&link).contains("is a symbolic link that the user 65533 has made"), "{name}");
        // A directory on the way, and a second name of the file.
        let way = own.path(&format!("{name}/way"));
        symlink(&own.0, &way).expect("ours");
        lchown(&way, Some(OTHER), Some(OTHER)).expect("root");
        assert!(refusal(&way.join("precious")).contains("has made"), "{name}");
        fs::hard_link(own.path("precious"), own.path(&format!("{name}/hard"))).expect("ours");
        refusal(&own.path(&format!("{name}/hard")));
        let foreign = own.path(&format!("{name}/foreign"));
        fs::write(&foreign, "").expect("ours");
        chown(&foreign, Some(OTHER), Some(OTHER)).expect("root");
        refusal(&foreign);
        nix::unistd::mkfifo(&own.path(&format!("{name}/pipe")), Mode::S_IRWXU).expect("ours");
        chown(own.path(&format!("{name}/pipe")), Some(OTHER), Some(OTHER)).expect("root");
        refusal(&own.path(&format!("{name}/pipe")));
    }
    // Made by root, where another user may have put it.
    symlink(own.path("precious"), own.path("theirs/of_root")).expect("ours");
    assert!(refusal(&own.path("theirs/of_root")).contains("in a directory of the user 65533"));
    assert!(refusal(&own.path("theirs/log")).contains("belongs to the user 65533"));
    assert!(refusal(&own.path("open/log")).contains("by everybody"));
    append(&own.path("sticky/log")).expect("nobody else may rename it");
    append(&own.path("group/log")).expect("as in /var/log, which a group may write to");
    assert_eq!(fs::read_to_string(own.path("precious")).expect("ours"), "as it was");
}

#[test]
fn root_reads_what_root_or_its_heir_alone_can_change_and_obeys_root_alone() {
    if !is_root() {
        return;
    }
    let own = Directory::new("reads");
    let refusal = |path: &Path| read::open_configuration(path).expect_err("refused").to_string();
    let write = |name: &str, owner: u32, mode: u32| {
        let path = own.path(name);
        fs::write(&path, "text").expect("ours");
        chown(&path, Some(owner), Some(owner)).expect("root");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("ours");
        path
    };
    for (name, owner, mode) in [("theirs", OTHER, 0o755), ("open", 0, 0o777), ("sticky", 0, 0o1777)] {
        own.make(name, owner, mode);
    }
    let ours = write("ours", 0, 0o644);
    for path in [&ours, &write("group-of-root", 0, 0o664), &write("sticky/ours", 0, 0o600)] {
        let mut text = String::new();
        let mut file = read::open_configuration(path).expect("nobody else can change it");
        io::Read::read_to_string(&mut file, &mut text).expect("a file");
        assert_eq!(text, "text");
        read::open(path).expect("the same");
    }
    let foreign = write("foreign", OTHER, 0o644);
    assert!(
        refusal(&foreign).contains("foreign belongs to the user 65533, and the agent is started as root: chown it")
    );
    assert!(refusal(&write("theirs/ours", 0, 0o644)).contains("theirs belongs to the user 65533"));
    assert!(refusal(&write("open/ours", 0, 0o644)).contains("may be written to by everybody"));
    assert!(refusal(&write("sticky/foreign", OTHER, 0o644)).contains("foreign belongs to the user 65533"));
    assert!(refusal(&write("world", 0, 0o646)).contains("world may be written to by everybody"));
    let group = write("group", 0, 0o660);
    chown(&group, None, Some(OTHER)).expect("root");
    assert!(refusal(&group).contains("may be written to by the group 65533, and root reads it: chmod g-w it"));
    // Links, one made by another user, one by root, and what is no file.
    let planted = own.path("planted");
    symlink(&ours, &planted).expect("ours");
    read::open_configuration(&planted).expect("root's own link");
    lchown(&planted, Some(OTHER), Some(OTHER)).expect("root");
    assert!(refusal(&planted).contains("is a symbolic link that the user 65533 has made"));
    fs::hard_link(&ours, own.path("sticky/hard")).expect("ours");
    assert!(refusal(&own.path("sticky/hard")).contains("with another name"));
    assert!(refusal(&own.path("theirs")).contains("directory"));
    nix::unistd::mkfifo(&own.path("pipe"), Mode::S_IRWXU).expect("ours");
    assert!(refusal(&own.path("pipe")).contains("not a regular file"), "and it does not wait for a writer");
    for path in [&foreign, &own.path("theirs/ours")] {
        read::look(path).expect("whose it may be is not asked");
        read::open(path).expect_err("the same as the configuration, but for the user that root becomes");
    }
}

#[test]
fn a_pipe_that_the_process_was_started_with_is_read() {
    let (reader, mut writer) = io::pipe().expect("a pipe");
    io::Write::write_all(&mut writer, b"text").expect("room");
    drop(writer);
    let path = PathBuf::from(format!("/proc/self/fd/{}", reader.as_raw_fd()));
    let mut text = String::new();
    let mut file = read::open_configuration(&path).expect("its own descriptor");
    drop(reader);
    io::Read::read_to_string(&mut file, &mut text).expect("a pipe");
    assert_eq!(text, "text");
}
