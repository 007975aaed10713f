//! Around every request: its id, one log line, the headers that every answer carries, and what becomes of a panic.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use axum::extract::{FromRequestParts, MatchedPath, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use conductor_core::TraceContext;
use pin_project_lite::pin_project;
use tower::{Layer, Service};
use tracing::field::{Empty, display};
use uuid::Uuid;

use crate::api::client::Proxies;
use crate::api::error::{ApiError, ErrorKind};
use crate::api::quota::Told;
use crate::app::App;
use crate::telemetry::traces::{Side, Span, Tracer};

/// The header that names a request.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The longest id that is taken from the caller, in characters.
const REQUEST_ID_MAX: usize = 128;

/// What is asked every few seconds, and changes nothing: not worth a span.
const PROBES: &[&str] = &["/health", "/livez", "/readyz", "/metrics"];
/// The header of W3C Trace Context.
const TRACEPARENT: &str = "traceparent";

/// Where the request belongs in a trace: below its own span where there is one, else where its caller says.
pub(crate) struct Traced(pub(crate) Option<TraceContext>);

impl<S: Send + Sync> FromRequestParts<S> for Traced {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(parts.extensions.get().copied()))
    }
}

/// What it needs to observe.
pub(crate) struct Observer {
    pub(crate) app: Arc<App>,
    pub(crate) proxies: Proxies,
}

/// Puts an [`Observed`] around every answer.
#[derive(Clone)]
pub(crate) struct ObserveLayer(Arc<Observer>);

impl ObserveLayer {
    pub(crate) fn new(observer: Observer) -> Self {
        Self(Arc::new(observer))
    }
}

impl<S> Layer<S> for ObserveLayer {
    type Service = Observe<S>;

    fn layer(&self, inner: S) -> Observe<S> {
        Observe { observer: Arc::clone(&self.0), inner }
    }
}

/// A service whose answers are observed. One layer and no more: for every request each is copied, and its future goes to
/// the heap.
#[derive(Clone)]
pub(crate) struct Observe<S> {
    observer: Arc<Observer>,
    inner: S,
}

impl<S: Service<Request, Response = Response, Error = Infallible>> Service<Request> for Observe<S> {
    type Response = Response;
    type Error = Infallible;
    type Future = Observed<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let asked = Asked::begin(&self.observer, &mut request);
        // A route does nothing yet: its handler runs when the answer is polled.
        Observed { answer: self.inner.call(request), asked: Some(asked) }
    }
}

pin_project! {
    /// Writes one line and counts when a request has been answered, completes the answer's headers, and answers where
    /// its handler panics.
    pub(crate) struct Observed<F> {
        #[pin]
        answer: F,
        asked: Option<Asked>,
    }
}

impl<F: Future<Output = Result<Response, Infallible>>> Future for Observed<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let asked = this.asked.as_ref().expect("it is not polled after its end");
        let entered = asked.span.enter();
        let response = match catch_unwind(AssertUnwindSafe(|| this.answer.poll(cx))) {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(Ok(response))) => response,
            Err(_) => panicked(),
        };
        drop(entered);
        let asked = this.asked.take().expect("it was there a moment ago");
        Poll::Ready(Ok(asked.end(response)))
    }
}

/// A request that is being answered.
struct Asked {
    observer: Arc<Observer>,
    id: HeaderValue,
    method: Method,
    path: Option<MatchedPath>,
    told: Told,
    began: Instant,
    traced: Option<Span>,
    span: tracing::Span,
}

impl Asked {
    /// Gives the request an id and a span.
    fn begin(observer: &Arc<Observer>, request: &mut Request) -> Self {
        let Observer { app, proxies } = &**observer;
        let id = request_id(request.headers());
        let method = request.method().clone();
        let path = request.extensions().get::<MatchedPath>().cloned();
        let client = proxies.find(request.extensions(), request.headers());
        client.map(|client| request.extensions_mut().insert(client));
        let told = Told::default();
        request.extensions_mut().insert(told.clone());
        let began = Instant::now();
        let traced = begin(&app.tracer, &method, label(path.as_ref()), request.headers());
        let trace = traced.as_ref().map(Span::context).or_else(|| of_caller(request.headers()));
        let span = tracing::info_span!("request", request.id = %id.to_str().unwrap_or_default(), trace.id = Empty);
        if let Some(trace) = trace {
            span.record("trace.id", display(trace.id()));
            request.extensions_mut().insert(trace);
        }
        Self { observer: Arc::clone(observer), id, method, path, told, began, traced, span }
    }

