//! `POST /notifications/retry`: many dead letters at once.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use conductor_channels::Plugin;
use conductor_core::replay::{RUNNING_MAX, ReplayJob};
use conductor_core::store::{BATCH_MAX, Filter};
use conductor_core::{Problems, ReplayId, Status, StoreError, Timestamp};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::accept::Route;
use crate::api::Api;
use crate::api::answers::{BulkAnswer, BulkCount};
use crate::api::body::{self, SINGLE_MAX_BYTES};
use crate::api::caller::Caller;
use crate::api::document::BulkRefusal;
use crate::api::error::{ApiError, ErrorKind};
use crate::api::notifications::read_filter;
use crate::api::prefer::{self, Wait};
use crate::api::reader::Reader;
use crate::api::replays::ReplayItem;
use crate::api::send::RouteRequest;
use crate::api::transitions::{TARGET_RULE, redirect, target_is_allowed};
use crate::api::words::{RetriedWord, retried};
use crate::config::parse_duration;
use crate::registry::Tenant;

/// How long the answer waits for the end where the caller does not say.
const END_WAIT: Duration = Duration::from_secs(2);
/// How long a dry run counts.
const COUNT_TIME: Duration = Duration::from_secs(10);
/// The slowest rate: one in a day.
pub(super) const PER_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Which dead letters to try again, and how fast. Everything that is given has to fit.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(rename_all = "camelCase", example = json!({ "status": "failed", "channel": "discord",
    "from": "2026-01-15T00:00:00Z", "rate": 5, "dryRun": true }))]
#[expect(dead_code, reason = "describes the body for the document; the body itself is read field by field")]
pub(crate) struct BulkRequest {
    /// All but `held` where it is left out.
    status: Option<RetriedWord>,
    /// Channels of this type.
    channel: Option<String>,
    /// This channel.
    channel_id: Option<Uuid>,
    /// Accepted at this time or later.
    #[schema(value_type = Option<String>, format = DateTime)]
    from: Option<Timestamp>,
    /// Accepted before this time.
    #[schema(value_type = Option<String>, format = DateTime)]
    to: Option<Timestamp>,
    /// Message, title or a value of `metadata` contains this.
    #[schema(max_length = 256)]
    q: Option<String>,
    /// How fast: so many a second, or `{"per": "1m", "limit": 5}`. At once where it is left out.
    rate: Option<RateRequest>,
    /// Only count.
    dry_run: Option<bool>,
    /// Another way for all of them.
    redirect: Option<RouteRequest>,
}

