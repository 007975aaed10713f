//! `GET /callbacks` and `POST /callbacks/{id}/enable`: where the tenant hears of state changes, and how that goes.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use conductor_core::callbacks::{CallbackAttempt, EndpointState, GivenUp};
use conductor_core::signature::SigningKey;
use conductor_core::{CallbackId, EndpointId, NotificationId, Timestamp};
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::Api;
use crate::api::caller::Caller;
use crate::api::document::{ChannelRefusal, LookUpRefusal};
use crate::api::error::{ApiError, ErrorKind};
use crate::api::words::{EndpointWord, EventWord};
use crate::registry::endpoint::Endpoint;

/// So many callbacks that were given up are shown of each endpoint.
const GIVEN_UP_SHOWN: usize = 20;

/// A tenant's endpoints.
#[derive(Serialize, ToSchema)]
#[schema(as = CallbackPage)]
pub(crate) struct EndpointPage {
    /// In the order of the configuration.
    data: Vec<EndpointItem>,
}

/// An endpoint and how it goes.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = CallbackEndpoint)]
pub(crate) struct EndpointItem {
    /// Its id: it stays the same as long as the URL does.
    #[schema(value_type = uuid::Uuid)]
    id: EndpointId,
    /// Scheme, host and port of its URL; the rest may be a credential.
    url: String,
    /// What it is told.
    #[schema(value_type = Vec<EventWord>)]
    events: Vec<&'static str>,
    /// `failing` where the last attempt failed, `disabled` where it has answered 410.
    #[schema(value_type = EndpointWord)]
    status: &'static str,
    /// When it answered 410; null where it is not disabled.
    #[schema(value_type = Option<String>, format = DateTime, required)]
    disabled_at: Option<Timestamp>,
    /// The public keys with which `v1a` signatures are checked; empty where a shared secret signs.
    public_keys: Vec<String>,
    /// Callbacks that wait.
    waiting: u64,
    /// When the oldest of them was made; null where none waits.
    #[schema(value_type = Option<String>, format = DateTime, required)]
    oldest_waiting_at: Option<Timestamp>,
    /// Callbacks that were taken.
    delivered: u64,
    /// Callbacks that were given up after the last attempt.
    given_up: u64,
    /// Callbacks that were thrown away unsent.
    dropped: u64,
    /// The last attempt; null where none was made.
    #[schema(required)]
    last_attempt: Option<EndpointAttempt>,
    /// The last that were given up, newest first.
    last_given_up: Vec<GivenUpItem>,
}

/// An attempt of a callback.
#[derive(Serialize, ToSchema)]
#[schema(as = CallbackAttempt)]
pub(crate) struct EndpointAttempt {
    /// When it began.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// Whether the receiver took it.
    ok: bool,
    /// The answer's status; null where none came.
    #[schema(required)]
    code: Option<String>,
    /// What went wrong; null where nothing did.
    #[schema(required)]
    detail: Option<String>,
}

/// A callback that was given up.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = CallbackGivenUp)]
pub(crate) struct GivenUpItem {
    /// Its `webhook-id`.
    #[schema(value_type = uuid::Uuid)]
    id: CallbackId,
    /// What it told.
    #[schema(value_type = EventWord)]
    event: &'static str,
    /// Of which notification; null where it was about a channel.
    #[schema(value_type = Option<uuid::Uuid>, required)]
    notification_id: Option<NotificationId>,
    /// When the state had changed.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// When it was given up.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// How many attempts were made.
    attempts: u32,
    /// The last answer's status; null where none came.
    #[schema(required)]
    code: Option<String>,
    /// What went wrong.
    #[schema(required)]
    detail: Option<String>,
}

impl EndpointItem {
    fn new(endpoint: &Endpoint, state: Option<EndpointState>, given_up: Vec<GivenUp>) -> Self {
        let count = |count: fn(&EndpointState) -> u64| state.as_ref().map_or(0, count);
        let (waiting, delivered) = (count(|state| state.waiting), count(|state| state.delivered));
        let (given_up_count, dropped) = (count(|state| state.given_up), count(|state| state.dropped));
        let oldest_waiting_at = state.as_ref().and_then(|state| state.oldest);
        let disabled_at = state.as_ref().and_then(|state| state.disabled_at);
        let last = state.and_then(|state| state.last);
        let status = match (disabled_at, &last) {
            (Some(_), _) => "disabled",
            (None, Some(CallbackAttempt { ok: false, .. })) => "failing",
            _ => "active",
        };
        let attempt = |CallbackAttempt { at, ok, code, detail }| EndpointAttempt { at, ok, code, detail };
        Self {
            id: endpoint.id,
            url: endpoint.place(),
            events: endpoint.events.iter().map(|event| event.as_str()).collect(),
            status,
            disabled_at,
            public_keys: endpoint.keys.iter().filter_map(SigningKey::public_key).collect(),
            waiting,
            oldest_waiting_at,
            delivered,
            given_up: given_up_count,
            dropped,
            last_attempt: last.map(attempt),
            last_given_up: given_up.into_iter().take(GIVEN_UP_SHOWN).map(GivenUpItem::from).collect(),
        }
    }
}

