//! Around every request: its id, one log line, the headers that every answer carries, and what becomes of a panic.

use std::any::Any;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tracing::Instrument;
use uuid::Uuid;

use crate::api::client::Proxies;
use crate::api::error::{ApiError, ErrorKind};
use crate::api::quota::Told;

/// The header that names a request.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The longest id that is taken from the caller, in characters.
const REQUEST_ID_MAX: usize = 128;

/// Gives the request an id, writes one line when it has been answered, and completes the answer's headers.
pub(crate) async fn observe(State(proxies): State<Proxies>, mut request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    let method = request.method().clone();
    // The route, not the path: what a caller pastes into an address may be a key.
    let path = request.extensions().get::<MatchedPath>().map_or("unknown", MatchedPath::as_str).to_owned();
    let client = proxies.find(request.extensions(), request.headers());
    client.map(|client| request.extensions_mut().insert(client));
    let told = Told::default();
    request.extensions_mut().insert(told.clone());
    let began = Instant::now();
    let span = tracing::info_span!("request", request.id = %id.to_str().unwrap_or_default());
    async {
        let mut response = next.run(request).await;
        complete(response.headers_mut(), id);
        told.complete(response.headers_mut());
        let status = response.status().as_u16();
        let duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let id = response.headers().get(REQUEST_ID).and_then(|id| id.to_str().ok());
        // A question changes nothing, and a probe asks every few seconds.
        if method.is_safe() {
            tracing::debug!(request.id = id, http.method = %method, http.path = %path, http.status = status,
                duration_ms, "Request answered");
        } else {
            let place = response.headers().get(header::LOCATION).and_then(|place| place.to_str().ok());
            let notification = place.and_then(|place| place.rsplit('/').next());
            tracing::info!(request.id = id, notification.id = notification, http.method = %method, http.path = %path,
                http.status = status, duration_ms, "Request answered");
        }
        response
    }
    .instrument(span)
    .await
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
pub(crate) fn panicked(_panic: Box<dyn Any + Send>) -> Response {
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
