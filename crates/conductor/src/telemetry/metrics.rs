//! What is counted. Labels are bounded: tenants and channel types of the configuration, routes, and words of the
//! program's own. Counting takes no lock.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use conductor_core::{FailureReason, Outcome, TenantId, Timestamp};

use family::{Family, Text};
use requests::Requests;
use table::{Meters, Owner, Table, observe};

mod callbacks;
mod configuration;
pub mod family;
mod requests;
mod table;

pub use callbacks::CallbackMetrics;
pub use configuration::ConfigurationMetrics;
pub use table::{OTHER, REMOVED, TENANTS_MAX};

/// Everything that is counted.
#[derive(Debug, Default)]
pub struct Metrics {
    table: ArcSwap<Table>,
    requests: Requests,
    under_way: AtomicU64,
    removed: AtomicU64,
    redacted: AtomicU64,
    /// Of callbacks.
    pub callbacks: CallbackMetrics,
    /// Which configuration is in use, and how reloads go.
    pub configuration: ConfigurationMetrics,
    /// Spans that could not be exported.
    pub spans_dropped: Arc<AtomicU64>,
    /// Requests to a collector that were given up.
    pub exports_failed: AtomicU64,
}

/// The labels `tenant` and `channel_type` of a series.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Series(Owner, &'static str);

