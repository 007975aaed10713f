//! The running server: everything wired together, and taken apart again.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use conductor_channels::Plugin;
use conductor_channels::http::HttpClients;
use conductor_core::{Clock, NotificationId, Store};
use conductor_store::{OpenError, SqliteStore};
use futures_util::future::join_all;
use ipnet::IpNet;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use url::Url;

use crate::app::App;
use crate::config::{Configuration, Source};
use crate::dispatch::Bounds;
use crate::export::Exporter;
use crate::ids::IdGenerator;
use crate::registry::Registry;
use crate::reload::Reloader;
use crate::{api, callbacks, dispatch, janitor, reload, replays};

pub mod limits;

mod connection;
mod listen;
mod milestones;

use limits::Limits;

/// How long a stop lets attempts under way end.
pub const STOP_GRACE: Duration = Duration::from_secs(30);

/// What a server is started with.
pub struct Options {
    /// The valid configuration.
    pub configuration: Configuration,
    /// Where it is read again when it has changed.
    pub source: Source,
    /// Where the store lies.
    pub data_dir: PathBuf,
    /// The public port, bound already, so that a taken port is found out before anything is begun.
    pub listener: std::net::TcpListener,
    /// The operator's own port for metrics, bound already.
    pub metrics_listener: Option<std::net::TcpListener>,
    /// Every plugin of this build.
    pub plugins: &'static [Plugin],
    /// Where providers reach this server for receipts, if they do.
    pub public_url: Option<Url>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// What clients may take.
    pub limits: Limits,
    /// How long the audit log is kept; none means for ever.
    pub audit_kept: Option<Duration>,
    /// The proxies that are believed when they say whom they speak for.
    pub trusted_proxies: Vec<IpNet>,
}

/// Why a server did not start. Nothing is left half-started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// A channel cannot be made.
    #[error("{0:#}")]
    Channel(anyhow::Error),
    /// A listener cannot be used.
    #[error("the listening socket cannot be used: {0}")]
    Listener(#[from] std::io::Error),
}

/// A server that serves.
pub struct Server {
    app: Arc<App>,
    address: SocketAddr,
    metrics_address: Option<SocketAddr>,
    /// Stops the dispatcher, the janitor and the listeners.
    stop: CancellationToken,
    /// The loops and the attempts under way.
    work: TaskTracker,
    /// The listeners and their connections.
    connections: TaskTracker,
    /// What exports traces and metrics, and its end: after all that they tell of.
    exports: (TaskTracker, CancellationToken),
}

impl Server {
    /// Opens the store, makes the channels and begins to serve.
    pub async fn start(options: Options) -> Result<Self, StartError> {
        let Options {
            configuration,
            source,
            data_dir,
            listener,
            metrics_listener,
            plugins,
            public_url,
            clock,
            limits,
            audit_kept,
            trusted_proxies,
        } = options;
        let listener = into_async(listener)?;
        let metrics_listener = metrics_listener.map(into_async).transpose()?;
        let address = listener.local_addr()?;
        let metrics_address = metrics_listener.as_ref().map(TcpListener::local_addr).transpose()?;
        let store = SqliteStore::open(&data_dir, Arc::clone(&clock))?;
        let latest = store.latest();
        let ids = IdGenerator::after(latest);
        let (http, readings) = (HttpClients::new(), configuration.readings.clone());
        let exported = configuration.otlp.clone();
        let registry = Registry::build(configuration, &http, &clock, public_url.as_ref()).await;
        let registry = match registry {
            Ok(registry) => registry,
            Err(error) => {
                store.close().await;
                return Err(StartError::Channel(error));
            }
        };
        let stop = CancellationToken::new();
        let mut app = App::new(Arc::new(store), clock, ids, plugins, registry, stop.clone());
        let exporter = exported.map(|settings| Exporter::of(&mut app, settings, &http));
        let app = Arc::new(app);
        let exports = exporting(&app, exporter);
        let registry = app.registry();
        registry.open_channels(None);
        app.metrics.configuration.begun(registry.version().number, registry.version().loaded_at);
        if let Err(error) = app.subscribe().await {
            tracing::warn!(%error, "Who wants callbacks could not be written; it is tried again");
        }
        let (work, connections) = (TaskTracker::new(), TaskTracker::new());
        milestones::started(&app).await;
        let left = limits.left_for_attempts();
        let slots = callbacks::slots(left);
        let bounds = Bounds { descriptors: left.saturating_sub(slots), ..Bounds::default() };
        work.spawn(dispatch::run(Arc::clone(&app), bounds, work.clone(), stop.clone()));
        work.spawn(janitor::run(Arc::clone(&app), stop.clone(), latest.map(NotificationId::made_at), audit_kept));
        work.spawn(callbacks::run(Arc::clone(&app), slots, stop.clone()));
        work.spawn(replays::run(Arc::clone(&app), stop.clone()));
        let source = Arc::new(source);
        let (tracker, audits) = (work.clone(), reload::room_for_audits());
        let reloader = Reloader { app: Arc::clone(&app), source, http, public_url, tracker, audits };
        work.spawn(reload::run(reloader, readings, stop.clone()));
        let router = api::router(Arc::clone(&app), &trusted_proxies);
        connections.spawn(listen::run(listener, router, limits, connections.clone(), stop.clone()));
        if let Some(listener) = metrics_listener {
            let router = api::metrics_router(Arc::clone(&app));
            let limits = limits.of_metrics();
            connections.spawn(listen::run(listener, router, limits, connections.clone(), stop.clone()));
        }
        Ok(Self { app, address, metrics_address, stop, work, connections, exports })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it tells its metrics, if that is a listener of its own.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_address
    }

    /// What its parts share.
    pub fn app(&self) -> &Arc<App> {
        &self.app
    }

    /// Stops: refuses new requests, lets what is under way end for at most [`STOP_GRACE`], shuts the channels down and
    /// closes the store. What has not ended stays there for the next start.
    pub async fn stop(self) {
        self.stop.cancel();
        self.work.close();
        self.connections.close();
        let ended = tokio::time::timeout(STOP_GRACE, async {
            self.connections.wait().await;
            self.work.wait().await;
        });
        if ended.await.is_err() {
            tracing::warn!(
                attempts = self.work.len(),
                connections = self.connections.len(),
                "Not everything ended in time; what is still under way is done again after the next start",
            );
        }
        let registry = self.app.registry();
        join_all(registry.channels().map(|channel| channel.shut_down())).await;
        milestones::stopped(&self.app).await;
        let (exporting, end) = &self.exports;
        end.cancel();
        exporting.close();
        // It ends by itself in less than a few seconds, whatever the collector does.
        tokio::join!(exporting.wait(), self.app.store.close());
    }
}

/// Begins to export, where that is asked for. The token ends it.
fn exporting(app: &Arc<App>, exporter: Option<Exporter>) -> (TaskTracker, CancellationToken) {
    let (exporting, end) = (TaskTracker::new(), CancellationToken::new());
    if let Some(exporter) = exporter {
        exporting.spawn(exporter.run(Arc::clone(app), end.clone()));
    }
    (exporting, end)
}

fn into_async(listener: std::net::TcpListener) -> std::io::Result<TcpListener> {
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}
