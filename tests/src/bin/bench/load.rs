//! The load: a closed loop of short sessions from one thread, so that the machine's other core is the server's.
//!
//! A session connects, sends its payload, closes its side, and is complete when the server has closed too. Addresses
//! of the crowd and ports are used in turn: no single connection quadruple comes back soon.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use socket2::{Domain, Protocol, Socket, Type};
use spip_tests::{CROWD_V4, SENSOR_V4};

/// The load to send.
pub(crate) struct Load {
    /// Sessions of this network before them, so that addresses and ports do not come back soon.
    pub(crate) first: usize,
    /// Sessions in all.
    pub(crate) sessions: usize,
    /// Sessions at once.
    pub(crate) concurrent: usize,
    /// Bytes that each sends.
    pub(crate) payload: Vec<u8>,
    /// The port of all sessions; `None` when they ask for many.
    pub(crate) port: Option<u16>,
}

/// Result of a load.
pub(crate) struct Outcome {
    /// Sessions that the server closed in order.
    pub(crate) completed: usize,
    /// Sessions that failed in between.
    pub(crate) failed: usize,
    /// From the first connect to the last close.
    pub(crate) elapsed: Duration,
    /// Microseconds of each completed session, sorted.
    pub(crate) micros: Vec<u32>,
}

impl Outcome {
    /// Sessions a second.
    pub(crate) fn rate(&self) -> f64 {
        self.completed as f64 / self.elapsed.as_secs_f64()
    }

    /// The session time in microseconds below which `share` of all sessions stay.
    pub(crate) fn percentile(&self, share: f64) -> u32 {
        let index = (self.micros.len() as f64 * share) as usize;
        self.micros.get(index.min(self.micros.len().saturating_sub(1))).copied().unwrap_or(0)
    }
}

/// Source addresses in use: with few of them the translation runs out of ports.
pub(crate) const SOURCES: u32 = 64;
/// Ports asked for, from the first on.
pub(crate) const FIRST_PORT: u16 = 1_000;
pub(crate) const PORTS: u16 = 2_000;
/// No run takes longer: what is open then has failed.
pub(crate) const TIME_LIMIT: Duration = Duration::from_secs(180);

struct Slot {
    socket: Socket,
    started: Instant,
    sent: bool,
}

/// Runs the load; to be called inside the client's namespace.
pub(crate) fn run(load: &Load) -> Outcome {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).expect("epoll");
    let started = Instant::now();
    let mut outcome = Outcome { completed: 0, failed: 0, elapsed: Duration::ZERO, micros: Vec::new() };
    let mut slots: Vec<Option<Slot>> = (0..load.concurrent).map(|_| None).collect();
    let mut opened = 0;
    for (index, slot) in slots.iter_mut().enumerate() {
        *slot = open(load, &epoll, index, &mut opened, &mut outcome);
    }
    let mut events = vec![EpollEvent::empty(); 256];
    while outcome.completed + outcome.failed < load.sessions && started.elapsed() < TIME_LIMIT {
        let count = epoll.wait(&mut events, EpollTimeout::from(1_000_u16)).expect("epoll waits");
        for event in &events[..count] {
            let index = event.data() as usize;
            let Some(slot) = slots[index].as_mut() else { continue };
            match advance(slot, &load.payload) {
                Ok(false) => continue,
                Ok(true) => {
                    outcome.completed += 1;
                    outcome.micros.push(u32::try_from(slot.started.elapsed().as_micros()).unwrap_or(u32::MAX));
                }
                Err(_) => outcome.failed += 1,
            }
            slots[index] = None;
            slots[index] = open(load, &epoll, index, &mut opened, &mut outcome);
        }
    }
    outcome.elapsed = started.elapsed();
    outcome.failed = load.sessions - outcome.completed;
    outcome.micros.sort_unstable();
    outcome
}

/// True when the session is complete.
fn advance(slot: &mut Slot, payload: &[u8]) -> io::Result<bool> {
    if !slot.sent {
        if let Some(error) = slot.socket.take_error()? {
            return Err(error);
        }
        match slot.socket.send(payload) {
            Err(error) if error.kind() == io::ErrorKind::NotConnected => return Ok(false),
            sent => sent?,
        };
        slot.socket.shutdown(std::net::Shutdown::Write)?;
        slot.sent = true;
    }
    let mut buffer = [std::mem::MaybeUninit::uninit(); 512];
    loop {
        match slot.socket.recv(&mut buffer) {
            Ok(0) => return Ok(true),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}

fn open(load: &Load, epoll: &Epoll, index: usize, opened: &mut usize, outcome: &mut Outcome) -> Option<Slot> {
    while *opened < load.sessions {
        let number = u32::try_from(load.first + *opened).unwrap_or(u32::MAX);
        *opened += 1;
        let source = Ipv4Addr::from(u32::from(CROWD_V4) + 1 + number % SOURCES);
        let port = load.port.unwrap_or(FIRST_PORT + (number % u32::from(PORTS)) as u16);
        match connect(source.into(), SocketAddr::from((SENSOR_V4, port))) {
            Ok(socket) => {
                let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
                let event = EpollEvent::new(flags, index as u64);
                epoll.add(socket.as_fd(), event).expect("epoll takes a socket");
                return Some(Slot { socket, started: Instant::now(), sent: false });
            }
            Err(_) => outcome.failed += 1,
        }
    }
    None
}

fn connect(source: IpAddr, destination: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    // The port is chosen at connect, for the quadruple, and not at bind, for the address.
    nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::IpBindAddressNoPort, &true)?;
    socket.bind(&SocketAddr::from((source, 0)).into())?;
    match socket.connect(&destination.into()) {
        Err(error) if error.raw_os_error() != Some(nix::libc::EINPROGRESS) => Err(error),
        _ => {
            debug_assert!(socket.as_raw_fd() >= 0);
            Ok(socket)
        }
    }
}
