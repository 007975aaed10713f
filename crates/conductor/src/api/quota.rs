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
    policy: String,
    left: Option<Left>,
}

impl Told {
    /// This tenant asks, and has so much left of its rate, if it has one.
    pub(crate) fn of(&self, tenant: &Tenant, left: Option<Left>) {
        let policy = policy(tenant.requests.as_ref().map(|limit| limit.rate), tenant.queued, tenant.bytes);
        let _ = policy.map(|policy| self.0.set(Quota { policy, left }));
    }

    /// Completes an answer's headers. What a refusal says of what is left stays.
    pub(crate) fn complete(&self, headers: &mut HeaderMap) {
        let Some(Quota { policy, left }) = self.0.get() else { return };
        let left = left.map(|left| format!("{REQUESTS};r={};t={}", left.count, whole_seconds(left.reset)));
        for (name, text) in [(RATE_LIMIT_POLICY, Some(policy)), (RATE_LIMIT, left.as_ref())] {
            if let Some(value) = text.and_then(|text| HeaderValue::from_str(text).ok()) {
                headers.entry(name).or_insert(value);
            }
        }
    }
}

/// All limits of a tenant; none where it has none.
fn policy(requests: Option<Rate>, queued: Option<u64>, bytes: Option<u64>) -> Option<String> {
    let requests = requests.map(|limit| rate(REQUESTS, limit));
    let queued = queued.map(|max| format!("{QUEUED};q={max}"));
    let bytes = bytes.map(|max| format!("{BYTES};q={max};qu=\"content-bytes\""));
    let all: Vec<String> = [requests, queued, bytes].into_iter().flatten().collect();
    (!all.is_empty()).then(|| all.join(", "))
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

    #[test]
    fn the_policy_is_told_in_whole_seconds() {
        let five = NonZeroU32::new(5).unwrap();
        for (per, q, w) in [(500, 10, 1), (1000, 5, 1), (60_000, 5, 60), (1500, 6, 2)] {
            let rate = Rate { limit: five, per: Duration::from_millis(per), burst: five };
            assert_eq!(policy(Some(rate), None, None), Some(format!("\"requests\";q={q};w={w}")));
        }
        assert_eq!(
            policy(None, Some(7), Some(1_000)).as_deref(),
            Some("\"queued\";q=7, \"bytes\";q=1000;qu=\"content-bytes\"")
        );
        assert_eq!(policy(None, None, None), None);
    }

    #[test]
    fn an_answer_tells_what_is_left_unless_it_has_told_it_already() {
        let left = Some(Left { count: 3, reset: Duration::from_millis(1200) });
        let told = Told(Arc::new(OnceLock::from(Quota { policy: "\"requests\";q=5;w=1".to_owned(), left })));
        let mut headers = HeaderMap::new();
        told.complete(&mut headers);
        assert_eq!(headers["ratelimit-policy"], "\"requests\";q=5;w=1");
        assert_eq!(headers["ratelimit"], "\"requests\";r=3;t=2");
        let refused = axum::response::IntoResponse::into_response(too_many(Duration::from_millis(1200)));
        let mut headers = refused.headers().clone();
        told.complete(&mut headers);
        assert_eq!([&headers["ratelimit"], &headers["retry-after"]], ["\"requests\";r=0;t=2", "2"]);
        let mut none = HeaderMap::new();
        Told::default().complete(&mut none);
        assert!(none.is_empty());
    }
}
