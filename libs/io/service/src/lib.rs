//! The chassis of every process: configuration, logs, metrics, tasks, clock, entropy, tokens,
//! TLS, HTTP and the PostgreSQL protocol.
//!
//! The first line of every `main` is [`init`].
#![forbid(unsafe_code)]

pub mod clock;
pub mod config;
pub mod entropy;
pub mod http;
pub mod libpq;
pub mod listen;
pub mod log;
pub mod metrics;
pub mod task;
pub mod tls;
pub mod token;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Chooses the implementation of TLS for the process, and keeps cores of it, which would hold keys
/// and pages, from being written (C6). Calling it again does nothing.
pub fn init() {
    // An error says that a provider is installed already: by an earlier call of this function.
    drop(rustls::crypto::ring::default_provider().install_default());
    if let Err(error) = no_cores() {
        // There is no log yet.
        eprintln!("INSECURE: cores of this process may be written: {error}");
    }
    if let Err(error) = as_many_files_as_may_be() {
        eprintln!("few files and connections can be open at one time: {error}");
    }
}

/// What is soft of the limit of open files is for programs that select(2).
fn as_many_files_as_may_be() -> nix::Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)
}

/// No core files of this process and all it starts (C6).
///
/// # Errors
/// The kernel refuses.
pub fn no_cores() -> std::io::Result<()> {
    // One byte, not none: a limit of none does not keep the kernel from a pipe to a program.
    setrlimit(Resource::RLIMIT_CORE, 1, 1)
        // A limit of none cannot be raised without privileges: no dump at all then.
        .or_else(|_| nix::sys::prctl::set_dumpable(false))
        .map_err(std::io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_may_open_as_many_files_as_the_limit_lets_it() {
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, 200.min(most), most).unwrap();
        init();
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (most, most));
    }

    #[test]
    fn a_process_writes_no_cores() {
        init();
        let limited = getrlimit(Resource::RLIMIT_CORE).unwrap() == (1, 1);
        assert!(limited || !nix::sys::prctl::get_dumpable().unwrap());
    }
}