impl From<GivenUp> for GivenUpItem {
    fn from(given_up: GivenUp) -> Self {
        let GivenUp { id, event, notification, created_at, at, attempts, code, detail } = given_up;
        Self { id, event: event.as_str(), notification_id: notification, created_at, at, attempts, code, detail }
    }
}

/// An endpoint's id in the path. One that is no id is answered like one that nobody has.
pub(crate) struct EndpointPath(EndpointId);

impl<S: Send + Sync> FromRequestParts<S> for EndpointPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = axum::extract::Path::<String>::from_request_parts(parts, state).await;
        let id = path.ok().and_then(|axum::extract::Path(text)| text.parse().ok());
        id.map(Self).ok_or_else(unknown)
    }
}

/// The answer where a tenant has no such endpoint, which may be another tenant's.
fn unknown() -> ApiError {
    ApiError::new(ErrorKind::NotFound, "None of the tenant's callbacks has this id.")
}

/// List the callbacks
///
/// Where the tenant hears of state changes, and how that goes.
#[utoipa::path(
    get, path = "/callbacks", tag = "Callbacks", operation_id = "listCallbacks",
    responses(
        (status = 200, description = "The callbacks' endpoints.", body = EndpointPage,
            example = json!({ "data": [{ "id": "9a4d62a2-4f0d-5a3f-8d3e-0c1b3c1f7a55", "url": "https://acme.example",
                "events": ["notification.failed"], "status": "active", "disabledAt": null, "publicKeys": [],
                "waiting": 0, "oldestWaitingAt": null, "delivered": 1204, "givenUp": 0, "dropped": 0,
                "lastAttempt": { "at": "2024-01-15T10:30:05.000Z", "ok": true, "code": "204", "detail": null },
                "lastGivenUp": [] }] })),
        ChannelRefusal
    ),
    security(("tenantKey" = []))
)]
pub(crate) async fn list(State(api): State<Arc<Api>>, caller: Caller) -> Result<Json<EndpointPage>, ApiError> {
    let store = &api.app.store;
    let states = store.endpoints(caller.tenant.id).await?.into_iter().map(|state| (state.endpoint, state));
    let mut states: HashMap<EndpointId, EndpointState> = states.collect();
    let mut data = Vec::with_capacity(caller.tenant.endpoints.len());
    for endpoint in &caller.tenant.endpoints {
        let given_up = store.given_up(endpoint.id).await?;
        data.push(EndpointItem::new(endpoint, states.remove(&endpoint.id), given_up));
    }
    Ok(Json(EndpointPage { data }))
}

/// Enable a callback again
///
/// An endpoint that has answered 410 is told of what happens from now on. What was thrown away stays so. One that is not
/// disabled stays as it is.
#[utoipa::path(
    post, path = "/callbacks/{id}/enable", tag = "Callbacks", operation_id = "enableCallback",
    params(("id" = uuid::Uuid, Path, description = "The endpoint's id.")),
    responses((status = 200, description = "It is enabled.", body = EndpointItem), LookUpRefusal),
    security(("tenantKey" = []))
)]
pub(crate) async fn enable(
    State(api): State<Arc<Api>>,
    caller: Caller,
    EndpointPath(id): EndpointPath,
) -> Result<Json<EndpointItem>, ApiError> {
    let (store, tenant) = (&api.app.store, &caller.tenant);
    let endpoint = tenant.endpoints.iter().find(|endpoint| endpoint.id == id).ok_or_else(unknown)?;
    if store.enable_endpoint(tenant.id, id).await? {
        tracing::info!(endpoint.id = %id, tenant.id = %tenant.id, "Callbacks enabled again");
    }
    let state = store.endpoints(tenant.id).await?.into_iter().find(|state| state.endpoint == id);
    Ok(Json(EndpointItem::new(endpoint, state, store.given_up(id).await?)))
}
