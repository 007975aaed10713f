//! Taking over a changed configuration while the server runs: load, validate, build, swap, retire.
//!
//! It is refused as a whole or taken over as a whole. What is under way ends with what it began with.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use conductor_channels::http::HttpClients;
use conductor_core::Actor;
use conductor_core::audit::{AuditEvent, AuditKind, Details};
use futures_util::FutureExt as _;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use url::Url;

use crate::app::App;
use crate::app::reloads::{Accepted, Asked, Cause, Refused, Reloaded, Told};
use crate::config::{Configuration, Fault, Loaded, Readings, Report, Severity, Source};
use crate::registry::plan::{ReloadPlan, Version};
use crate::registry::{LiveChannel, Registry};

mod bell;
mod watch;

use watch::Watch;

/// Files that cannot be read in this time, as on a network that hangs, are not waited for.
const LOAD_MAX: Duration = Duration::from_secs(30);
/// And so long may all new channels take to be made.
const BUILD_MAX: Duration = Duration::from_secs(30);
/// The store is waited for no longer when it is told who wants callbacks.
const SUBSCRIBE_MAX: Duration = Duration::from_secs(2);
/// So long is waited until the audit log has it.
const AUDIT_MAX: Duration = Duration::from_secs(5);
/// So often an entry that could not be written is tried again, and so many wait for that at the most.
const AUDIT_PAUSE: Duration = Duration::from_secs(1);
const AUDITS_MAX: usize = 64;
/// Files that could not be read to the end are left alone for so long.
const UNREAD_PAUSE: Duration = Duration::from_secs(5);
/// A plan that is longer stands in the audit log with some of its names only.
const PLAN_MAX_BYTES: usize = 32 * 1024;
/// Attempts under way are waited for so long before their channel is shut down. A text in many parts takes longest.
const RETIRE_MAX: Duration = Duration::from_secs(10 * 60);

/// What a reload is done with.
pub struct Reloader {
    /// What is served.
    pub app: Arc<App>,
    /// Where the configuration comes from.
    pub source: Arc<Source>,
    /// The way out for new channels.
    pub http: HttpClients,
    /// Where providers reach this server for receipts, if they do.
    pub public_url: Option<Url>,
    /// Keeps what waits for the end of attempts.
    pub tracker: TaskTracker,
    /// Room for entries of the audit log that cannot be written yet, see [`room_for_audits`].
    pub audits: Arc<Semaphore>,
}

/// Room for as many entries of the audit log as may wait.
pub fn room_for_audits() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(AUDITS_MAX))
}

/// Takes over what changes until `stop`: when it is asked to, and when the files are others than `readings` says, which
/// is what the present configuration was made from.
pub async fn run(reloader: Reloader, readings: Readings, stop: CancellationToken) {
    let Some(mut asked) = reloader.app.reloads.take() else { return };
    let mut watch = Watch::new(readings);
    loop {
        let (cause, waiting) = tokio::select! {
            () = stop.cancelled() => return,
            first = asked.recv() => {
                let Some(first) = first else { return };
                (first.cause, all(first, &mut asked))
            }
            () = watch.changed() => (Cause::Files, Vec::new()),
        };
        let (reloaded, readings) = reloader.reload(cause).await;
        let is_unread = readings.is_none();
        watch.follow(readings);
        for asked in waiting {
            // Whoever does not wait any more does not have to hear it.
            let _ = asked.answer.send(reloaded.clone());
        }
        if is_unread {
            // They still hold something else than what was read, so that they would be read again at once.
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(UNREAD_PAUSE) => {}
            }
        }
    }
}

/// All who have asked by now.
fn all(first: Asked, asked: &mut mpsc::Receiver<Asked>) -> Vec<Asked> {
    let mut waiting = vec![first];
    while let Ok(next) = asked.try_recv() {
        waiting.push(next);
    }
    waiting
}

impl Reloader {
    /// Reads everything and takes it over if it is good. None: it could not be read, so that nothing is known of it.
    async fn reload(&self, cause: Cause) -> (Reloaded, Option<Readings>) {
        let source = Arc::clone(&self.source);
        let loading = tokio::task::spawn_blocking(move || source.load());
        let (reloaded, readings) = match tokio::time::timeout(LOAD_MAX, loading).await {
            Ok(Ok(Loaded { outcome, readings })) => {
                let reloaded = match outcome {
                    Ok((configuration, report)) => self.take_over(configuration, &report, cause).await,
                    Err(report) => Err(self.refused(report.summary(), told(&report, |_| true))),
                };
                (reloaded, Some(readings))
            }
            Ok(Err(_panic)) => {
                (Err(self.failed("the configuration made its reader panic; report this as a bug")), None)
            }
            Err(_) => (Err(self.failed("the files could not be read in time")), None),
        };
        match &reloaded {
            Ok(accepted) => self.tell_accepted(accepted, cause),
            Err(refused) => self.tell_refused(refused, cause).await,
        }
        (reloaded, readings)
    }

