//! The front door: the agent's TCP port, open whether PostgreSQL runs or not.
//!
//!   F1  while PostgreSQL is closed every client hears why, and what to do next;
//!   F2  nobody comes through as the agent: PostgreSQL sees every client as the agent's user, for
//!       whom it makes the one standby (C2);
//!   F3  when PostgreSQL is closed, what was let through is cut off;
//!   F4  nothing goes on to anybody once the deadline has passed that PostgreSQL lives under: an
//!       agent that was stopped meanwhile still holds what PostgreSQL had said before (K5);
//!   F5  clients that say nothing keep nobody out.

pub mod first;
mod silent;

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use service::task::Shutdown;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{Semaphore, watch};

use crate::deadline;
use first::{First, FirstError, Refusal};
use silent::{Place, Silent};

/// A client that has not said who it is by then is dropped.
const STARTUP: Duration = Duration::from_secs(10);
/// Connections at one time.
const LIMITS: Limits = Limits {
    silent: 1024,
    through: 2048,
};
/// A client that vanished without a word is found out after a minute and a half: PostgreSQL cannot
/// find out, as it sees only the agent's end.
const KEEPALIVE: (u32, u32, u32) = (60, 10, 3);
/// Bytes that are carried at a time, in each direction.
const CARRIED: usize = 32 << 10;

/// What a client finds.
#[derive(Clone, Debug)]
pub enum Door {
    /// Nobody is let in, and this is said.
    Closed(Refusal),
    /// Clients are let through.
    Open(Way),
}

/// Where clients are let through.
#[derive(Clone, Debug)]
pub struct Way {
    /// PostgreSQL's socket.
    pub socket: PathBuf,
    /// Until when (F4).
    pub until: deadline::Shared,
}

#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Those that have not said who they are.
    silent: usize,
    /// Those that have; PostgreSQL has its own, lower limit.
    through: usize,
}

/// Answers on `listener` until `shutdown`.
pub async fn serve(listener: TcpListener, door: watch::Receiver<Door>, shutdown: Shutdown) {
    serve_within(LIMITS, listener, door, shutdown).await;
}

async fn serve_within(
    limits: Limits,
    listener: TcpListener,
    door: watch::Receiver<Door>,
    shutdown: Shutdown,
) {
    let room = Arc::new(Semaphore::new(limits.through));
    let silent = Silent::new(limits.silent);
    loop {
        let accepted = tokio::select! {
            () = shutdown.requested() => return,
            accepted = listener.accept() => accepted,
        };
        let client = match accepted {
            Ok((client, _)) => client,
            Err(error) => {
                // Out of file descriptors, most likely: others close some in the meantime.
                tracing::warn!(%error, "cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (place, room, door) = (silent.enter(), Arc::clone(&room), door.clone());
        drop(shutdown.spawn("door", async move {
            if let Err(error) = receive(client, place, &room, door).await {
                tracing::debug!(%error, "a client left");
            }
        }));
    }
}

/// Why a conversation at the door ended.
#[derive(Debug, thiserror::Error)]
enum DoorError {
    #[error(transparent)]
    Socket(#[from] std::io::Error),
    #[error(transparent)]
    First(#[from] FirstError),
    #[error("the client took too long to say who it is")]
    Slow,
    #[error("the client said nothing while others came")]
    Evicted,
    #[error("the deadline has passed")]
    Passed,
}

async fn receive(
    mut client: TcpStream,
    place: Place,
    room: &Semaphore,
    mut door: watch::Receiver<Door>,
) -> Result<(), DoorError> {
    client.set_nodelay(true)?;
    keep_alive(&client)?;
    let said = tokio::select! {
        said = tokio::time::timeout(STARTUP, listen(&mut client)) => said,
        () = place.lost() => return Err(DoorError::Evicted), // F5
    };
    drop(place);
    let Some((packet, first)) = said.map_err(|_| DoorError::Slow)?? else {
        return Ok(());
    };
    if let First::Startup { refused: Some(why) } = &first {
        return Ok(client.write_all(&why.packet()).await?); // F2
    }
    let Ok(_through) = room.try_acquire() else {
        return Ok(client.write_all(&Refusal::full().packet()).await?);
    };
    // Marked as seen: what follows is told apart from what this client is let in for.
    let seen = door.borrow_and_update().clone();
    match (seen, first) {
        (Door::Closed(why), First::Startup { .. }) => Ok(client.write_all(&why.packet()).await?),
        (Door::Closed(_), _) => Ok(()),
        (Door::Open(way), _) => {
            let Ok(mut server) = UnixStream::connect(&way.socket).await else {
                return Ok(client.write_all(&Refusal::gone().packet()).await?);
            };
            server.write_all(&packet).await?;
            tokio::select! {
                ended = carry_both(&mut client, &mut server, &way.until) => ended,
                // F3
                _ = door.changed() => Ok(()),
            }
        }
    }
}

/// Until both have ended.
async fn carry_both(
    client: &mut TcpStream,
    server: &mut UnixStream,
    until: &deadline::Shared,
) -> Result<(), DoorError> {
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let up = carry(from_client, to_server, until);
    let down = carry(from_server, to_client, until);
    tokio::try_join!(up, down)?;
    Ok(())
}

/// F4: asked before each write, which takes what the kernel takes at once and no more.
async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    until: &deadline::Shared,
) -> Result<(), DoorError> {
    let mut buffer = vec![0; CARRIED];
    loop {
        let read = from.read(&mut buffer).await?;
        let mut left = &buffer[..read];
        if left.is_empty() {
            return Ok(to.shutdown().await?);
        }
        while !left.is_empty() {
            let written = std::future::poll_fn(|context| {
                if until.passed() {
                    return Poll::Ready(Err(DoorError::Passed));
                }
                let to = Pin::new(&mut to);
                to.poll_write(context, left).map_err(DoorError::from)
            });
            left = &left[written.await?..];
        }
    }
}

fn keep_alive(client: &TcpStream) -> std::io::Result<()> {
    let (idle, interval, count) = KEEPALIVE;
    setsockopt(client, sockopt::KeepAlive, &true)?;
    setsockopt(client, sockopt::TcpKeepIdle, &idle)?;
    setsockopt(client, sockopt::TcpKeepInterval, &interval)?;
    Ok(setsockopt(client, sockopt::TcpKeepCount, &count)?)
}

/// Reads packets until one begins something; `None` where the client went away.
async fn listen(client: &mut TcpStream) -> Result<Option<(Vec<u8>, First)>, DoorError> {
    // A client may ask for TLS and for GSS before it goes on without.
    for _ in 0..3 {
        let mut packet = vec![0; 4];
        if client.read_exact(&mut packet).await.is_err() {
            return Ok(None);
        }
        let length = first::packet_length(&packet)?;
        packet.resize(length, 0);
        client.read_exact(&mut packet[4..]).await?;
        match first::decode(&packet)? {
            First::Encryption => client.write_all(b"N").await?,
            first => return Ok(Some((packet, first))),
        }
    }
    Err(FirstError::Encryption.into())
}

#[cfg(test)]
mod tests;
