//! Who asks. A handler without a [`Caller`] cannot name a tenant.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, header};
use conductor_core::{NotificationId, Rate, Store};

use crate::api::Api;
use crate::api::error::{ApiError, ErrorKind};
use crate::registry::{Registry, Tenant};

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// The tenant whose key came with the request, in one snapshot of the configuration.
pub(crate) struct Caller {
    /// The tenant.
    pub(crate) tenant: Arc<Tenant>,
}

/// The operator, or anybody where no operator's key is configured.
pub(crate) struct Operator;

/// The operator, and nobody where no operator's key is configured: for what changes something, or shows what is
/// tenants'.
pub(crate) struct OperatorOnly;

impl FromRequestParts<Arc<Api>> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, ApiError> {
        let registry = api.app.registry();
        let tenant = tenant(&registry, parts)?;
        if let Some(limit) = &tenant.requests {
            limit.check().map_err(|wait| too_many(limit.rate, wait))?;
        }
        Ok(Self { tenant })
    }
}

impl FromRequestParts<Arc<Api>> for Operator {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, ApiError> {
        let registry = api.app.registry();
        if registry.is_admin_key("").is_none() {
            return Ok(Self);
        }
        match registry.is_admin_key(&key(&parts.headers)?) {
            Some(true) => Ok(Self),
            _ => Err(wrong_key(parts, "This needs the operator's key, CONDUCTOR_ADMIN_KEY; the key sent is another.")),
        }
    }
}

impl FromRequestParts<Arc<Api>> for OperatorOnly {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, ApiError> {
        if api.app.registry().is_admin_key("").is_none() {
            let error = "This is for the operator and is off: set CONDUCTOR_ADMIN_KEY to turn it on.";
            return Err(ApiError::new(ErrorKind::NoOperator, error));
        }
        Operator::from_request_parts(parts, api).await.map(|_| Self)
    }
}

impl Caller {
    /// How many more notifications may wait. None: any number.
    pub(crate) fn room(&self, store: &dyn Store) -> Option<u64> {
        let queued: u64 = self.tenant.channels.iter().map(|channel| store.waiting(channel.id)).sum();
        Some(self.tenant.queued?.saturating_sub(queued))
    }

    /// The answer where there is no room.
    pub(crate) fn queue_full(&self) -> ApiError {
        let max = self.tenant.queued.unwrap_or_default();
        let error =
            format!("As many notifications wait as this tenant may have ({max}). Try again when some have left.");
        ApiError::new(ErrorKind::QueueFull, error)
            .retry_after(QUEUE_RETRY_AFTER)
            .with_header(RATE_LIMIT_POLICY, &format!("\"queued\";q={max}"))
            .with_header(RATE_LIMIT, &format!("\"queued\";r=0;t={QUEUE_RETRY_AFTER}"))
    }
}

/// Seconds after which to try again when the queue is full.
const QUEUE_RETRY_AFTER: u64 = 10;

fn tenant(registry: &Registry, parts: &Parts) -> Result<Arc<Tenant>, ApiError> {
    let key = key(&parts.headers)?;
    let tenant = registry.tenant_of_key(&key);
    tenant.cloned().ok_or_else(|| wrong_key(parts, "The key in the Authorization header is not known."))
}

fn wrong_key(parts: &Parts, error: &str) -> ApiError {
    let client = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip().to_string());
    tracing::warn!(client.address = client, "A request with a wrong key was refused");
    ApiError::new(ErrorKind::WrongKey, error)
}

/// The key as `Bearer <key>` or bare.
fn key(headers: &HeaderMap) -> Result<String, ApiError> {
    let missing = || {
        let error = "The request has no key. Send the header \"Authorization: Bearer <key>\".";
        ApiError::new(ErrorKind::MissingKey, error)
    };
    let value = headers.get(header::AUTHORIZATION).ok_or_else(missing)?;
    let text = String::from_utf8_lossy(value.as_bytes());
    let text = text.trim();
    let key = match text.split_once(|letter: char| letter.is_ascii_whitespace()) {
        Some((scheme, key)) if scheme.eq_ignore_ascii_case("bearer") => key.trim(),
        _ if text.eq_ignore_ascii_case("bearer") => "",
        _ => text,
    };
    if key.is_empty() { Err(missing()) } else { Ok(key.to_owned()) }
}

fn too_many(rate: Rate, wait: Duration) -> ApiError {
    let seconds = whole_seconds(wait);
    let window = whole_seconds(rate.per);
    let quota = f64::from(rate.limit.get()) * (window as f64) / rate.per.as_secs_f64();
    ApiError::new(ErrorKind::RateLimited, format!("Too many requests. Try again in {seconds} s."))
        .retry_after(seconds)
        .with_header(RATE_LIMIT_POLICY, &format!("\"requests\";q={};w={window}", quota.floor()))
        .with_header(RATE_LIMIT, &format!("\"requests\";r=0;t={seconds}"))
}

/// Rounded up, and at least one.
fn whole_seconds(duration: Duration) -> u64 {
    (duration.as_secs() + u64::from(duration.subsec_nanos() > 0)).max(1)
}

/// A notification's id in the path. One that is no id is answered like one that nobody has.
pub(crate) struct NotificationPath(pub(crate) NotificationId);

impl<S: Send + Sync> FromRequestParts<S> for NotificationPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = axum::extract::Path::<String>::from_request_parts(parts, state).await;
        let id = path.ok().and_then(|axum::extract::Path(text)| text.parse().ok());
        id.map(Self).ok_or_else(unknown_notification)
    }
}

/// The answer where a tenant has no such notification, which may be another tenant's.
pub(crate) fn unknown_notification() -> ApiError {
    ApiError::new(ErrorKind::NotFound, "There is no notification with this id.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;
    use std::num::NonZeroU32;

    fn read(value: &str) -> Result<String, u16> {
        let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
        let headers = HeaderMap::from_iter([(header::AUTHORIZATION, value)]);
        key(&headers).map_err(|error| error.status().as_u16())
    }

    #[test]
    fn a_key_is_read_with_and_without_bearer() {
        for value in ["Bearer abc", "bearer abc", "BEARER   abc ", "abc", " abc"] {
            assert_eq!(read(value).as_deref(), Ok("abc"), "{value}");
        }
        assert_eq!(read("Basic abc").as_deref(), Ok("Basic abc"));
        for value in ["", " ", "Bearer", "Bearer "] {
            assert_eq!(read(value), Err(401), "{value:?}");
        }
    }

    #[test]
    fn the_policy_is_told_in_whole_seconds() {
        let five = NonZeroU32::new(5).unwrap();
        for (per, q, w) in [(500, 10, 1), (1000, 5, 1), (60_000, 5, 60), (1500, 6, 2)] {
            let rate = Rate { limit: five, per: Duration::from_millis(per), burst: five };
            let response = axum::response::IntoResponse::into_response(too_many(rate, Duration::from_millis(1200)));
            assert_eq!(response.headers()["ratelimit-policy"], format!("\"requests\";q={q};w={w}"));
            assert_eq!(response.headers()["ratelimit"], "\"requests\";r=0;t=2");
            assert_eq!(response.headers()["retry-after"], "2");
        }
    }
}
