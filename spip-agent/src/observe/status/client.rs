//! The operator's end: asks the agent, and the pinned maps where the agent cannot be asked.

use std::io::{self, Read as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;

use super::{Report, named};
use crate::kernel::ebpf;

/// An agent answers within milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest answer: thousands of exclusions fit.
const MOST_BYTES: u64 = 16 << 20;

/// Asks the agent behind `socket` for its report.
///
/// # Errors
/// In words for the operator: why it could not be asked.
pub fn ask(socket: &Path) -> Result<Report, String> {
    ask_process(socket).map(|(report, _)| report)
}

/// The same, with the number of the process that listens there, which a container's agent does not know.
///
/// # Errors
/// As [`ask`].
pub fn ask_process(socket: &Path) -> Result<(Report, u32), String> {
    let shown = socket.display();
    let client = UnixStream::connect(socket).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => format!("no agent answers at {shown}: none runs with this status_socket"),
        io::ErrorKind::ConnectionRefused => {
            format!("no agent answers at {shown}: it ended without removing its socket")
        }
        io::ErrorKind::PermissionDenied => {
            format!("{shown} belongs to another user: ask as that user, or as root")
        }
        _ => format!("cannot ask at {shown}: {error}"),
    })?;
    let peer = getsockopt(&client, PeerCredentials).map_err(|error| format!("cannot ask at {shown}: {error}"))?;
    let mut document = Vec::new();
    let read =
        client.set_read_timeout(Some(PATIENCE)).and_then(|()| client.take(MOST_BYTES).read_to_end(&mut document));
    read.map_err(|error| format!("the agent at {shown} does not answer: {error}"))?;
    let report = serde_json::from_slice(&document);
    let report = report.map_err(|error| format!("{shown} is answered by another program: {error}"))?;
    Ok((report, u32::try_from(peer.pid()).unwrap_or_default()))
}

/// Builds a report from the maps pinned in `directory`, with the reason why the agent could not be asked.
#[must_use]
pub fn from_pins(directory: &Path, unreachable: String) -> Report {
    let mut report = Report { unreachable: Some(unreachable), ..Report::default() };
    match ebpf::pinned_counters(directory) {
        Ok((kernel, steered)) => {
            report.counters_from = Some("pins".to_owned());
            report.kernel = named(kernel.iter().flat_map(spip_common::Counters::named));
            report.steered = named(steered.iter().flat_map(spip_common::SteerCounters::named));
        }
        Err(reason) => {
            let text = report.unreachable.get_or_insert_default();
            text.push_str(&format!("; {reason}"));
        }
    }
    report
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn what_is_not_there_and_what_is_no_agent_are_told_apart() {
        let path = std::env::temp_dir().join(format!("spip-status-client-{}.sock", std::process::id()));
        let _ = std::fs::remove_file(&path);
        assert!(ask(&path).expect_err("nothing there").contains("no agent answers"));
        let listener = UnixListener::bind(&path).expect("socket");
        let stranger = std::thread::spawn(move || {
            let (mut client, _) = listener.accept().expect("client");
            client.write_all(b"220 smtp").expect("written");
        });
        assert!(ask(&path).expect_err("no agent").contains("answered by another program"));
        stranger.join().expect("thread");
        assert!(ask(&path).expect_err("gone").contains("ended without removing its socket"));
        std::fs::remove_file(&path).expect("ours");
    }

    #[test]
    fn without_agent_and_pins_both_reasons_are_told() {
        let report = from_pins(Path::new("/nonexistent/spip"), "no agent".to_owned());
        let text = report.unreachable.expect("a reason");
        assert!(text.starts_with("no agent; no counters are pinned in /nonexistent/spip"), "{text}");
        assert_eq!((report.counters_from, report.agent), (None, None));
    }
}
