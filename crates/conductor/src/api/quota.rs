//! What a tenant has left of its limits, told in the fields `RateLimit` and `RateLimit-Policy` as
//! draft-ietf-httpapi-ratelimit-headers-10 defines them.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use conductor_core::Rate;
use utoipa::openapi::{HeaderBuilder, ObjectBuilder, OpenApi, RefOr, Type};

use crate::api::error::{ApiError, ErrorKind};
use crate::registry::Tenant;
use crate::registry::limit::Left;

pub(crate) const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
pub(crate) const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
/// Seconds after which to try again when too much waits.
const ROOM_RETRY_AFTER: u64 = 10;
/// The names of the policies.
const REQUESTS: &str = "\"requests\"";
const QUEUED: &str = "\"queued\"";
const BYTES: &str = "\"bytes\"";
const FAILURES: &str = "\"failed-authentications\"";

/// Where a request's caller writes down what the answer is to tell. It stands among the request's extensions.
#[derive(Clone, Default)]
pub(crate) struct Told(Arc<OnceLock<Quota>>);

struct Quota {
    tenant: Arc<Tenant>,
    left: Option<Left>,
}

impl Told {
    /// This tenant asks, and has so much left of its rate, if it has one.
    pub(crate) fn of(&self, tenant: &Arc<Tenant>, left: Option<Left>) {
        if tenant.requests.is_some() || tenant.queued.is_some() || tenant.bytes.is_some() {
            let _ = self.0.set(Quota { tenant: Arc::clone(tenant), left });
        }
    }

    /// Completes an answer's headers. What a refusal says of what is left stays.
    pub(crate) fn complete(&self, headers: &mut HeaderMap) {
        let Some(Quota { tenant, left }) = self.0.get() else { return };
        let mut insert = |name: HeaderName, text: String| {
            if let Ok(value) = HeaderValue::try_from(text) {
                headers.entry(name).or_insert(value);
            }
        };
        insert(RATE_LIMIT_POLICY, policy(tenant));
        if let Some(Left { count, reset }) = left {
            insert(RATE_LIMIT, format!("{REQUESTS};r={count};t={}", whole_seconds(*reset)));
        }
    }
}

