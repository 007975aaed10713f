//! `POST /notifications/{id}/retry`, `/cancel` and `/resolve`.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use conductor_core::store::{Redirect, Transition};
use conductor_core::{ChannelId, NotificationId, Problems, Status};

use crate::accept::{DEFAULT_EXPIRY, Route, channel_of};
use crate::api::Api;
use crate::api::answers::NotificationAnswer;
use crate::api::body::{self, SINGLE_MAX_BYTES};
use crate::api::caller::{Caller, NotificationPath, unknown_notification};
use crate::api::document::{ChangeRefusal, RetryRefusal};
use crate::api::error::{ApiError, ErrorKind};
use crate::api::notifications::answer;
use crate::api::reader::Reader;
use crate::api::send::RouteRequest;

/// Try a notification again
///
/// A dead letter or a held one is queued again, through another channel if the body names one. It gets a fresh expiry.
#[utoipa::path(
    post, path = "/notifications/{id}/retry", tag = "Dead letters", operation_id = "retryNotification",
    params(("id" = uuid::Uuid, Path, description = "The notification's id.")),
    request_body(content = Option<RouteRequest>, content_type = "application/json",
        description = "Another way; may be left out."),
    responses((status = 200, description = "It is queued again.", body = NotificationAnswer), RetryRefusal),
    security(("tenantKey" = []))
)]
pub(crate) async fn retry(
    State(api): State<Arc<Api>>,
    caller: Caller,
    NotificationPath(id): NotificationPath,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<NotificationAnswer>, ApiError> {
    let value = body::read_optional(&headers, body, SINGLE_MAX_BYTES).await?;
    let story = api.app.store.notification(caller.tenant.id, id).await?;
    let story = story.ok_or_else(unknown_notification)?;
    let route = value.map(read_route).transpose()?.unwrap_or_default();
    let last = story.deliveries.last();
    let redirect = if route == Route::default() {
        None
    } else {
        Some(redirect(&api, &caller, route, last.map(|delivery| delivery.channel_id), "")?)
    };
    let through = redirect.as_ref().map(|redirect| redirect.channel_id).or(last.map(|delivery| delivery.channel_id));
    let channel = through.and_then(|channel| caller.tenant.channel(channel));
    let now = api.app.clock.now();
    let expires_at = now.plus(channel.map_or(DEFAULT_EXPIRY, |channel| channel.expires_after));
    let transition = api.app.store.replay(caller.tenant.id, id, redirect, now, expires_at).await?;
    check(transition, "tried again; only one that is failed, expired, undelivered or held can")?;
    answer(&api, &caller, id).await
}

pub(super) fn read_route(value: serde_json::Value) -> Result<Route, ApiError> {
    let mut problems = Problems::new();
    let mut route = Route::default();
    if let Some(mut reader) = Reader::new(value, "body", String::new(), &mut problems) {
        route = reader.route();
        reader.finish();
    }
    if route.target.as_ref().is_some_and(|target| !target_is_allowed(target)) {
        problems.add("targetId", TARGET_RULE);
    }
    if problems.is_empty() { Ok(route) } else { Err(ApiError::invalid(problems)) }
}

/// What a target may be, in words.
pub(crate) const TARGET_RULE: &str = "is no target; expected 1 to 1024 bytes of text without NUL";

/// The rule that a notification's target keeps.
pub(crate) fn target_is_allowed(target: &str) -> bool {
    let length = 1..=conductor_core::notification::TARGET_MAX_BYTES;
    length.contains(&target.len()) && !target.trim().is_empty() && !target.contains('\0')
}

/// Another way for a notification that went through `present`. A target alone keeps the channel. `prefix` stands before
/// the names of fields in problems.
pub(crate) fn redirect(
    api: &Api,
    caller: &Caller,
    mut route: Route,
    present: Option<ChannelId>,
    prefix: &str,
) -> Result<Redirect, ApiError> {
    if route.channel.is_none() && route.channel_id.is_none() {
        route.channel_id = present;
    }
    let channel = channel_of(api.app.plugins, &caller.tenant, &route).map_err(|mut problem| {
        problem.place.insert_str(0, prefix);
        let mut problems = Problems::new();
        problems.push(problem);
        ApiError::invalid(problems)
    })?;
    Ok(Redirect { channel: channel.kind.to_owned(), channel_id: channel.id, target: route.target })
}

/// Take a notification back
///
/// One that waits is not sent any more.
#[utoipa::path(
    post, path = "/notifications/{id}/cancel", tag = "Dead letters", operation_id = "cancelNotification",
    params(("id" = uuid::Uuid, Path, description = "The notification's id.")),
    responses((status = 200, description = "It is canceled.", body = NotificationAnswer), ChangeRefusal),
    security(("tenantKey" = []))
)]
pub(crate) async fn cancel(
    State(api): State<Arc<Api>>,
    caller: Caller,
    NotificationPath(id): NotificationPath,
) -> Result<Json<NotificationAnswer>, ApiError> {
    let transition = api.app.store.cancel(caller.tenant.id, id, api.app.clock.now()).await?;
    let status = check(transition, "canceled; only one that waits to be sent can")?;
    tell(&api, id, status);
    answer(&api, &caller, id).await
}

