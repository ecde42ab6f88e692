//! The mounts of the watchdog's namespace: a sealed disk whose key nobody else has, memory for
//! sockets and shared memory, and nothing else that can be written.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::statfs::{FsType, statfs};
use nix::unistd::Pid;
use service::entropy::OsEntropy;
use zeroize::Zeroizing;

use super::{Arguments, root};
use crate::place;

/// The type of file systems that a process serves.
pub const FUSE: FsType = FsType(0x6573_5546);
/// How long gocryptfs may take to show the disk.
const PATIENCE: Duration = Duration::from_secs(20);
/// What fits beside the sockets.
const SOCKETS_BYTES: u32 = 1 << 20;
const GOCRYPTFS: &str = "/usr/bin/gocryptfs";

/// The sealed disk cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// A call was refused.
    #[error("cannot {what} {path}: {reason}")]
    Refused {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// gocryptfs ended or did not begin.
    #[error("gocryptfs does not show the sealed disk: {0}")]
    Gocryptfs(String),
}

pub(super) fn refused(what: &'static str, path: &Path, reason: impl ToString) -> MountError {
    MountError::Refused {
        what,
        path: path.to_owned(),
        reason: reason.to_string(),
    }
}

/// Makes the namespace what PostgreSQL may see, and answers the process that is the disk.
pub(super) fn seal(arguments: &Arguments, ready: &Ready) -> Result<Pid, MountError> {
    leave_no_traces()?;
    private()?;
    root::enter(arguments)?;
    for memory in IN_MEMORY {
        mount_memory("tmpfs", Path::new(memory), "mode=1777")?;
    }
    let (disk, cipher) = (place::disk(), place::sealed());
    // PostgreSQL's user can write here, so it is memory too: a superuser can COPY rows to a file.
    let (uid, gid) = (arguments.uid, arguments.gid);
    let options = format!("mode=0700,uid={uid},gid={gid},size={SOCKETS_BYTES}");
    mount_memory("tmpfs", &place::run(), &options)?;

    let password = password();
    let config = Path::new(place::OWN).join("gocryptfs.conf");
    initialize(&config, &cipher, &password)?;
    let mut child = show(&config, &cipher, &disk, &password)?;
    drop(password);
    wait_for(&disk, &mut child, ready)?;
    fs::remove_file(&config).map_err(|e| refused("remove", &config, e))?;
    chown(&disk, Some(uid), Some(gid)).map_err(|e| refused("give away", &disk, e))?;
    let pid = i32::try_from(child.id()).map_err(|e| refused("watch", &disk, e))?;
    read_only()?;
    Ok(Pid::from_raw(pid))
}

/// What programs write to without being asked.
const IN_MEMORY: [&str; 2] = ["/dev/shm", "/tmp"];

/// No core files, no debugger, no new privileges, for this process and all it starts (C6).
fn leave_no_traces() -> Result<(), MountError> {
    let this = Path::new("/proc/self");
    service::no_cores().map_err(|e| refused("limit cores of", this, e))?;
    nix::sys::prctl::set_no_new_privs().map_err(|e| refused("limit privileges of", this, e))
}

/// Nothing that is mounted in here is seen outside.
fn private() -> Result<(), MountError> {
    let root = Path::new("/");
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, root, None::<&str>, flags, None::<&str>)
        .map_err(|e| refused("make private", root, e))
}

pub(super) fn mount_memory(kind: &'static str, at: &Path, options: &str) -> Result<(), MountError> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some(kind), at, Some(kind), flags, Some(options)).map_err(|e| refused("mount", at, e))
}

pub(super) fn bind(from: &Path, at: &Path) -> Result<(), MountError> {
    mount(Some(from), at, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .map_err(|e| refused("bind", at, e))
}

pub(super) fn make(path: &Path, mode: u32) -> Result<(), MountError> {
    let made = fs::DirBuilder::new().mode(mode).create(path);
    made.and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode)))
        .map_err(|e| refused("make", path, e))
}

/// 32 random bytes, as text: gocryptfs reads a line (I2).
fn password() -> Zeroizing<Vec<u8>> {
    let mut random = Zeroizing::new([0; 32]);
    OsEntropy::fill_bytes(random.as_mut());
    let digit = |nibble: u8| {
        if nibble < 10 {
            b'0' + nibble
        } else {
            b'a' + nibble - 10
        }
    };
    let mut text = Zeroizing::new(Vec::with_capacity(65));
    for byte in random.iter() {
        text.extend([digit(byte >> 4), digit(byte & 15)]);
    }
    text.push(b'\n');
    text
}

fn gocryptfs(password: &[u8], arguments: &[&str], paths: &[&Path]) -> Result<Child, MountError> {
    let failed = |e: std::io::Error| MountError::Gocryptfs(e.to_string());
    let mut child = Command::new(GOCRYPTFS)
        .args(["-q", "-nosyslog"])
        .args(arguments)
        .args(paths)
        .env_clear()
        .env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(password).map_err(failed)?;
    }
    Ok(child)
}

/// The password is random, so that stretching it (scrypt) would only cost time.
fn initialize(config: &Path, cipher: &Path, password: &[u8]) -> Result<(), MountError> {
    let config = config.to_string_lossy();
    let arguments = ["-init", "-scryptn", "10", "-config", &config];
    let mut child = gocryptfs(password, &arguments, &[cipher])?;
    match child.wait() {
        Ok(status) if status.success() => Ok(()),
        _ => Err(MountError::Gocryptfs(last_words(&mut child))),
    }
}

