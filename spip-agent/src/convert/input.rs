//! Where a log is read from: a file, decompressed as its name says, or standard input.
//!
//! A compressed file can be small and what is in it without end: nothing is held of it but the decompressor's window,
//! at most 128 MiB for Zstandard, which is what its own command allows.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

use super::progress::Counter;

/// Bytes that are read at once.
const BUFFER_BYTES: usize = 256 * 1024;

/// The largest window of Zstandard, as a power of two.
const WINDOW_LOG: u32 = 27;

/// How a name says that a file is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// By gzip, in any number of members.
    Gzip,
    /// By Zstandard.
    Zstd,
}

/// Other compressions, which a name must not promise.
const FOREIGN: [&str; 9] = ["7z", "br", "bz2", "lz", "lz4", "lzma", "xz", "Z", "zip"];

impl Compression {
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let Some(extension) = path.extension().and_then(OsStr::to_str) else { return Ok(Self::None) };
        let is = |other: &str| extension.eq_ignore_ascii_case(other);
        if FOREIGN.into_iter().any(is) {
            return Err(io::Error::other(format!(".{extension} is not known here: .gz and .zst are")));
        }
        Ok(if is("gz") {
            Self::Gzip
        } else if is("zst") {
            Self::Zstd
        } else {
            Self::None
        })
    }
}

/// A log that is being read.
pub struct Input(Box<dyn BufRead>);

impl Input {
    /// Opens a file; `-` is standard input.
    pub(super) fn open(path: &Path, counter: Counter) -> io::Result<Self> {
        if path == Path::new("-") {
            return Self::new(Counted { from: io::stdin(), counter }, Compression::None);
        }
        let file = File::open(path)?;
        if file.metadata()?.is_dir() {
            return Err(io::Error::from(io::ErrorKind::IsADirectory));
        }
        Self::new(Counted { from: file, counter }, Compression::of(path)?)
    }

    /// A log that comes out of `from`.
    ///
    /// # Errors
    /// When the decompressor cannot be set up.
    pub fn new(from: impl Read + 'static, compression: Compression) -> io::Result<Self> {
        let raw = BufReader::with_capacity(BUFFER_BYTES, from);
        Ok(match compression {
            Compression::None => Self(Box::new(raw)),
            Compression::Gzip => Self(Box::new(BufReader::with_capacity(BUFFER_BYTES, MultiGzDecoder::new(raw)))),
            Compression::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(raw)?;
                decoder.window_log_max(WINDOW_LOG)?;
                Self(Box::new(BufReader::with_capacity(BUFFER_BYTES, decoder)))
            }
        })
    }

    /// What was logged.
    pub fn reader(&mut self) -> &mut dyn BufRead {
        self.0.as_mut()
    }
}

/// Counts what was read of a file, before it is decompressed.
struct Counted<R> {
    from: R,
    counter: Counter,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(buffer)?;
        self.counter.add(count as u64);
        Ok(count)
    }
}
