//! `compute create`: the first data directory of a timeline, made on the sealed disk, so that
//! nothing of it lies anywhere in plain text, and streamed to the pageserver.

use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::timeline::{Imported, timeline_path};
use api::{Body, Client};
use bytes::Bytes;
use futures_util::stream;
use pg::control::ControlFile;
use tokio::sync::mpsc;
use zeroize::Zeroizing;

use crate::boot::archive;
use crate::boot::shutdown::ShutdownError;
use crate::config::{Config, Owner};
use crate::failure::Failure;
use crate::lease::Leases;
use crate::place;
use crate::postgres::log::LINE_PREFIX;
use crate::postgres::settings::CREATE_ROLE;
use crate::run::{extend, refuse_swap};
use crate::sandbox::{Directory, Disk, Sandbox, SandboxError, Start};

/// `DBState` of a cluster that was shut down.
const SHUT_DOWN: u32 = 1;
/// How long an import may take.
const LONGEST: Duration = Duration::from_secs(3600);
const PIECE_BYTES: usize = 256 << 10;
/// The longest password file that is taken.
const PASSWORD_BYTES_MAX: usize = 4096;

/// Makes a cluster whose superuser `postgres` has the password in the first line of
/// `password_file`, and imports it. Nothing is left on this machine.
///
/// # Errors
/// See [`Failure`].
pub async fn create(
    config: &Config,
    password_file: &Path,
    program: PathBuf,
) -> Result<Imported, Failure> {
    config.check()?;
    let owner = config.check_machine(false)?;
    refuse_swap(config)?;
    let token = config.read_token()?;
    let pageserver = config.pageserver_client(&token)?;
    let password = read_password(password_file).map_err(|source| Failure::Io {
        what: "cannot read the password file",
        source,
    })?;
    let lease = Leases::new(config, &token)?.take().await?;
    let directory = Directory::take(&config.directory).map_err(SandboxError::from)?;
    let start = Start {
        program,
        owner,
        deadline: lease.deadline().unwrap_or_default(),
        postgres_bin: config.postgres_bin.clone(),
        guard: None,
        network: false,
        danger_plain_log: config.danger_plain_log,
    };
    let mut sandbox = Sandbox::start(&directory, &start).await?;
    let leash = sandbox.leash();
    let imported = tokio::select! {
        made = async {
            initialize(config, &mut sandbox, password, owner).await?;
            import(config, &pageserver, sandbox.disk()).await
        } => made,
        why = lease.closed() => Err(why.into()),
        () = extend(&leash, &lease) => Err(lease.closed().await.into()),
    };
    sandbox.kill().await;
    if let Err(error) = directory.wipe() {
        tracing::warn!(%error, "cannot remove sealed bytes whose key is gone");
    }
    imported
}

/// initdb, the agent's role, and a clean shutdown.
async fn initialize(
    config: &Config,
    sandbox: &mut Sandbox,
    password: Zeroizing<Vec<u8>>,
    owner: Owner,
) -> Result<(), Failure> {
    let disk = sandbox.disk();
    let name = "password";
    let to = disk.clone();
    let written = on_disk(move || write_password(&to.path(name), &password, owner));
    written.await?.map_err(|source| Failure::Io {
        what: "cannot write the password to the sealed disk",
        source,
    })?;
    let data = place::data().display().to_string();
    let password_file = place::disk().join(name);
    let arguments = [
        "--no-sync",
        "--username=postgres",
        "--auth=scram-sha-256",
        "--encoding=UTF8",
        "--locale=C.UTF-8",
        "--pgdata",
        &data,
        "--pwfile",
        &password_file.display().to_string(),
    ];
    tracing::info!("initdb on the sealed disk");
    let initdb = config.postgres_bin.join("initdb");
    let made = sandbox.run(
        &initdb,
        arguments.map(str::to_owned).to_vec(),
        String::new(),
    );
    made.await?;
    let from = disk.clone();
    let removed = on_disk(move || std::fs::remove_file(from.path(name)));
    removed.await?.map_err(|source| Failure::Io {
        what: "cannot remove the password from the sealed disk",
        source,
    })?;
    let log = format!("log_line_prefix={LINE_PREFIX}");
    let settings = ["exit_on_error=on", "fsync=off", "log_timezone=GMT", &log];
    let settings = settings.iter().flat_map(|setting| ["-c", setting]);
    let arguments = ["--single", "-D", &data].into_iter();
    let arguments = arguments.chain(settings).chain(["postgres"]);
    let postgres = config.postgres_bin.join("postgres");
    let arguments = arguments.map(str::to_owned).collect();
    let made = sandbox.run(&postgres, arguments, CREATE_ROLE.to_owned());
    made.await?;
    on_disk(move || check_shut_down(&disk)).await?
}

