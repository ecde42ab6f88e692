//! Accepting connections, and the loop of one connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::BufMut;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::conn::Conn;
use super::frame::{FrameReader, FrameWriter, WireError, put_text, take_text};
use super::startup::{self, First, Startup};
use crate::listen::{Listen, ListenError};
use crate::task::Shutdown;

/// A client that is not let in by then is dropped.
const STARTUP: Duration = Duration::from_secs(10);
/// The longest startup message, in bytes.
const MAX_STARTUP: usize = 10_000;
/// Connections at one time.
const MAX_CONNECTIONS: usize = 4096;

/// Why a query was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// Told to the client; the connection goes on.
    #[error("{message} (SQLSTATE {sqlstate})")]
    Refused {
        /// SQLSTATE.
        sqlstate: &'static str,
        /// What went wrong.
        message: String,
    },
    /// The connection cannot go on.
    #[error(transparent)]
    Wire(#[from] WireError),
}

impl QueryError {
    /// A refusal with `sqlstate`.
    pub fn refused(sqlstate: &'static str, message: impl ToString) -> Self {
        Self::Refused {
            sqlstate,
            message: message.to_string(),
        }
    }
}

/// What a process does with one connection.
#[async_trait]
pub trait Handler: Send {
    /// Lets the client in, or not. `password` carries the token.
    async fn authenticate(&mut self, startup: &Startup, password: &str) -> Result<(), QueryError>;

    /// Answers one query. `ReadyForQuery` follows by itself.
    async fn query(&mut self, conn: &mut Conn, sql: &str) -> Result<(), QueryError>;
}

/// Makes the handler of each connection.
pub trait Factory: Send + Sync + 'static {
    /// For a connection from `peer`.
    fn handler(&self, peer: SocketAddr) -> Box<dyn Handler>;
}

impl<F: Fn(SocketAddr) -> Box<dyn Handler> + Send + Sync + 'static> Factory for F {
    fn handler(&self, peer: SocketAddr) -> Box<dyn Handler> {
        self(peer)
    }
}

/// Listens on `listen` and answers until `shutdown`.
///
/// # Errors
/// The address cannot be listened on.
pub async fn serve(
    listen: impl Into<Listen>,
    factory: impl Factory,
    shutdown: Shutdown,
) -> Result<(), ListenError> {
    let listener = listen.into().bind().await?;
    serve_on(listener, factory, shutdown).await;
    Ok(())
}

/// As [`serve`], on a listener that exists.
pub async fn serve_on(listener: TcpListener, factory: impl Factory, shutdown: Shutdown) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            () = shutdown.requested() => return,
            accepted = listener.accept() => accepted,
        };
        let (socket, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely: others close some in the meantime.
                tracing::warn!(%error, "cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let handler = factory.handler(peer);
        let stop = shutdown.clone();
        drop(shutdown.spawn("libpq", async move {
            tokio::select! {
                () = stop.requested() => {}
                ended = Box::pin(converse(socket, handler)) => match ended {
                    Ok(()) | Err(WireError::Closed) => {}
                    Err(error) => tracing::info!(%peer, %error, "connection ended"),
                }
            }
            drop(permit);
        }));
    }
}

async fn converse(socket: TcpStream, mut handler: Box<dyn Handler>) -> Result<(), WireError> {
    socket.set_nodelay(true)?;
    let (read, write) = socket.into_split();
    let mut conn = Conn::new(FrameReader::new(read), FrameWriter::new(write));
    let admitted = tokio::time::timeout(STARTUP, admit(&mut conn, handler.as_mut())).await;
    if !admitted.unwrap_or(Err(WireError::Violation(
        "the client took too long to start",
    )))? {
        return Ok(());
    }
    loop {
        ready(&mut conn).await?;
        if !next_command(&mut conn, handler.as_mut()).await? {
            return Ok(());
        }
    }
}

/// From the first byte to the authenticated client; false where the connection is over.
async fn admit(conn: &mut Conn, handler: &mut dyn Handler) -> Result<bool, WireError> {
    let Some(startup) = read_startup(conn).await? else {
        return Ok(false);
    };
    conn.frames().1.push(b'R', |out| out.put_u32(3));
    conn.flush().await?;
    let (b'p', mut body) = conn.frames().0.next().await? else {
        return Err(WireError::Violation("a password was expected"));
    };
    let password = take_text(&mut body)?;
    match handler.authenticate(&startup, &password).await {
        Ok(()) => {}
        Err(QueryError::Wire(error)) => return Err(error),
        Err(QueryError::Refused { sqlstate, message }) => {
            conn.push_error("FATAL", sqlstate, &message);
            conn.flush().await?;
            return Ok(false);
        }
    }
    let writer = conn.frames().1;
    writer.push(b'R', |out| out.put_u32(0));
    for (name, value) in [
        ("client_encoding", "UTF8"),
        ("integer_datetimes", "on"),
        ("server_version", "14.1"),
    ] {
        writer.push(b'S', |out| {
            put_text(out, name);
            put_text(out, value);
        });
    }
    Ok(true)
}

async fn read_startup(conn: &mut Conn) -> Result<Option<Startup>, WireError> {
    // A client may ask for GSS and for TLS before it goes on without.
    for _ in 0..3 {
        let body = conn.frames().0.next_untyped(MAX_STARTUP).await?;
        match startup::decode(body)? {
            First::Startup(startup) => return Ok(Some(startup)),
            // There is nothing to cancel: a query ends with its connection.
            First::Cancel => return Ok(None),
            First::Encryption => {
                conn.frames().1.buffer.put_u8(b'N');
                conn.flush().await?;
            }
        }
    }
    Err(WireError::Violation("asks for encryption again and again"))
}

async fn ready(conn: &mut Conn) -> Result<(), WireError> {
    conn.frames().1.push(b'Z', |out| out.put_u8(b'I'));
    conn.flush().await
}

/// One command and its answer; false where the client is done.
async fn next_command(conn: &mut Conn, handler: &mut dyn Handler) -> Result<bool, WireError> {
    loop {
        match conn.frames().0.next().await? {
            (b'Q', mut body) => {
                let sql = take_text(&mut body)?;
                run(conn, handler, &sql).await?;
                return Ok(true);
            }
            (b'X', _) => return Ok(false),
            // What a copy left behind after it failed on our side.
            (b'd' | b'c' | b'f' | b'S' | b'H', _) => {}
            (b'P' | b'B' | b'D' | b'E' | b'C' | b'F', _) => {
                conn.error("0A000", "the extended query protocol is not spoken here");
                skip_to_sync(conn).await?;
                return Ok(true);
            }
            _ => return Err(WireError::Violation("a message that is not known")),
        }
    }
}

async fn run(conn: &mut Conn, handler: &mut dyn Handler, sql: &str) -> Result<(), WireError> {
    match handler.query(conn, sql).await {
        Ok(()) => Ok(()),
        Err(QueryError::Refused { sqlstate, message }) => {
            conn.error(sqlstate, &message);
            Ok(())
        }
        Err(QueryError::Wire(WireError::CopyFailed(why))) => {
            conn.error("57014", &format!("the client ended the copy: {why}"));
            Ok(())
        }
        Err(QueryError::Wire(error)) => Err(error),
    }
}

async fn skip_to_sync(conn: &mut Conn) -> Result<(), WireError> {
    conn.flush().await?;
    loop {
        match conn.frames().0.next().await? {
            (b'S', _) => return Ok(()),
            (b'X', _) => return Err(WireError::Closed),
            _ => {}
        }
    }
}
