//! Clients of the demo.
//!
//! Real clients where their behaviour matters (curl with its headers and its TLS), sockets where only bytes
//! do. Every visit goes to a destination of its own, by which its record is recognised. The sensor does not
//! answer HTTP, so curl is given a short limit and its time-out is expected.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::interrupt;
use crate::network::{Link, Namespace, SENSOR, SENSOR_V6};
use crate::report;

const CONNECT_LIMIT: Duration = Duration::from_secs(3);

/// Time that the silent client stays.
const SILENCE: Duration = Duration::from_millis(500);

/// curl's `--max-time`, in seconds: enough for a handshake and a request.
const CURL_SECONDS: &str = "1.5";

/// From where a client comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The other host.
    Remote,
    /// The sensor's own host, over loopback.
    Local,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Action {
    Http,
    Https,
    Bytes(&'static [u8]),
    Silence,
}

/// One client.
#[derive(Clone, Copy, Debug)]
pub(super) struct Visit {
    /// For the table.
    pub(super) name: &'static str,
    pub(super) place: Place,
    pub(super) destination: SocketAddr,
    pub(super) action: Action,
}

/// The clients of the demo, in their order.
pub(super) fn visits(has_ipv6: bool) -> Vec<Visit> {
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let visit =
        |name, place, address, port, action| Visit { name, place, destination: SocketAddr::new(address, port), action };
    let mut visits = vec![
        visit("curl, HTTP", Place::Remote, SENSOR, 80, Action::Http),
        visit("curl, HTTPS", Place::Remote, SENSOR, 443, Action::Https),
        visit("plain bytes", Place::Remote, SENSOR, 23, Action::Bytes(b"root\r\nadmin\r\n")),
        visit("binary bytes", Place::Remote, SENSOR, 3306, Action::Bytes(b"\x00\x9f\xff\x01")),
        visit("says nothing", Place::Remote, SENSOR, 5432, Action::Silence),
        visit("local curl, HTTP", Place::Local, loopback, 80, Action::Http),
        visit("local bytes", Place::Local, loopback, 6379, Action::Bytes(b"INFO\r\n")),
    ];
    if has_ipv6 {
        visits.push(visit("curl, HTTP, IPv6", Place::Remote, SENSOR_V6, 8080, Action::Http));
    }
    visits
}

impl Visit {
    /// Visits and leaves. The record is the sensor's business.
    pub(super) fn make(&self, link: &Link) -> Result<()> {
        let host = match self.place {
            Place::Remote => &link.client,
            Place::Local => &link.sensor,
        };
        let destination = self.destination;
        match self.action {
            Action::Http => curl(host, &format!("http://{destination}/hello?from=curl")),
            Action::Https => curl(host, &format!("https://{destination}/hello?from=curl")),
            Action::Bytes(bytes) => {
                report::step("Client", format!("sends {} bytes to {destination}", bytes.len()));
                host.inside(move || {
                    let mut stream = connect(destination)?;
                    stream.write_all(bytes)?;
                    Ok(stream.shutdown(Shutdown::Write)?)
                })
            }
            Action::Silence => {
                report::step("Client", format!("connects to {destination}, says nothing"));
                host.inside(move || {
                    let stream = connect(destination)?;
                    thread::sleep(SILENCE);
                    Ok(stream.shutdown(Shutdown::Both)?)
                })
            }
        }
    }
}

fn connect(destination: SocketAddr) -> Result<TcpStream> {
    TcpStream::connect_timeout(&destination, CONNECT_LIMIT).with_context(|| format!("cannot connect to {destination}"))
}

fn curl(host: &Namespace, url: &str) -> Result<()> {
    let mut command = host.command("curl");
    command
        // Neither the configuration nor the proxy of the user who runs the demo.
        .args(["-q", "--noproxy", "*", "--globoff", "--silent", "--insecure"])
        .args(["--max-time", CURL_SECONDS, "--output", "/dev/null", url])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    report::step("Client", format!("curl {url}"));
    let mut child = command.spawn().context("cannot start curl by nsenter")?;
    // curl ends by itself, by its own limit at the latest.
    while child.try_wait()?.is_none() {
        if let Err(interrupted) = interrupt::check() {
            child.kill()?;
            child.wait()?;
            return Err(interrupted);
        }
        thread::sleep(interrupt::TICK);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_visit_has_a_destination_of_its_own() {
        let visits = visits(true);
        let destinations: BTreeSet<_> = visits.iter().map(|visit| visit.destination).collect();
        assert_eq!(destinations.len(), visits.len());
    }

    #[test]
    fn without_ipv6_nobody_comes_by_it() {
        assert!(visits(false).iter().all(|visit| visit.destination.is_ipv4()));
        assert!(visits(true).iter().any(|visit| visit.destination.is_ipv6()));
    }
}
