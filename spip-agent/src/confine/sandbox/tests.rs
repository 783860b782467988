//! Prisoners: processes that enter the sandbox with what the agent has open by then, do what the agent does, and try
//! what the sandbox must refuse.

use std::cell::RefCell;
use std::ffi::CString;
use std::fs;
use std::io::{self, Read as _, Seek as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::thread;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, SockaddrIn, UnixAddr, connect, sendto,
    socket,
};
use nix::unistd::Pid;

use super::*;
use crate::kernel::ebpf::PacketSocket;

/// Names the directory of the prisoner, in the process that becomes one.
const VARIABLE: &str = "SPIP_TEST_PRISONER";

/// Calls that no agent makes, with the numbers of this architecture.
const STRANGE: &[(&str, libc::c_long)] = &[
    ("acct", libc::SYS_acct),
    ("add_key", libc::SYS_add_key),
    ("bind", libc::SYS_bind),
    ("capset", libc::SYS_capset),
    ("chroot", libc::SYS_chroot),
    ("connect", libc::SYS_connect),
    ("delete_module", libc::SYS_delete_module),
    ("dup3", libc::SYS_dup3),
    ("execveat", libc::SYS_execveat),
    ("fanotify_init", libc::SYS_fanotify_init),
    ("fchmod", libc::SYS_fchmod),
    ("fchmodat", libc::SYS_fchmodat),
    ("fchown", libc::SYS_fchown),
    ("fchownat", libc::SYS_fchownat),
    ("finit_module", libc::SYS_finit_module),
    ("fsopen", libc::SYS_fsopen),
    ("init_module", libc::SYS_init_module),
    ("io_uring_enter", libc::SYS_io_uring_enter),
    ("io_uring_register", libc::SYS_io_uring_register),
    ("io_uring_setup", libc::SYS_io_uring_setup),
    ("kcmp", libc::SYS_kcmp),
    ("kexec_load", libc::SYS_kexec_load),
    ("keyctl", libc::SYS_keyctl),
    ("kill", libc::SYS_kill),
    ("linkat", libc::SYS_linkat),
    ("listen", libc::SYS_listen),
    ("memfd_create", libc::SYS_memfd_create),
    ("mknodat", libc::SYS_mknodat),
    ("mount", libc::SYS_mount),
    ("move_mount", libc::SYS_move_mount),
    ("name_to_handle_at", libc::SYS_name_to_handle_at),
    ("open_by_handle_at", libc::SYS_open_by_handle_at),
    ("open_tree", libc::SYS_open_tree),
    ("perf_event_open", libc::SYS_perf_event_open),
    ("personality", libc::SYS_personality),
    ("pidfd_getfd", libc::SYS_pidfd_getfd),
    ("pidfd_open", libc::SYS_pidfd_open),
    ("pidfd_send_signal", libc::SYS_pidfd_send_signal),
    ("pivot_root", libc::SYS_pivot_root),
    ("pkey_mprotect", libc::SYS_pkey_mprotect),
    ("process_vm_readv", libc::SYS_process_vm_readv),
    ("process_vm_writev", libc::SYS_process_vm_writev),
    ("ptrace", libc::SYS_ptrace),
    ("reboot", libc::SYS_reboot),
    ("remap_file_pages", libc::SYS_remap_file_pages),
    ("recvmsg", libc::SYS_recvmsg),
    ("request_key", libc::SYS_request_key),
    ("rt_sigqueueinfo", libc::SYS_rt_sigqueueinfo),
    ("seccomp", libc::SYS_seccomp),
    ("sendmmsg", libc::SYS_sendmmsg),
    ("sendmsg", libc::SYS_sendmsg),
    ("setns", libc::SYS_setns),
    ("setresuid", libc::SYS_setresuid),
    ("shmat", libc::SYS_shmat),
    ("socket", libc::SYS_socket),
    ("socketpair", libc::SYS_socketpair),
    ("splice", libc::SYS_splice),
    ("swapon", libc::SYS_swapon),
    ("symlinkat", libc::SYS_symlinkat),
    ("umount2", libc::SYS_umount2),
    ("unshare", libc::SYS_unshare),
    ("userfaultfd", libc::SYS_userfaultfd),
];

