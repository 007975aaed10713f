//! Which configuration is in use, and whether the last reload was taken over.

use std::sync::atomic::AtomicU64;

use conductor_core::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// The series of the configuration.
#[derive(Default)]
pub struct ConfigurationMetrics {
    version: Gauge,
    loaded_at: Gauge<f64, AtomicU64>,
    is_good: Gauge,
    reloads: Family<Reload, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reload {
    result: &'static str,
}

impl ConfigurationMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "Number of the configuration in use: 1 at the start, and one more with each that was taken over";
        registry.register("config_version", help, self.version.clone());
        let help = "When the configuration in use was taken over, in seconds since 1970";
        registry.register("config_loaded_timestamp_seconds", help, self.loaded_at.clone());
        let help = "1 where the configuration that was read last could be used, 0 where it was refused";
        registry.register("config_last_reload_successful", help, self.is_good.clone());
        registry.register("config_reloads", "Reloads by what came of them", self.reloads.clone());
    }

    /// The server has begun with this configuration.
    pub fn begun(&self, version: u64, loaded_at: Timestamp) {
        self.version.set(i64::try_from(version).unwrap_or(i64::MAX));
        self.loaded_at.set(loaded_at.millis() as f64 / 1_000.0);
        self.is_good.set(1);
    }

    /// A reload has been taken over, and this is in use now.
    pub fn accepted(&self, version: u64, loaded_at: Timestamp) {
        self.begun(version, loaded_at);
        self.count("accepted");
    }

    /// A reload has found what is in use already.
    pub fn unchanged(&self) {
        self.is_good.set(1);
        self.count("unchanged");
    }

    /// A reload was refused.
    pub fn refused(&self) {
        self.is_good.set(0);
        self.count("refused");
    }

    fn count(&self, result: &'static str) {
        self.reloads.get_or_create(&Reload { result }).inc();
    }
}
