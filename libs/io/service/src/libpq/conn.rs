//! The server's side of a running connection, as handlers see it.

use bytes::{BufMut, Bytes, BytesMut};

use super::frame::{FrameReader, FrameWriter, WireError, put_text, take_text};

/// The OID of `text`.
const TEXT: u32 = 25;

/// One connection of a client.
#[derive(Debug)]
pub struct Conn {
    reader: CopyReader,
    writer: CopyWriter,
}

/// Takes the client's copy data.
#[derive(Debug)]
pub struct CopyReader(pub(super) FrameReader);

/// Sends copy data to the client.
#[derive(Debug)]
pub struct CopyWriter(pub(super) FrameWriter);

impl Conn {
    pub(super) const fn new(reader: FrameReader, writer: FrameWriter) -> Self {
        Self {
            reader: CopyReader(reader),
            writer: CopyWriter(writer),
        }
    }

    pub(super) const fn frames(&mut self) -> (&mut FrameReader, &mut FrameWriter) {
        (&mut self.reader.0, &mut self.writer.0)
    }

    /// Begins a result whose columns are text.
    pub fn row_description(&mut self, columns: &[&str]) {
        self.writer.0.push(b'T', |out| {
            out.put_u16(u16::try_from(columns.len()).unwrap_or(u16::MAX));
            for column in columns {
                put_text(out, column);
                out.put_u32(0);
                out.put_u16(0);
                out.put_u32(TEXT);
                out.put_i16(-1);
                out.put_i32(-1);
                out.put_u16(0);
            }
        });
    }

    /// One row; `None` is NULL.
    pub fn data_row(&mut self, values: &[Option<&[u8]>]) {
        self.writer.0.push(b'D', |out| {
            out.put_u16(u16::try_from(values.len()).unwrap_or(u16::MAX));
            for value in values {
                put_value(out, *value);
            }
        });
    }

    /// Ends a result.
    pub fn command_complete(&mut self, tag: &str) {
        self.writer.0.push(b'C', |out| put_text(out, tag));
    }

    /// Begins a copy in both directions.
    ///
    /// # Errors
    /// See [`WireError`].
    pub async fn copy_both(&mut self) -> Result<(), WireError> {
        self.begin_copy(b'W').await
    }

    /// Begins a copy to the client.
    ///
    /// # Errors
    /// See [`WireError`].
    pub async fn copy_out(&mut self) -> Result<(), WireError> {
        self.begin_copy(b'H').await
    }

    /// Begins a copy from the client.
    ///
    /// # Errors
    /// See [`WireError`].
    pub async fn copy_in(&mut self) -> Result<(), WireError> {
        self.begin_copy(b'G').await
    }

    async fn begin_copy(&mut self, tag: u8) -> Result<(), WireError> {
        // Overall format 0 (text) and no columns, as walsenders answer.
        self.writer.0.push(tag, |out| out.put_slice(&[0, 0, 0]));
        self.flush().await
    }

    /// Both directions of a copy, to be used at the same time.
    pub const fn split(&mut self) -> (&mut CopyReader, &mut CopyWriter) {
        (&mut self.reader, &mut self.writer)
    }

    /// The client's next copy data; `None` once it is done. Cancel-safe.
    ///
    /// # Errors
    /// See [`WireError`].
    pub async fn read_copy(&mut self) -> Result<Option<Bytes>, WireError> {
        self.reader.read_copy().await
    }

    /// Sends copy data; waits where the client does not keep up.
    ///
    /// # Errors
    /// See [`WireError`].
    pub async fn write_copy(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        self.writer.write_copy(bytes).await
    }

    /// Ends the copy to the client.
    pub fn copy_done(&mut self) {
        self.writer.copy_done();
    }

    /// Hands everything written so far to the socket.
    ///
    /// # Errors
    /// See [`WireError`].
    pub async fn flush(&mut self) -> Result<(), WireError> {
        self.writer.flush().await
    }

    /// An error of one query.
    pub fn error(&mut self, sqlstate: &str, message: &str) {
        self.push_error("ERROR", sqlstate, message);
    }

    pub(super) fn push_error(&mut self, severity: &str, sqlstate: &str, message: &str) {
        self.writer.0.push(b'E', |out| {
            for (field, text) in [
                (b'S', severity),
                (b'V', severity),
                (b'C', sqlstate),
                (b'M', message),
            ] {
                out.put_u8(field);
                put_text(out, text);
            }
            out.put_u8(0);
        });
    }
}

fn put_value(out: &mut BytesMut, value: Option<&[u8]>) {
    match value {
        None => out.put_i32(-1),
        Some(bytes) => {
            out.put_i32(i32::try_from(bytes.len()).unwrap_or(i32::MAX));
            out.put_slice(bytes);
        }
    }
}

impl CopyReader {
    /// The other side's next copy data; `None` once it is done. Cancel-safe.
    ///
    /// # Errors
    /// See [`WireError`].
    pub async fn read_copy(&mut self) -> Result<Option<Bytes>, WireError> {
        loop {
            match self.0.next().await? {
                (b'd', data) => return Ok(Some(data)),
                (b'c', _) => return Ok(None),
                (b'f', mut why) => return Err(WireError::CopyFailed(take_text(&mut why)?)),
                // Flush and Sync have no meaning in a copy.
                (b'H' | b'S', _) => {}
                (b'X', _) => return Err(WireError::Closed),
                _ => return Err(WireError::Violation("a message that a copy does not have")),
            }
        }
    }
}

impl CopyWriter {
    /// Sends copy data; waits where the other side does not keep up.
    ///
    /// # Errors
    /// See [`WireError`].
    pub async fn write_copy(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        self.0.send(b'd', bytes).await
    }

    /// Ends this direction of the copy.
    pub fn copy_done(&mut self) {
        self.0.push(b'c', |_| {});
    }

    /// Hands everything written so far to the socket.
    ///
    /// # Errors
    /// See [`WireError`].
    pub async fn flush(&mut self) -> Result<(), WireError> {
        self.0.flush().await
    }
}
