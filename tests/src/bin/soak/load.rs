//! The clients: threads in the client's namespace, each with one connection at a time, until they are told to stop.
//!
//! Fast ones come at a bounded rate together; slow ones are as many as there are threads for them, since what they cost
//! is being open. A connection is entered in the tally before it is opened, under the address and port that it is bound
//! to, and struck off again where it could not be opened.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use spip_tests::{CROWD_V4, CROWD_V6, LISTENER, Net, RawSyn, SENSOR_V4, SENSOR_V6, tls};

use crate::malformed;
use crate::storm;
use crate::tally::{Key, Tally};

/// Sources of connections; every third speaks IPv6.
const SOURCES: u32 = 4_000;
/// Sources of scans, other ones: what they send makes no connection.
const SCANNERS: u32 = 20;
const SYNS_PER_SCANNER: u16 = 10;
const SCAN_INTERVAL: Duration = Duration::from_secs(15);
const FAST: u32 = 8;
const SLOW: u32 = 60;
/// For whatever the other side does.
const PATIENCE: Duration = Duration::from_secs(20);

/// The load, until it is stopped.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// State that all threads share.
pub(crate) struct Shared {
    pub(crate) tally: Arc<Tally>,
    stop: Arc<AtomicBool>,
    number: AtomicU32,
    tls: Arc<ClientConfig>,
    silence: Duration,
}

impl Load {
    /// Starts it: `rate` connections a second by the fast ones; `silence` is what the agent waits for a first byte.
    pub(crate) fn start(net: &Net, tally: &Arc<Tally>, rate: u32, silence: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let shared = Arc::new(Shared {
            tally: Arc::clone(tally),
            stop: Arc::clone(&stop),
            // Goes on where a load before it ended.
            number: AtomicU32::new(u32::try_from(tally.progress().0 & 0x7fff_ffff).unwrap_or(0)),
            tls: Arc::new(tls::client(aws_lc_rs::default_provider(), rustls::ALL_VERSIONS)),
            silence,
        });
        let pause = Duration::from_secs_f64(f64::from(FAST) / f64::from(rate.max(1)));
        // Sockets belong to the namespace of the thread that opens them; threads inherit it.
        let mut threads: Vec<_> = net.client.enter(|| {
            let fast = (0..FAST).map(|_| spawn(&shared, move |shared, number| fast(shared, number, pause)));
            let slow = (0..SLOW).map(|_| spawn(&shared, slow));
            let storms = storm::KINDS.into_iter().flat_map(|kind| {
                let shared = &shared;
                (0..storm::THREADS).map(move |_| spawn(shared, move |shared, number| storm::blow(shared, number, kind)))
            });
            fast.chain(slow).chain(storms).collect()
        });
        let scanner = net.client.handle();
        threads.push(spawn(&shared, move |shared, _| {
            let syns = syns();
            shared.tally.scanned(syns.len() as u64);
            scanner.send_syns(syns);
            rest(shared, SCAN_INTERVAL);
        }));
        let flooder = net.client.handle();
        threads.push(spawn(&shared, move |shared, number| {
            let syns = storm::syns(number);
            shared.tally.scanned(syns.len() as u64);
            flooder.send_syns(syns);
            rest(shared, storm::INTERVAL);
        }));
        Self { stop, threads }
    }

    /// Ends it, and waits until every thread has ended its last connection.
    pub(crate) fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("no client panics");
        }
    }
}

fn spawn(shared: &Arc<Shared>, act: impl Fn(&Shared, u32) + Send + 'static) -> JoinHandle<()> {
    let shared = Arc::clone(shared);
    let spawned = std::thread::Builder::new().stack_size(256 * 1024).spawn(move || {
        while !shared.stop.load(Ordering::Relaxed) {
            let number = shared.number.fetch_add(1, Ordering::Relaxed);
            act(&shared, number);
        }
    });
    spawned.expect("a thread")
}

/// Time since 1970.
pub(crate) fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Sleeps in pieces, so that a stop does not wait for it.
pub(crate) fn rest(shared: &Shared, time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end && !shared.stop.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(20).min(end.saturating_duration_since(Instant::now())));
    }
}

fn fast(shared: &Shared, number: u32, pause: Duration) {
    let began = Instant::now();
    if let Some(mut stream) = open(shared, number) {
        // Whatever goes wrong from here on is the record's business.
        // Every source does everything: one that only sent what is long would use up its share of the log.
        match (number / SOURCES + number) % 20 {
            0..=9 => drop(plain(&mut stream, number)),
            10..=13 => {
                shared.tally.speaks_tls();
                drop(tls(stream, shared));
            }
            14 | 15 => {
                let _ = stream.write_all(format!("reset {number}\r\n").as_bytes());
                reset(&stream);
            }
            16 | 17 => reset(&stream),
            18 => {
                let _ = stream.write_all(&malformed::bytes(number));
                let _ = stream.shutdown(Shutdown::Write);
                let _ = stream.read_to_end(&mut Vec::new());
            }
            _ => drop(stream),
        }
    }
    rest(shared, pause.saturating_sub(began.elapsed()));
}

