//! Which configuration is in use, and whether the last reload was taken over.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use conductor_core::Timestamp;

use super::family::{Family, Text};

/// What becomes of a reload.
const RESULTS: [&str; 3] = ["accepted", "unchanged", "refused"];

/// The numbers of the configuration.
#[derive(Debug, Default)]
pub struct ConfigurationMetrics {
    version: AtomicU64,
    loaded_at: AtomicI64,
    is_good: AtomicBool,
    /// In the order of [`RESULTS`].
    reloads: [AtomicU64; RESULTS.len()],
}

impl ConfigurationMetrics {
    /// The server has begun with this configuration.
    pub fn begun(&self, version: u64, loaded_at: Timestamp) {
        self.version.store(version, Ordering::Relaxed);
        self.loaded_at.store(loaded_at.millis(), Ordering::Relaxed);
        self.is_good.store(true, Ordering::Relaxed);
    }

    /// A reload has been taken over, and this is in use now.
    pub fn accepted(&self, version: u64, loaded_at: Timestamp) {
        self.begun(version, loaded_at);
        self.count(0);
    }

    /// A reload has found what is in use already.
    pub fn unchanged(&self) {
        self.is_good.store(true, Ordering::Relaxed);
        self.count(1);
    }

    /// A reload was refused.
    pub fn refused(&self) {
        self.is_good.store(false, Ordering::Relaxed);
        self.count(2);
    }

    fn count(&self, result: usize) {
        self.reloads[result].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn families(&self) -> [Family; 4] {
        let version = Family::gauge(
            "conductor_config_version",
            "The number of the configuration in use: 1 at the start, and one more with each that was taken over.",
        );
        let loaded = Family::gauge(
            "conductor_config_loaded_timestamp_seconds",
            "When the configuration in use was taken over, in seconds since 1970.",
        );
        let good = Family::gauge(
            "conductor_config_last_reload_successful",
            "1 where the configuration that was read last could be used, 0 where it was refused.",
        );
        let mut reloads = Family::counter("conductor_config_reloads_total", "Reloads, by what became of them.");
        for (result, count) in RESULTS.iter().zip(&self.reloads) {
            reloads.add([("result", Text::Word(result))], count.load(Ordering::Relaxed));
        }
        let loaded_at = self.loaded_at.load(Ordering::Relaxed) as f64 / 1_000.0;
        [
            version.with(self.version.load(Ordering::Relaxed)),
            loaded.with(loaded_at),
            good.with(self.is_good.load(Ordering::Relaxed)),
            reloads,
        ]
    }
}
