//! Errors as the API tells them: `application/problem+json` (RFC 9457) with the members `error` and `details`.

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use conductor_core::{Problem, Problems, StoreError};
use serde::Serialize;
use serde_json::{Map, Value};

/// The media type of every error.
pub(crate) const PROBLEM_JSON: &str = "application/problem+json";

macro_rules! kinds {
    ($($name:ident = $slug:literal, $status:ident, $title:literal, $about:literal;)+) => {
        /// What kind of error an answer is. Each has a stable `type`, so that a program can tell two errors with one
        /// status apart.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum ErrorKind { $($name),+ }

        impl ErrorKind {
            /// Every kind.
            pub(crate) const ALL: &'static [Self] = &[$(Self::$name),+];
            /// The end of its `type`.
            pub(crate) const fn slug(self) -> &'static str { match self { $(Self::$name => $slug),+ } }
            /// The status that it is answered with.
            pub(crate) const fn status(self) -> StatusCode { match self { $(Self::$name => StatusCode::$status),+ } }
            /// Its `title`.
            pub(crate) const fn title(self) -> &'static str { match self { $(Self::$name => $title),+ } }
            /// When it is answered, for the documentation.
            pub(crate) const fn about(self) -> &'static str { match self { $(Self::$name => $about),+ } }
        }
    };
}

kinds! {
    MalformedJson = "malformed-json", BAD_REQUEST, "Malformed JSON", "The body is not JSON, or not UTF-8.";
    Invalid = "invalid-request", BAD_REQUEST, "Invalid request",
        "A field, parameter or header is wrong; `details` lists each.";
    MissingKey = "missing-key", UNAUTHORIZED, "Key missing", "There is no `Authorization` header.";
    WrongKey = "wrong-key", FORBIDDEN, "Key refused", "The key in `Authorization` is not known, or does not open this.";
    NoOperator = "no-operator-key", FORBIDDEN, "No operator's key",
        "This is for the operator, and no `CONDUCTOR_ADMIN_KEY` is configured, so that it is off.";
    WrongSignature = "wrong-signature", FORBIDDEN, "Signature refused",
        "A provider's receipt is not signed with the channel's secret.";
    NotFound = "not-found", NOT_FOUND, "Not found", "There is nothing here, or nothing that belongs to this key.";
    MethodNotAllowed = "method-not-allowed", METHOD_NOT_ALLOWED, "Method not allowed",
        "The header `Allow` lists the methods of this address.";
    Timeout = "request-timeout", REQUEST_TIMEOUT, "Request timeout", "The body did not arrive in time.";
    WrongStatus = "wrong-status", CONFLICT, "Not possible now", "The notification's present status does not allow it.";
    Redacted = "redacted", CONFLICT, "Content removed",
        "The notification's content was removed after the time that the tenant has set, so there is nothing left to send.";
    InFlight = "in-flight", CONFLICT, "Still in flight",
        "A request with this `Idempotency-Key` is being accepted at this moment.";
    RetriesRunning = "retries-running", CONFLICT, "Bulk retries running",
        "As many bulk retries of this tenant run as may at once.";
    TooLarge = "too-large", PAYLOAD_TOO_LARGE, "Body too large", "The body is larger than this call takes, or one notification than all that the tenant may have waiting.";
    MediaType = "media-type", UNSUPPORTED_MEDIA_TYPE, "Unsupported media type",
        "`Content-Type` is not `application/json`.";
    KeyReused = "idempotency-key-reused", UNPROCESSABLE_ENTITY, "Idempotency key reused",
        "This `Idempotency-Key` came with another request before.";
    BadConfiguration = "bad-configuration", UNPROCESSABLE_ENTITY, "Configuration refused",
        "The configuration cannot be used; `details` has each fault, and the one before stays in use.";
    RateLimited = "rate-limited", TOO_MANY_REQUESTS, "Too many requests",
        "The tenant's request rate is used up; `Retry-After` says when to come back.";
    QueueFull = "queue-full", TOO_MANY_REQUESTS, "Queue full",
        "As many notifications wait as the tenant may have, or as many bytes of them.";
    TooManyFailures = "too-many-failures", TOO_MANY_REQUESTS, "Too many failures",
        "Too many requests from this address came with a wrong key or signature; a right one is let in at any time.";
    Internal = "internal", INTERNAL_SERVER_ERROR, "Internal error",
        "A fault of this server. The log has it under the request's id.";
    NotSent = "not-sent", BAD_GATEWAY, "Not sent",
        "The notification was accepted and could not be sent; it stands in the dead letters.";
    Unavailable = "unavailable", SERVICE_UNAVAILABLE, "Not available",
        "Nothing can be stored at the moment: try again after `Retry-After`.";
}

impl ErrorKind {
    /// The URI under `type`: a place in the documentation page.
    pub(crate) fn uri(self) -> String {
        format!("/docs#problem-{}", self.slug())
    }
}

/// One fault in a request.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Detail {
    /// The field, parameter or header.
    pub(crate) field: String,
    /// What is wrong with it and how to mend it.
    pub(crate) message: String,
}

impl From<Problem> for Detail {
    fn from(problem: Problem) -> Self {
        let Problem { place, mut message, help } = problem;
        if let Some(help) = help {
            message.push_str("; ");
            message.push_str(&help);
        }
        Self { field: place, message }
    }
}