/// A number a second, or a number in a time.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes the body for the document; the body itself is read field by field")]
pub(crate) enum RateRequest {
    PerSecond(#[schema(inline)] PerSecond),
    /// `limit` in `per`, a time such as `500ms`, `1s`, `10m`, `1h`.
    #[schema(title = "PerTime")]
    #[serde(deny_unknown_fields)]
    PerTime {
        /// A time, 1 ms to 24 h.
        #[schema(pattern = "^[0-9]+(ms|s|m|h|d)$")]
        per: String,
        /// How many in it; one where it is left out.
        #[schema(format = Int64, minimum = 1, maximum = 4294967295_i64)]
        limit: Option<u32>,
    },
}

/// So many a second.
#[derive(ToSchema)]
#[schema(title = "PerSecond", format = Int64, minimum = 1, maximum = 4294967295_i64)]
#[expect(dead_code, reason = "describes a member of the body for the document")]
pub(crate) struct PerSecond(u32);

pub(super) struct Wish {
    pub(super) filter: Filter,
    pub(super) interval: Duration,
    dry_run: bool,
    pub(super) route: Option<Route>,
}

/// Try many notifications again
///
/// What fits is queued again little by little, each with a fresh expiry. The answer waits two seconds for the end, or as
/// long as `Prefer` says. Four may run at once.
#[utoipa::path(
    post, path = "/notifications/retry", tag = "Dead letters", operation_id = "retryNotifications",
    params(
        ("Prefer" = Option<String>, Header, nullable = false,
            description = "`wait=N`: answer when it has ended, after N seconds at the latest (30 at most).",
            example = "wait=10"),
    ),
    request_body(content = Option<BulkRequest>, content_type = "application/json",
        description = "All dead letters where it is left out."),
    responses(
        (status = 200, description = "All that fit were queued again, or, with `dryRun`, counted.", body = BulkAnswer,
            headers(("Preference-Applied" = String, description = "`wait=N`"))),
        (status = 202, description = "It goes on: ask for its progress.", body = ReplayItem,
            headers(("Location" = String, description = "Where its progress is.")),
            links(
                ("progress" = (operation_id = "getBulkRetry", parameters(("id" = "$response.body#/id")),
                    description = "Ask how far it is.")),
                ("stop" = (operation_id = "cancelBulkRetry", parameters(("id" = "$response.body#/id")),
                    description = "Stop it.")),
            )),
        BulkRefusal
    ),
    security(("tenantKey" = []))
)]
pub(crate) async fn retry_many(
    State(api): State<Arc<Api>>,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let value = body::read_optional(&headers, body, SINGLE_MAX_BYTES).await?;
    let value = value.unwrap_or_else(|| Value::Object(serde_json::Map::new()));
    let preference = Wait::of(&headers);
    let wish = read_wish(value, api.app.plugins, &caller.tenant)?;
    let redirect = wish.route.map(|route| redirect(&api, &caller, route, None, "redirect.")).transpose()?;
    if wish.dry_run {
        let count = count(&api, &caller, &wish.filter).await?;
        return Ok(Json(BulkAnswer::Counted(count)).into_response());
    }
    let now = api.app.clock.now();
    let id = ReplayId::new(api.app.ids.next(now).uuid());
    let job = ReplayJob::new(id, caller.tenant.id, now, wish.filter);
    let mut ends = api.app.replays.ends();
    let begun = api.app.store.begin_replay(ReplayJob { redirect, interval: wish.interval, ..job }).await?;
    let mut job = begun.ok_or_else(too_many)?;
    tracing::info!(replay.id = %id, tenant.id = %caller.tenant.id, "Bulk retry begun");
    api.app.replays.tell_begin();
    let end = tokio::time::sleep(preference.map_or(END_WAIT, Wait::duration));
    tokio::pin!(end);
    while job.ended_at.is_none() {
        let is_over = tokio::select! {
            _ = ends.changed() => false,
            () = &mut end => true,
            () = api.app.stop.cancelled() => true,
        };
        job = api.app.store.replay_job(caller.tenant.id, id).await?.unwrap_or(job);
        if is_over {
            break;
        }
    }
    let item = ReplayItem::from(&job);
    let mut response = if job.ended_at.is_some() {
        Json(BulkAnswer::Begun(item)).into_response()
    } else {
        let location = [(header::LOCATION, format!("/notifications/retry/{id}"))];
        (StatusCode::ACCEPTED, location, Json(item)).into_response()
    };
    if let Some(preference) = preference {
        response.headers_mut().insert(prefer::APPLIED, preference.applied());
    }
    Ok(response)
}

fn too_many() -> ApiError {
    let error = format!(
        "This tenant has {RUNNING_MAX} bulk retries that have not ended. Wait for one of them, or cancel it: \
         GET /notifications/retry lists them."
    );
    ApiError::new(ErrorKind::RetriesRunning, error)
}

async fn count(api: &Api, caller: &Caller, filter: &Filter) -> Result<BulkCount, StoreError> {
    let began = Instant::now();
    let mut answer = BulkCount::default();
    let mut before = None;
    while began.elapsed() < COUNT_TIME {
        let page = api.app.store.notifications(caller.tenant.id, filter, BATCH_MAX, before).await?;
        answer.matched += page.items.len();
        before = page.next;
        if before.is_none() {
            return Ok(answer);
        }
    }
    answer.more = true;
    Ok(answer)
}

