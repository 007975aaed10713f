//! A provider on loopback that answers as a test tells it, and remembers what it was sent.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, StatusCode, Uri};
use serde_json::Value;
use tokio::net::TcpSocket;
use tokio_util::sync::CancellationToken;

/// How long a test waits for something that has to happen.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// One request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) at: Instant,
}

impl Received {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a JSON body")
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The text of the message that was sent.
    pub(crate) fn message(&self) -> String {
        self.json()["data"]["message"].as_str().expect("a message").to_owned()
    }
}

/// An answer of the provider.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: &'static str,
    pub(crate) after: Duration,
    /// It does not come before this was canceled.
    pub(crate) held_until: Option<CancellationToken>,
}

impl Answer {
    pub(crate) fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: "", after: Duration::ZERO, held_until: None }
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn after(mut self, time: Duration) -> Self {
        self.after = time;
        self
    }

    pub(crate) fn held_until(mut self, event: &CancellationToken) -> Self {
        self.held_until = Some(event.clone());
        self
    }
}

#[derive(Debug, Default)]
struct Script {
    next: VecDeque<Answer>,
    then: Option<Answer>,
    received: Vec<Received>,
    under_way: usize,
    most_under_way: usize,
}

/// A running provider. It answers 200 unless it is told else.
#[derive(Debug, Clone)]
pub(crate) struct Provider {
    script: Arc<Mutex<Script>>,
    address: SocketAddr,
}

impl Provider {
    pub(crate) async fn start() -> Self {
        Self::start_on(Self::port())
    }

    /// A port of this machine that is taken, and where nobody listens yet.
    pub(crate) fn port() -> TcpSocket {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
        socket
    }

    /// Listens there.
    pub(crate) fn start_on(port: TcpSocket) -> Self {
        let script = Arc::new(Mutex::new(Script::default()));
        let router = Router::new().fallback(answer).with_state(Arc::clone(&script));
        let listener = port.listen(1024).expect("a port that is free");
        let address = listener.local_addr().expect("an address");
        #[expect(clippy::disallowed_methods, reason = "the test's runtime ends it")]
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { script, address }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// The next request gets this answer.
    pub(crate) fn next(&self, answer: Answer) -> &Self {
        self.script.lock().unwrap().next.push_back(answer);
        self
    }

    /// Every request that no other answer is meant for gets this one.
    pub(crate) fn then(&self, answer: Answer) -> &Self {
        self.script.lock().unwrap().then = Some(answer);
        self
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.script.lock().unwrap().received.clone()
    }

    /// The most requests that were under way at once.
    pub(crate) fn most_under_way(&self) -> usize {
        self.script.lock().unwrap().most_under_way
    }

    /// Waits until so many requests have come.
    pub(crate) async fn wait_for(&self, count: usize) -> Vec<Received> {
        let start = Instant::now();
        loop {
            let received = self.received();
            if received.len() >= count {
                return received;
            }
            assert!(start.elapsed() < DEADLINE, "{} of {count} requests came", received.len());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

async fn answer(State(script): State<Arc<Mutex<Script>>>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    // A Discord bot asks beside its sends where the gateway is. Here is none, and no test is about that.
    if uri.path().ends_with("/gateway/bot") {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let answer = {
        let mut script = script.lock().unwrap();
        let path = uri.path().to_owned();
        script.received.push(Received { path, headers, body, at: Instant::now() });
        script.under_way += 1;
        script.most_under_way = script.most_under_way.max(script.under_way);
        script.next.pop_front().or_else(|| script.then.clone()).unwrap_or_else(|| Answer::status(200))
    };
    if let Some(event) = answer.held_until {
        event.cancelled().await;
    }
    tokio::time::sleep(answer.after).await;
    script.lock().unwrap().under_way -= 1;
    let mut response = (StatusCode::from_u16(answer.status).expect("a status"), answer.body).into_response();
    for (name, value) in answer.headers {
        response.headers_mut().insert(name, value.parse().expect("a header's value"));
    }
    response
}
