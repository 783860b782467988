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
pub(super) enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    pub(super) fn of(path: &Path) -> Self {
        match path.extension().and_then(OsStr::to_str) {
            Some(extension) if extension.eq_ignore_ascii_case("gz") => Self::Gzip,
            Some(extension) if extension.eq_ignore_ascii_case("zst") => Self::Zstd,
            _ => Self::None,
        }
    }
}

/// A log that is being read.
pub(super) struct Input(Box<dyn BufRead>);

impl Input {
    /// Opens a file; `-` is standard input.
    pub(super) fn open(path: &Path, counter: Counter) -> io::Result<Self> {
        if path == Path::new("-") {
            return Ok(Self(Box::new(BufReader::with_capacity(BUFFER_BYTES, Counted { from: io::stdin(), counter }))));
        }
        let file = File::open(path)?;
        if file.metadata()?.is_dir() {
            return Err(io::Error::from(io::ErrorKind::IsADirectory));
        }
        let raw = BufReader::with_capacity(BUFFER_BYTES, Counted { from: file, counter });
        Ok(match Compression::of(path) {
            Compression::None => Self(Box::new(raw)),
            Compression::Gzip => Self(Box::new(BufReader::with_capacity(BUFFER_BYTES, MultiGzDecoder::new(raw)))),
            Compression::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(raw)?;
                decoder.window_log_max(WINDOW_LOG)?;
                Self(Box::new(BufReader::with_capacity(BUFFER_BYTES, decoder)))
            }
        })
    }

    pub(super) fn reader(&mut self) -> &mut dyn BufRead {
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
