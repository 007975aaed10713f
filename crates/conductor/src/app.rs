//! What the parts of the running server share.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use arc_swap::ArcSwap;
use conductor_channels::Plugin;
use conductor_core::{Clock, Store, StoreError, Timestamp};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::ids::IdGenerator;
use crate::outcomes::{Outcomes, ReplaySignals};
use crate::registry::Registry;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::traces::Tracer;

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
        metrics.configuration.begun(1, started_at);
        Self {
            store,
            clock,
            ids,
            outcomes: Outcomes::default(),
            replays: ReplaySignals::default(),
            metrics,
            tracer: Tracer::off(),
            started_at,
            reading: Mutex::default(),
            looked_through: AtomicUsize::new(0),
            plugins,
            stop,
            registry: ArcSwap::from_pointee(registry),
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
}