fn slow(shared: &Shared, number: u32) {
    let Some(mut stream) = open(shared, number) else {
        return rest(shared, Duration::from_secs(1));
    };
    match number % 3 {
        // Silent until the sensor has had enough.
        0 => drop(stream.read_to_end(&mut Vec::new())),
        // A byte now and then, for longer than the first byte may take.
        1 => {
            for byte in b"slow, but sure\r\n" {
                rest(shared, shared.silence / 8);
                if stream.write_all(&[*byte]).is_err() {
                    break;
                }
            }
            let _ = stream.shutdown(Shutdown::Write);
            let _ = stream.read_to_end(&mut Vec::new());
        }
        // Something, then nothing.
        _ => {
            let _ = stream.write_all(b"and then");
            let _ = stream.read_to_end(&mut Vec::new());
        }
    }
}

fn plain(stream: &mut TcpStream, number: u32) -> std::io::Result<()> {
    let padding = "x".repeat(usize::try_from(number % 2_000).unwrap_or(0));
    stream.write_all(format!("POST /{number} HTTP/1.1\r\nHost: soak\r\n\r\n{padding}").as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    stream.read_to_end(&mut Vec::new()).map(drop)
}

pub(crate) fn tls(stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let name = ServerName::try_from("soak.example").expect("a name");
    let connection = ClientConnection::new(Arc::clone(&shared.tls), name).map_err(std::io::Error::other)?;
    let mut stream = StreamOwned::new(connection, stream);
    stream.write_all(b"GET /inside HTTP/1.1\r\nHost: soak.example\r\n\r\n")?;
    stream.conn.send_close_notify();
    stream.flush()?;
    stream.sock.shutdown(Shutdown::Write)?;
    let mut rest = [0; 1024];
    while let Ok(1..) = stream.sock.read(&mut rest) {}
    Ok(())
}

fn reset(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// Opens a connection from one of the sources to a port that changes each time. A connection that could not be opened
/// is in the tally with the reason.
pub(crate) fn open(shared: &Shared, number: u32) -> Option<TcpStream> {
    let (source, sensor) = source(number % SOURCES);
    let port = u16::try_from(1_024 + number % 60_000).unwrap_or(LISTENER);
    let to = SocketAddr::new(sensor, port);
    let (socket, from) = match bind(source) {
        Ok(bound) => bound,
        Err(error) => {
            shared.tally.not_opened(&error.to_string());
            return None;
        }
    };
    let key: Key = (from.ip(), from.port(), port);
    shared.tally.sent(key);
    if let Err(error) = socket.connect_timeout(&to.into(), PATIENCE) {
        shared.tally.refused(key, &error.to_string());
        return None;
    }
    let stream = TcpStream::from(socket);
    for set in [TcpStream::set_read_timeout, TcpStream::set_write_timeout] {
        set(&stream, Some(PATIENCE)).expect("a time that is not zero");
    }
    Some(stream)
}

fn bind(source: IpAddr) -> std::io::Result<(Socket, SocketAddr)> {
    let source = SocketAddr::new(source, 0);
    let socket = Socket::new(Domain::for_address(source), Type::STREAM, Some(Protocol::TCP))?;
    socket.bind(&source.into())?;
    let from = socket.local_addr()?.as_socket().ok_or_else(|| std::io::Error::other("no Internet socket"))?;
    Ok((socket, from))
}

fn source(number: u32) -> (IpAddr, IpAddr) {
    if number.is_multiple_of(3) {
        // Each in a network of its own.
        let address = CROWD_V6.to_bits() | u128::from(number) << 64 | 1;
        (Ipv6Addr::from(address).into(), SENSOR_V6)
    } else {
        (Ipv4Addr::from(CROWD_V4.to_bits() + 1 + number).into(), SENSOR_V4)
    }
}

/// Half-open SYNs: the sensor's answers are reset by the client's kernel.
fn syns() -> Vec<RawSyn> {
    let now = u32::try_from(since_epoch().as_millis() & 0xffff_ffff).unwrap_or(0);
    let one = |scanner: u32, step: u16| {
        let source = Ipv4Addr::from(CROWD_V4.to_bits() + 10_000 + scanner);
        let mut syn = RawSyn::new((source, 20_000 + step), (SENSOR_V4, 2_000 + step * 7));
        // Another one each time, or it would be the same SYN sent again.
        syn.sequence = now.wrapping_mul(65_537).wrapping_add(scanner << 8).wrapping_add(u32::from(step));
        syn
    };
    (0..SCANNERS).flat_map(|scanner| (0..SYNS_PER_SCANNER).map(move |step| one(scanner, step))).collect()
}