/// Runs one of the prisoners in a process of its own, with a directory of its own.
fn imprison(name: &str) -> (ExitStatus, String) {
    let directory = std::env::temp_dir().join(format!("spip-sandbox-{name}-{}", std::process::id()));
    fs::create_dir(&directory).expect("a directory for the test");
    let prisoner = Command::new(std::env::current_exe().expect("own path"))
        .args(["--ignored", "--exact", &format!("confine::sandbox::tests::{name}"), "--nocapture"])
        .env(VARIABLE, &directory)
        .output()
        .expect("the test starts itself");
    fs::remove_dir_all(&directory).expect("the directory goes");
    let said = String::from_utf8_lossy(&prisoner.stdout) + String::from_utf8_lossy(&prisoner.stderr);
    (prisoner.status, said.into_owned())
}

#[track_caller]
fn assert_survives(name: &str) {
    let (status, said) = imprison(name);
    assert!(status.success() && said.contains("1 passed"), "{said}");
}

fn own_directory() -> PathBuf {
    PathBuf::from(std::env::var_os(VARIABLE).expect("run by another test"))
}

/// Enters the sandbox, with every step required.
fn enter_with(replaced: Vec<PathBuf>, writable: Vec<PathBuf>) -> Vec<Step> {
    enter_as(SandboxMode::Required, replaced, writable)
}

fn enter_as(mode: SandboxMode, replaced: Vec<PathBuf>, writable: Vec<PathBuf>) -> Vec<Step> {
    let config = config::Sandbox { mode, user: None, group: None };
    let steps = enter(&Needs {
        config: &config,
        files: Files { replaced, writable, ..Files::default() },
        tidied: Vec::new(),
        owned: Vec::new(),
        reads_maps: &|| false,
    });
    steps.expect("this kernel has everything")
}

#[track_caller]
fn assert_refused<T>(result: io::Result<T>) {
    let error = result.err().expect("refused");
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}");
}

#[test]
fn inside_nothing_is_left_but_the_work() {
    assert_survives("prisoner");
}

