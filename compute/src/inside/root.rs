//! The root of the watchdog's namespace: what PostgreSQL needs of the machine, and nothing else of
//! it (C6). A superuser reads whatever PostgreSQL's user can.
//!
//!   T1  the root is a new one, in memory; the machine's is gone from the namespace;
//!   T2  what is shown of the machine is programs and libraries, read-only;
//!   T3  names of users are PostgreSQL's own and root's.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, umount2};
use nix::unistd::{chdir, pivot_root};

use super::Arguments;
use super::mount::{MountError, bind, make, mount_memory, refused};
use crate::place;

/// Programs and libraries. Where they are links into `/usr`, so they are here.
const SYSTEM: [&str; 7] = [
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32",
];
/// What libraries read, beside names of users.
const ETC: [&str; 5] = [
    "/etc/alternatives",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
];
/// What resolves names, where there is a network.
const NAMES: [&str; 2] = ["/etc/hosts", "/etc/resolv.conf"];
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "fuse"];

/// Makes the root in `arguments.directory`, and goes there for good.
pub(super) fn enter(arguments: &Arguments) -> Result<(), MountError> {
    let root = place::inside(&arguments.directory);
    // Unlike tmpfs, ramfs is never swapped out.
    mount_memory("ramfs", &root, "mode=0755")?;
    system(&root, arguments)?;
    etc(&root, arguments)?;
    devices(&root)?;
    let own = below(&root, Path::new(place::OWN));
    make(&own, 0o755)?;
    for (at, mode) in [
        (place::etc(), 0o755),
        (place::disk(), 0o700),
        (place::closed(), 0o700),
        (place::run(), 0o755),
    ] {
        make(&below(&root, &at), mode)?;
    }
    show(
        &place::cipher(&arguments.directory),
        &below(&root, &place::sealed()),
    )?;
    if let Some(guard) = &arguments.guard {
        show(guard, &below(&root, &place::guard()))?;
    }
    make(&below(&root, Path::new("/tmp")), 0o755)?;
    let proc = below(&root, Path::new("/proc"));
    make(&proc, 0o755)?;
    mount_memory("proc", &proc, "")?;
    go(&root)
}

fn system(root: &Path, arguments: &Arguments) -> Result<(), MountError> {
    for path in SYSTEM.map(Path::new) {
        match fs::read_link(path) {
            Ok(to) => {
                let at = below(root, path);
                symlink(to, &at).map_err(|e| refused("link", &at, e))?;
            }
            Err(_) if path.is_dir() => show(path, &below(root, path))?,
            Err(_) => {}
        }
    }
    // PostgreSQL that somebody built has its libraries and files beside `bin`, and others may
    // have theirs there too (T2).
    let programs = &arguments.postgres_bin;
    if !programs.starts_with("/usr") {
        let beside = |name| programs.with_file_name(name);
        let others = ["lib", "lib64", "share"].map(beside).into_iter();
        for path in others
            .filter(|path| path.is_dir())
            .chain([programs.clone()])
        {
            show(&path, &below(root, &path))?;
        }
    }
    Ok(())
}

fn etc(root: &Path, arguments: &Arguments) -> Result<(), MountError> {
    let (uid, gid) = (arguments.uid, arguments.gid);
    let etc = below(root, Path::new("/etc"));
    make(&etc, 0o755)?;
    let users =
        format!("root:x:0:0::/:/usr/sbin/nologin\nredoubt:x:{uid}:{gid}::/:/usr/sbin/nologin\n");
    for (name, text) in [
        ("passwd", users),
        ("group", format!("root:x:0:\nredoubt:x:{gid}:\n")),
        (
            "nsswitch.conf",
            "passwd: files\ngroup: files\nhosts: files dns\n".to_owned(),
        ),
    ] {
        let at = etc.join(name);
        fs::write(&at, text).map_err(|e| refused("write", &at, e))?;
    }
    let mtab = etc.join("mtab");
    symlink("/proc/self/mounts", &mtab).map_err(|e| refused("link", &mtab, e))?;
    let names = NAMES.iter().filter(|_| arguments.network);
    for path in ETC.iter().chain(names).map(Path::new) {
        if path.exists() {
            show(path, &below(root, path))?;
        }
    }
    Ok(())
}

fn devices(root: &Path) -> Result<(), MountError> {
    let dev = below(root, Path::new("/dev"));
    make(&dev, 0o755)?;
    for name in DEVICES {
        show(&Path::new("/dev").join(name), &dev.join(name))?;
    }
    make(&dev.join("shm"), 0o755)?;
    for (name, to) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "fd/0"),
        ("stdout", "fd/1"),
        ("stderr", "fd/2"),
    ] {
        let at = dev.join(name);
        symlink(to, &at).map_err(|e| refused("link", &at, e))?;
    }
    Ok(())
}

/// The same in the new root.
fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// Makes a file or directory of the machine seen at `at`.
fn show(path: &Path, at: &Path) -> Result<(), MountError> {
    let parent = at.parent().unwrap_or(at);
    fs::create_dir_all(parent).map_err(|e| refused("make", parent, e))?;
    let made = match path.is_dir() {
        true => fs::create_dir_all(at),
        false => fs::write(at, b""),
    };
    made.map_err(|e| refused("make", at, e))?;
    bind(path, at)
}

/// T1: the old root is mounted over the new one for a moment, and taken away.
fn go(root: &Path) -> Result<(), MountError> {
    chdir(root).map_err(|e| refused("go to", root, e))?;
    pivot_root(".", ".").map_err(|e| refused("make a root of", root, e))?;
    umount2(".", MntFlags::MNT_DETACH).map_err(|e| refused("leave", Path::new("/"), e))?;
    chdir("/").map_err(|e| refused("go to", Path::new("/"), e))
}
