//! What the parts of the running server share.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use arc_swap::ArcSwap;
use conductor_channels::Plugin;
use conductor_core::{Clock, Store, StoreError, Timestamp};
use tokio::sync::{Mutex, Notify};
use tokio_util::sync::CancellationToken;

use crate::app::reloads::Reloads;
use crate::ids::IdGenerator;
use crate::outcomes::{Outcomes, ReplaySignals};
use crate::refusals::Refusals;
use crate::registry::Registry;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::traces::Tracer;

pub mod reloads;

/// The running server's shared parts.
pub struct App {
    /// Keeps the notifications.
    pub store: Arc<dyn Store>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Makes new ids.
    pub ids: IdGenerator,
    /// Those who wait for an outcome.
    pub outcomes: Outcomes,
    /// Those who begin bulk retries or wait for their end, and who does them.
    pub replays: ReplaySignals,
    /// Keys that were refused and do not stand in the audit log yet.
    pub refusals: Refusals,
    /// Where a new configuration is asked for.
    pub reloads: Reloads,
    /// What is counted.
    pub metrics: Metrics,
    /// Makes spans of what the server does, where they are exported.
    pub tracer: Tracer,
    /// When the server started.
    pub started_at: Timestamp,
    /// Held by whoever reads all metrics, see [`crate::readings`].
    pub(crate) reading: Mutex<()>,
    /// The place among the tenants from which the next reading looks for what has waited longest.
    pub(crate) looked_through: AtomicUsize,
    /// Every plugin that this build has.
    pub plugins: &'static [Plugin],
    /// Cancelled when the server begins to stop.
    pub stop: CancellationToken,
    registry: ArcSwap<Registry>,
    replaced: Notify,
}

impl App {
    /// Puts the parts together.
    pub fn new(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        ids: IdGenerator,
        plugins: &'static [Plugin],
        registry: Registry,
        stop: CancellationToken,
    ) -> Self {
        let started_at = clock.now();
        let metrics = Metrics::new();
        metrics.follow(registry.channel_types());
        Self {
            store,
            clock,
            ids,
            outcomes: Outcomes::default(),
            replays: ReplaySignals::default(),
            refusals: Refusals::default(),
            reloads: Reloads::default(),
            metrics,
            tracer: Tracer::off(),
            started_at,
            reading: Mutex::default(),
            looked_through: AtomicUsize::new(0),
            plugins,
            stop,
            registry: ArcSwap::from_pointee(registry),
            replaced: Notify::new(),
        }
    }

    /// From now on the store keeps callbacks for the endpoints of the configuration as it is now. To be called whenever
    /// that has been changed.
    ///
    /// # Errors
    /// The store cannot write: whoever sends the callbacks tries it again.
    pub async fn subscribe(&self) -> Result<(), StoreError> {
        self.store.subscribe(self.registry().subscriptions()).await
    }

    /// The configuration now. Take it once for a request or an attempt and pass it down.
    pub fn registry(&self) -> Arc<Registry> {
        self.registry.load_full()
    }

    /// Puts another configuration in the place of the one that is served. Gives that one.
    pub fn replace_registry(&self, next: Arc<Registry>) -> Arc<Registry> {
        self.metrics.follow(next.channel_types());
        let before = self.registry.swap(next);
        self.replaced.notify_one();
        before
    }

    /// Waits until the configuration has been replaced since it was asked for the last time. For the dispatcher.
    pub async fn registry_replaced(&self) {
        self.replaced.notified().await;
    }
}
