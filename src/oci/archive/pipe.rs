//! Between streams of bytes and the blocking readers and writers that tar needs.

use std::io::{self, Read, Write};

use bytes::Bytes;
use futures::StreamExt as _;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::ports::engine::ByteStream;

/// Bytes that are handed on at a time.
const CHUNK: usize = 256 << 10;

/// Chunks in flight; with [`CHUNK`] this bounds the memory of a transfer.
const IN_FLIGHT: usize = 8;

/// Makes a stream of what a blocking function writes. The function runs on a thread of its own and is told by an
/// error of its writer when nobody reads any more; its own error ends the stream.
///
/// Must be called inside a Tokio runtime.
pub fn stream_of(write: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static) -> ByteStream {
    let (sender, receiver) = mpsc::channel(IN_FLIGHT);
    tokio::task::spawn_blocking(move || {
        let mut pipe = io::BufWriter::with_capacity(CHUNK, PipeWriter { sender: sender.clone() });
        let result = write(&mut pipe).and_then(|()| pipe.flush());
        if let Err(error) = result {
            // Nobody reads any more: there is nobody to tell either.
            let _ = sender.blocking_send(Err(error));
        }
        // What the buffer still holds after an error must not follow it.
        let _ = pipe.into_parts();
    });
    Box::pin(futures::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|chunk| (chunk, receiver))
    }))
}

struct PipeWriter {
    sender: mpsc::Sender<io::Result<Bytes>>,
}

impl Write for PipeWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let chunk = Bytes::copy_from_slice(&bytes[..bytes.len().min(CHUNK)]);
        let size = chunk.len();
        self.sender.blocking_send(Ok(chunk)).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(size)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads a stream from a blocking thread.
pub struct StreamReader {
    stream: ByteStream,
    runtime: tokio::runtime::Handle,
    chunk: Bytes,
}

impl StreamReader {
    /// A reader for use inside `spawn_blocking`. Must be called inside a Tokio runtime.
    pub fn new(stream: ByteStream) -> Self {
        Self { stream, runtime: tokio::runtime::Handle::current(), chunk: Bytes::new() }
    }
}

impl Read for StreamReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            match self.runtime.block_on(self.stream.next()) {
                Some(chunk) => self.chunk = chunk?,
                None => return Ok(0),
            }
        }
        let size = buffer.len().min(self.chunk.len());
        buffer[..size].copy_from_slice(&self.chunk.split_to(size));
        Ok(size)
    }
}

/// Reads or writes until a token fires: blocking work ends by its own errors, and takes back what it left.
pub struct Until<T> {
    inner: T,
    cancel: CancellationToken,
}

impl<T> Until<T> {
    /// As `inner`, until `cancel` fires.
    pub fn new(inner: T, cancel: &CancellationToken) -> Self {
        Self { inner, cancel: cancel.clone() }
    }

    fn go_on(&self) -> io::Result<()> {
        // Not `ErrorKind::Interrupted`, after which every copy loop tries again.
        if self.cancel.is_cancelled() { Err(io::Error::other("it was interrupted")) } else { Ok(()) }
    }
}

impl<R: Read> Read for Until<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.go_on()?;
        self.inner.read(buffer)
    }
}

impl<W: Write> Write for Until<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.go_on()?;
        self.inner.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bytes_pass_through_in_order() {
        let written: Vec<u8> = (0..3_000_000_u32).map(|number| number.to_le_bytes()[1]).collect();
        let expected = written.clone();
        let stream = stream_of(move |writer| writer.write_all(&written));
        let mut reader = StreamReader::new(stream);
        let read = tokio::task::spawn_blocking(move || {
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes).map(|_| bytes)
        });
        assert_eq!(read.await.unwrap().unwrap(), expected);
    }

    #[tokio::test]
    async fn an_error_of_the_writer_reaches_the_reader() {
        let mut stream = stream_of(|writer| {
            writer.write_all(b"half")?;
            Err(io::Error::other("disk on fire"))
        });
        let mut last = None;
        while let Some(chunk) = stream.next().await {
            last = Some(chunk);
        }
        assert_eq!(last.unwrap().unwrap_err().to_string(), "disk on fire");
    }
}