/// Work on the sealed disk has a thread of its own: a disk that hangs must not keep the lease from
/// being seen.
async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    let working = tokio::task::spawn_blocking(work);
    working.await.map_err(|_| Failure::Task)
}

/// Into memory that is wiped, and that does not move as it fills: a move would leave a copy behind.
fn read_password(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut password = Zeroizing::new(Vec::with_capacity(PASSWORD_BYTES_MAX + 1));
    let mut buffer = Zeroizing::new([0; PASSWORD_BYTES_MAX + 1]);
    let mut file = std::fs::File::open(path)?;
    while password.len() <= PASSWORD_BYTES_MAX {
        let room = PASSWORD_BYTES_MAX + 1 - password.len();
        match file.read(&mut buffer[..room])? {
            0 => return Ok(password),
            read => password.extend_from_slice(&buffer[..read]),
        }
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidData,
        format!("it is longer than {PASSWORD_BYTES_MAX} bytes"),
    ))
}

fn write_password(path: &Path, password: &[u8], owner: Owner) -> io::Result<()> {
    let mut options = std::fs::File::options();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    chown(path, Some(owner.uid), Some(owner.gid))?;
    file.write_all(password)
}

/// What is imported begins at the end of a clean shutdown.
fn check_shut_down(disk: &Disk) -> Result<(), Failure> {
    let bytes = std::fs::read(disk.data().join("global/pg_control"));
    let bytes = bytes.map_err(|source| Failure::Io {
        what: "cannot read pg_control",
        source,
    })?;
    let control = ControlFile::parse(&bytes).map_err(ShutdownError::from)?;
    if control.state() == SHUT_DOWN {
        Ok(())
    } else {
        let (field, value) = ("the state of pg_control", u64::from(control.state()));
        Err(ShutdownError::Field { field, value }.into())
    }
}

async fn import(config: &Config, pageserver: &Client, disk: Disk) -> Result<Imported, Failure> {
    tracing::info!("streams the data directory to the pageserver");
    let (sender, pieces) = mpsc::channel(16);
    let packing = tokio::task::spawn_blocking(move || {
        let writer = BufWriter::with_capacity(PIECE_BYTES, PieceWriter(sender.clone()));
        if let Err(error) = archive::pack(&disk.data(), writer) {
            // Breaks the request off: what ends early must not look whole. Where nobody takes it
            // the request has failed, and says why itself.
            drop(sender.blocking_send(Err(error)));
        }
    });
    let body = Body::wrap_stream(stream::unfold(pieces, async |mut pieces| {
        let piece: io::Result<Bytes> = pieces.recv().await?;
        Some((piece, pieces))
    }));
    let path = timeline_path(config.tenant, config.timeline);
    let path = format!("{path}/import?pg_major={}", config.pg_major);
    let imported = pageserver.post_stream(&path, body, LONGEST).await;
    packing.await.map_err(|_| Failure::Task)?;
    Ok(imported?)
}

/// Hands what is written to the body of a request.
struct PieceWriter(mpsc::Sender<io::Result<Bytes>>);

impl Write for PieceWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = Bytes::copy_from_slice(bytes);
        let sent = self.0.blocking_send(Ok(piece));
        sent.map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_file_is_read_whole_or_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("password");
        std::fs::write(&path, "secret\nmore").unwrap();
        assert_eq!(*read_password(&path).unwrap(), b"secret\nmore");
        std::fs::write(&path, vec![b'x'; PASSWORD_BYTES_MAX]).unwrap();
        assert_eq!(read_password(&path).unwrap().len(), PASSWORD_BYTES_MAX);
        std::fs::write(&path, vec![b'x'; PASSWORD_BYTES_MAX + 1]).unwrap();
        assert!(read_password(&path).is_err());
    }
}
