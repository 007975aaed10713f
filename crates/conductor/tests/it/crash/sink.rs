//! A provider that has its moods: it takes most of what comes, fails now and then, and asks to be left alone.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, StatusCode, Uri};
use serde_json::Value;

/// The header in which each process says which one it is.
pub(super) const LIFE: &str = "x-life";
/// The path that takes nothing.
pub(super) const REFUSING: &str = "/refusing";
/// The path that asks for patience more often than the others.
pub(super) const LIMITED: &str = "/limited";
/// The path where one that fails holds up those behind it.
pub(super) const ORDERED: &str = "/ordered";
/// Of a thousand requests, so many are answered 500, and so many 429.
const FAILING: u32 = 25;
const FAILING_IN_ORDER: u32 = 8;
const LIMITING: u32 = 2;
const LIMITING_MORE: u32 = 10;

/// One request, and what was answered.
#[derive(Debug, Clone)]
pub(super) struct Arrival {
    /// The notification.
    pub(super) id: String,
    /// The delivery's own id, by which a receiver knows a double.
    pub(super) delivery: String,
    pub(super) path: String,
    pub(super) target: String,
    /// The process that has sent it, counted from 0.
    pub(super) life: usize,
    pub(super) at: Instant,
    pub(super) status: u16,
    /// When the answer was given; none where the asker was gone before.
    pub(super) answered: Option<Instant>,
}

impl Arrival {
    pub(super) fn is_taken(&self) -> bool {
        self.status == 200
    }
}

#[derive(Debug)]
struct Sink {
    seed: u64,
    arrivals: Mutex<Vec<Arrival>>,
}

/// The running provider.
#[derive(Debug, Clone)]
pub(super) struct MoodyProvider {
    sink: Arc<Sink>,
    base: String,
}

impl MoodyProvider {
    /// Its moods follow from `seed`.
    pub(super) async fn start(seed: u64) -> Self {
        let sink = Arc::new(Sink { seed, arrivals: Mutex::default() });
        let router = Router::new().fallback(answer).with_state(Arc::clone(&sink));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let base = format!("http://{}", listener.local_addr().expect("an address"));
        #[expect(clippy::disallowed_methods, reason = "the test's runtime ends it")]
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { sink, base }
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// All that came, in the order of the processes, and of each in the order in which it came.
    pub(super) fn arrivals(&self) -> Vec<Arrival> {
        let mut arrivals = self.sink.arrivals.lock().unwrap().clone();
        arrivals.sort_by_key(|arrival| (arrival.life, arrival.at));
        arrivals
    }
}

impl Sink {
    fn mood(&self, path: &str, number: usize) -> u16 {
        if path == REFUSING {
            return 400;
        }
        let limiting = if path == LIMITED { LIMITING_MORE } else { LIMITING };
        let failing = if path == ORDERED { FAILING_IN_ORDER } else { FAILING };
        match fastrand::Rng::with_seed(self.seed ^ number as u64).u32(0..1_000) {
            roll if roll < failing => 500,
            roll if roll < failing + limiting => 429,
            _ => 200,
        }
    }
}

async fn answer(State(sink): State<Arc<Sink>>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let body: Value = serde_json::from_slice(&body).expect("a JSON body");
    let text = |name: &str| body["data"][name].as_str().unwrap_or_default().to_owned();
    let (place, status) = {
        let mut arrivals = sink.arrivals.lock().unwrap();
        let status = sink.mood(uri.path(), arrivals.len());
        arrivals.push(Arrival {
            id: text("id"),
            delivery: header("webhook-id"),
            path: uri.path().to_owned(),
            target: text("targetId"),
            life: header(LIFE).parse().expect("a number"),
            at: Instant::now(),
            status,
            answered: None,
        });
        (arrivals.len() - 1, status)
    };
    tokio::time::sleep(Duration::from_millis(1)).await;
    sink.arrivals.lock().unwrap()[place].answered = Some(Instant::now());
    let status = StatusCode::from_u16(status).expect("a status");
    match status {
        StatusCode::TOO_MANY_REQUESTS => (status, [("retry-after", "1")]).into_response(),
        _ => status.into_response(),
    }
}
