//! The front door: the agent's TCP port, open whether PostgreSQL runs or not.
//!
//!   F1  while PostgreSQL is closed every client hears why, and what to do next;
//!   F2  nobody comes through as the agent: PostgreSQL sees every client as the agent's user, for
//!       whom it makes the one standby (C2);
//!   F3  when PostgreSQL is closed, what was let through is cut off.

pub mod first;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use service::task::Shutdown;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional_with_sizes};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{Semaphore, watch};

use first::{First, FirstError, Refusal};

/// A client that has not said who it is by then is dropped.
const STARTUP: Duration = Duration::from_secs(10);
/// Connections at one time; PostgreSQL has its own, lower limit.
const CONNECTIONS: usize = 2048;
/// A client that vanished without a word is found out after a minute and a half: PostgreSQL cannot
/// find out, as it sees only the agent's end.
const KEEPALIVE: (u32, u32, u32) = (60, 10, 3);
/// Bytes that are carried at a time, in each direction.
const CARRIED: usize = 32 << 10;

/// What a client finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Door {
    /// Nobody is let in, and this is said.
    Closed(Refusal),
    /// Clients are let through to this socket.
    Open(PathBuf),
}

/// Answers on `listener` until `shutdown`.
pub async fn serve(listener: TcpListener, door: watch::Receiver<Door>, shutdown: Shutdown) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
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
        let door = door.clone();
        drop(shutdown.spawn("door", async move {
            if let Err(error) = receive(client, door).await {
                tracing::debug!(%error, "a client left");
            }
            drop(permit);
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
}

async fn receive(mut client: TcpStream, mut door: watch::Receiver<Door>) -> Result<(), DoorError> {
    client.set_nodelay(true)?;
    keep_alive(&client)?;
    let said = tokio::time::timeout(STARTUP, listen(&mut client)).await;
    let Some((packet, first)) = said.map_err(|_| DoorError::Slow)?? else {
        return Ok(());
    };
    if let First::Startup { refused: Some(why) } = &first {
        return Ok(client.write_all(&why.packet()).await?); // F2
    }
    // Marked as seen: what follows is told apart from what this client is let in for.
    let seen = door.borrow_and_update().clone();
    match (seen, first) {
        (Door::Closed(why), First::Startup { .. }) => Ok(client.write_all(&why.packet()).await?),
        (Door::Closed(_), _) => Ok(()),
        (Door::Open(socket), _) => {
            let Ok(mut server) = UnixStream::connect(&socket).await else {
                return Ok(client.write_all(&Refusal::gone().packet()).await?);
            };
            server.write_all(&packet).await?;
            tokio::select! {
                ended = copy_bidirectional_with_sizes(&mut client, &mut server, CARRIED, CARRIED) => {
                    ended?;
                }
                // F3
                _ = door.changed() => {}
            }
            Ok(())
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
