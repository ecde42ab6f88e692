//! What the agent tells PostgreSQL, and what it lets out of it.

pub mod log;
pub mod settings;
