//! Clients that are programs: started in the client's namespace, fed, and always ended.

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::process::{Child, ChildStdin, Command, Stdio};

use spip_tests::{Net, SENSOR_V4, eventually};

/// Longer than any client here takes, on a busy machine too; `timeout` ends one that hangs, so that the test fails with
/// its output.
const LIMIT_SECONDS: &str = "120";

/// Bytes that a client wrote, and its result.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) success: bool,
    /// Standard output, then standard error.
    pub(crate) output: String,
}

/// Runs a program from the client's namespace, gives it `input`, and waits for its end.
pub(crate) fn run(net: &Net, program: &str, arguments: &[&str], input: &[u8]) -> Ended {
    let mut client = Running::start(net, program, arguments);
    client.write(input);
    client.end()
}

/// Runs `openssl s_client` against a port of the sensor. Without input it closes as soon as the handshake is done.
pub(crate) fn openssl(net: &Net, port: u16, arguments: &str, input: &[u8]) -> Ended {
    let line = format!("s_client -connect {SENSOR_V4}:{port} {arguments}");
    run(net, "openssl", &line.split_whitespace().collect::<Vec<_>>(), input)
}

/// Runs a Python script with `HOST` and `ssl`, `socket`, `sys` at hand.
pub(crate) fn python(net: &Net, script: &str) -> Ended {
    let script = format!("import socket, ssl, sys\nHOST = '{SENSOR_V4}'\n{script}");
    run(net, "python3", &["-c", &script], b"")
}

/// A client that is fed piece by piece; killed when dropped.
pub(crate) struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
}

impl Running {
    pub(crate) fn start(net: &Net, program: &str, arguments: &[&str]) -> Self {
        let mut child = net.client.enter(|| {
            Command::new("timeout")
                .args(["--signal=KILL", LIMIT_SECONDS, program])
                .args(arguments)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap_or_else(|error| panic!("cannot start {program}: {error}"))
        });
        let stdin = child.stdin.take();
        Self { child, stdin }
    }

    /// Feeds it; a client that ended before is no failure here.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        let _ = self.stdin.as_mut().expect("not closed yet").write_all(bytes);
    }

    /// Feeds it, and waits until it has taken all: what comes next reaches it in a read of its own.
    pub(crate) fn write_apart(&mut self, bytes: &[u8]) {
        self.write(bytes);
        let pipe = self.stdin.as_ref().expect("not closed yet").as_raw_fd();
        eventually("the client reads its input", || {
            let mut waiting = 0;
            // SAFETY: the descriptor is open for as long as `self.stdin`, and FIONREAD writes one int.
            let asked = unsafe { nix::libc::ioctl(pipe, nix::libc::FIONREAD, &raw mut waiting) };
            (asked != 0 || waiting == 0).then_some(())
        });
    }

    /// Closes its input and waits for its end.
    pub(crate) fn end(mut self) -> Ended {
        drop(self.stdin.take());
        self.end_by_itself()
    }

    /// Waits until it ends for a reason of its own.
    pub(crate) fn end_by_itself(mut self) -> Ended {
        let mut stderr = self.child.stderr.take().expect("piped");
        let rest = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = stderr.read_to_end(&mut bytes);
            bytes
        });
        let mut bytes = Vec::new();
        let _ = self.child.stdout.take().expect("piped").read_to_end(&mut bytes);
        bytes.extend(rest.join().expect("reading does not panic"));
        let status = self.child.wait().expect("it is our child");
        Ended { success: status.success(), output: String::from_utf8_lossy(&bytes).into_owned() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
