//! `POST /notifications/retry`: many dead letters at once.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use conductor_core::store::{BATCH_MAX, Filter, Redirect, Summary, Transition};
use conductor_core::{Problems, Status, StoreError, Timestamp};
use futures_util::future::join_all;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::accept::{DEFAULT_EXPIRY, Route};
use crate::api::Api;
use crate::api::answers::BulkAnswer;
use crate::api::body::{self, SINGLE_MAX_BYTES};
use crate::api::caller::Caller;
use crate::api::document::BulkRefusal;
use crate::api::error::ApiError;
use crate::api::notifications::read_filter;
use crate::api::reader::Reader;
use crate::api::send::RouteRequest;
use crate::api::transitions::{TARGET_RULE, redirect, target_is_allowed};
use crate::api::words::StatusWord;
use crate::config::parse_duration;

/// The most that one call queues again.
const REPLAY_MAX: usize = 10_000;
/// The most parts of the list that one call looks through for one status.
const PAGES_MAX: usize = 1_000;
/// The slowest rate: one in a day.
const PER_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Which dead letters to try again, and how fast. Everything that is given has to fit.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase", example = json!({ "status": "failed", "channel": "discord",
    "from": "2026-01-15T00:00:00Z", "rate": 5, "dryRun": true }))]
#[expect(dead_code, reason = "describes the body for the document; the body itself is read field by field")]
pub(crate) struct BulkRequest {
    /// `failed`, `expired`, `undelivered` or `held`; all but `held` where it is left out.
    status: Option<StatusWord>,
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
    /// So many a second.
    #[schema(title = "PerSecond")]
    PerSecond(u32),
    /// `limit` in `per`, a time such as `500ms`, `1s`, `10m`, `1h`.
    #[schema(title = "PerTime")]
    PerTime {
        /// A time.
        per: String,
        /// How many in it.
        limit: u32,
    },
}

struct Wish {
    filter: Filter,
    interval: Duration,
    dry_run: bool,
    route: Option<Route>,
}

/// Try many notifications again
///
/// Up to 10,000 at a call; `more` says whether to call again. Each gets a fresh expiry.
#[utoipa::path(
    post, path = "/notifications/retry", tag = "Dead letters", operation_id = "retryNotifications",
    request_body(content = Option<BulkRequest>, content_type = "application/json",
        description = "All dead letters where it is left out."),
    responses(
        (status = 200, description = "What was found and queued again.", body = BulkAnswer,
            example = json!({ "matched": 12, "retried": 12, "skipped": 0, "more": false })),
        BulkRefusal
    ),
    security(("tenantKey" = []))
)]
pub(crate) async fn retry_many(
    State(api): State<Arc<Api>>,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<BulkAnswer>, ApiError> {
    let value = match body::read_optional(&headers, body, SINGLE_MAX_BYTES).await? {
        Some(raw) => body::parse(&raw)?,
        None => Value::Object(serde_json::Map::new()),
    };
    let wish = read_wish(value, &api, &caller)?;
    let to = match &wish.route {
        Some(route) => Some(redirect(&api, &caller, route.clone(), None, "redirect.")?),
        None => None,
    };
    let mut answer = BulkAnswer::default();
    if !wish.dry_run {
        (answer.retried, answer.skipped) = (Some(0), Some(0));
    }
    let dead = [Status::Failed, Status::Expired, Status::Undelivered];
    let asked = wish.filter.status;
    for status in asked.as_slice().iter().chain(dead.iter().filter(|_| asked.is_none())) {
        let filter = Filter { status: Some(*status), ..wish.filter.clone() };
        look_through(&api, &caller, &filter, &wish, to.as_ref(), &mut answer).await?;
    }
    tracing::info!(
        tenant.id = %caller.tenant.id,
        matched = answer.matched,
        retried = answer.retried.unwrap_or_default(),
        "Dead letters were asked for again"
    );
    Ok(Json(answer))
}

async fn look_through(
    api: &Api,
    caller: &Caller,
    filter: &Filter,
    wish: &Wish,
    to: Option<&Redirect>,
    answer: &mut BulkAnswer,
) -> Result<(), ApiError> {
    let mut before = None;
    for _ in 0..PAGES_MAX {
        let room = REPLAY_MAX - answer.matched;
        if room == 0 {
            break;
        }
        let page = api.app.store.notifications(caller.tenant.id, filter, room.min(BATCH_MAX), before).await?;
        let first = answer.matched;
        answer.matched += page.items.len();
        if !wish.dry_run {
            replay_all(api, caller, &page.items, wish.interval, first, to, answer).await?;
        }
        before = page.next;
        if before.is_none() {
            return Ok(());
        }
    }
    answer.more = true;
    Ok(())
}

/// Queues a page again, all at once, so that the store writes it with few commits.
async fn replay_all(
    api: &Api,
    caller: &Caller,
    items: &[Summary],
    interval: Duration,
    first: usize,
    to: Option<&Redirect>,
    answer: &mut BulkAnswer,
) -> Result<(), StoreError> {
    let now = api.app.clock.now();
    let replays = items.iter().enumerate().map(|(index, item)| {
        let place = u32::try_from(first + index).unwrap_or(u32::MAX);
        let due = now.plus(interval.saturating_mul(place));
        let through = to.map_or(item.notification.channel_id, |to| to.channel_id);
        let expires_after = caller.tenant.channel(through).map_or(DEFAULT_EXPIRY, |channel| channel.expires_after);
        api.app.store.replay(caller.tenant.id, item.notification.id, to.cloned(), due, due.plus(expires_after))
    });
    for transition in join_all(replays).await {
        let count = match transition? {
            Transition::Done(_) => &mut answer.retried,
            Transition::NotFound | Transition::WrongStatus(_) | Transition::Redacted(_) => &mut answer.skipped,
        };
        *count = count.map(|count| count + 1);
    }
    Ok(())
}

fn read_wish(value: Value, api: &Api, caller: &Caller) -> Result<Wish, ApiError> {
    let mut problems = Problems::new();
    let Some(mut reader) = Reader::new(value, "body", String::new(), &mut problems) else {
        return Err(ApiError::invalid(problems));
    };
    let filter = read_filter(&mut reader, api, caller);
    if let Some(status) = filter.status.filter(|status| !status.is_dead_letter() && *status != Status::Held) {
        reader.problem("status", format!("is \"{status}\"; allowed: failed, expired, undelivered, held"));
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
        let duration = parse_duration(&per).filter(|per| (Duration::from_millis(1)..=PER_MAX).contains(per));
        if duration.is_none() && !per.is_empty() {
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
            json!({ "per": "0s", "limit": 5 }),
            json!({ "per": "99999999999999999999d", "limit": 5 }),
            json!({ "per": "1s", "limit": 0 }),
            json!({ "per": "1s", "limit": 1, "burst": 3 }),
        ] {
            assert!(rate(&bad).is_err(), "{bad}");
        }
    }
}
