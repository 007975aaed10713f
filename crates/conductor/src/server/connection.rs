//! One connection, from its acceptance to its end: it never outlives its use.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::limits::Limits;

/// The most that a request's head may take, in bytes.
const HEAD_MAX_BYTES: usize = 32 * 1024;
/// How many header fields a request may have.
const HEADERS_MAX: usize = 100;
/// How many requests one HTTP/2 connection may have open.
const STREAMS_MAX: u32 = 256;
/// How much a client may send ahead of what is read: on one HTTP/2 request, and on all of a connection, in bytes.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 512 * 1024;
/// How long a client that is told to go may take for it.
const FAREWELL: Duration = Duration::from_secs(1);

/// What a connection has to know of its listener.
#[derive(Clone)]
pub(super) struct House {
    pub(super) router: Router,
    pub(super) limits: Limits,
    pub(super) stop: CancellationToken,
    /// Whether all connections are taken.
    pub(super) crowded: watch::Receiver<bool>,
}

/// Serves one client until it goes, is idle for too long, or the server stops.
pub(super) async fn serve(stream: TcpStream, peer: SocketAddr, house: House) {
    // An answer is small and complete: nothing is gained by waiting for more of it.
    let _ = stream.set_nodelay(true);
    let House { router, limits, stop, mut crowded } = house;
    let activity = Arc::new(Activity::new());
    let noted = Arc::clone(&activity);
    let service = service_fn(move |request: Request<Incoming>| {
        let (router, under_way) = (router.clone(), UnderWay::begin(&noted));
        async move {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(ConnectInfo(peer));
            let answer = router.oneshot(request).await;
            drop(under_way);
            Ok::<_, Infallible>(answer.unwrap_or_else(|never| match never {}))
        }
    });
    let builder = builder(&limits);
    let connection =
        builder.serve_connection(TokioIo::new(Noting { stream, activity: Arc::clone(&activity) }), service);
    tokio::pin!(connection);
    let patience = loop {
        let idle = if *crowded.borrow_and_update() { limits.idle_in_a_crowd } else { limits.idle };
        let idle_at = activity.idle_since().map(|since| since + idle);
        if idle_at.is_some_and(|at| at <= Instant::now()) {
            break FAREWELL;
        }
        tokio::select! {
            ended = connection.as_mut() => return tell(peer, ended),
            () = stop.cancelled() => break limits.last_requests,
            // What is under way now may be over by then.
            () = tokio::time::sleep_until(idle_at.unwrap_or_else(|| Instant::now() + idle)) => {}
            changed = crowded.changed() => {
                if changed.is_err() {
                    break limits.last_requests;
                }
            }
        }
    };
    connection.as_mut().graceful_shutdown();
    match tokio::time::timeout(patience, connection).await {
        Ok(ended) => tell(peer, ended),
        Err(_) => tracing::debug!(client = %peer, "A connection was cut off"),
    }
}

fn builder(limits: &Limits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(HEAD_MAX_BYTES)
        .max_headers(HEADERS_MAX)
        // A client that has said all it has to say may still want the answer.
        .half_close(true)
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(u32::try_from(HEAD_MAX_BYTES).unwrap_or(u32::MAX));
    builder
}

fn tell(peer: SocketAddr, ended: Result<(), Box<dyn std::error::Error + Send + Sync>>) {
    if let Err(error) = ended {
        tracing::debug!(client = %peer, %error, "A connection ended early");
    }
}

/// What happens on a connection.
struct Activity(Mutex<State>);

struct State {
    under_way: usize,
    last: Instant,
}

impl Activity {
    fn new() -> Self {
        Self(Mutex::new(State { under_way: 0, last: Instant::now() }))
    }

    /// Since when nothing has happened; none while a request is under way. What a client sends does not count: it
    /// costs him nothing to send a byte now and then.
    fn idle_since(&self) -> Option<Instant> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (state.under_way == 0).then_some(state.last)
    }

    fn note(&self, change: impl FnOnce(&mut usize)) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state.under_way);
        state.last = Instant::now();
    }
}

/// A request whose answer is not known yet.
struct UnderWay(Arc<Activity>);

impl UnderWay {
    fn begin(activity: &Arc<Activity>) -> Self {
        activity.note(|under_way| *under_way += 1);
        Self(Arc::clone(activity))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.note(|under_way| *under_way -= 1);
    }
}

/// A stream that notes whenever the client has taken something.
struct Noting {
    stream: TcpStream,
    activity: Arc<Activity>,
}

impl Noting {
    fn noted(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if matches!(written, Poll::Ready(Ok(1..))) {
            self.activity.note(|_| {});
        }
        written
    }
}

impl AsyncRead for Noting {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl AsyncWrite for Noting {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.noted(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.noted(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
