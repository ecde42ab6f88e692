//! Logs: one JSON object per line on standard error.

use tracing_subscriber::EnvFilter;

/// Begins to log; `RUST_LOG` chooses what, `info` without it. Calling it again does nothing.
pub fn init() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    // An error says that somebody (an earlier call, a test) has set a subscriber already.
    drop(
        tracing_subscriber::fmt()
            .json()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .try_init(),
    );
}
