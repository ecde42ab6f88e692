//! The consensus by which safekeepers hold WAL: acceptor and proposer, as PROTOCOL.md says.
//!
//! Both are pure: messages go in, actions come out. Neither knows a clock, a disk or a socket.
#![forbid(unsafe_code)]

pub mod acceptor;
pub mod history;
pub mod proposer;

pub use acceptor::{Acceptor, Action, Durable, EndpointEpoch, Refusal, Ticket};
pub use history::History;
pub use proposer::{Effect, Proposer, ProposerConfig};
