//! `conductor serve`

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::Arc;

use clap::Args;
use conductor_store::{MigrateError, OpenError, SqliteStore};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Ended, Failure, Session, start};
use crate::app::App;
use crate::app::reloads::Cause;
use crate::config::settings::Settings;
use crate::config::{Environment, Source, first_run};
use crate::server::limits::Limits;
use crate::server::{Options, Server, StartError};

const HELP: &str = "\
Example:
  conductor serve
  PORT=8080 DATA_DIR=/var/lib/conductor conductor serve

Makes what is missing of the configuration, checks it, and takes notifications until SIGTERM or SIGINT; a second \
signal ends it at once. A changed configuration is taken over while it runs.
If it fails, it says what to mend, and nothing has been started.";

/// Takes nothing beyond the process settings.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub struct Arguments {}

pub(super) fn run(_: &Arguments, settings: &Settings, session: &mut Session<'_>) -> Result<Ended, Failure> {
    start::install_logs(settings, session);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Failed(format!("the runtime cannot be started: {error}")))?;
    let ended = runtime.block_on(serve(settings, session));
    // A thread that hangs in a read or a name look-up must not hold up the end.
    runtime.shutdown_background();
    ended
}

async fn serve(settings: &Settings, session: &mut Session<'_>) -> Result<Ended, Failure> {
    // The port first: where it is taken, nothing must have been made.
    let listener = listen(&settings.host, settings.port)?;
    let port = listener.local_addr().map_or(settings.port, |address| address.port());
    let metrics_listener = settings.metrics_addr.map(listen_for_metrics).transpose()?;
    // The store next: beside one that cannot be used, nothing is made either.
    if first_run::is_needed(&settings.config_dir)? {
        SqliteStore::probe(&settings.data_dir).map_err(|error| not_started(&error.into(), settings))?;
    }
    let first = start::make_missing(settings, session)?;
    let url = settings.local_url(port);
    write!(session.out, "{}", start::found(&first, settings))?;
    let banner = start::banner(&first, &url);
    let server = match begin(settings, session, listener, metrics_listener).await {
        Ok(server) => server,
        Err(failure) => {
            // The key is shown this once, also when something else is wrong.
            write!(session.out, "{banner}")?;
            return Err(failure);
        }
    };
    // Whoever reads that it serves may send a signal at once.
    let signals = Signals::new()?;
    let version = env!("CARGO_PKG_VERSION");
    let mut text = format!("{banner}\nConductor {version} serves on {url}\n");
    text.push_str(&format!("The API is described on {url}/docs; Ctrl+C stops the server\n"));
    if let Some(address) = server.metrics_address() {
        text.push_str(&format!("Metrics are on http://{address}/metrics\n"));
    }
    // Whoever started it may have stopped reading: no reason to stop serving.
    let _ = session.out.write_all(text.as_bytes()).and_then(|()| session.out.flush());
    tracing::info!(address = %server.address(), version, "Conductor serves");
    wait_and_stop(server, signals).await
}

async fn begin(
    settings: &Settings,
    session: &mut Session<'_>,
    listener: TcpListener,
    metrics_listener: Option<TcpListener>,
) -> Result<Server, Failure> {
    let configuration = start::load(settings, session)?;
    if configuration.admin_key.is_none() {
        tracing::warn!("CONDUCTOR_ADMIN_KEY is not set: everybody who reaches this server may read /metrics");
    }
    let (working_dir, data_dir) = (session.working_dir.clone(), settings.data_dir.clone());
    let source = Source {
        config_dir: settings.config_dir.clone(),
        plugins: session.plugins,
        settings: Some(settings.clone()),
        environment: Box::new(move || Environment::load(&working_dir, &data_dir)),
    };
    let options = Options {
        configuration,
        source,
        data_dir: settings.data_dir.clone(),
        listener,
        metrics_listener,
        plugins: session.plugins,
        public_url: settings.public_url.clone(),
        clock: Arc::clone(&session.clock),
        limits: Limits::of_this_process(),
        audit_kept: settings.audit_retention,
        trusted_proxies: settings.trusted_proxies.clone(),
    };
    Server::start(options).await.map_err(|error| not_started(&error, settings))
}

