//! `GET /notifications` and `GET /notifications/{id}`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderName, header};
use axum::response::{IntoResponse, Response};
use conductor_channels::Plugin;
use conductor_core::store::Filter;
use conductor_core::{NotificationId, Problems, Status};

use crate::api::Api;
use crate::api::answers::{NotificationAnswer, NotificationItem, NotificationPage};
use crate::api::caller::{Caller, NotificationPath, unknown_notification};
use crate::api::document::{ListRefusal, LookUpRefusal};
use crate::api::error::ApiError;
use crate::api::reader::{Reader, cursor};
use crate::api::words::StatusWord;
use crate::registry::Tenant;

/// How many a list holds where the caller does not say.
pub(crate) const LIMIT_DEFAULT: u64 = 50;
/// The most that a list holds.
pub(crate) const LIMIT_MAX: u64 = 200;
/// The longest text to search for, in bytes.
pub(super) const SEARCH_MAX_BYTES: usize = 256;

/// Look up a notification
///
/// With its deliveries and every attempt.
#[utoipa::path(
    get, path = "/notifications/{id}", tag = "Notifications", operation_id = "getNotification",
    params(("id" = uuid::Uuid, Path, description = "The notification's id.")),
    responses((status = 200, description = "The notification.", body = NotificationAnswer), LookUpRefusal),
    security(("tenantKey" = []))
)]
pub(crate) async fn get(
    State(api): State<Arc<Api>>,
    caller: Caller,
    NotificationPath(id): NotificationPath,
) -> Result<Json<NotificationAnswer>, ApiError> {
    answer(&api, &caller, id).await
}

/// The notification as it stands now.
pub(crate) async fn answer(
    api: &Api,
    caller: &Caller,
    id: NotificationId,
) -> Result<Json<NotificationAnswer>, ApiError> {
    let story = api.app.store.notification(caller.tenant.id, id).await?;
    let story = story.ok_or_else(unknown_notification)?;
    Ok(Json(NotificationAnswer::new(&caller.tenant, &story)))
}

/// List notifications
///
/// Newest first. Everything that is given has to fit; a parameter that is empty counts as left out.
#[utoipa::path(
    get, path = "/notifications", tag = "Notifications", operation_id = "listNotifications",
    params(
        ("status" = Option<StatusWord>, Query, description = "This status."),
        ("channel" = Option<String>, Query, description = "Channels of this type."),
        ("channelId" = Option<uuid::Uuid>, Query, description = "This channel."),
        ("from" = Option<String>, Query, format = DateTime, description = "Accepted at this time or later (RFC 3339).",
            example = "2026-01-15T00:00:00Z"),
        ("to" = Option<String>, Query, format = DateTime, description = "Accepted before this time (RFC 3339)."),
        ("q" = Option<String>, Query, max_length = 256, description = "Message, title or a value of `metadata` contains this, without \
            regard to case."),
        ("limit" = Option<u64>, Query, description = "At most so many: 1 to 200; 50 where it is left out.",
            minimum = 1, maximum = 200),
        ("cursor" = Option<String>, Query, pattern = "^[A-Za-z0-9_-]{21}[AQgw]$", description = "`next` of the part before."),
    ),
    responses(
        (status = 200, description = "A part of the list.", body = NotificationPage,
            headers(("Link" = String,
                description = "`rel=\"next\"`: the address of the next part, where there is one."))),
        ListRefusal
    ),
    security(("tenantKey" = []))
)]
pub(crate) async fn list(
    State(api): State<Arc<Api>>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let query = query.unwrap_or_default();
    let Wish { filter, limit, before } = read_query(&query, api.app.plugins, &caller.tenant)?;
    let page = api.app.store.notifications(caller.tenant.id, &filter, limit, before).await?;
    let next = page.next.map(|next| cursor(next.bytes()));
    let link = next_link("/notifications", &query, next.as_deref());
    let body = NotificationPage { data: page.items.iter().map(NotificationItem::from).collect(), next };
    Ok((link, Json(body)).into_response())
}

/// Which part of which list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) filter: Filter,
    pub(super) limit: usize,
    pub(super) before: Option<NotificationId>,
}

pub(super) fn read_query(query: &str, plugins: &[Plugin], tenant: &Tenant) -> Result<Wish, ApiError> {
    let mut problems = Problems::new();
    let mut reader = Reader::of_query(query, &mut problems);
    let filter = read_filter(&mut reader, plugins, tenant);
    let limit = reader.number("limit", 1..=LIMIT_MAX).unwrap_or(LIMIT_DEFAULT);
    let before = reader.cursor("cursor").map(NotificationId::from_bytes);
    reader.finish();
    let limit = usize::try_from(limit).expect("the limit is small");
    if problems.is_empty() { Ok(Wish { filter, limit, before }) } else { Err(ApiError::invalid(problems)) }
}

/// Reads the filters that a list and a bulk retry share.
pub(crate) fn read_filter(reader: &mut Reader<'_>, plugins: &[Plugin], tenant: &Tenant) -> Filter {
    let status = reader.word("status", Status::ALL, Status::as_str);
    let channel = reader.text("channel");
    let channel_id = reader.channel_id("channelId");
    let (from, to) = (reader.time("from"), reader.time("to"));
    let text = reader.text("q");
    if text.as_ref().is_some_and(|text| text.len() > SEARCH_MAX_BYTES) {
        reader.problem("q", format!("is too long; {SEARCH_MAX_BYTES} bytes are allowed"));
    }
    // A type that is not configured any more still names old notifications; an alias names its plugin's.
    let kind = |name: String| tenant.channel_of_type(plugins, &name).map(|live| live.kind.to_owned()).unwrap_or(name);
    Filter { status, dead_letters: false, channel: channel.map(kind), channel_id, from, to, text }
}

/// The header that leads to the next part of a list, if there is one.
pub(super) fn next_link(path: &str, query: &str, next: Option<&str>) -> Option<[(HeaderName, String); 1]> {
    next.map(|next| [(header::LINK, format!("<{}>; rel=\"next\"", next_address(path, query, next)))])
}

/// The same list from another cursor.
pub(crate) fn next_address(path: &str, query: &str, cursor: &str) -> String {
    let mut next = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        if name != "cursor" && !value.is_empty() {
            next.append_pair(&name, &value);
        }
    }
    format!("{path}?{}", next.append_pair("cursor", cursor).finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn read(query: &str) -> Result<Option<NotificationId>, String> {
        let mut problems = Problems::new();
        let mut reader = Reader::of_query(query, &mut problems);
        let id = reader.cursor("cursor").map(NotificationId::from_bytes);
        reader.finish();
        if problems.is_empty() { Ok(id) } else { Err(problems.to_string()) }
    }

    #[test]
    fn a_cursor_reads_back_and_nothing_else_is_one() {
        let id = NotificationId::new(Uuid::from_u128(0x0194_3c2a_7c3e_7000_8000_0000_0000_00d1));
        assert_eq!(read(&format!("cursor={}", cursor(id.bytes()))), Ok(Some(id)));
        for bad in ["x", "AAAA", "%ff", &"A".repeat(1000)] {
            assert!(read(&format!("cursor={bad}")).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_next_part_keeps_the_filters() {
        let next = next_address("/notifications", "status=failed&q=a%20%26b&cursor=old&from=", "NEW");
        assert_eq!(next, "/notifications?status=failed&q=a+%26b&cursor=NEW");
    }
}
