//! What agent and watchdog tell each other: JSON, one object per line.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// From the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Moves the deadline.
    Extend {
        /// Milliseconds of BOOTTIME.
        until_ms: u64,
    },
    /// Ends everything at once.
    End,
    /// Starts a program as the user.
    Start(Program),
    /// Sends a signal to a program.
    Signal {
        /// The program.
        id: u32,
        /// The number of the signal.
        signal: i32,
    },
}

/// A program to start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// What reports call it.
    pub id: u32,
    /// The file.
    pub path: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Its standard input. Nothing secret: it travels through pipes.
    pub input: String,
}

/// From the watchdog.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// The sealed disk is there.
    Mounted,
    /// An order, or the beginning, failed.
    Failed {
        /// Why.
        reason: String,
    },
    /// The sealed disk is gone, and everything with it.
    DiskGone,
    /// A program ended.
    Exited {
        /// Which.
        id: u32,
        /// Its exit code; none where a signal ended it.
        code: Option<i32>,
    },
    /// PostgreSQL logged something.
    Said {
        /// Which program.
        id: u32,
        /// When.
        time: String,
        /// SQLSTATE.
        sqlstate: String,
        /// Severity.
        severity: String,
    },
    /// INSECURE: a whole line of a log.
    Plain {
        /// Which program.
        id: u32,
        /// The line.
        line: String,
    },
}
