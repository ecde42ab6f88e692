//! A local system: its directory, what runs in it, and how that is set, started, stopped, asked.

pub(crate) mod branch;
pub(crate) mod clock;
pub(crate) mod home;
pub(crate) mod identity;
pub(crate) mod launch;
pub(crate) mod master_key;
pub(crate) mod node;
pub(crate) mod pid;
pub(crate) mod ports;
pub(crate) mod postgres;
pub(crate) mod programs;
pub(crate) mod settings;
pub(crate) mod system;
pub(crate) mod tokens;
pub(crate) mod wire;