pub(super) fn read_wish(value: Value, plugins: &[Plugin], tenant: &Tenant) -> Result<Wish, ApiError> {
    let mut problems = Problems::new();
    let Some(mut reader) = Reader::new(value, "body", String::new(), &mut problems) else {
        return Err(ApiError::invalid(problems));
    };
    let mut filter = read_filter(&mut reader, plugins, tenant);
    filter.dead_letters = filter.status.is_none();
    if let Some(status) = filter.status.filter(|status| !retried().any(|other| other == *status)) {
        let allowed: Vec<_> = retried().map(Status::as_str).collect();
        reader.problem("status", format!("is \"{status}\"; allowed: {}", allowed.join(", ")));
    }
    let interval = reader.value("rate").and_then(|rate| read_rate(&mut reader, rate)).unwrap_or_default();
    let dry_run = reader.flag("dryRun").unwrap_or(false);
    let route = reader.value("redirect").and_then(|value| reader.nested("redirect", value, |route| route.route()));
    if let Some(route) = &route {
        if route.channel.is_none() && route.channel_id.is_none() {
            reader.problem("redirect.channel", "is required (or \"redirect.channelId\")");
        }
        if route.target.as_ref().is_some_and(|target| !target_is_allowed(target)) {
            reader.problem("redirect.targetId", TARGET_RULE);
        }
    }
    reader.finish();
    if problems.is_empty() { Ok(Wish { filter, interval, dry_run, route }) } else { Err(ApiError::invalid(problems)) }
}

/// The time between two.
fn read_rate(reader: &mut Reader<'_>, value: Value) -> Option<Duration> {
    let limit = |number: &Value| NonZeroU32::new(u32::try_from(number.as_u64()?).ok()?);
    if value.is_number() {
        let limit = limit(&value);
        if limit.is_none() {
            reader.wrong("rate", &value, "a whole number from 1 on");
        }
        return limit.map(|limit| Duration::from_secs(1) / limit.get());
    }
    let (per, limit) = reader.nested("rate", value, |rate| {
        let per = rate.required_text("per");
        let duration = per.as_deref().and_then(parse_duration);
        let duration = duration.filter(|per| (Duration::from_millis(1)..=PER_MAX).contains(per));
        if duration.is_none() && per.is_some() {
            rate.problem("per", "is no time; expected one such as \"500ms\", \"1s\", \"10m\", \"1h\", 24 h at most");
        }
        (duration, rate.number("limit", 1..=u64::from(u32::MAX)))
    })?;
    if limit.is_none() {
        // A wrong one has been told already; a missing one means one.
        return per;
    }
    Some(per? / u32::try_from(limit?).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rate(value: &Value) -> Result<Option<Duration>, String> {
        let mut problems = Problems::new();
        let mut reader = Reader::new(json!({ "rate": value }), "body", String::new(), &mut problems).unwrap();
        let value = reader.value("rate").unwrap();
        let interval = read_rate(&mut reader, value);
        reader.finish();
        if problems.is_empty() { Ok(interval) } else { Err(problems.to_string()) }
    }

    #[test]
    fn a_rate_is_a_number_a_second_or_a_number_in_a_time() {
        let millis = |millis| Ok(Some(Duration::from_millis(millis)));
        assert_eq!(rate(&json!(5)), millis(200));
        assert_eq!(rate(&json!({ "per": "1s", "limit": 4 })), millis(250));
        assert_eq!(rate(&json!({ "per": "10m", "limit": 10 })), millis(60_000));
        assert_eq!(rate(&json!({ "per": "500ms" })), millis(500));
        for bad in [
            json!(0),
            json!(-1),
            json!(1.5),
            json!("5"),
            json!({ "limit": 5 }),
            json!({ "per": "soon", "limit": 5 }),
            json!({ "per": "", "limit": 5 }),
            json!({ "per": null, "limit": 5 }),
            json!({ "per": "0s", "limit": 5 }),
            json!({ "per": "99999999999999999999d", "limit": 5 }),
            json!({ "per": "1s", "limit": 0 }),
            json!({ "per": "1s", "limit": 1, "burst": 3 }),
        ] {
            assert!(rate(&bad).is_err(), "{bad}");
        }
    }
}
