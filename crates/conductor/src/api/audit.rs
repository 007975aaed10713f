//! `GET /audit`: what happened, newest first. A tenant sees its own entries, the operator all.

use std::sync::Arc;

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use conductor_core::audit::{AuditEntry, AuditFilter, hex};
use conductor_core::{AuditKind, ChannelId, DeliveryId, DeliveryKey, NotificationId, Problems, TenantId, Timestamp};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::api::Api;
use crate::api::caller::Auditor;
use crate::api::document::ListRefusal;
use crate::api::error::ApiError;
use crate::api::notifications::{LIMIT_DEFAULT, LIMIT_MAX, next_link};
use crate::api::reader::{Reader, cursor};
use crate::api::words::AuditWord;

/// An entry of the audit log.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AuditEntry, example = json!({
    "seq": 1205, "at": "2024-01-15T10:30:00.000Z", "kind": "accepted", "actor": "tenant",
    "tenantId": "01943c2a-7c3e-7000-8000-123456789abc", "notificationId": "01943c2a-7c3e-7000-8000-0000000000d1",
    "deliveryId": "6f0e8d5c-3f1b-5c0a-9d2e-b7a451c8e603", "channelId": "01943c2a-7c3e-7000-8000-0000000000c1",
    "details": { "channel": "discord", "priority": "high" }, "content": null,
    "seal": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "hash": "60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752"
}))]
pub(crate) struct AuditItem {
    /// Its number in the log of the whole server; a tenant's own entries have gaps between them.
    seq: u64,
    /// When it was written.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// What happened.
    #[schema(value_type = AuditWord)]
    kind: String,
    /// Who did it: `tenant` (with its key), `operator`, `provider`, `server`, or `unknown`.
    actor: String,
    /// Whose it is; null where it concerns the whole server.
    #[schema(value_type = Option<uuid::Uuid>, required)]
    tenant_id: Option<TenantId>,
    /// The notification.
    #[schema(value_type = Option<uuid::Uuid>, required)]
    notification_id: Option<NotificationId>,
    /// Which of its deliveries.
    #[schema(value_type = Option<uuid::Uuid>, required)]
    delivery_id: Option<DeliveryId>,
    /// The channel.
    #[schema(value_type = Option<uuid::Uuid>, required)]
    channel_id: Option<ChannelId>,
    /// What else is to be said, by kind.
    #[schema(value_type = Object)]
    details: Value,
    /// What is said only as long as content is kept; null where there is none, or none any more.
    #[schema(value_type = Option<Object>, required)]
    content: Option<Value>,
    /// SHA-256 of a salt and the content: the entry's own or, where a notification was accepted, that of the
    /// notification.
    #[schema(required)]
    seal: Option<String>,
    /// SHA-256 of the entry and the hash of the one before it.
    hash: String,
}

impl From<&AuditEntry> for AuditItem {
    fn from(entry: &AuditEntry) -> Self {
        let key = |notification| Some(DeliveryKey { notification, ordinal: entry.ordinal? });
        let json = |text: &String| serde_json::from_str(text).unwrap_or_else(|_| Value::from(text.as_str()));
        Self {
            seq: entry.seq,
            at: entry.at,
            kind: entry.kind.clone(),
            actor: entry.actor.clone(),
            tenant_id: entry.tenant,
            notification_id: entry.notification,
            delivery_id: entry.notification.and_then(key).map(DeliveryKey::id),
            channel_id: entry.channel,
            details: entry.details.as_ref().map_or_else(|| Value::Object(serde_json::Map::new()), json),
            content: entry.content.as_ref().map(json),
            seal: entry.seal.as_ref().map(hex),
            hash: hex(&entry.hash),
        }
    }
}

/// A part of the audit log, newest first.
#[derive(Serialize, ToSchema)]
#[schema(as = AuditPage)]
pub(crate) struct AuditPage {
    /// What fits. It may be short, even empty, though more follow.
    data: Vec<AuditItem>,
    /// Pass it as `cursor` for the next part; null at the end.
    #[schema(required)]
    next: Option<String>,
}

/// Read the audit log
///
/// Newest first. With a tenant's key, the tenant's own entries; with the operator's key, all of them. Everything that
/// is given has to fit.
#[utoipa::path(
    get, path = "/audit", tag = "Server", operation_id = "listAuditEntries",
    params(
        ("from" = Option<String>, Query, format = DateTime, description = "Written at this time or later (RFC 3339).",
            example = "2026-01-15T00:00:00Z"),
        ("to" = Option<String>, Query, format = DateTime, description = "Written before this time (RFC 3339)."),
        ("kind" = Option<AuditWord>, Query, description = "This kind."),
        ("notification" = Option<uuid::Uuid>, Query, description = "Of this notification."),
        ("limit" = Option<u64>, Query, description = "At most so many: 1 to 200; 50 where it is left out.",
            minimum = 1, maximum = 200),
        ("cursor" = Option<String>, Query, pattern = "^[A-Za-z0-9_-]{10}[AEIMQUYcgkosw048]$",
            description = "`next` of the part before."),
    ),
    responses(
        (status = 200, description = "A part of the log.", body = AuditPage,
            headers(("Link" = String,
                description = "`rel=\"next\"`: the address of the next part, where there is one."))),
        ListRefusal
    ),
    security(("tenantKey" = []), ("operatorKey" = []))
)]
pub(crate) async fn list(
    State(api): State<Arc<Api>>,
    auditor: Auditor,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let query = query.unwrap_or_default();
    let mut problems = Problems::new();
    let mut reader = Reader::of_query(&query, &mut problems);
    let filter = AuditFilter {
        from: reader.time("from"),
        to: reader.time("to"),
        kind: reader.word("kind", AuditKind::ALL, AuditKind::as_str),
        notification: reader.id("notification"),
    };
    let limit = reader.number("limit", 1..=LIMIT_MAX).unwrap_or(LIMIT_DEFAULT);
    let before = reader.cursor("cursor").map(u64::from_be_bytes);
    reader.finish();
    if !problems.is_empty() {
        return Err(ApiError::invalid(problems));
    }
    let limit = usize::try_from(limit).expect("the limit is small");
    let page = api.app.store.audit(auditor.tenant(), &filter, limit, before).await?;
    let next = page.next.map(|next| cursor(&next.to_be_bytes()));
    let link = next_link("/audit", &query, next.as_deref());
    let body = AuditPage { data: page.items.iter().map(AuditItem::from).collect(), next };
    Ok((link, Json(body)).into_response())
}
