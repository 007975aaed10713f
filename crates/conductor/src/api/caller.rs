//! Who asks. A handler without a [`Caller`] cannot name a tenant.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use conductor_core::{NotificationId, TenantId};

use crate::api::client::ClientAddress;
use crate::api::error::{ApiError, ErrorKind};
use crate::api::failures::Failure;
use crate::api::quota::Told;
use crate::api::{Api, failures, quota};
use crate::refusals::Refusal;
use crate::registry::{Registry, Tenant};

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
        let tenant = tenant(api, &registry, parts).inspect_err(|error| note_refusal(api, parts, error))?;
        let told = parts.extensions.get::<Told>().cloned().unwrap_or_default();
        let checked = tenant.requests.as_ref().map(|limit| limit.check()).transpose();
        told.of(&tenant, checked.as_ref().ok().copied().flatten());
        checked.map_err(quota::too_many)?;
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
        let wrong = "This needs the operator's key, CONDUCTOR_ADMIN_KEY; the key sent is another.";
        let checked = key(&parts.headers).and_then(|key| match registry.is_admin_key(&key) {
            Some(true) => Ok(Self),
            _ => Err(wrong_key(api, parts, wrong)),
        });
        checked.inspect_err(|error| note_refusal(api, parts, error))
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

/// Who may read the audit log: a tenant its own entries, the operator all.
pub(crate) enum Auditor {
    /// The tenant.
    Tenant(Caller),
    /// The operator, with the operator's key.
    Operator,
}

impl Auditor {
    /// Whose entries may be shown; none means all.
    pub(crate) fn tenant(&self) -> Option<TenantId> {
        match self {
            Self::Tenant(caller) => Some(caller.tenant.id),
            Self::Operator => None,
        }
    }
}

impl FromRequestParts<Arc<Api>> for Auditor {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, ApiError> {
        if key(&parts.headers).is_ok_and(|key| api.app.registry().is_admin_key(&key) == Some(true)) {
            return Ok(Self::Operator);
        }
        Caller::from_request_parts(parts, api).await.map(Self::Tenant)
    }
}

impl Caller {
    /// Counts what a request brings along beside itself against the tenant's rate.
    pub(crate) fn charge(&self, more: usize) {
        if let Some(limit) = &self.tenant.requests {
            limit.charge(more);
        }
    }
}

fn tenant(api: &Api, registry: &Registry, parts: &Parts) -> Result<Arc<Tenant>, ApiError> {
    let key = key(&parts.headers)?;
    let tenant = registry.tenant_of_key(&key);
    tenant.cloned().ok_or_else(|| wrong_key(api, parts, "The key in the Authorization header is not known."))
}

/// Counts a refused key for the audit log.
fn note_refusal(api: &Api, parts: &Parts, error: &ApiError) {
    let refusal = if error.kind() == ErrorKind::MissingKey { Refusal::Missing } else { Refusal::Wrong };
    api.app.refusals.note(refusal, ClientAddress::of(parts));
}

/// Refuses a key. Its look-up has cost the same as that of a right one.
fn wrong_key(api: &Api, parts: &Parts, error: &str) -> ApiError {
    let client = ClientAddress::of(parts);
    failed(api, client).unwrap_or_else(|| {
        tracing::warn!(client.address = client.map(tracing::field::display), "A request with a wrong key was refused");
        ApiError::new(ErrorKind::WrongKey, error)
    })
}

/// Counts an authentication that has failed. The answer, where there were too many from its address: then nothing else is
/// said of it, in the log neither.
pub(crate) fn failed(api: &Api, client: Option<IpAddr>) -> Option<ApiError> {
    let client = client?;
    let Failure::Excess { wait, is_first } = api.failures.count(client) else { return None };
    if is_first {
        tracing::warn!(
            client.address = %client,
            "Too many authentications from one address have failed: further ones are refused without a line each",
        );
    }
    Some(quota::too_many_failures(failures::BURST, failures::WINDOW, wait))
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
}