    fn end(self, mut response: Response) -> Response {
        let Self { observer, id, method, path, told, began, traced, span } = self;
        let _entered = span.enter();
        let path = label(path.as_ref());
        complete(response.headers_mut(), id);
        told.complete(response.headers_mut());
        let status = response.status();
        observer.app.metrics.answered(method.as_str(), path, status.as_str());
        let duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let id = response.headers().get(REQUEST_ID).and_then(|id| id.to_str().ok());
        let place = response.headers().get(header::LOCATION).and_then(|place| place.to_str().ok());
        let notification = place.and_then(|place| place.rsplit('/').next());
        // A question changes nothing, and a probe asks every few seconds.
        if method.is_safe() {
            tracing::debug!(request.id = id, http.method = %method, http.path = path, http.status = status.as_u16(),
                duration_ms, "Request answered");
        } else {
            tracing::info!(request.id = id, notification.id = notification, http.method = %method, http.path = path,
                http.status = status.as_u16(), duration_ms, "Request answered");
        }
        if let Some(traced) = traced {
            end(traced, status, notification);
        }
        response
    }
}

/// The route, not the path: what a caller pastes into an address may be a key.
fn label(path: Option<&MatchedPath>) -> &str {
    path.map_or("unknown", MatchedPath::as_str)
}

/// Begins the request's span, where spans are made and this is worth one.
fn begin(tracer: &Tracer, method: &Method, path: &str, headers: &HeaderMap) -> Option<Span> {
    if PROBES.contains(&path) {
        return None;
    }
    let unknown = !matches!(method.as_str(), "DELETE" | "GET" | "HEAD" | "OPTIONS" | "PATCH" | "POST" | "PUT");
    let method = if unknown { "_OTHER" } else { method.as_str() };
    let mut span = tracer.begin(Side::Server, of_caller(headers), || format!("{method} {path}").into())?;
    span.set("http.request.method", || method.to_owned());
    span.set("http.route", || path.to_owned());
    Some(span)
}

fn end(mut span: Span, status: StatusCode, notification: Option<&str>) {
    span.set("http.response.status_code", || u32::from(status.as_u16()));
    if let Some(id) = notification {
        span.set("conductor.notification.id", || id.to_owned());
    }
    if status.is_server_error() {
        span.set("error.type", || status.as_u16().to_string());
        span.fail();
    }
    span.end();
}

/// What the caller says of the trace that it keeps. Of several that contradict one another, none is believed.
fn of_caller(headers: &HeaderMap) -> Option<TraceContext> {
    let mut values = headers.get_all(TRACEPARENT).iter();
    let (first, second) = (values.next()?, values.next());
    if second.is_some() { None } else { first.to_str().ok()?.trim().parse().ok() }
}

fn request_id(headers: &HeaderMap) -> HeaderValue {
    let sane = |value: &&HeaderValue| {
        (1..=REQUEST_ID_MAX).contains(&value.len()) && value.as_bytes().iter().all(u8::is_ascii_graphic)
    };
    let given = headers.get(REQUEST_ID).filter(sane).cloned();
    given.unwrap_or_else(|| {
        let random = u128::from(fastrand::u64(..)) << 64 | u128::from(fastrand::u64(..));
        let id = uuid::Builder::from_random_bytes(random.to_be_bytes()).into_uuid();
        HeaderValue::from_str(id.hyphenated().encode_lower(&mut Uuid::encode_buffer()))
            .expect("a UUID is visible ASCII")
    })
}

fn complete(headers: &mut HeaderMap, id: HeaderValue) {
    headers.insert(REQUEST_ID, id);
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
}

/// The answer to a request whose handler panicked. The panic itself is in the log.
fn panicked() -> Response {
    tracing::error!("A request made the server panic; this is a fault of the server");
    ApiError::new(ErrorKind::Internal, "The server made a mistake. Its log says more under this X-Request-Id.")
        .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sane_id_is_kept_and_any_other_replaced() {
        let read = |bytes: &[u8]| {
            let headers = HeaderMap::from_iter([(REQUEST_ID, HeaderValue::from_bytes(bytes).unwrap())]);
            request_id(&headers)
        };
        assert_eq!(read(b"abc-1"), "abc-1");
        for bad in [&b"a b"[..], b"", b"\xff", &[b'x'; 129]] {
            let id = read(bad).to_str().unwrap().parse::<Uuid>().unwrap();
            assert_eq!(id.get_version_num(), 4);
        }
        assert_ne!(request_id(&HeaderMap::new()), request_id(&HeaderMap::new()));
    }
}
