//! Output of a conversion: standard output, or a new file that is compressed as its name says.

use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use flate2::write::GzEncoder;

use spip_record::log::Compression;

use super::Error;

/// Bytes that are written at once.
const BUFFER_BYTES: usize = 256 * 1024;

/// Records on their way out.
pub(super) struct Output {
    name: String,
    sink: Sink,
}

enum Sink {
    Plain(BufWriter<Box<dyn Write>>),
    Gzip(GzEncoder<BufWriter<Box<dyn Write>>>),
    Zstd(zstd::stream::write::Encoder<'static, BufWriter<Box<dyn Write>>>),
}

impl Output {
    /// Opens standard output, or creates a file as the agent creates its logs. None is written over.
    pub(super) fn create(path: Option<&Path>) -> Result<Self, Error> {
        let buffered = |inner: Box<dyn Write>| BufWriter::with_capacity(BUFFER_BYTES, inner);
        let Some(path) = path.filter(|path| *path != Path::new("-")) else {
            return Ok(Self {
                name: "standard output".to_owned(),
                sink: Sink::Plain(buffered(Box::new(io::stdout()))),
            });
        };
        let failed = |cause| Error::Create { path: path.to_owned(), cause };
        let compression = Compression::of(path).map_err(failed)?;
        let file = OpenOptions::new().write(true).create_new(true).mode(0o640).open(path).map_err(failed)?;
        let raw = buffered(Box::new(file));
        let sink = match compression {
            Compression::None => Sink::Plain(raw),
            Compression::Gzip => Sink::Gzip(GzEncoder::new(raw, flate2::Compression::default())),
            Compression::Zstd => {
                Sink::Zstd(zstd::stream::write::Encoder::new(raw, zstd::DEFAULT_COMPRESSION_LEVEL).map_err(failed)?)
            }
        };
        Ok(Self { name: path.display().to_string(), sink })
    }

    pub(super) fn write(&mut self, line: &[u8]) -> Result<(), Error> {
        let written = match &mut self.sink {
            Sink::Plain(sink) => sink.write_all(line),
            Sink::Gzip(sink) => sink.write_all(line),
            Sink::Zstd(sink) => sink.write_all(line),
        };
        written.map_err(|cause| Error::Write { name: self.name.clone(), cause })
    }

    /// Writes what is buffered and the end of what is compressed.
    pub(super) fn finish(&mut self) -> Result<(), Error> {
        let written = match &mut self.sink {
            Sink::Plain(sink) => sink.flush(),
            Sink::Gzip(sink) => sink.try_finish().and_then(|()| sink.get_mut().flush()),
            Sink::Zstd(sink) => sink.do_finish().and_then(|()| sink.get_mut().flush()),
        };
        written.map_err(|cause| Error::Write { name: self.name.clone(), cause })
    }
}
