//! Messages on a socket: bounded, cancel-safe, with back-pressure.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{tcp, unix};

/// The longest message that is taken, in bytes.
pub const MAX_MESSAGE: usize = 32 << 20;
/// A writer with more than this waits for the socket.
const FLUSH_AT: usize = 64 << 10;

/// A conversation that cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The socket failed.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    /// The other side closed.
    #[error("the other side closed the connection")]
    Closed,
    /// The other side does not keep to the protocol.
    #[error("protocol violation: {0}")]
    Violation(&'static str),
    /// A message is longer than [`MAX_MESSAGE`].
    #[error("a message of {0} bytes is longer than {MAX_MESSAGE}")]
    TooLong(usize),
    /// The other side gave up a copy.
    #[error("the other side ended the copy: {0}")]
    CopyFailed(String),
    /// The server answered with an error.
    #[error("{message} (SQLSTATE {sqlstate})")]
    Server {
        /// Its SQLSTATE.
        sqlstate: String,
        /// Its message.
        message: String,
    },
}

/// What comes in.
#[derive(Debug)]
pub(super) enum ReadHalf {
    Tcp(tcp::OwnedReadHalf),
    Unix(unix::OwnedReadHalf),
}

/// What goes out.
#[derive(Debug)]
pub(super) enum WriteHalf {
    Tcp(tcp::OwnedWriteHalf),
    Unix(unix::OwnedWriteHalf),
}

impl From<tcp::OwnedReadHalf> for ReadHalf {
    fn from(half: tcp::OwnedReadHalf) -> Self {
        Self::Tcp(half)
    }
}

impl From<unix::OwnedReadHalf> for ReadHalf {
    fn from(half: unix::OwnedReadHalf) -> Self {
        Self::Unix(half)
    }
}

impl From<tcp::OwnedWriteHalf> for WriteHalf {
    fn from(half: tcp::OwnedWriteHalf) -> Self {
        Self::Tcp(half)
    }
}

impl From<unix::OwnedWriteHalf> for WriteHalf {
    fn from(half: unix::OwnedWriteHalf) -> Self {
        Self::Unix(half)
    }
}

#[derive(Debug)]
pub(super) struct FrameReader {
    socket: ReadHalf,
    buffer: BytesMut,
}

impl FrameReader {
    pub(super) fn new(socket: impl Into<ReadHalf>) -> Self {
        Self {
            socket: socket.into(),
            buffer: BytesMut::with_capacity(8 << 10),
        }
    }

    /// The next typed message. Cancel-safe: what was read stays in the buffer.
    pub(super) async fn next(&mut self) -> Result<(u8, Bytes), WireError> {
        loop {
            if let Some(message) = take_message(&mut self.buffer)? {
                return Ok(message);
            }
            self.fill().await?;
        }
    }

    /// The next message without a type, as a connection starts with; at most `limit` bytes.
    pub(super) async fn next_untyped(&mut self, limit: usize) -> Result<Bytes, WireError> {
        loop {
            if let Some(head) = self.buffer.first_chunk() {
                let length = u32::from_be_bytes(*head) as usize;
                if !(8..=limit).contains(&length) {
                    return Err(WireError::Violation("startup message of a wrong length"));
                }
                if self.buffer.len() >= length {
                    let mut message = self.buffer.split_to(length);
                    message.advance(4);
                    return Ok(message.freeze());
                }
            }
            self.fill().await?;
        }
    }

    async fn fill(&mut self) -> Result<(), WireError> {
        let read = match &mut self.socket {
            ReadHalf::Tcp(half) => half.read_buf(&mut self.buffer).await?,
            ReadHalf::Unix(half) => half.read_buf(&mut self.buffer).await?,
        };
        match read {
            0 => Err(WireError::Closed),
            _ => Ok(()),
        }
    }
}

fn take_message(buffer: &mut BytesMut) -> Result<Option<(u8, Bytes)>, WireError> {
    let Some(&[tag, a, b, c, d]) = buffer.first_chunk::<5>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if length < 4 {
        return Err(WireError::Violation(
            "message shorter than its length field",
        ));
    }
    if length > MAX_MESSAGE {
        return Err(WireError::TooLong(length));
    }
    if buffer.len() < 1 + length {
        buffer.reserve(1 + length - buffer.len());
        return Ok(None);
    }
    let mut message = buffer.split_to(1 + length);
    message.advance(5);
    Ok(Some((tag, message.freeze())))
}

#[derive(Debug)]
pub(super) struct FrameWriter {
    socket: WriteHalf,
    pub(super) buffer: BytesMut,
}

impl FrameWriter {
    pub(super) fn new(socket: impl Into<WriteHalf>) -> Self {
        Self {
            socket: socket.into(),
            buffer: BytesMut::with_capacity(8 << 10),
        }
    }

    /// Appends a message whose body `write` makes.
    pub(super) fn push(&mut self, tag: u8, write: impl FnOnce(&mut BytesMut)) {
        self.buffer.put_u8(tag);
        let at = self.buffer.len();
        self.buffer.put_u32(0);
        write(&mut self.buffer);
        let length = u32::try_from(self.buffer.len() - at).unwrap_or(u32::MAX);
        if let Some(field) = self.buffer.get_mut(at..at + 4) {
            field.copy_from_slice(&length.to_be_bytes());
        }
    }

    /// Appends a message, and waits for the socket where much is pending.
    pub(super) async fn send(&mut self, tag: u8, body: &[u8]) -> Result<(), WireError> {
        if body.len() > MAX_MESSAGE - 4 {
            return Err(WireError::TooLong(body.len()));
        }
        if self.buffer.len() > FLUSH_AT {
            self.flush().await?;
        }
        self.push(tag, |out| out.put_slice(body));
        Ok(())
    }

    /// Hands everything to the socket. Cancel-safe: the rest stays in the buffer.
    pub(super) async fn flush(&mut self) -> Result<(), WireError> {
        while !self.buffer.is_empty() {
            let written = match &mut self.socket {
                WriteHalf::Tcp(half) => half.write_buf(&mut self.buffer).await?,
                WriteHalf::Unix(half) => half.write_buf(&mut self.buffer).await?,
            };
            if written == 0 {
                return Err(WireError::Closed);
            }
        }
        Ok(())
    }
}

/// Appends a string and its zero; a zero inside would end it early, so it ends there.
pub(super) fn put_text(out: &mut BytesMut, text: &str) {
    out.put_slice(text.split('\0').next().unwrap_or_default().as_bytes());
    out.put_u8(0);
}

/// Takes a string that ends with a zero.
pub(super) fn take_text(body: &mut Bytes) -> Result<String, WireError> {
    let end = body
        .iter()
        .position(|&b| b == 0)
        .ok_or(WireError::Violation("string without an end"))?;
    let text = body.split_to(end);
    body.advance(1);
    String::from_utf8(text.into()).map_err(|_| WireError::Violation("string is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_taken_whole_and_bounded() {
        let mut buffer = BytesMut::from(&b"Q\0\0\0\x06a"[..]);
        assert!(take_message(&mut buffer).unwrap().is_none());
        buffer.put_slice(b"\0X");
        let (tag, body) = take_message(&mut buffer).unwrap().unwrap();
        assert_eq!(
            (tag, &body[..], &buffer[..]),
            (b'Q', &b"a\0"[..], &b"X"[..])
        );
        for hostile in [&b"Q\0\0\0\x03"[..], &b"Q\xFF\xFF\xFF\xFF"[..]] {
            assert!(take_message(&mut BytesMut::from(hostile)).is_err());
        }
    }
}
