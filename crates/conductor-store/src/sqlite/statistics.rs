//! What the store counts of itself.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use conductor_core::{Histogram, Statistics};

use super::damage::log_of;
use super::{COMMANDS_MAX, SqliteStore};

/// In seconds: from a fast disk that only remembers to one that is about to fail.
const COMMIT_BOUNDS: &[f64] =
    &[0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// Counted by the writer, read by whoever asks.
#[derive(Debug)]
pub(super) struct Counts {
    commit_time: Histogram,
    written: AtomicU64,
    failed: AtomicU64,
}

impl Default for Counts {
    fn default() -> Self {
        let commit_time = Histogram::new(COMMIT_BOUNDS);
        Self { commit_time, written: AtomicU64::new(0), failed: AtomicU64::new(0) }
    }
}

impl Counts {
    /// So many changes are on disk.
    pub(super) fn committed(&self, took: Duration, changes: usize) {
        self.commit_time.observe(took);
        self.written.fetch_add(u64::try_from(changes).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// A transaction could not be written.
    pub(super) fn failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }
}

impl SqliteStore {
    pub(super) fn count_up(&self) -> Statistics {
        let size = |path: &Path| std::fs::metadata(path).map_or(0, |file| file.len());
        let waiting = COMMANDS_MAX.saturating_sub(self.permits.available_permits());
        Statistics {
            commit_time: self.counts.commit_time.distribution(),
            written: self.counts.written.load(Ordering::Relaxed),
            failed: self.counts.failed.load(Ordering::Relaxed),
            waiting: if self.permits.is_closed() { 0 } else { waiting as u64 },
            file_bytes: size(&self.path),
            log_bytes: size(&log_of(&self.path)),
            free_bytes: free_bytes(&self.path),
            is_failing: self.failing.load(Ordering::Relaxed),
            is_damaged: self.damage.refuse().is_err(),
        }
    }
}

/// The room that this user has left on the disk of `path`.
fn free_bytes(path: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(path).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;
    use conductor_core::{ManualClock, Store as _, StoreError, Timestamp};
    use std::sync::Arc;

    #[tokio::test]
    async fn commits_and_failures_are_counted_and_the_files_are_measured() {
        let directory = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(Timestamp::from_millis(7)));
        let store = SqliteStore::open(directory.path(), clock).unwrap();
        let fresh = store.statistics();
        assert_eq!((fresh.commit_time.count(), fresh.written, fresh.failed, fresh.waiting), (0, 0, 0, 0));
        for _ in 0..3 {
            store.ping().await.unwrap();
        }
        let after = store.statistics();
        assert_eq!((after.commit_time.count(), after.written, after.failed), (3, 3, 0));
        assert!(after.file_bytes > 0 && after.log_bytes > 0 && after.free_bytes.is_some_and(|bytes| bytes > 0));
        assert!(!after.is_failing && !after.is_damaged);
        store.damage.met("as the test wants it");
        assert!(store.statistics().is_damaged);
        store.counts.failed();
        assert_eq!(store.statistics().failed, 1);
        store.close().await;
        assert_eq!(
            store.ping().await,
            Err(StoreError::Failed("its file is damaged; see what was logged before".into()))
        );
        assert_eq!(store.statistics().waiting, 0);
    }
}
