//! The PostgreSQL protocol, version 3: as much of both sides as storage speaks.
//!
//! Simple queries, copy in both directions, a token as cleartext password. TLS is refused (`N`):
//! what needs to be hidden on the wire runs over HTTP.

pub mod client;
mod conn;
mod frame;
mod server;
mod startup;

pub use conn::{Conn, CopyReader, CopyWriter};
pub use frame::{MAX_MESSAGE, WireError};
pub use server::{Factory, Handler, QueryError, serve, serve_on};
pub use startup::Startup;
