//! Counters and histograms for Prometheus. Labels are bounded: tenants and channel types of the configuration only.

use std::fmt::Write as _;
use std::time::Duration;

use conductor_core::{FailureReason, Outcome, TenantId};
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

pub use callbacks::CallbackMetrics;
pub use configuration::ConfigurationMetrics;

mod callbacks;
mod configuration;

/// Everything that is counted.
pub struct Metrics {
    registry: Registry,
    accepted: Family<Series, Counter>,
    attempts: Family<AttemptSeries, Counter>,
    sent: Family<Series, Counter>,
    failed: Family<FailureSeries, Counter>,
    attempt_seconds: Family<Kind, Histogram>,
    queue_seconds: Family<Kind, Histogram>,
    depth: Family<Series, Gauge>,
    removed: Counter,
    redacted: Counter,
    /// Which configuration is in use, and how reloads go.
    pub configuration: ConfigurationMetrics,
    /// Of callbacks.
    pub callbacks: CallbackMetrics,
}

/// A tenant as a label: made into text when it is read, not when it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct TenantLabel(TenantId);

impl EncodeLabelValue for TenantLabel {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        write!(encoder, "{}", self.0)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    channel_type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Series {
    tenant: TenantLabel,
    channel_type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AttemptSeries {
    tenant: TenantLabel,
    channel_type: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FailureSeries {
    tenant: TenantLabel,
    channel_type: &'static str,
    reason: &'static str,
}

impl Metrics {
    /// Nothing counted yet.
    pub fn new() -> Self {
        let seconds = || Histogram::new(exponential_buckets(0.001, 4.0, 10));
        let mut metrics = Self {
            registry: Registry::with_prefix("conductor"),
            accepted: Family::default(),
            attempts: Family::default(),
            sent: Family::default(),
            failed: Family::default(),
            attempt_seconds: Family::new_with_constructor(seconds),
            queue_seconds: Family::new_with_constructor(seconds),
            depth: Family::default(),
            removed: Counter::default(),
            redacted: Counter::default(),
            configuration: ConfigurationMetrics::default(),
            callbacks: CallbackMetrics::default(),
        };
        let registry = &mut metrics.registry;
        metrics.configuration.register(registry);
        metrics.callbacks.register(registry);
        registry.register("notifications_accepted", "Notifications accepted", metrics.accepted.clone());
        registry.register("attempts", "Attempts by outcome", metrics.attempts.clone());
        registry.register("deliveries_sent", "Deliveries that a provider has taken", metrics.sent.clone());
        registry.register("deliveries_failed", "Deliveries given up, by reason", metrics.failed.clone());
        registry.register("attempt_duration_seconds", "How long attempts take", metrics.attempt_seconds.clone());
        registry.register("queue_age_seconds", "From acceptance to sent", metrics.queue_seconds.clone());
        registry.register("queue_depth", "Deliveries that have not ended", metrics.depth.clone());
        registry.register("notifications_removed", "Old notifications removed", metrics.removed.clone());
        registry.register("notifications_redacted", "Old notifications without content", metrics.redacted.clone());
        metrics
    }

    /// So many deliveries of a tenant wait for channels of this type.
    pub fn waiting(&self, tenant: TenantId, channel_type: &'static str, count: u64) {
        let series = Series { tenant: TenantLabel(tenant), channel_type };
        self.depth.get_or_create(&series).set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// A notification was accepted.
    pub fn accepted(&self, tenant: TenantId, channel_type: &'static str) {
        self.accepted.get_or_create(&Series { tenant: TenantLabel(tenant), channel_type }).inc();
    }

    /// An attempt came to an outcome.
    pub fn attempted(&self, tenant: TenantId, channel_type: &'static str, outcome: Outcome, took: Duration) {
        let outcome = outcome.as_str();
        self.attempts.get_or_create(&AttemptSeries { tenant: TenantLabel(tenant), channel_type, outcome }).inc();
        self.attempt_seconds.get_or_create(&Kind { channel_type }).observe(took.as_secs_f64());
    }

    /// A provider has taken a message, so long after it was accepted.
    pub fn sent(&self, tenant: TenantId, channel_type: &'static str, age: Duration) {
        self.sent.get_or_create(&Series { tenant: TenantLabel(tenant), channel_type }).inc();
        self.queue_seconds.get_or_create(&Kind { channel_type }).observe(age.as_secs_f64());
    }

    /// A delivery was given up.
    pub fn failed(&self, tenant: TenantId, channel_type: &'static str, reason: FailureReason) {
        let reason = reason.as_str();
        self.failed.get_or_create(&FailureSeries { tenant: TenantLabel(tenant), channel_type, reason }).inc();
    }

    /// So many old notifications were removed, and so many lost their content.
    pub fn tidied(&self, removed: usize, redacted: usize) {
        let count = |count| u64::try_from(count).unwrap_or(u64::MAX);
        self.removed.inc_by(count(removed));
        self.redacted.inc_by(count(redacted));
    }

    /// All of it as Prometheus' text format.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
