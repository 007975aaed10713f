//! What the store tells of itself.

use conductor_core::Statistics;

use crate::telemetry::metrics::family::Family;

/// The store's metrics.
pub(super) fn families(statistics: Statistics) -> Vec<Family> {
    let Statistics { commit_time, written, failed, waiting, file_bytes, log_bytes, free_bytes, is_failing, is_damaged } =
        statistics;
    let took = Family::histogram(
        "conductor_store_commit_duration_seconds",
        "How long the store's commits took, each until its data was on disk.",
    );
    let changes = Family::counter("conductor_store_changes_total", "Changes that were committed, several at a time.");
    let not_written = Family::counter("conductor_store_failures_total", "Transactions that could not be written.");
    let queued = Family::gauge("conductor_store_waiting_changes", "Changes that wait for their commit now.");
    let file = Family::gauge("conductor_store_file_bytes", "The size of conductor.db.");
    let log = Family::gauge("conductor_store_log_bytes", "The size of conductor.db-wal.");
    let free = Family::gauge("conductor_store_disk_free_bytes", "The room that the store's disk has left.");
    let failing = Family::gauge("conductor_store_failing", "1 while nothing can be written, such as on a full disk.");
    let damaged = Family::gauge("conductor_store_damaged", "1 after the store's file was found damaged.");
    let mut families = vec![
        took.with(commit_time),
        changes.with(written),
        not_written.with(failed),
        queued.with(waiting),
        file.with(file_bytes),
        log.with(log_bytes),
        failing.with(is_failing),
        damaged.with(is_damaged),
    ];
    families.extend(free_bytes.map(|bytes| free.with(bytes)));
    families
}
