//! The client's side.

use std::path::Path;

use bytes::{Buf, Bytes};
use postgres_protocol::message::frontend;
use tokio::net::{TcpStream, ToSocketAddrs, UnixStream};

use super::conn::{CopyReader, CopyWriter};
use super::frame::{FrameReader, FrameWriter, WireError, take_text};
use super::startup::options_text;

/// One row of a result; `None` is NULL.
pub type Row = Vec<Option<Bytes>>;

/// A connection to a server.
#[derive(Debug)]
pub struct Client {
    reader: FrameReader,
    writer: FrameWriter,
}

/// A copy in both directions, or from the server.
#[derive(Debug)]
pub struct CopyStream {
    reader: CopyStreamReader,
    writer: CopyWriter,
}

/// The server's half of a [`CopyStream`].
#[derive(Debug)]
pub struct CopyStreamReader(CopyReader);

impl Client {
    /// Connects and lets itself in. `options` are settings for the startup message; the names
    /// `user`, `database` and `replication` among them become parameters of their own.
    ///
    /// # Errors
    /// See [`WireError`].
    pub async fn connect(
        addr: impl ToSocketAddrs,
        options: &[(&str, &str)],
        password: &str,
    ) -> Result<Self, WireError> {
        let socket = TcpStream::connect(addr).await?;
        socket.set_nodelay(true)?;
        let (read, write) = socket.into_split();
        Self::begin(
            FrameReader::new(read),
            FrameWriter::new(write),
            options,
            password,
        )
        .await
    }

    /// As [`Self::connect`], over the Unix socket at `path`.
    ///
    /// # Errors
    /// See [`WireError`].
    pub async fn connect_unix(
        path: impl AsRef<Path>,
        options: &[(&str, &str)],
        password: &str,
    ) -> Result<Self, WireError> {
        let (read, write) = UnixStream::connect(path).await?.into_split();
        Self::begin(
            FrameReader::new(read),
            FrameWriter::new(write),
            options,
            password,
        )
        .await
    }

    async fn begin(
        reader: FrameReader,
        writer: FrameWriter,
        options: &[(&str, &str)],
        password: &str,
    ) -> Result<Self, WireError> {
        let mut client = Self { reader, writer };
        client.start(options)?;
        client.writer.flush().await?;
        client.authenticate(password).await?;
        Ok(client)
    }

    fn start(&mut self, options: &[(&str, &str)]) -> Result<(), WireError> {
        let (own, settings): (Vec<_>, Vec<_>) = options
            .iter()
            .copied()
            .partition(|(name, _)| ["user", "database", "replication"].contains(name));
        let settings = options_text(&settings);
        let mut parameters = own;
        if !parameters.iter().any(|(name, _)| *name == "user") {
            parameters.push(("user", "redoubt"));
        }
        if !settings.is_empty() {
            parameters.push(("options", &settings));
        }
        Ok(frontend::startup_message(
            parameters,
            &mut self.writer.buffer,
        )?)
    }

    async fn authenticate(&mut self, password: &str) -> Result<(), WireError> {
        loop {
            match self.reader.next().await? {
                (b'R', mut body) => match body.try_get_u32() {
                    Ok(0) => {}
                    Ok(3) => {
                        frontend::password_message(password.as_bytes(), &mut self.writer.buffer)?;
                        self.writer.flush().await?;
                    }
                    _ => return Err(WireError::Violation("a way to log in that is not known")),
                },
                (b'E', body) => return Err(server_error(body)),
                (b'Z', _) => return Ok(()),
                (b'S' | b'K' | b'N', _) => {}
                _ => return Err(WireError::Violation("an unexpected message at the start")),
            }
        }
    }

    /// Runs `sql` and collects its rows.
    ///
    /// # Errors
    /// [`WireError::Server`] where the server refuses (the connection goes on), others else.
    pub async fn simple_query(&mut self, sql: &str) -> Result<Vec<Row>, WireError> {
        self.send_query(sql).await?;
        let (mut rows, mut refused) = (Vec::new(), None);
        loop {
            match self.reader.next().await? {
                (b'D', body) => rows.push(row(body)?),
                (b'E', body) => refused = Some(server_error(body)),
                (b'Z', _) => return refused.map_or(Ok(rows), Err),
                (b'T' | b'C' | b'I' | b'S' | b'N', _) => {}
                _ => return Err(WireError::Violation("an unexpected message in a result")),
            }
        }
    }

