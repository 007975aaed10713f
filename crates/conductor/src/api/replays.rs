//! `GET /notifications/retry`, `GET /notifications/retry/{id}` and `POST /notifications/retry/{id}/cancel`: how far bulk
//! retries have come.

use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use conductor_core::replay::ReplayJob;
use conductor_core::{Actor, ReplayId, Timestamp};
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::Api;
use crate::api::caller::Caller;
use crate::api::document::{ChannelRefusal, LookUpRefusal};
use crate::api::error::{ApiError, ErrorKind};
use crate::api::words::ReplayWord;

/// A bulk retry and how far it has come.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = BulkRetry, example = json!({ "id": "01943c2a-7c3e-7000-8000-0000000000e1", "status": "running",
    "matched": 1204, "retried": 1200, "skipped": 4, "createdAt": "2024-01-15T10:30:00.000Z",
    "dueAt": "2024-01-15T10:34:10.000Z", "finishedAt": null }))]
pub(crate) struct ReplayItem {
    /// Its id.
    #[schema(value_type = uuid::Uuid)]
    id: ReplayId,
    /// Whether more follows.
    #[schema(value_type = ReplayWord)]
    status: &'static str,
    /// How many fitted so far.
    matched: u64,
    /// How many of them were queued again.
    retried: u64,
    /// How many of them had left the status in the meantime.
    skipped: u64,
    /// When it was begun.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// When the last of those that were queued is due; null as long as none was.
    #[schema(value_type = Option<String>, format = DateTime, required)]
    due_at: Option<Timestamp>,
    /// When it was done or canceled; null while it runs.
    #[schema(value_type = Option<String>, format = DateTime, required)]
    finished_at: Option<Timestamp>,
}

impl From<&ReplayJob> for ReplayItem {
    fn from(job: &ReplayJob) -> Self {
        let status = match (job.canceled, job.ended_at) {
            (true, _) => "canceled",
            (false, Some(_)) => "done",
            (false, None) => "running",
        };
        Self {
            id: job.id,
            status,
            matched: job.retried + job.skipped,
            retried: job.retried,
            skipped: job.skipped,
            created_at: job.created_at,
            due_at: job.last_due(),
            finished_at: job.ended_at,
        }
    }
}

/// A tenant's bulk retries, newest first.
#[derive(Serialize, ToSchema)]
#[schema(as = BulkRetryPage)]
pub(crate) struct ReplayPage {
    /// Those that run, and the last 100 that have ended, for seven days.
    data: Vec<ReplayItem>,
}

/// A bulk retry's id in the path. One that is no id is answered like one that nobody has.
pub(crate) struct ReplayPath(ReplayId);

impl<S: Send + Sync> FromRequestParts<S> for ReplayPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = axum::extract::Path::<String>::from_request_parts(parts, state).await;
        let id = path.ok().and_then(|axum::extract::Path(text)| text.parse().ok());
        id.map(Self).ok_or_else(unknown)
    }
}

/// The answer where a tenant has no such bulk retry, which may be another tenant's.
pub(crate) fn unknown() -> ApiError {
    ApiError::new(ErrorKind::NotFound, "There is no bulk retry with this id.")
}

/// List bulk retries
///
/// Newest first: those that run, and the last 100 that have ended, for seven days.
#[utoipa::path(
    get, path = "/notifications/retry", tag = "Dead letters", operation_id = "listBulkRetries",
    responses((status = 200, description = "The bulk retries.", body = ReplayPage), ChannelRefusal),
    security(("tenantKey" = []))
)]
pub(crate) async fn list(State(api): State<Arc<Api>>, caller: Caller) -> Result<Json<ReplayPage>, ApiError> {
    let jobs = api.app.store.replay_jobs(caller.tenant.id).await?;
    Ok(Json(ReplayPage { data: jobs.iter().map(ReplayItem::from).collect() }))
}

/// Look up a bulk retry
///
/// How far it has come.
#[utoipa::path(
    get, path = "/notifications/retry/{id}", tag = "Dead letters", operation_id = "getBulkRetry",
    params(("id" = uuid::Uuid, Path, description = "The bulk retry's id.")),
    responses((status = 200, description = "The bulk retry.", body = ReplayItem), LookUpRefusal),
    security(("tenantKey" = []))
)]
pub(crate) async fn get(
    State(api): State<Arc<Api>>,
    caller: Caller,
    ReplayPath(id): ReplayPath,
) -> Result<Json<ReplayItem>, ApiError> {
    let job = api.app.store.replay_job(caller.tenant.id, id).await?;
    job.as_ref().map(|job| Json(job.into())).ok_or_else(unknown)
}

/// Cancel a bulk retry
///
/// It queues nothing more; what it has queued stays queued. One that has ended stays as it ended.
#[utoipa::path(
    post, path = "/notifications/retry/{id}/cancel", tag = "Dead letters", operation_id = "cancelBulkRetry",
    params(("id" = uuid::Uuid, Path, description = "The bulk retry's id.")),
    responses((status = 200, description = "It has ended.", body = ReplayItem), LookUpRefusal),
    security(("tenantKey" = []))
)]
pub(crate) async fn cancel(
    State(api): State<Arc<Api>>,
    caller: Caller,
    ReplayPath(id): ReplayPath,
) -> Result<Json<ReplayItem>, ApiError> {
    let job = api.app.store.cancel_replay(caller.tenant.id, id, Actor::Tenant, api.app.clock.now()).await?;
    let job = job.ok_or_else(unknown)?;
    tracing::info!(replay.id = %id, tenant.id = %caller.tenant.id, retried = job.retried, "Bulk retry canceled");
    api.app.replays.tell_end();
    Ok(Json(ReplayItem::from(&job)))
}