#[test]
#[ignore = "run by inside_nothing_is_left_but_the_work, in a process of its own"]
fn prisoner() {
    let directory = own_directory();
    let own = directory.join("work");
    fs::create_dir(&own).expect("a directory for the test");
    fs::write(directory.join("certificate"), "readable").expect("a file for the test");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let steps = enter_with(vec![directory.join("certificate")], vec![own.clone()]);
    assert_eq!(steps.len(), 6, "{steps:?}");

    // What the agent goes on to do.
    assert_eq!(fs::read_to_string(directory.join("certificate")).expect("readable"), "readable");
    fs::write(own.join("log"), "line\n").expect("writable");
    fs::rename(own.join("log"), own.join("log.1")).expect("rotated");
    fs::remove_file(own.join("log.1")).expect("removed");
    // SAFETY: numbers alone; 0 is the thread that asks.
    let yields = || unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 19) };
    assert_eq!(thread::spawn(yields).join().expect("a thread"), 0);

    // What must fail.
    assert_refused(TcpStream::connect(address));
    assert_refused(UdpSocket::bind("127.0.0.1:0"));
    assert_refused(TcpListener::bind("127.0.0.1:0"));
    assert_refused(fs::read("/etc/shadow"));
    assert_refused(fs::read("/etc/passwd"));
    assert_refused(fs::write(directory.join("beside"), ""));
    assert_refused(fs::write(Path::new("/dev/shm/spip-sandbox"), ""));
    // Modes, of which Landlock knows nothing.
    assert_refused(fs::set_permissions(directory.join("certificate"), fs::Permissions::from_mode(0o666)));
    assert_refused(fs::set_permissions(&own, fs::Permissions::from_mode(0o777)));
    let create =
        |mode| fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(own.join("file"));
    assert_refused(create(0o4755));
    assert_refused(create(0o2755));
    create(0o640).expect("an ordinary file");
    let make = |name: &str, mode| fs::DirBuilder::new().mode(mode).create(own.join(name));
    assert_refused(make("shared", 0o2755));
    make("ordinary", 0o750).expect("an ordinary directory");
    // As libraries of other languages make them.
    let name = CString::new(own.join("at").into_os_string().into_vec()).expect("no zero byte");
    for (mode, error) in [(0o2755, Errno::EPERM), (0o4755, Errno::EPERM)] {
        let arguments = [libc::AT_FDCWD.into(), name.as_ptr() as libc::c_long, mode, 0, 0, 0];
        assert_eq!(call(libc::SYS_mkdirat, arguments), error, "{mode:o}");
    }
    let parent = Pid::parent();
    // SAFETY: nothing is read or written through the pointers, which an attachment has no use for.
    let traced = unsafe {
        libc::ptrace(libc::PTRACE_ATTACH, parent.as_raw(), std::ptr::null_mut::<u8>(), std::ptr::null_mut::<u8>())
    };
    assert_eq!((traced, Errno::last()), (-1, Errno::EPERM));
    // Signals: by kill, for a thread of another process, and by the events of a descriptor.
    assert_eq!(nix::sys::signal::kill(parent, None), Err(Errno::EPERM));
    assert_eq!(call(libc::SYS_tgkill, [parent.as_raw().into(), parent.as_raw().into(), 0, 0, 0, 0]), Errno::EPERM);
    let set_owner = [listener.as_raw_fd().into(), libc::F_SETOWN.into(), parent.as_raw().into(), 0, 0, 0];
    assert_eq!(call(libc::SYS_fcntl, set_owner), Errno::EPERM);
    assert_eq!(call(libc::SYS_setpriority, [0, parent.as_raw().into(), 19, 0, 0, 0]), Errno::EPERM);
    // The program itself, and not only the process that Command makes for it.
    let program = c"/bin/true".as_ptr();
    let arguments = [program, std::ptr::null()];
    // SAFETY: the path and the list of arguments end with a zero; no environment is no pointer.
    let executed = unsafe { libc::execve(program, arguments.as_ptr(), std::ptr::null()) };
    assert_eq!((executed, Errno::last()), (-1, Errno::EPERM));
    // SAFETY: fork without a new thread is refused before anything happens.
    let forked = unsafe { libc::fork() };
    assert_eq!((forked, Errno::last()), (-1, Errno::EPERM));
    // BPF_PROG_LOAD, BPF_OBJ_GET, BPF_PROG_GET_FD_BY_ID, BPF_MAP_GET_FD_BY_ID, BPF_LINK_CREATE; the kernel is not even
    // asked whether the attributes are right.
    let attributes = [0_u8; 64];
    for command in [5, 7, 13, 14, 28] {
        let attributes = [command, attributes.as_ptr() as libc::c_long, 64, 0, 0, 0];
        assert_eq!(call(libc::SYS_bpf, attributes), Errno::EPERM, "command {command}");
    }
    for (name, number) in STRANGE {
        assert_eq!(call(*number, [0; 6]), Errno::EPERM, "{name}");
    }
    // The C library is to take clone instead, which gives a thread of this process and nothing new else.
    assert_eq!(call(libc::SYS_clone3, [0; 6]), Errno::ENOSYS);
    let namespace = libc::CLONE_THREAD | libc::CLONE_SIGHAND | libc::CLONE_VM | libc::CLONE_NEWNET;
    assert_eq!(call(libc::SYS_clone, [namespace.into(), 0, 0, 0, 0, 0]), Errno::EPERM);
    // A kernel that was asked would call these invalid, whatever the capabilities.
    for namespace in [libc::CLONE_NEWUSER, libc::CLONE_NEWPID] {
        let flags = libc::CLONE_THREAD | libc::CLONE_SIGHAND | libc::CLONE_VM | namespace;
        assert_eq!(call(libc::SYS_clone, [flags.into(), 0, 0, 0, 0, 0]), Errno::EPERM, "{namespace:#x}");
    }
    // TIOCSTI, FIOSETOWN; PR_SET_DUMPABLE, PR_SET_MM; executable memory; limits.
    for request in [0x5412, 0x8901] {
        assert_eq!(call(libc::SYS_ioctl, [listener.as_raw_fd().into(), request, 0, 0, 0, 0]), Errno::EPERM);
    }
    for option in [libc::PR_SET_DUMPABLE, libc::PR_SET_MM] {
        assert_eq!(call(libc::SYS_prctl, [option.into(), 0, 0, 0, 0, 0]), Errno::EPERM);
    }
    for protection in [libc::PROT_EXEC, libc::PROT_READ | libc::PROT_EXEC, libc::PROT_WRITE | libc::PROT_EXEC] {
        let memory = [0, 4096, protection.into(), (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS).into(), -1, 0];
        assert_eq!(call(libc::SYS_mmap, memory), Errno::EPERM);
        // The address is that of no page: allowed, it would fail in another way.
        assert_eq!(call(libc::SYS_mprotect, [4096, 4096, protection.into(), 0, 0, 0]), Errno::EPERM);
    }
    let limit = [0_u64; 2];
    let set_limit = [0, libc::RLIMIT_NOFILE.into(), limit.as_ptr() as libc::c_long, 0, 0, 0];
    assert_eq!(call(libc::SYS_prlimit64, set_limit), Errno::EPERM);
    // x32: the same architecture to a filter, with a bit in the number.
    #[cfg(target_arch = "x86_64")]
    assert_eq!(call(0x4000_0000 | libc::SYS_getpid, [0; 6]), Errno::EPERM);
    // The listener that was there before still takes connections.
    listener.set_nonblocking(true).expect("non-blocking");
    assert_eq!(listener.accept().expect_err("nobody came").kind(), io::ErrorKind::WouldBlock);
}

