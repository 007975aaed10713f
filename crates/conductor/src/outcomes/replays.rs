//! Bulk retries: who begins one or waits for its end, and the worker that does it.

use tokio::sync::{Notify, watch};

/// Where those who begin a bulk retry, or wait for its end, meet the worker that does it.
#[derive(Debug, Default)]
pub struct ReplaySignals {
    begun: Notify,
    ended: watch::Sender<()>,
}

impl ReplaySignals {
    /// Wakes the worker: a job was begun.
    pub fn tell_begin(&self) {
        self.begun.notify_one();
    }

    /// Returns when a job was begun since the last time. May return without cause.
    pub async fn begun(&self) {
        self.begun.notified().await;
    }

    /// A job has ended; which one, those who wait look up.
    pub fn tell_end(&self) {
        self.ended.send_replace(());
    }

    /// Sees every end from now on.
    pub fn ends(&self) -> watch::Receiver<()> {
        self.ended.subscribe()
    }
}