    async fn take_over(&self, configuration: Configuration, report: &Report, cause: Cause) -> Reloaded {
        let before = self.app.registry();
        let public_url = self.public_url.as_ref();
        let building = Registry::build_after(Some(&before), configuration, &self.http, &self.app.clock, public_url);
        let built = tokio::time::timeout(BUILD_MAX, AssertUnwindSafe(building).catch_unwind()).await;
        let next = match built {
            Ok(Ok(Ok(next))) => next,
            Ok(Ok(Err(error))) => return Err(self.failed(&format!("{error:#}"))),
            Ok(Err(_panic)) => return Err(self.failed("a channel's plugin failed unexpectedly")),
            Err(_) => return Err(self.failed("the channels could not be made in time")),
        };
        let plan = ReloadPlan::between(&before, &next);
        let warnings = told(report, |fault| fault.severity == Severity::Warning);
        if plan.is_empty() && next.version().hash == before.version().hash {
            return Ok(Accepted { version: before.version().clone(), plan, is_new: false, warnings });
        }
        let next = Arc::new(next);
        let version = next.version().clone();
        let before = self.app.replace_registry(Arc::clone(&next));
        next.open_channels(Some(&before));
        // Whoever sends the callbacks does it again where it fails or takes long.
        let _ = tokio::time::timeout(SUBSCRIBE_MAX, self.app.subscribe()).await;
        for channel in before.left_behind_by(&next) {
            self.tracker.spawn(retire(channel));
        }
        self.record(&version, &plan, cause).await;
        Ok(Accepted { version, plan, is_new: true, warnings })
    }

    /// Keeps what has changed: the one place that every plan passes.
    async fn record(&self, version: &Version, plan: &ReloadPlan, cause: Cause) {
        tracing::info!(
            config.version = version.number, config.hash = %version.hash, cause = cause.as_str(),
            added = %plan.added, changed = %plan.changed, removed = %plan.removed, operator_key = plan.operator_key,
            "The changed configuration is in use",
        );
        let details = Details::new().number("version", version.number).text("configuration", &version.hash);
        let details = details.text("cause", cause.as_str()).flag("operatorKey", plan.operator_key);
        let whole = serde_json::to_value(plan).unwrap_or_default();
        let details = match whole.to_string().len() {
            ..=PLAN_MAX_BYTES => details.value("plan", &whole),
            // Of each, the names of some and the number of the rest.
            _ => details
                .text("added", &plan.added.to_string())
                .text("changed", &plan.changed.to_string())
                .text("removed", &plan.removed.to_string()),
        };
        self.audit(AuditKind::Configured, details).await;
    }

    /// Adds an entry to the audit log, now or when the store can write again. It is not waited for longer than the server
    /// can do without.
    async fn audit(&self, kind: AuditKind, details: Details) {
        let event = AuditEvent::of_server(kind, Actor::Operator, details);
        let Ok(permit) = Arc::clone(&self.audits).try_acquire_owned() else {
            tracing::warn!(
                "The audit log will not say what became of the configuration: too many entries wait already"
            );
            return;
        };
        let app = Arc::clone(&self.app);
        let kept = self.tracker.spawn(async move {
            keep(&app, event).await;
            drop(permit);
        });
        if tokio::time::timeout(AUDIT_MAX, kept).await.is_err() {
            tracing::warn!("The audit log cannot say yet what became of the configuration; it is tried again");
        }
    }

    fn refused(&self, summary: String, faults: Vec<Told>) -> Refused {
        Refused { folder: self.source.config_dir.display().to_string(), summary, faults }
    }

    /// One reason that is no fault of the files.
    fn failed(&self, reason: &str) -> Refused {
        let report = {
            let mut report = Report::new();
            report.add(Fault::error(reason));
            report
        };
        self.refused(report.summary(), told(&report, |_| true))
    }

    fn tell_accepted(&self, accepted: &Accepted, cause: Cause) {
        let Version { number, loaded_at, .. } = accepted.version;
        match accepted.is_new {
            true => self.app.metrics.configuration.accepted(number, loaded_at),
            false => self.app.metrics.configuration.unchanged(),
        }
        for warning in &accepted.warnings {
            tracing::warn!(
                place = warning.place,
                expected = warning.expected,
                help = warning.help,
                "{}",
                warning.found
            );
        }
        if !accepted.is_new {
            tracing::info!(
                config.version = accepted.version.number,
                cause = cause.as_str(),
                "The configuration was read again, and is as it was",
            );
        }
    }

    async fn tell_refused(&self, refused: &Refused, cause: Cause) {
        self.app.metrics.configuration.refused();
        let Refused { folder, summary, faults } = refused;
        tracing::error!(
            folder,
            summary,
            cause = cause.as_str(),
            "The changed configuration cannot be used: the one before stays in use",
        );
        for fault in faults {
            tracing::error!(place = fault.place, expected = fault.expected, help = fault.help, "{}", fault.found);
        }
        let details = Details::new().text("cause", cause.as_str()).text("summary", summary);
        self.audit(AuditKind::ConfigurationRefused, details).await;
    }
}

/// Writes an entry of the audit log as soon as the store can, unless the server stops before.
async fn keep(app: &App, event: AuditEvent) {
    while let Err(error) = app.store.record(event.clone()).await {
        tracing::debug!(%error, "An entry of the audit log could not be written yet");
        tokio::select! {
            () = app.stop.cancelled() => return,
            () = tokio::time::sleep(AUDIT_PAUSE) => {}
        }
    }
}

/// The faults as a person reads them.
fn told(report: &Report, which: impl Fn(&Fault) -> bool) -> Vec<Told> {
    let told = |fault: &Fault| Told {
        place: fault.place.as_ref().map(ToString::to_string),
        text: fault.to_string(),
        found: fault.found.clone(),
        expected: fault.expected.clone(),
        help: fault.help.clone(),
    };
    report.faults().iter().filter(|fault| which(fault)).map(told).collect()
}

/// Shuts a channel down when its last attempt has ended.
async fn retire(channel: Arc<LiveChannel>) {
    if tokio::time::timeout(RETIRE_MAX, channel.until_unused()).await.is_err() {
        tracing::warn!(
            channel.id = %channel.id, channel.name = %channel.name, attempts = channel.users(),
            "A channel that was removed or changed is shut down though attempts are still under way",
        );
    }
    channel.shut_down().await;
}