/// Take a held notification as sent
///
/// For one whose outcome is unknown, after somebody has looked whether it arrived.
#[utoipa::path(
    post, path = "/notifications/{id}/resolve", tag = "Dead letters", operation_id = "resolveNotification",
    params(("id" = uuid::Uuid, Path, description = "The notification's id.")),
    responses((status = 200, description = "It counts as sent.", body = NotificationAnswer), ChangeRefusal),
    security(("tenantKey" = []))
)]
pub(crate) async fn resolve(
    State(api): State<Arc<Api>>,
    caller: Caller,
    NotificationPath(id): NotificationPath,
) -> Result<Json<NotificationAnswer>, ApiError> {
    let transition = api.app.store.resolve(caller.tenant.id, id, api.app.clock.now()).await?;
    let status = check(transition, "taken as sent; only one that is held can")?;
    tell(&api, id, status);
    answer(&api, &caller, id).await
}

fn tell(api: &Api, id: NotificationId, status: Status) {
    api.app.outcomes.tell(id, status);
}

fn check(transition: Transition, wish: &str) -> Result<Status, ApiError> {
    match transition {
        Transition::Done(status) => Ok(status),
        Transition::NotFound => Err(unknown_notification()),
        Transition::WrongStatus(status) => {
            let error = format!("The notification is {status} and cannot be {wish}.");
            Err(ApiError::new(ErrorKind::WrongStatus, error).with_member("notificationStatus", status.as_str()))
        }
        Transition::Redacted(at) => {
            let error = format!("The notification's content was removed at {at}, so there is nothing left to send.");
            Err(ApiError::new(ErrorKind::Redacted, error).with_member("redactedAt", at.to_string()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_change_says_the_status() {
        let (status, error, _) = check(Transition::WrongStatus(Status::Sent), "canceled").unwrap_err().into_item();
        assert_eq!((status, error.as_str()), (409, "The notification is sent and cannot be canceled."));
        let at = conductor_core::Timestamp::from_millis(1_705_314_600_000);
        let (status, error, _) = check(Transition::Redacted(at), "tried again").unwrap_err().into_item();
        assert!(status == 409 && error.contains("2024-01-15T10:30:00.000Z"), "{status} {error}");
        assert_eq!(check(Transition::NotFound, "").unwrap_err().status().as_u16(), 404);
    }

    #[test]
    fn a_route_keeps_the_rules_of_a_notification() {
        assert!(read_route(serde_json::json!({ "channel": "log", "targetId": "a" })).is_ok());
        for bad in [
            serde_json::json!({ "targetId": "" }),
            serde_json::json!({ "targetId": "a\0" }),
            serde_json::json!({ "target": "a" }),
            serde_json::json!([]),
        ] {
            assert_eq!(read_route(bad).unwrap_err().status().as_u16(), 400);
        }
    }
}