/// All limits of a tenant.
fn policy(tenant: &Tenant) -> String {
    let requests = tenant.requests.as_ref().map(|limit| rate(REQUESTS, limit.rate));
    let queued = tenant.queued.map(|max| format!("{QUEUED};q={max}"));
    let bytes = tenant.bytes.map(|max| format!("{BYTES};q={max};qu=\"content-bytes\""));
    [requests, queued, bytes].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// The time of the window is told in whole seconds.
fn rate(name: &str, rate: Rate) -> String {
    let window = whole_seconds(rate.per);
    let quota = f64::from(rate.limit.get()) * (window as f64) / rate.per.as_secs_f64();
    format!("{name};q={};w={window}", quota.floor())
}

/// The answer to a tenant that has asked too often.
pub(crate) fn too_many(wait: Duration) -> ApiError {
    let seconds = whole_seconds(wait);
    ApiError::new(ErrorKind::RateLimited, format!("Too many requests. Try again in {seconds} s."))
        .retry_after(seconds)
        .with_header(RATE_LIMIT, &format!("{REQUESTS};r=0;t={seconds}"))
}

/// The answer where as many notifications wait as may.
pub(crate) fn queue_full(max: u64) -> ApiError {
    let error = format!("As many notifications wait as this tenant may have ({max}). Try again when some have left.");
    ApiError::new(ErrorKind::QueueFull, error)
        .retry_after(ROOM_RETRY_AFTER)
        .with_header(RATE_LIMIT, &format!("{QUEUED};r=0;t={ROOM_RETRY_AFTER}"))
}

/// The answer where the notifications that wait leave too little room for one more.
pub(crate) fn bytes_full(max: u64, left: u64) -> ApiError {
    let error = format!(
        "The notifications of this tenant that wait take as many bytes as they may ({max}), but for {left}. Try again \
         when some have left."
    );
    ApiError::new(ErrorKind::QueueFull, error)
        .retry_after(ROOM_RETRY_AFTER)
        .with_header(RATE_LIMIT, &format!("{BYTES};r={left};t={ROOM_RETRY_AFTER}"))
}

/// The answer to an address from which too many authentications have failed.
pub(crate) fn too_many_failures(burst: u64, window: Duration, wait: Duration) -> ApiError {
    let seconds = whole_seconds(wait);
    let error = format!(
        "Too many requests from this address came with a wrong key or signature. What is wrong is looked at again in \
         {seconds} s; a right key is let in at any time."
    );
    ApiError::new(ErrorKind::TooManyFailures, error)
        .retry_after(seconds)
        .with_header(RATE_LIMIT_POLICY, &format!("{FAILURES};q={burst};w={}", window.as_secs()))
        .with_header(RATE_LIMIT, &format!("{FAILURES};r=0;t={seconds}"))
}

/// Rounded up, and at least one.
fn whole_seconds(duration: Duration) -> u64 {
    (duration.as_secs() + u64::from(duration.subsec_nanos() > 0)).max(1)
}

/// Adds the fields to what the document says of each answer to a tenant that is no refusal.
pub(crate) fn describe(document: &mut OpenApi) {
    let header = |about: &str| {
        let text = ObjectBuilder::new().schema_type(Type::String);
        RefOr::T(HeaderBuilder::new().schema(Some(text)).description(Some(about)).build())
    };
    for item in document.paths.paths.values_mut() {
        let operations = [&mut item.get, &mut item.post, &mut item.put, &mut item.delete];
        for operation in operations.into_iter().flatten().filter(|operation| operation.security.is_some()) {
            for (status, response) in &mut operation.responses.responses {
                if let RefOr::T(response) = response
                    && status.starts_with('2')
                {
                    let left = header(
                        "Where the tenant has a limit: what is left of it (`r`), and the seconds (`t`) \
                        after which all of it is free again.",
                    );
                    let policy = header("Where the tenant has limits: each (`q`), with its time in seconds (`w`).");
                    response.headers.insert("RateLimit".to_owned(), left);
                    response.headers.insert("RateLimit-Policy".to_owned(), policy);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU32;

    use crate::registry::limit::RequestLimit;
    use conductor_core::TenantId;
    use uuid::Uuid;

    fn tenant(requests: Option<Rate>, queued: Option<u64>, bytes: Option<u64>) -> Arc<Tenant> {
        let (id, name, channels) = (TenantId::new(Uuid::nil()), "A".to_owned(), Vec::new());
        let requests = requests.map(RequestLimit::new);
        Arc::new(Tenant { id, name, weight: 1, requests, queued, bytes, channels })
    }

    fn told(tenant: &Arc<Tenant>, left: Option<Left>) -> HeaderMap {
        let (told, mut headers) = (Told::default(), HeaderMap::new());
        told.of(tenant, left);
        told.complete(&mut headers);
        headers
    }

    #[test]
    fn the_policy_is_told_in_whole_seconds() {
        let five = NonZeroU32::new(5).unwrap();
        for (per, q, w) in [(500, 10, 1), (1000, 5, 1), (60_000, 5, 60), (1500, 6, 2)] {
            let rate = Rate { limit: five, per: Duration::from_millis(per), burst: five };
            let left = Left { count: 3, reset: Duration::from_millis(1200) };
            let headers = told(&tenant(Some(rate), None, None), Some(left));
            assert_eq!(headers["ratelimit-policy"], format!("\"requests\";q={q};w={w}"));
            assert_eq!(headers["ratelimit"], "\"requests\";r=3;t=2");
        }
        let response = axum::response::IntoResponse::into_response(too_many(Duration::from_millis(1200)));
        assert_eq!(response.headers()["ratelimit"], "\"requests\";r=0;t=2");
        assert_eq!(response.headers()["retry-after"], "2");
    }

    #[test]
    fn all_limits_stand_in_the_policy_and_a_tenant_without_any_is_told_nothing() {
        let headers = told(&tenant(None, Some(7), Some(1_000)), None);
        assert_eq!(headers["ratelimit-policy"], "\"queued\";q=7, \"bytes\";q=1000;qu=\"content-bytes\"");
        assert!(!headers.contains_key("ratelimit"));
        assert!(told(&tenant(None, None, None), None).is_empty());
    }
}