/// Makes a system call that the kernel must refuse, and returns the error.
#[track_caller]
fn call(number: libc::c_long, arguments: [libc::c_long; 6]) -> Errno {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: every call that is tried here is refused before the kernel looks at an argument; those that are no zero
    // name live memory or none.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    assert_eq!(result, -1, "call {number} was not refused");
    Errno::last()
}

#[test]
fn sockets_that_are_open_inside_become_no_other_ones() {
    assert_survives("prisoner_with_sockets");
}

/// Tries to set an option of a socket; why that is refused.
#[track_caller]
fn set_option(socket: RawFd, level: libc::c_int, name: libc::c_int) -> Errno {
    let value = [1_u64, 0];
    let arguments = [socket.into(), level.into(), name.into(), value.as_ptr() as libc::c_long, 16, 0];
    call(libc::SYS_setsockopt, arguments)
}

#[test]
#[ignore = "run by sockets_that_are_open_inside_become_no_other_ones, in a process of its own"]
fn prisoner_with_sockets() {
    let directory = own_directory();
    let goal = TcpListener::bind("127.0.0.1:0").expect("a port");
    let goal_address = SockaddrIn::from(match goal.local_addr().expect("an address") {
        std::net::SocketAddr::V4(address) => address,
        std::net::SocketAddr::V6(_) => unreachable!("bound to IPv4"),
    });
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let packets = PacketSocket::open();
    if let Err(error) = &packets {
        assert!(std::env::var_os("CI").is_none(), "no packet socket: {error}");
        eprintln!("without a packet socket: {error}");
    }
    let packets = packets.ok().inspect(|socket| socket.receive_all().expect("bound"));
    let netlink = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkSockDiag)
        .expect("netlink");
    connect(netlink.as_raw_fd(), &NetlinkAddr::new(0, 0)).expect("the kernel");
    let other = directory.join("other");
    let (manager, stranger) = (UnixDatagram::bind(directory.join("manager")), UnixDatagram::bind(&other));
    let (manager, stranger) = (manager.expect("a socket"), stranger.expect("a socket"));
    let notify = UnixDatagram::unbound().expect("a socket");
    notify.connect(directory.join("manager")).expect("the manager listens");
    let question = OwnedFd::from(UnixDatagram::unbound().expect("a socket"));
    enter_with(Vec::new(), vec![directory]);

    // What they are for.
    notify.send(b"READY=1").expect("connected");
    let mut heard = [0; 16];
    assert_eq!(manager.recv(&mut heard).expect("said before"), 7);

    // A listener that is shut stops to listen, and TCP could connect it with the first bytes.
    // SAFETY: the descriptor is open, and no memory is named.
    assert_eq!(unsafe { libc::shutdown(listener.as_raw_fd(), libc::SHUT_RD) }, 0);
    let fast = MsgFlags::from_bits_retain(libc::MSG_FASTOPEN);
    for flags in [fast, fast | MsgFlags::MSG_NOSIGNAL, MsgFlags::MSG_NOSIGNAL] {
        assert_eq!(sendto(listener.as_raw_fd(), b"out", &goal_address, flags), Err(Errno::EPERM), "{flags:?}");
    }
    // SAFETY: the bytes are live for their length, and no address is given.
    let sent = unsafe { libc::send(listener.as_raw_fd(), b"out".as_ptr().cast(), 3, libc::MSG_FASTOPEN) };
    assert_eq!((sent, Errno::last()), (-1, Errno::EPERM));
    goal.set_nonblocking(true).expect("non-blocking");
    assert_eq!(goal.accept().expect_err("nobody came").kind(), io::ErrorKind::WouldBlock);

    // Datagrams to others than those who are known.
    let other = UnixAddr::new(&other).expect("a path");
    for from in [notify.as_raw_fd(), question.as_raw_fd()] {
        assert_eq!(sendto(from, b"forged", &other, MsgFlags::empty()), Err(Errno::EPERM));
    }
    stranger.set_nonblocking(true).expect("non-blocking");
    assert_eq!(stranger.recv(&mut heard).expect_err("nothing came").kind(), io::ErrorKind::WouldBlock);
    let somebody = NetlinkAddr::new(1, 0);
    assert_eq!(sendto(netlink.as_raw_fd(), b"forged", &somebody, MsgFlags::empty()), Err(Errno::EPERM));

    // Options: of TCP and IP, another filter for the listener, who may read by it.
    let tcp = goal.as_raw_fd();
    for (level, name) in [
        (libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT),
        (libc::IPPROTO_TCP, libc::TCP_ULP),
        (libc::IPPROTO_IP, libc::IP_TRANSPARENT),
        (libc::SOL_SOCKET, libc::SO_ATTACH_FILTER),
        (libc::SOL_SOCKET, libc::SO_DETACH_FILTER),
        (libc::SOL_SOCKET, libc::SO_MARK),
    ] {
        assert_eq!(set_option(tcp, level, name), Errno::EPERM, "{level} {name}");
    }
    if let Some(packets) = packets {
        use std::os::fd::AsFd as _;
        let packets = packets.as_fd().as_raw_fd();
        // SAFETY: the structure holds integers and arrays of them, of which zero is a value.
        let mut loopback: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        loopback.sll_family = libc::AF_PACKET as u16;
        loopback.sll_ifindex = 1;
        loopback.sll_protocol = (libc::ETH_P_IP as u16).to_be();
        let (address, length) = ((&raw const loopback) as libc::c_long, size_of_val(&loopback) as libc::c_long);
        let packet = [0_u8; 40];
        let send = [packets.into(), packet.as_ptr() as libc::c_long, 40, 0, address, length];
        assert_eq!(call(libc::SYS_sendto, send), Errno::EPERM);
        // Without an address there is no interface that it could go to.
        // SAFETY: the bytes are live for their length.
        let written = unsafe { libc::write(packets, packet.as_ptr().cast(), packet.len()) };
        assert_eq!((written, Errno::last()), (-1, Errno::ENXIO));
        for (level, name) in [
            (libc::SOL_SOCKET, libc::SO_DETACH_FILTER),
            (libc::SOL_SOCKET, libc::SO_ATTACH_FILTER),
            (libc::SOL_PACKET, libc::PACKET_RX_RING),
            (libc::SOL_PACKET, libc::PACKET_TX_RING),
            (libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP),
            (libc::SOL_PACKET, libc::PACKET_FANOUT),
        ] {
            assert_eq!(set_option(packets, level, name), Errno::EPERM, "{level} {name}");
        }
    }
}

