//! One open file of a log, decompressed as its name says.
//!
//! A compressed file can be small and what is in it without end: nothing is held of it but the decompressor's window,
//! at most 128 MiB for Zstandard, which is what its own command allows.

use std::ffi::OsStr;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use flate2::bufread::MultiGzDecoder;

/// Compressed bytes that are read at once.
const BUFFER_BYTES: usize = 128 * 1024;

/// The largest window of Zstandard, as a power of two.
const WINDOW_LOG: u32 = 27;

/// Endings of other compressions, which must not be read as text.
const FOREIGN: [&str; 9] = ["7z", "br", "bz2", "lz", "lz4", "lzma", "xz", "Z", "zip"];

/// Compressions of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Compression {
    /// Not at all.
    None,
    /// By Zstandard.
    Zstd,
    /// By gzip, in any number of members.
    Gzip,
}

impl Compression {
    /// Returns what the ending of a name says.
    ///
    /// # Errors
    /// It promises another compression: neither `.gz` nor `.zst`.
    pub fn of(path: &Path) -> io::Result<Self> {
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

/// An open file, or standard input.
pub(super) struct Source {
    content: Content,
    /// Error of the decompressor about damaged data, kept because it cannot be asked again.
    damage: Option<String>,
    /// Bytes read of the file as it is on the disk.
    raw_bytes: Arc<AtomicU64>,
    pub(super) device: u64,
    pub(super) inode: u64,
}

enum Content {
    Plain(File),
    /// Read in order only; with the file, if it is one.
    Stream(Box<dyn Read + Send>, Option<File>),
}

impl std::fmt::Debug for Source {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Source").field("inode", &self.inode).finish_non_exhaustive()
    }
}

impl Source {
    /// Opens a file of a log. A symbolic link, a pipe or a device in place of one is refused: the directory may belong
    /// to a user that the reader does not trust.
    pub(super) fn open(path: &Path, compression: Compression) -> io::Result<Self> {
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("it is no regular file"));
        }
        Self::new(file, &metadata, compression)
    }

    /// Opens whatever the operator named: also a pipe, or what a link leads to.
    pub(super) fn named(path: &Path) -> io::Result<Self> {
        let compression = Compression::of(path)?;
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if metadata.is_file() {
            return Self::new(file, &metadata, compression);
        }
        let raw_bytes = Arc::default();
        let counted = Counted { from: file, raw_bytes: Arc::clone(&raw_bytes) };
        let content = Content::Stream(decoder(counted, compression)?, None);
        Ok(Self { content, damage: None, raw_bytes, device: metadata.dev(), inode: metadata.ino() })
    }

    /// Reads bytes as they come.
    pub(super) fn stream(from: impl Read + Send + 'static) -> Self {
        let raw_bytes = Arc::default();
        let counted = Counted { from, raw_bytes: Arc::clone(&raw_bytes) };
        Self { content: Content::Stream(Box::new(counted), None), damage: None, raw_bytes, device: 0, inode: 0 }
    }

    fn new(file: File, metadata: &Metadata, compression: Compression) -> io::Result<Self> {
        let raw_bytes = Arc::default();
        let content = match compression {
            Compression::None => Content::Plain(file),
            _ => {
                let counted = Counted { from: file.try_clone()?, raw_bytes: Arc::clone(&raw_bytes) };
                Content::Stream(decoder(counted, compression)?, Some(file))
            }
        };
        Ok(Self { content, damage: None, raw_bytes, device: metadata.dev(), inode: metadata.ino() })
    }

    /// Reports whether any place of it can be read: it is neither compressed nor a pipe.
    pub(super) fn is_plain(&self) -> bool {
        matches!(self.content, Content::Plain(_))
    }

    /// Reports whether a read may wait for a writer.
    pub(super) fn is_pipe(&self) -> bool {
        matches!(self.content, Content::Stream(_, None))
    }

    /// Returns the state of the file; `None` for a pipe.
    pub(super) fn metadata(&self) -> Option<io::Result<Metadata>> {
        match &self.content {
            Content::Plain(file) | Content::Stream(_, Some(file)) => Some(file.metadata()),
            Content::Stream(_, None) => None,
        }
    }

    /// Returns how many bytes were read of the file on the disk.
    pub(super) fn raw_bytes(&self) -> u64 {
        self.raw_bytes.load(Relaxed)
    }

    /// Reads at `offset`, which for a stream is where the last read ended. 0 at the end.
    pub(super) fn read(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        if let Some(damage) = &self.damage {
            return Err(io::Error::new(io::ErrorKind::InvalidData, damage.clone()));
        }
        loop {
            let result = match &mut self.content {
                Content::Plain(file) => file.read_at(buffer, offset).inspect(|count| {
                    self.raw_bytes.fetch_add(*count as u64, Relaxed);
                }),
                Content::Stream(stream, _) => stream.read(buffer),
            };
            match result {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_damage(&error) => {
                    self.damage = Some(error.to_string());
                    return Err(error);
                }
                result => return result,
            }
        }
    }

    /// Fills `buffer` from `offset` on as far as the file reaches, or is whole.
    pub(super) fn read_fully(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.read(rest, offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if is_damage(&error) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}

/// Reports whether the data is at fault and not the system: trying again is in vain.
pub(super) fn is_damage(error: &io::Error) -> bool {
    error.raw_os_error().is_none()
}

fn decoder(from: impl Read + Send + 'static, compression: Compression) -> io::Result<Box<dyn Read + Send>> {
    let raw = BufReader::with_capacity(BUFFER_BYTES, from);
    Ok(match compression {
        Compression::None => Box::new(raw),
        Compression::Gzip => Box::new(MultiGzDecoder::new(raw)),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(raw)?;
            decoder.window_log_max(WINDOW_LOG)?;
            Box::new(decoder)
        }
    })
}

/// Counts what is read.
struct Counted<R> {
    from: R,
    raw_bytes: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(buffer)?;
        self.raw_bytes.fetch_add(count as u64, Relaxed);
        Ok(count)
    }
}