    /// Runs `sql`, which begins a copy in both directions.
    ///
    /// # Errors
    /// See [`WireError`].
    pub async fn query_copy_both(self, sql: &str) -> Result<CopyStream, WireError> {
        self.begin_copy(sql, b'W').await
    }

    /// Runs `sql`, which begins a copy from the server.
    ///
    /// # Errors
    /// See [`WireError`].
    pub async fn query_copy_out(self, sql: &str) -> Result<CopyStream, WireError> {
        self.begin_copy(sql, b'H').await
    }

    async fn begin_copy(mut self, sql: &str, answer: u8) -> Result<CopyStream, WireError> {
        self.send_query(sql).await?;
        loop {
            match self.reader.next().await? {
                (tag, _) if tag == answer => {
                    return Ok(CopyStream {
                        reader: CopyStreamReader(CopyReader(self.reader)),
                        writer: CopyWriter(self.writer),
                    });
                }
                (b'E', body) => return Err(server_error(body)),
                (b'S' | b'N', _) => {}
                _ => return Err(WireError::Violation("a copy was expected")),
            }
        }
    }

    async fn send_query(&mut self, sql: &str) -> Result<(), WireError> {
        frontend::query(sql, &mut self.writer.buffer)?;
        self.writer.flush().await
    }
}

impl CopyStream {
    /// The server's next copy data; `None` once it is done. Cancel-safe.
    ///
    /// # Errors
    /// See [`WireError`].
    pub async fn read_copy(&mut self) -> Result<Option<Bytes>, WireError> {
        self.reader.read_copy().await
    }

    /// Sends copy data; waits where the server does not keep up.
    ///
    /// # Errors
    /// See [`WireError`].
    pub async fn write_copy(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        self.writer.write_copy(bytes).await
    }

    /// Ends the client's direction.
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

    /// Both directions, each to be moved into a task of its own.
    #[must_use]
    pub fn split(self) -> (CopyStreamReader, CopyWriter) {
        (self.reader, self.writer)
    }
}

impl CopyStreamReader {
    /// The server's next copy data; `None` once it is done. Cancel-safe.
    ///
    /// # Errors
    /// See [`WireError`].
    pub async fn read_copy(&mut self) -> Result<Option<Bytes>, WireError> {
        loop {
            match self.0.0.next().await? {
                (b'd', data) => return Ok(Some(data)),
                // A walsender of Postgres that stops says that the command is complete, and no more.
                (b'c' | b'C', _) => return Ok(None),
                (b'E', body) => return Err(server_error(body)),
                (b'S' | b'N', _) => {}
                _ => return Err(WireError::Violation("a message that a copy does not have")),
            }
        }
    }
}

fn row(mut body: Bytes) -> Result<Row, WireError> {
    let short = |_| WireError::Violation("a row is cut off");
    let columns = body.try_get_u16().map_err(short)?;
    let mut row = Row::new();
    for _ in 0..columns {
        let length = body.try_get_i32().map_err(short)?;
        let Ok(length) = usize::try_from(length) else {
            row.push(None);
            continue;
        };
        if length > body.len() {
            return Err(WireError::Violation("a row is cut off"));
        }
        row.push(Some(body.split_to(length)));
    }
    Ok(row)
}

fn server_error(mut body: Bytes) -> WireError {
    let (mut sqlstate, mut message) = (String::new(), String::new());
    while let Ok(field) = body.try_get_u8() {
        if field == 0 {
            break;
        }
        let Ok(text) = take_text(&mut body) else {
            break;
        };
        match field {
            b'C' => sqlstate = text,
            b'M' => message = text,
            _ => {}
        }
    }
    WireError::Server { sqlstate, message }
}
