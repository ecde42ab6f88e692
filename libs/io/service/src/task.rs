//! Tasks have names, and a process ends by asking them all to stop and waiting for them.

use std::future::Future;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

/// Runs `future` as a task of its own; what it logs carries `name`.
#[allow(
    clippy::disallowed_methods,
    reason = "this is the one place that spawns"
)]
pub fn spawn<F>(name: &'static str, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(future.instrument(tracing::info_span!("task", name)))
}

/// Tells tasks to stop and waits until they have. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    token: CancellationToken,
    tasks: TaskTracker,
}

impl Shutdown {
    /// Nothing asked yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asked by SIGTERM or SIGINT.
    ///
    /// # Errors
    /// Where signals cannot be listened to.
    pub fn on_signals() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let (mut term, mut int) = (
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
        );
        let shutdown = Self::new();
        let token = shutdown.token.clone();
        drop(spawn("signals", async move {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
                () = token.cancelled() => {}
            }
            token.cancel();
        }));
        Ok(shutdown)
    }

    /// Asks everybody to stop.
    pub fn request(&self) {
        self.token.cancel();
    }

    /// Whether somebody asked.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Returns once somebody asked.
    pub async fn requested(&self) {
        self.token.cancelled().await;
    }

    /// Spawns a task that [`Self::finished`] waits for.
    pub fn spawn<F>(&self, name: &'static str, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        spawn(name, self.tasks.track_future(future))
    }

    /// Returns once stopping was asked and every task of [`Self::spawn`] has ended.
    pub async fn finished(&self) {
        self.requested().await;
        self.tasks.close();
        self.tasks.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn finished_waits_for_tasks() {
        let shutdown = Shutdown::new();
        let seen = shutdown.clone();
        let task = shutdown.spawn("test", async move {
            seen.requested().await;
            7
        });
        shutdown.request();
        shutdown.finished().await;
        assert!(task.is_finished());
        assert_eq!(task.await.unwrap(), 7);
    }
}
