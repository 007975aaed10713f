//! Everything that the server tells in numbers: what was counted, and how things stand at this moment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use conductor_core::{ChannelId, Health, StoreError, Timestamp};

use crate::app::App;
use crate::registry::flow::Breaker;
use crate::registry::{LiveChannel, Registry, Tenant};
use crate::telemetry::metrics::Series;
use crate::telemetry::metrics::family::{Family, Text};
use crate::telemetry::process;

mod store;

/// So long one reading looks for the oldest that waits of one tenant after the other. The next goes on from there; what
/// was not reached is told as it was seen before.
const LOOK_MAX: Duration = Duration::from_millis(200);

/// All metrics as they stand now.
pub async fn families(app: &App) -> Vec<Family> {
    let registry = app.registry();
    // One reading at a time: another would do the same work twice.
    let _alone = app.reading.lock().await;
    if let Err(error) = look_for_oldest(app, &registry).await {
        tracing::debug!(%error, "The oldest that waits could not be read; what was seen before is told");
    }
    let statistics = Arc::clone(&app.store);
    let read = tokio::task::spawn_blocking(move || (statistics.statistics(), process::families()));
    let mut families = app.metrics.families();
    families.extend(channels(app, &registry));
    if let Ok((statistics, process)) = read.await {
        families.extend(store::families(statistics));
        families.extend(process);
    }
    let start = Family::gauge("process_start_time_seconds", "When the server started, in seconds since 1970.");
    families.push(start.with(app.started_at.millis() as f64 / 1_000.0));
    let mut build = Family::gauge("conductor_build_info", "The version of this server; always 1.");
    build.add([("version", Text::Word(env!("CARGO_PKG_VERSION")))], 1);
    families.push(build);
    families
}

/// Asks the store for the oldest that waits of each tenant, as far as there is time.
async fn look_for_oldest(app: &App, registry: &Registry) -> Result<(), StoreError> {
    let began = Instant::now();
    let mut tenants: Vec<&Arc<Tenant>> = registry.tenants().filter(|tenant| waits(app, tenant) > 0).collect();
    tenants.sort_unstable_by_key(|tenant| tenant.id);
    let from = app.looked_through.load(Ordering::Relaxed) % tenants.len().max(1);
    tenants.rotate_left(from);
    for (done, tenant) in tenants.iter().enumerate() {
        if began.elapsed() > LOOK_MAX {
            app.looked_through.store(from + done, Ordering::Relaxed);
            break;
        }
        let ids: Vec<ChannelId> = tenant.channels.iter().map(|channel| channel.id).collect();
        let found = app.store.oldest(tenant.id, &ids).await?;
        let mut oldest: BTreeMap<&'static str, Timestamp> = BTreeMap::new();
        for (channel, at) in found {
            if let Some(kind) = tenant.channel(channel).map(|channel| channel.kind) {
                oldest.entry(kind).and_modify(|first| *first = at.min(*first)).or_insert(at);
            }
        }
        for (kind, at) in oldest {
            app.metrics.saw_oldest(tenant.id, kind, at);
        }
    }
    Ok(())
}

fn waits(app: &App, tenant: &Tenant) -> u64 {
    tenant.channels.iter().map(|channel| app.store.waiting(channel.id)).sum()
}

/// How the channels of one tenant and type stand.
#[derive(Default)]
struct Standing {
    depth: u64,
    oldest: Option<Timestamp>,
    up: u64,
    down: u64,
    unknown: u64,
    breaker: u64,
    pause: u64,
}

impl Standing {
    fn add(&mut self, channel: &LiveChannel, depth: u64, oldest: Option<Timestamp>, now: Timestamp) {
        let state = channel.state();
        self.depth += depth;
        if depth > 0 {
            self.oldest = self.oldest.into_iter().chain(oldest).min();
        }
        match state.health {
            Health::Up => self.up += 1,
            Health::Down { .. } => self.down += 1,
            Health::Unknown => self.unknown += 1,
        }
        self.breaker += u64::from(state.breaker != Breaker::Closed);
        self.pause += u64::from(state.paused_until.is_some_and(|until| until > now));
    }
}

/// How deep the queues are, and what holds the channels up.
fn channels(app: &App, registry: &Registry) -> [Family; 4] {
    let now = app.clock.now();
    let mut standings: BTreeMap<Series, Standing> = BTreeMap::new();
    for tenant in registry.tenants() {
        let kinds: BTreeSet<&'static str> = tenant.channels.iter().map(|channel| channel.kind).collect();
        let seen: BTreeMap<_, _> = kinds.iter().map(|kind| (*kind, app.metrics.oldest_seen(tenant.id, kind))).collect();
        for channel in &tenant.channels {
            let standing = standings.entry(app.metrics.series(tenant.id, channel.kind)).or_default();
            standing.add(channel, app.store.waiting(channel.id), seen[channel.kind], now);
        }
    }
    let mut depth = Family::gauge("conductor_queue_depth", "Deliveries that have not ended.");
    let mut age = Family::gauge(
        "conductor_queue_oldest_age_seconds",
        "How long ago the oldest notification that has not ended was accepted; 0 where none waits.",
    );
    let mut health = Family::gauge("conductor_channels", "Channels, by whether their provider takes messages.");
    let mut held_up = Family::gauge("conductor_channels_held_up", "Channels that send nothing for now, by the cause.");
    for (series, standing) in standings {
        depth.add(series.labels(), standing.depth);
        age.add(series.labels(), standing.oldest.map_or(0.0, |at| now.since(at).as_secs_f64()));
        for (word, count) in [("up", standing.up), ("down", standing.down), ("unknown", standing.unknown)] {
            health.add(series.labels_with("health", word), count);
        }
        for (word, count) in [("breaker", standing.breaker), ("pause", standing.pause)] {
            held_up.add(series.labels_with("cause", word), count);
        }
    }
    [depth, age, health, held_up]
}
