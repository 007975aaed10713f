//! One life of the process: the real store, registry and dispatcher, from a start to a stop or a crash.

use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use conductor::app::App;
use conductor::config::{ChannelConfig, CommonOptions, Configuration, Readings, TenantConfig};
use conductor::dispatch::{self, Bounds, Capacity};
use conductor::ids::IdGenerator;
use conductor::registry::Registry;
use conductor_channels::http::HttpClients;
use conductor_core::{ChannelId, Clock, Keep, ManualClock, OnUnknown, Rate, TenantId};
use conductor_store::SqliteStore;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::provider::PLUGINS;

/// Longer than any trial: only the trial ends a send.
const ATTEMPT: Duration = Duration::from_secs(100_000);

/// What a channel is like.
pub(crate) struct Shape {
    pub(crate) tenant: u8,
    pub(crate) ordered: bool,
    pub(crate) hold: bool,
    pub(crate) dedupes: bool,
    pub(crate) max: u32,
    /// Seconds between sends, and how many may go at once.
    pub(crate) pace: Option<(u64, u32)>,
}

const PLAIN: Shape = Shape { tenant: 0, ordered: false, hold: false, dedupes: false, max: 3, pace: None };

/// The channels of a trial.
pub(crate) const CHANNELS: [Shape; 6] = [
    PLAIN,
    Shape { ordered: true, ..PLAIN },
    Shape { hold: true, max: 1, ..PLAIN },
    Shape { tenant: 1, pace: Some((2, 2)), ..PLAIN },
    Shape { tenant: 1, ordered: true, hold: true, max: 1, ..PLAIN },
    Shape { tenant: 1, hold: true, dedupes: true, max: 2, ..PLAIN },
];
/// A channel of its own tenant that takes everything at once: what goes through it shows that the dispatcher has had
/// its turn.
pub(crate) const NUDGED: usize = CHANNELS.len();
const WEIGHTS: [u32; 3] = [1, 3, 1];

pub(crate) fn tenant_id(number: u8) -> TenantId {
    TenantId::from_bytes([0x10 + number; 16])
}

pub(crate) fn channel_id(number: usize) -> ChannelId {
    ChannelId::from_bytes([0xc0 + u8::try_from(number).unwrap(); 16])
}

/// The tenant of a channel.
pub(crate) fn tenant_of(channel: usize) -> u8 {
    CHANNELS.get(channel).map_or(2, |shape| shape.tenant)
}

/// The kind of a channel.
pub(crate) fn kind_of(channel: usize) -> &'static str {
    PLUGINS[usize::from(CHANNELS.get(channel).is_some_and(|shape| shape.dedupes))].kind
}

fn channel(number: usize) -> ChannelConfig {
    let shape = CHANNELS.get(number).unwrap_or(&PLAIN);
    let nonzero = |number| NonZeroU32::new(number).unwrap();
    let rate = |(seconds, burst)| Rate { limit: nonzero(1), per: Duration::from_secs(seconds), burst: nonzero(burst) };
    ChannelConfig {
        id: channel_id(number),
        name: format!("channel {number}"),
        tenant: tenant_id(tenant_of(number)),
        plugin: PLUGINS[usize::from(shape.dedupes)],
        common: CommonOptions {
            timeout: ATTEMPT,
            max_concurrency: Some(shape.max),
            rate: shape.pace.map(rate),
            ordered: shape.ordered,
            on_unknown: if shape.hold { OnUnknown::Hold } else { OnUnknown::Retry },
            ..CommonOptions::default()
        },
        values: serde_json::Map::from_iter([("obliging".to_owned(), (number == NUDGED).into())]).into(),
    }
}

fn configuration() -> Configuration {
    let tenant = |number: u8| TenantConfig {
        id: tenant_id(number),
        name: format!("tenant {number}"),
        key_variable: String::new(),
        keys: Vec::new(),
        weight: WEIGHTS[usize::from(number)],
        requests: None,
        queued: None,
        bytes: None,
        callbacks: Vec::new(),
        retention: None,
        redact_after: None,
    };
    Configuration {
        otlp: None,
        tenants: (0..3).map(tenant).collect(),
        channels: (0..=NUDGED).map(channel).collect(),
        plugins: PLUGINS.to_vec(),
        admin_key: None,
        keep: Keep::default(),
        readings: Readings::default(),
        hash: String::new(),
    }
}

/// A process that runs, as far as it runs while [`Life::run`] waits.
pub(crate) struct Life {
    pub(crate) app: Arc<App>,
    runtime: Runtime,
    work: TaskTracker,
}

impl Life {
    /// Starts a process on what the one before has left.
    pub(crate) fn begin(directory: &Path, clock: &Arc<ManualClock>, capacity: Capacity) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let clock: Arc<dyn Clock> = Arc::<ManualClock>::clone(clock);
        let store = SqliteStore::open(directory, Arc::clone(&clock)).unwrap();
        let ids = IdGenerator::after(store.latest());
        let http = HttpClients::new();
        let registry = Registry::build(configuration(), &http, &clock, None);
        let registry = runtime.block_on(registry).unwrap();
        let stop = CancellationToken::new();
        let app = Arc::new(App::new(Arc::new(store), clock, ids, PLUGINS, registry, stop.clone()));
        let work = TaskTracker::new();
        let bounds = Bounds { capacity, ..Bounds::default() };
        work.spawn_on(dispatch::run(Arc::clone(&app), bounds, work.clone(), stop), runtime.handle());
        Self { app, runtime, work }
    }

    /// Lets the process run until this is done.
    pub(crate) fn run<T>(&self, until: impl Future<Output = T>) -> T {
        self.runtime.block_on(until)
    }

    /// The dispatcher begins nothing more.
    pub(crate) fn begin_to_stop(&self) {
        self.app.stop.cancel();
        self.work.close();
    }

    /// Ends as a stop does when its time has passed: what is still under way is left.
    pub(crate) fn stop(self) {
        self.runtime.block_on(self.app.store.close());
    }

    /// Ends as `kill -9` does, after the tasks have had so many turns.
    pub(crate) fn crash(self, turns: u8) {
        self.runtime.block_on(async {
            for _ in 0..turns {
                tokio::task::yield_now().await;
            }
        });
        // The tasks go first: they hold the store.
        drop(self.runtime);
        assert_eq!(Arc::strong_count(&self.app), 1, "nobody else holds what a dead process held");
    }
}