#[test]
fn the_filter_of_the_packet_socket_stays_even_for_root() {
    let packets = match PacketSocket::open() {
        Ok(packets) => packets,
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "no packet socket: {error}");
            return eprintln!("skipped: no packet socket: {error}");
        }
    };
    use std::os::fd::AsFd as _;
    let socket = packets.as_fd().as_raw_fd();
    packets.receive_all().expect("bound");
    for name in [libc::SO_DETACH_FILTER, libc::SO_LOCK_FILTER] {
        let off: libc::c_int = 0;
        // SAFETY: the pointer names a live integer of the length that is given with it.
        let result = unsafe { libc::setsockopt(socket, libc::SOL_SOCKET, name, (&raw const off).cast(), 4) };
        assert_eq!((result, Errno::last()), (-1, Errno::EPERM), "{name}");
    }
}

#[test]
#[cfg(target_arch = "x86_64")]
fn a_call_of_another_architecture_ends_the_process() {
    let (status, said) = imprison("prisoner_of_another_architecture");
    assert!(status.signal().is_some() && said.contains("inside"), "{status} {said}");
}

#[test]
#[ignore = "run by a_call_of_another_architecture_ends_the_process, in a process of its own"]
#[cfg(target_arch = "x86_64")]
fn prisoner_of_another_architecture() {
    enter_with(Vec::new(), vec![own_directory()]);
    eprintln!("inside");
    // SAFETY: the 32-bit getpid has no argument, and changes no register but the one that is named.
    unsafe {
        std::arch::asm!("int 0x80", inlateout("rax") 20_u64 => _, out("r8") _, out("r9") _, out("r10") _, out("r11") _)
    };
}

