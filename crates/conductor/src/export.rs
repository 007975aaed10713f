//! Sends spans and metrics to the operator's collector over OTLP. Its trouble is its own: what cannot be sent is dropped
//! and counted, and nothing else waits for it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use conductor_channels::http::{HttpClient, HttpClients, Request, place, retry_after};
use conductor_core::Timestamp;
use http::HeaderValue;
use http::header::{CONTENT_TYPE, USER_AGENT};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::readings;
use crate::telemetry::otlp::{self, Settings, Target};
use crate::telemetry::traces::{Ended, Tracer};

/// So often one request is tried, where its answer says that another try may help.
const TRIES_MAX: u32 = 4;
/// The wait before the second try, twice as long before each further one.
const WAIT_FIRST: Duration = Duration::from_secs(1);
/// The longest wait, also where the collector asks for more.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// The time that a request under way still has when the server stops.
const LAST_MAX: Duration = Duration::from_secs(1);
/// And how long all of it takes then, at the most.
const END_MAX: Duration = Duration::from_secs(3);

/// What exports, once it runs.
pub struct Exporter {
    settings: Settings,
    client: HttpClient,
    spans: mpsc::Receiver<Ended>,
}

impl Exporter {
    /// Has the parts of a server make spans, where the settings say that they go anywhere.
    pub fn of(app: &mut App, settings: Settings, http: &HttpClients) -> Self {
        let (sender, spans) = mpsc::channel(settings.queue);
        if settings.traces.is_some() {
            let dropped = Arc::clone(&app.metrics.spans_dropped);
            app.tracer = Tracer::new(settings.sampler, Arc::clone(&app.clock), sender, dropped);
        }
        // The operator's own address, from the environment: a collector is most often on a private one.
        let everywhere = [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())];
        Self { settings, client: http.client(&everywhere), spans }
    }

    /// Exports until `end`, and then once more what there is, for [`END_MAX`] at the most.
    pub async fn run(self, app: Arc<App>, end: CancellationToken) {
        let Self { settings, client, spans } = self;
        let line = |what, target| Line { app: &app, client: &client, end: &end, what, target, failing: false };
        let traces = async {
            if let Some(target) = &settings.traces {
                send_spans(line("Traces", target), &settings, spans).await;
            }
        };
        let metrics = async {
            if let Some(target) = &settings.metrics {
                send_metrics(line("Metrics", target), &settings).await;
            }
        };
        let all = async { tokio::join!(traces, metrics) };
        let over = async {
            end.cancelled().await;
            tokio::time::sleep(END_MAX).await;
        };
        tokio::select! {
            _ = all => {}
            () = over => tracing::warn!("The last traces and metrics could not be exported in time"),
        }
    }
}

async fn send_spans(mut line: Line<'_>, settings: &Settings, mut spans: mpsc::Receiver<Ended>) {
    loop {
        let mut batch = Vec::new();
        let first = tokio::select! {
            () = line.end.cancelled() => 0,
            count = spans.recv_many(&mut batch, settings.batch) => count,
        };
        if first > 0 {
            let full = async {
                while batch.len() < settings.batch {
                    let room = settings.batch - batch.len();
                    if spans.recv_many(&mut batch, room).await == 0 {
                        return;
                    }
                }
            };
            tokio::select! {
                () = line.end.cancelled() => {}
                () = tokio::time::sleep(settings.delay) => {}
                () = full => {}
            }
        }
        if line.end.is_cancelled() {
            while batch.len() < settings.batch
                && let Ok(span) = spans.try_recv()
            {
                batch.push(span);
            }
            if batch.is_empty() {
                return;
            }
        }
        let body = otlp::traces_body(&settings.resource, &batch);
        if !line.post(body.into()).await {
            line.app.metrics.spans_dropped.fetch_add(batch.len() as u64, Ordering::Relaxed);
            if line.end.is_cancelled() {
                return;
            }
        }
    }
}

async fn send_metrics(mut line: Line<'_>, settings: &Settings) {
    let nanos = |at: Timestamp| u64::try_from(at.millis()).unwrap_or(0).saturating_mul(1_000_000);
    loop {
        tokio::select! {
            () = line.end.cancelled() => {}
            () = tokio::time::sleep(settings.every) => {}
        }
        let is_last = line.end.is_cancelled();
        let families = readings::families(line.app).await;
        let (start, now) = (nanos(line.app.started_at), nanos(line.app.clock.now()));
        for part in otlp::in_parts(families) {
            if !line.post(otlp::metrics_body(&settings.resource, &part, start, now).into()).await {
                break;
            }
        }
        if is_last {
            return;
        }
    }
}

/// The way of one signal to its collector.
struct Line<'a> {
    app: &'a App,
    client: &'a HttpClient,
    end: &'a CancellationToken,
    what: &'static str,
    target: &'a Target,
    failing: bool,
}

impl Line<'_> {
    /// Sends one request, again where that may help. Returns whether it was taken. A collector that stays away is told of
    /// once.
    async fn post(&mut self, body: Bytes) -> bool {
        let mut wait = WAIT_FIRST;
        let mut tries = 0;
        let error = loop {
            tries += 1;
            let (error, asked) = match self.try_once(body.clone()).await {
                Ok(()) => {
                    if std::mem::take(&mut self.failing) {
                        tracing::info!("{} are exported again", self.what);
                    }
                    return true;
                }
                Err(Refused { error, again: None }) => break error,
                Err(Refused { error, again: Some(asked) }) => (error, asked),
            };
            if tries == TRIES_MAX || self.end.is_cancelled() {
                break error;
            }
            let jittered = wait.mul_f64(0.75 + fastrand::f64() / 2.0);
            tokio::select! {
                () = self.end.cancelled() => {}
                () = tokio::time::sleep(jittered.max(asked).min(WAIT_MAX)) => {}
            }
            wait *= 2;
        };
        self.app.metrics.exports_failed.fetch_add(1, Ordering::Relaxed);
        if !std::mem::replace(&mut self.failing, true) {
            let (what, place) = (self.what, place(&self.target.url));
            tracing::warn!(error, "{what} cannot be exported to {place}: they are dropped until that works again");
        }
        false
    }

    async fn try_once(&self, body: Bytes) -> Result<(), Refused> {
        let mut request = Request::post(self.target.url.clone()).timeout(self.target.timeout);
        request.headers = self.target.headers.clone();
        request.body = body;
        let agent = HeaderValue::from_static(concat!("Conductor/", env!("CARGO_PKG_VERSION")));
        let request =
            request.header(CONTENT_TYPE, HeaderValue::from_static(otlp::CONTENT_TYPE)).header(USER_AGENT, agent);
        let over = async {
            self.end.cancelled().await;
            tokio::time::sleep(LAST_MAX).await;
        };
        let answer = tokio::select! {
            answer = self.client.send(request) => answer,
            () = over => return Err(Refused { error: "no answer before the server stopped".to_owned(), again: None }),
        };
        let answer = answer.map_err(|error| Refused { error: error.to_string(), again: Some(Duration::ZERO) })?;
        let status = answer.status.as_u16();
        if answer.status.is_success() {
            return Ok(());
        }
        let asked = || retry_after(&answer.headers, self.app.clock.now()).unwrap_or_default();
        let again = matches!(status, 429 | 502..=504).then(asked);
        Err(Refused { error: format!("the collector answered {status}"), again })
    }
}

/// Why a request was not taken.
struct Refused {
    error: String,
    /// Where another try may help: how long to wait for it at least.
    again: Option<Duration>,
}