fn show(config: &Path, cipher: &Path, disk: &Path, password: &[u8]) -> Result<Child, MountError> {
    let config = config.to_string_lossy();
    let arguments = ["-fg", "-allow_other", "-noprealloc", "-notifypid", "1"];
    let arguments = [&arguments[..], &["-config", &config]].concat();
    gocryptfs(password, &arguments, &[cipher, disk])
}

/// The signal by which gocryptfs says that its disk is there.
#[derive(Debug)]
pub(super) struct Ready(SignalFd);

impl Ready {
    /// Before the first thread, so that all of them leave the signal to this.
    pub(super) fn listen() -> nix::Result<Self> {
        let mask = SigSet::from(Signal::SIGUSR1);
        mask.thread_block()?;
        SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC).map(Self)
    }

    fn was_said(&self) -> bool {
        self.0.read_signal().is_ok_and(|signal| signal.is_some())
    }
}

/// Nobody may touch the disk before gocryptfs says so: at its start it opens a file of its own
/// disk, and a lock on the directory that we held meanwhile would hang it for good.
fn wait_for(disk: &Path, child: &mut Child, ready: &Ready) -> Result<(), MountError> {
    let until = service::clock::boottime() + PATIENCE;
    loop {
        if ready.was_said() {
            // From now on nothing that it says leaves (C6): it may name files.
            drain(child);
            let found = statfs(disk).map_err(|e| refused("look at", disk, e))?;
            return if found.filesystem_type() == FUSE {
                Ok(())
            } else {
                Err(MountError::Gocryptfs("it mounted nothing".to_owned()))
            };
        }
        let ended = child.try_wait().ok().flatten().is_some();
        if ended || service::clock::boottime() > until {
            let words = if ended {
                last_words(child)
            } else {
                "it takes too long".to_owned()
            };
            return Err(MountError::Gocryptfs(words));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn last_words(child: &mut Child) -> String {
    let mut words = Vec::new();
    if let Some(stderr) = &mut child.stderr {
        drop(stderr.take(1000).read_to_end(&mut words));
    }
    String::from_utf8_lossy(&words).trim().to_owned()
}

fn drain(child: &mut Child) {
    if let Some(mut stderr) = child.stderr.take() {
        drop(std::thread::spawn(move || {
            drop(std::io::copy(&mut stderr, &mut std::io::sink()));
        }));
    }
}

/// Everything else becomes read-only (I3).
fn read_only() -> Result<(), MountError> {
    let table = Path::new("/proc/self/mountinfo");
    let text = fs::read_to_string(table).map_err(|e| refused("read", table, e))?;
    // The root itself is ours: only root writes there, as into the directories for configuration.
    let mut writable = vec![place::disk(), place::sealed(), place::run()];
    writable.extend(IN_MEMORY.map(PathBuf::from));
    writable.extend(["/", "/proc"].map(PathBuf::from));
    for point in mount_points(&text) {
        if writable.contains(&point.path) {
            continue;
        }
        let flags = point.flags | MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
        match mount(None::<&str>, &point.path, None::<&str>, flags, None::<&str>) {
            // Covered by another mount, or taken away in the meantime.
            Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => {}
            Err(e) => return Err(refused("make read-only", &point.path, e)),
        }
    }
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
struct MountPoint {
    path: PathBuf,
    flags: MsFlags,
}

/// The mount points of a `mountinfo`, with the flags that a remount must repeat.
fn mount_points(text: &str) -> Vec<MountPoint> {
    let point = |line: &str| {
        let mut words = line.split(' ').skip(4);
        let (path, options) = (words.next()?, words.next()?);
        let mut flags = MsFlags::empty();
        for option in options.split(',') {
            flags |= match option {
                "nosuid" => MsFlags::MS_NOSUID,
                "nodev" => MsFlags::MS_NODEV,
                "noexec" => MsFlags::MS_NOEXEC,
                "noatime" => MsFlags::MS_NOATIME,
                "nodiratime" => MsFlags::MS_NODIRATIME,
                "relatime" => MsFlags::MS_RELATIME,
                _ => MsFlags::empty(),
            };
        }
        Some(MountPoint {
            path: PathBuf::from(unescape(path)),
            flags,
        })
    };
    text.lines().filter_map(point).collect()
}

/// Spaces and the like stand as a backslash and three octal digits.
fn unescape(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        plain.push_str(before);
        let code = after.get(..3).and_then(|d| u8::from_str_radix(d, 8).ok());
        match code {
            Some(code) => {
                plain.push(char::from(code));
                rest = &after[3..];
            }
            None => {
                plain.push('\\');
                rest = after;
            }
        }
    }
    plain + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read_with_their_flags() {
        let text = "36 35 98:0 / / rw,relatime shared:1 - ext4 /dev/sda rw\n\
                    37 36 0:5 / /a\\040b rw,nosuid,nodev - tmpfs tmpfs rw\n";
        let expected = [
            MountPoint {
                path: PathBuf::from("/"),
                flags: MsFlags::MS_RELATIME,
            },
            MountPoint {
                path: PathBuf::from("/a b"),
                flags: MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
            },
        ];
        assert_eq!(mount_points(text), expected);
    }

    #[test]
    fn passwords_are_long_and_differ() {
        let (one, other) = (password(), password());
        assert_eq!(one.len(), 65);
        assert_ne!(*one, *other);
        assert!(one[..64].iter().all(u8::is_ascii_hexdigit));
    }
}