#[test]
fn a_renewed_certificate_is_read_behind_its_symbolic_link() {
    assert_survives("prisoner_with_a_certificate");
}

#[test]
#[ignore = "run by a_renewed_certificate_is_read_behind_its_symbolic_link, in a process of its own"]
fn prisoner_with_a_certificate() {
    // As certbot keeps them: the name is a link to a numbered file in another directory.
    let directory = own_directory();
    let (live, archive, work) = (directory.join("live/a"), directory.join("archive/a"), directory.join("work"));
    for directory in [&live, &archive, &work, &directory.join("archive/b")] {
        fs::create_dir_all(directory).expect("a directory for the test");
    }
    fs::write(archive.join("key1.pem"), "first").expect("a file for the test");
    fs::write(directory.join("archive/b/key.pem"), "another").expect("a file for the test");
    let key = live.join("key.pem");
    symlink("../../archive/a/key1.pem", &key).expect("a link for the test");
    // What renews it has no sandbox: the whole of it is there before, but for the link.
    fs::write(archive.join("key2.pem"), "second").expect("a file for the test");
    // Who renews it is in here, too, and that is said.
    let steps = enter_as(SandboxMode::Auto, vec![key.clone()], vec![live.clone()]);
    assert!(steps.iter().any(|step| step.to_string().contains("key.pem can be written to")), "{steps:?}");
    let landlock = steps.iter().find(|step| step.name == "landlock").expect("a step").to_string();
    assert!(landlock.contains(&archive.display().to_string()), "{landlock}");
    assert_eq!(fs::read_to_string(&key).expect("readable"), "first");
    assert_eq!(fs::read_to_string(archive.join("key2.pem")).expect("readable"), "second");
    assert_refused(fs::read(directory.join("archive/b/key.pem")));
}

#[test]
fn a_log_among_other_things_is_no_sandbox_to_those_who_require_one() {
    let files = Files { writable: vec!["/var/log".into()], ..Files::default() };
    let said = complaint(&files).expect("it is shared");
    assert!(said.contains("/var/log") && said.contains("directory of its own"), "{said}");
}

#[test]
fn where_maps_cannot_be_read_without_it_cap_bpf_alone_stays_also_as_an_ordinary_user() {
    if !nix::unistd::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "only root can become another user");
        return eprintln!("skipped: only root can become another user");
    }
    assert_survives("prisoner_with_cap_bpf");
    assert_survives("prisoner_with_cap_bpf_and_a_user");
}

/// On a kernel before 5.19: maps can be read as long as `CAP_BPF` is in effect.
fn keep_cap_bpf(user: Option<&str>) {
    let status = RefCell::new(fs::File::open("/proc/thread-self/status").expect("procfs"));
    let set = |name: &str| {
        let mut text = String::new();
        let mut status = status.borrow_mut();
        status.rewind().and_then(|()| status.read_to_string(&mut text)).expect("readable");
        let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("a line of each set");
        u64::from_str_radix(line.trim(), 16).expect("a mask")
    };
    let bpf = 1 << 39;
    let config = config::Sandbox { mode: SandboxMode::Required, user: user.map(str::to_owned), group: None };
    let steps = enter(&Needs {
        config: &config,
        files: Files::default(),
        tidied: Vec::new(),
        owned: Vec::new(),
        reads_maps: &|| set("CapEff:") & bpf != 0,
    });
    let steps = steps.expect("this kernel has everything");
    assert!(steps.iter().any(|step| step.to_string().contains("CAP_BPF alone")), "{steps:?}");
    let sets = ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"].map(set);
    assert_eq!(sets, [0, bpf, bpf, 0, 0], "{steps:?}");
}

#[test]
#[ignore = "run by another test, in a process of its own"]
fn prisoner_with_cap_bpf() {
    keep_cap_bpf(None);
}

#[test]
#[ignore = "run by another test, in a process of its own"]
fn prisoner_with_cap_bpf_and_a_user() {
    keep_cap_bpf(Some("65534"));
}