impl Series {
    /// The labels.
    pub fn labels(self) -> [(&'static str, Text); 2] {
        [("tenant", self.0.label()), ("channel_type", Text::Word(self.1))]
    }

    /// The labels and one more.
    pub fn labels_with(self, name: &'static str, word: &'static str) -> [(&'static str, Text); 3] {
        let [tenant, kind] = self.labels();
        [tenant, kind, (name, Text::Word(word))]
    }
}

impl Metrics {
    /// Nothing counted yet, and nobody to count for: see [`Metrics::follow`].
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts for these tenants from now on, each with the types of its channels. What was counted for them goes on; the
    /// series of all others are gone. Beyond [`TENANTS_MAX`], tenants are counted together as [`OTHER`].
    pub fn follow(&self, tenants: impl IntoIterator<Item = (TenantId, BTreeSet<&'static str>)>) {
        let next = self.table.load().following(tenants);
        self.callbacks.follow(|tenant| next.knows(tenant));
        self.table.store(next.into());
    }

    fn count(&self, tenant: TenantId, kind: &str, counter: impl FnOnce(&Meters) -> &AtomicU64) {
        if let Some(meters) = self.table.load().meters(tenant, kind) {
            meters.count(counter);
        }
    }

    /// A notification was accepted, so long after it was ready to be written.
    pub fn accepted(&self, tenant: TenantId, kind: &str, took: Duration) {
        self.count(tenant, kind, |meters| &meters.accepted);
        observe(&self.table.load(), kind, |times| &times.accept, took);
    }

    /// An attempt came to an outcome.
    pub fn attempted(&self, tenant: TenantId, kind: &str, outcome: Outcome, took: Duration) {
        self.count(tenant, kind, |meters| &meters.attempts[outcome as usize]);
        observe(&self.table.load(), kind, |times| &times.attempt, took);
    }

    /// A provider has taken a message, so long after it was accepted.
    pub fn sent(&self, tenant: TenantId, kind: &str, age: Duration) {
        self.count(tenant, kind, |meters| &meters.sent);
        observe(&self.table.load(), kind, |times| &times.age, age);
    }

    /// A delivery was given up.
    pub fn failed(&self, tenant: TenantId, kind: &str, reason: FailureReason) {
        self.count(tenant, kind, |meters| &meters.failed[reason as usize]);
    }

    /// So many attempts are under way.
    pub fn under_way(&self, attempts: usize) {
        self.under_way.store(count(attempts), Ordering::Relaxed);
    }

    /// So many old notifications were removed, and so many lost their content.
    pub fn tidied(&self, removed: usize, redacted: usize) {
        self.removed.fetch_add(count(removed), Ordering::Relaxed);
        self.redacted.fetch_add(count(redacted), Ordering::Relaxed);
    }

    /// A request was answered. `route` is the API's own word for its path, never the path itself.
    pub fn answered(&self, method: &str, route: &str, status: &str) {
        self.requests.count(method, route, status);
    }

    /// The series that count for a tenant's channels of a type.
    pub fn series(&self, tenant: TenantId, kind: &'static str) -> Series {
        Series(self.table.load().owner(tenant), kind)
    }

    /// The oldest that waits for a tenant's channels of a type was accepted at this time. It is remembered.
    pub fn saw_oldest(&self, tenant: TenantId, kind: &str, accepted_at: Timestamp) {
        if let Some(meters) = self.table.load().meters(tenant, kind) {
            meters.saw_oldest(accepted_at);
        }
    }

    /// What [`Metrics::saw_oldest`] was told last.
    pub fn oldest_seen(&self, tenant: TenantId, kind: &str) -> Option<Timestamp> {
        self.table.load().meters(tenant, kind)?.oldest()
    }

    /// All that was counted.
    pub fn families(&self) -> Vec<Family> {
        let table = self.table.load();
        let now = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut accepted =
            Family::counter("conductor_notifications_accepted_total", "Notifications that were accepted.");
        let mut attempts = Family::counter("conductor_attempts_total", "Attempts to send, by what they came to.");
        let mut sent = Family::counter("conductor_deliveries_sent_total", "Deliveries that a provider has taken.");
        let mut failed = Family::counter("conductor_deliveries_failed_total", "Deliveries given up, by the reason.");
        for (owner, kind, meters) in table.shown() {
            let series = Series(owner, kind);
            accepted.add(series.labels(), now(&meters.accepted));
            sent.add(series.labels(), now(&meters.sent));
            for (outcome, counter) in Outcome::ALL.iter().zip(&meters.attempts) {
                attempts.add(series.labels_with("outcome", outcome.as_str()), now(counter));
            }
            for (reason, counter) in FailureReason::ALL.iter().zip(&meters.failed) {
                failed.add(series.labels_with("reason", reason.as_str()), now(counter));
            }
        }
        let mut accept = Family::histogram(
            "conductor_accept_duration_seconds",
            "How long it took to bring a notification to disk, with its wait for others' commits.",
        );
        let mut attempt = Family::histogram("conductor_attempt_duration_seconds", "How long attempts took.");
        let mut age =
            Family::histogram("conductor_queue_age_seconds", "How long after acceptance deliveries were sent.");
        for (kind, times) in table.all_times() {
            for (family, histogram) in
                [(&mut accept, &times.accept), (&mut attempt, &times.attempt), (&mut age, &times.age)]
            {
                let distribution = histogram.distribution();
                if kind != REMOVED || distribution.count() > 0 {
                    family.add([("channel_type", Text::Word(kind))], distribution);
                }
            }
        }
        let removed = Family::counter("conductor_notifications_removed_total", "Old notifications that were removed.");
        let redacted =
            Family::counter("conductor_notifications_redacted_total", "Old notifications whose content was removed.");
        let under_way = Family::gauge("conductor_attempts_under_way", "Attempts that are under way now.");
        let dropped = Family::counter("conductor_telemetry_spans_dropped_total", "Spans that were not exported.");
        let exports =
            Family::counter("conductor_telemetry_exports_failed_total", "Exports over OTLP that were given up.");
        let mut families = vec![
            accepted,
            attempts,
            sent,
            failed,
            accept,
            attempt,
            age,
            under_way.with(now(&self.under_way)),
            removed.with(now(&self.removed)),
            redacted.with(now(&self.redacted)),
            dropped.with(now(&self.spans_dropped)),
            exports.with(now(&self.exports_failed)),
            self.requests.family(),
        ];
        families.extend(self.callbacks.families(&table));
        families.extend(self.configuration.families());
        families
    }
}

fn count(things: usize) -> u64 {
    u64::try_from(things).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(number: u32) -> TenantId {
        TenantId::new(uuid::Uuid::from_u128(number.into()))
    }

    fn of(number: u32) -> (TenantId, BTreeSet<&'static str>) {
        (tenant(number), BTreeSet::from(["log"]))
    }

    fn text(metrics: &Metrics) -> String {
        family::text(&metrics.families())
    }

    fn line(tenant: &str, kind: &str) -> String {
        format!("conductor_deliveries_sent_total{{tenant=\"{tenant}\",channel_type=\"{kind}\"}}")
    }

    #[test]
    fn a_series_is_there_before_anything_is_counted_and_gone_with_its_tenant() {
        let metrics = Metrics::new();
        metrics.follow([of(1), of(2)]);
        let (one, two) = (line(&tenant(1).to_string(), "log"), line(&tenant(2).to_string(), "log"));
        let before = text(&metrics);
        assert!(before.contains(&format!("{one} 0\n")) && before.contains(&format!("{two} 0\n")), "{before}");
        metrics.sent(tenant(1), "log", Duration::ZERO);
        metrics.follow([of(1)]);
        metrics.sent(tenant(1), "log", Duration::ZERO);
        let after = text(&metrics);
        assert!(after.contains(&format!("{one} 2\n")) && !after.contains(&two), "{after}");
        assert!(!after.contains("\"removed\"") && !after.contains("\"other\""), "{after}");
    }

    #[test]
    fn what_no_series_is_meant_for_is_counted_as_removed_or_others() {
        let metrics = Metrics::new();
        metrics.failed(tenant(3), "log", FailureReason::Expired);
        metrics.follow([of(1)]);
        metrics.sent(tenant(1), REMOVED, Duration::ZERO);
        metrics.sent(tenant(1), "never heard of", Duration::ZERO);
        metrics.sent(tenant(9), "log", Duration::ZERO);
        let text = text(&metrics);
        assert!(text.contains(&format!("{} 2\n", line(&tenant(1).to_string(), REMOVED))), "{text}");
        assert!(text.contains(&format!("{} 1\n", line(OTHER, "log"))), "{text}");
        assert!(text.contains("tenant=\"other\",channel_type=\"removed\",reason=\"expired\"} 1\n"), "{text}");
        assert!(!text.contains("never"), "{text}");
    }

    #[test]
    fn however_many_tenants_there_are_the_series_are_bounded() {
        let metrics = Metrics::new();
        let all = u32::try_from(TENANTS_MAX).unwrap() + 50;
        metrics.follow((1..=all).map(of));
        (1..=all).for_each(|number| metrics.sent(tenant(number), "log", Duration::from_millis(20)));
        let text = text(&metrics);
        let series = text.lines().filter(|line| line.starts_with("conductor_deliveries_sent_total{")).count();
        assert_eq!(series, TENANTS_MAX + 1);
        assert!(text.contains(&format!("{} 50\n", line(OTHER, "log"))));
        let histograms = text.lines().filter(|line| line.starts_with("conductor_queue_age_seconds_count")).count();
        assert_eq!(histograms, 1);
        assert!(text.contains(&format!("conductor_queue_age_seconds_count{{channel_type=\"log\"}} {all}\n")));
    }

    #[test]
    fn nothing_is_lost_where_many_count_at_once_and_the_configuration_changes() {
        let metrics = Metrics::new();
        metrics.follow([of(1)]);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).for_each(|_| metrics.sent(tenant(1), "log", Duration::from_micros(1))));
            }
            (2..200).for_each(|number| metrics.follow([of(1), of(number)]));
        });
        assert!(text(&metrics).contains(&format!("{} 40000\n", line(&tenant(1).to_string(), "log"))));
    }
}