/// The two signals that stop the server, and the one that has it read its configuration again.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    /// Takes the signals from now on.
    fn new() -> Result<Self, Failure> {
        let failed = |error| Failure::Failed(format!("signals cannot be waited for: {error}"));
        let terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let hang_up = signal(SignalKind::hangup()).map_err(failed)?;
        Ok(Self { terminate, interrupt, hang_up })
    }

    /// Waits for one that stops the server.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// The same, and has the configuration read again as often as that is asked for.
    async fn next_beside_reloads(&mut self, app: &App) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                // Where too many wait for a reload, one is about to be done. The log tells what comes of it.
                _ = self.hang_up.recv() => drop(app.reloads.ask(Cause::Signal)),
            }
        }
    }
}

/// Serves until a signal comes.
async fn wait_and_stop(server: Server, mut signals: Signals) -> Result<Ended, Failure> {
    signals.next_beside_reloads(server.app()).await;
    tracing::info!("Stopping: what is under way may end, the rest stays in the store; a second signal ends it at once");
    tokio::select! {
        () = server.stop() => {
            tracing::info!("Stopped");
            Ok(Ended::Well)
        }
        () = signals.next() => {
            tracing::warn!("Forced to stop: what was under way is done again after the next start");
            Ok(Ended::Badly)
        }
    }
}

pub(super) fn listen(host: &str, port: u16) -> Result<TcpListener, Failure> {
    let refused = |error: &std::io::Error| match error.kind() {
        ErrorKind::AddrInUse => Failure::Refused(format!(
            "port {port} on {host} is taken by another program\n  \
             help: stop that program, or choose another port: PORT={} conductor",
            port.checked_add(1).unwrap_or(3333)
        )),
        ErrorKind::PermissionDenied => Failure::Refused(format!(
            "port {port} on {host} is not allowed to this user\n  \
             help: choose a port from 1024 on: PORT=3333 conductor"
        )),
        _ => Failure::Refused(format!(
            "{host}:{port} cannot be listened on: {error}\n  \
             help: HOST has to be an address of this machine; 0.0.0.0 means all of them"
        )),
    };
    let addresses: Vec<SocketAddr> = (host, port).to_socket_addrs().map_err(|error| refused(&error))?.collect();
    TcpListener::bind(&addresses[..]).map_err(|error| refused(&error))
}

pub(super) fn listen_for_metrics(address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).map_err(|error| {
        Failure::Refused(format!(
            "{address}, the address of METRICS_ADDR, cannot be listened on: {error}\n  \
             help: choose a free port of this machine, such as METRICS_ADDR=127.0.0.1:9333"
        ))
    })
}

/// Why the server did not start, with the mend.
fn not_started(error: &StartError, settings: &Settings) -> Failure {
    let help = match error {
        StartError::Store(error) => mend(error),
        StartError::Channel(_) => "mend the channel's settings; `conductor channel test` tries one",
        StartError::Listener(_) => "try again",
    };
    let data = settings.data_dir.display();
    Failure::Refused(format!("the server cannot start: {error}\n  help: {help} (DATA_DIR is {data})"))
}

/// What to do about a store that cannot be opened.
pub(super) fn mend(error: &OpenError) -> &'static str {
    match error {
        OpenError::Locked(_) => "stop the other one, or give this one a data folder of its own",
        OpenError::Io(..) => "this user has to be able to read and write the data folder",
        OpenError::Migrate(_, MigrateError::Foreign) => {
            "move it away to begin with an empty store, put a backup in its place, or name another data folder"
        }
        OpenError::Migrate(_, MigrateError::Newer { .. }) => {
            "start the newer version of Conductor again, or move the store away and restore a backup from before it"
        }
        OpenError::Migrate(_, MigrateError::Changed(_)) => {
            "start the build of Conductor again that this store was made by, or restore a backup of a released version"
        }
        OpenError::Migrate(_, MigrateError::Failed(..)) => {
            "go on with the version of Conductor before this one, and report this together with the message; see to it \
             that the disk has room"
        }
        OpenError::Damaged(..) => {
            "move it away with its -wal and -shm file, and let `conductor restore` put the last backup in its place; or \
             save what can be read with the command .recover of SQLite's shell, into a new file that then takes its place"
        }
        OpenError::Migrate(_, MigrateError::Engine(_)) | OpenError::Engine(..) => {
            "put the last backup in its place, or move the file away to begin with an empty store"
        }
    }
}