/// Why a request was refused.
#[derive(Debug)]
pub(crate) struct ApiError(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    error: String,
    details: Vec<Detail>,
    members: Map<String, Value>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

#[derive(Serialize)]
struct Body<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    error: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    details: &'a [Detail],
    #[serde(flatten)]
    members: &'a Map<String, Value>,
}

/// Seconds after which to try again when the disk is full: somebody has to make room.
const FULL_RETRY_AFTER: u64 = 30;
/// Seconds after which to try again when the store failed otherwise.
const FAILED_RETRY_AFTER: u64 = 5;

impl ApiError {
    /// An error with one sentence for a person.
    pub(crate) fn new(kind: ErrorKind, error: impl Into<String>) -> Self {
        let (details, members, headers) = (Vec::new(), Map::new(), Vec::new());
        Self(Box::new(Inner { kind, error: error.into(), details, members, headers }))
    }

    /// Everything that is wrong with a request.
    pub(crate) fn invalid(problems: Problems) -> Self {
        let details: Vec<Detail> = problems.into_iter().map(Detail::from).collect();
        let error = match details.as_slice() {
            [only] => format!("The request is not valid: {} {}.", only.field, only.message.trim_end_matches('.')),
            all => format!("The request is not valid: {} faults, listed in \"details\".", all.len()),
        };
        let mut invalid = Self::new(ErrorKind::Invalid, error);
        invalid.0.details = details;
        invalid
    }

    /// One thing that is wrong with a request.
    pub(crate) fn invalid_field(field: &str, message: impl Into<String>) -> Self {
        let mut problems = Problems::new();
        problems.add(field, message);
        Self::invalid(problems)
    }

    /// Adds a header.
    pub(crate) fn with_header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.0.headers.push((name, value));
        }
        self
    }

    /// Adds the seconds after which it is worth trying again.
    pub(crate) fn retry_after(self, seconds: u64) -> Self {
        self.with_header(header::RETRY_AFTER, &seconds.to_string())
    }

    /// Lists faults.
    pub(crate) fn with_details(mut self, details: Vec<Detail>) -> Self {
        self.0.details = details;
        self
    }

    /// Adds a member to the body.
    pub(crate) fn with_member(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.members.insert(name.to_owned(), value.into());
        self
    }

    /// What kind of error it is.
    pub(crate) fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The status that it is answered with.
    pub(crate) fn status(&self) -> StatusCode {
        self.0.kind.status()
    }

    /// The sentence and the faults, for one item of a batch.
    pub(crate) fn into_item(self) -> (u16, String, Vec<Detail>) {
        (self.status().as_u16(), self.0.error, self.0.details)
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full => {
                Self::new(ErrorKind::Unavailable, "The server's disk is full. Nothing was stored; try again later.")
                    .retry_after(FULL_RETRY_AFTER)
            }
            StoreError::Closed => {
                Self::new(ErrorKind::Unavailable, "The server is stopping. Nothing was stored; try again shortly.")
                    .retry_after(FAILED_RETRY_AFTER)
            }
            StoreError::Failed(_) | StoreError::LeaseLost => {
                tracing::error!(error = %error, "The store did not do what a request asked");
                Self::new(ErrorKind::Unavailable, "The server's store failed. Nothing was stored; try again shortly.")
                    .retry_after(FAILED_RETRY_AFTER)
            }
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let Inner { kind, error, details, members, headers } = *self.0;
        let status = kind.status();
        let body = Body {
            r#type: kind.uri(),
            title: kind.title(),
            status: status.as_u16(),
            detail: &error,
            error: &error,
            details: &details,
            members: &members,
        };
        let mut response = (status, Json(body)).into_response();
        let answer = response.headers_mut();
        answer.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if status == StatusCode::UNAUTHORIZED {
            answer.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"conductor\""));
        }
        answer.extend(headers);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_problem_has_the_members_of_the_rfc_and_those_of_the_original() {
        let mut problems = Problems::new();
        problems.add_with_help("priority", "is \"urgent\"", "allowed: low, normal, high");
        let response = ApiError::invalid(problems).into_response();
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        assert_eq!(response.headers()[header::CONTENT_TYPE], PROBLEM_JSON);
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["type"], "/docs#problem-invalid-request");
        assert_eq!(body["status"], 400);
        let message = "is \"urgent\"; allowed: low, normal, high";
        assert_eq!(body["details"], serde_json::json!([{ "field": "priority", "message": message }]));
        assert_eq!(body["error"], format!("The request is not valid: priority {message}."));
    }

    #[test]
    fn every_kind_has_its_own_name_and_an_error_status() {
        for (index, kind) in ErrorKind::ALL.iter().enumerate() {
            assert!(kind.status().is_client_error() || kind.status().is_server_error());
            assert!(ErrorKind::ALL[..index].iter().all(|other| other.slug() != kind.slug()));
        }
    }

    #[test]
    fn a_failed_store_does_not_show_its_inside() {
        let (status, error, _) = ApiError::from(StoreError::Failed("/var/lib/secret.db".into())).into_item();
        assert_eq!(status, 503);
        assert!(!error.contains("secret.db"));
    }
}
