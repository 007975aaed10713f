//! The bodies of answers, in the order in which their members are written.

use std::collections::BTreeMap;

use conductor_core::notification::Fallback;
use conductor_core::receipts::Reception;
use conductor_core::store::{DeliveryStory, Story, Summary};
use conductor_core::{
    Attempt, ChannelId, DeliveryId, Draft, FailureReason, Format, Health, NotificationId, Outcome, Priority, Status,
    TenantId, Timestamp,
};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::api::error::{ApiError, Detail};
use crate::api::replays::ReplayItem;
use crate::api::words::{BreakerWord, FormatWord, HealthWord, OutcomeWord, PriorityWord, ReasonWord, StatusWord};
use crate::registry::flow::Breaker;
use crate::registry::{LiveChannel, Tenant};

/// An accepted notification.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({
    "success": true, "id": "01943c2a-7c3e-7000-8000-0000000000d1", "tenantId": "01943c2a-7c3e-7000-8000-123456789abc",
    "tenantName": "Default Tenant", "channel": "discord", "channelId": "01943c2a-7c3e-7000-8000-0000000000c1",
    "message": "Test notification", "priority": "high", "timestamp": "2024-01-15T10:30:00.000Z", "status": "queued"
}))]
pub(crate) struct AcceptedAnswer<'a> {
    /// Always true: it is stored and will be sent, or told as failed.
    success: bool,
    /// Its id.
    #[schema(value_type = Uuid)]
    id: NotificationId,
    /// Whose it is.
    #[schema(value_type = Uuid)]
    tenant_id: TenantId,
    /// The tenant's name.
    tenant_name: &'a str,
    /// The channel's type.
    channel: &'a str,
    /// The channel.
    #[schema(value_type = Uuid)]
    channel_id: ChannelId,
    /// The text.
    message: &'a str,
    /// How urgent.
    #[schema(value_type = PriorityWord)]
    priority: Priority,
    /// When it was accepted.
    #[schema(value_type = String, format = DateTime)]
    timestamp: Timestamp,
    /// Where it stands: `queued` or `scheduled`, or what it came to where the caller waited.
    #[schema(value_type = StatusWord)]
    status: Status,
}

impl<'a> AcceptedAnswer<'a> {
    /// The answer for a notification in this status.
    pub(crate) fn new(tenant: &'a Tenant, notification: &'a Draft, status: Status) -> Self {
        Self {
            success: true,
            id: notification.id,
            tenant_id: tenant.id,
            tenant_name: &tenant.name,
            channel: &notification.channel,
            channel_id: notification.channel_id,
            message: &notification.message,
            priority: notification.priority,
            timestamp: notification.accepted_at,
            status,
        }
    }
}

/// A notification without its deliveries.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NotificationItem {
    /// Its id.
    #[schema(value_type = Uuid)]
    id: NotificationId,
    /// Whose it is.
    #[schema(value_type = Uuid)]
    tenant_id: TenantId,
    /// The channel's type.
    channel: String,
    /// The channel.
    #[schema(value_type = Uuid)]
    channel_id: ChannelId,
    /// The target within the channel; null means the channel's default.
    #[schema(required)]
    target_id: Option<String>,
    /// The text.
    message: String,
    /// A subject or heading.
    #[schema(required)]
    title: Option<String>,
    /// How urgent.
    #[schema(value_type = PriorityWord)]
    priority: Priority,
    /// How the text is written; left out where it is `text`.
    #[serde(skip_serializing_if = "is_text")]
    #[schema(value_type = FormatWord, required = false)]
    format: Format,
    /// What plugins that carry data get; left out where there is none.
    #[serde(skip_serializing_if = "Map::is_empty")]
    #[schema(value_type = Object, required = false)]
    data: Map<String, Value>,
    /// The caller's own labels.
    metadata: BTreeMap<String, String>,
    /// While one with the same key, channel and target was queued, a newer one took its place.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    key: Option<String>,
    /// Where it goes when the channel fails for good.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    fallback: Vec<FallbackItem>,
    /// When it was accepted.
    #[schema(value_type = String, format = DateTime)]
    timestamp: Timestamp,
    /// Not sent before this time; left out where none was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime, nullable = false)]
    send_at: Option<Timestamp>,
    /// Where it stands.
    #[schema(value_type = StatusWord)]
    status: Status,
    /// Given up after this time.
    #[schema(value_type = String, format = DateTime)]
    expires_at: Timestamp,
    /// When message, title, data, targets and the providers' words were removed; left out where they were not.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime, nullable = false)]
    redacted_at: Option<Timestamp>,
}

/// Where a notification goes when the channel before fails for good.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FallbackItem {
    /// The channel's type.
    channel: String,
    /// The channel.
    #[schema(value_type = Uuid)]
    channel_id: ChannelId,
    /// The target within the channel; null means the channel's default.
    #[schema(required)]
    target_id: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_text(format: &Format) -> bool {
    *format == Format::Text
}

impl NotificationItem {
    fn new(fields: &Draft, status: Status, redacted_at: Option<Timestamp>) -> Self {
        let fallback =
            |Fallback { channel, channel_id, target_id }: Fallback| FallbackItem { channel, channel_id, target_id };
        Self {
            id: fields.id,
            tenant_id: fields.tenant,
            channel: fields.channel.clone(),
            channel_id: fields.channel_id,
            target_id: fields.target.clone(),
            message: fields.message.clone(),
            title: fields.title.clone(),
            priority: fields.priority,
            format: fields.format,
            data: fields.data.clone(),
            metadata: fields.metadata.clone(),
            key: fields.key.clone(),
            fallback: fields.fallback.iter().cloned().map(fallback).collect(),
            timestamp: fields.accepted_at,
            send_at: fields.send_at,
            status,
            expires_at: fields.expires_at,
            redacted_at,
        }
    }
}

impl From<&Summary> for NotificationItem {
    fn from(summary: &Summary) -> Self {
        Self::new(&summary.notification, summary.status, summary.redacted_at)
    }
}

/// A notification with all that happened to it.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({
    "id": "01943c2a-7c3e-7000-8000-0000000000d1", "tenantId": "01943c2a-7c3e-7000-8000-123456789abc",
        "channel": "discord",
    "channelId": "01943c2a-7c3e-7000-8000-0000000000c1", "targetId": null, "message": "Test notification",
        "title": null,
    "priority": "high", "metadata": {}, "timestamp": "2024-01-15T10:30:00.000Z", "status": "retrying",
    "expiresAt": "2024-01-16T10:30:00.000Z",
    "deliveries": [{ "id": "5b0c4f1e-93a7-5d0c-8f0e-2f4a6c8e0b1d", "channel": "discord",
        "channelId": "01943c2a-7c3e-7000-8000-0000000000c1", "targetId": "1234567890", "status": "retrying",
        "dueAt": "2024-01-15T10:30:01.100Z", "providerId": null,
        "attempts": [{ "number": 1, "at": "2024-01-15T10:30:00.512Z", "durationMs": 212, "outcome": "rateLimited",
            "code": "429", "detail": "You are being rate limited.", "retryAfterMs": 376 }] }]
}))]
pub(crate) struct NotificationAnswer {
    #[serde(flatten)]
    notification: NotificationItem,
    /// In the order in which they were made: the first, then fallbacks and redirects.
    deliveries: Vec<DeliveryItem>,
}

impl NotificationAnswer {
    /// The story of one of this tenant's notifications.
    pub(crate) fn new(tenant: &Tenant, story: &Story) -> Self {
        Self {
            notification: NotificationItem::new(&story.notification, story.status(), story.redacted_at),
            deliveries: story.deliveries.iter().map(|delivery| DeliveryItem::new(tenant, story, delivery)).collect(),
        }
    }
}

/// The work of getting a notification out through one channel.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DeliveryItem {
    /// Its id: the same in every attempt.
    #[schema(value_type = Uuid)]
    id: DeliveryId,
    /// The channel's type.
    channel: String,
    /// The channel.
    #[schema(value_type = Uuid)]
    channel_id: ChannelId,
    /// The target within the channel, also where it is the channel's default; null where the channel has none.
    #[schema(required)]
    target_id: Option<String>,
    /// Where it stands.
    #[schema(value_type = StatusWord)]
    status: Status,
    /// When the next attempt is due; null where none follows.
    #[schema(value_type = Option<String>, format = DateTime, required)]
    due_at: Option<Timestamp>,
    /// Why it was given up; absent where it was not.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<ReasonWord>)]
    reason: Option<FailureReason>,
    /// The provider's id of the message; null as long as there is none.
    #[schema(required)]
    provider_id: Option<String>,
    /// What the provider reported later; left out where it said nothing, or not of all parts yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    receipt: Option<ReceiptItem>,
    /// Oldest first: the first 20 and the last 80.
    attempts: Vec<AttemptItem>,
    /// How many there were between those; absent where there were none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    attempts_left_out: Option<u32>,
}

/// What a provider reported of a message that it took.
#[derive(Serialize, ToSchema)]
pub(crate) struct ReceiptItem {
    /// `delivered` or `undelivered`.
    #[schema(value_type = StatusWord)]
    status: Status,
    /// When it happened, as the provider says; else when it was reported.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// The provider's own code, where it gave one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    code: Option<String>,
    /// What it means, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    detail: Option<String>,
}

impl From<&Reception> for ReceiptItem {
    fn from(reception: &Reception) -> Self {
        let Reception { arrival, at, code, detail } = reception;
        Self { status: arrival.status(), at: *at, code: code.clone(), detail: detail.clone() }
    }
}

impl DeliveryItem {
    fn new(tenant: &Tenant, story: &Story, delivery: &DeliveryStory) -> Self {
        // Without its content nobody knows whether it had a target of its own.
        let is_whole = story.redacted_at.is_none();
        let default = || tenant.channel(delivery.channel_id)?.target.clone().filter(|_| is_whole);
        Self {
            id: delivery.key.id(),
            channel: delivery.channel.clone(),
            channel_id: delivery.channel_id,
            target_id: delivery.target.clone().or_else(default),
            status: delivery.status,
            due_at: delivery.due_at,
            reason: delivery.reason,
            provider_id: delivery.provider_id.clone(),
            receipt: delivery.receipt.as_ref().map(ReceiptItem::from),
            attempts: delivery.attempts.iter().map(AttemptItem::from).collect(),
            attempts_left_out: Some(delivery.attempts_left_out).filter(|count| *count > 0),
        }
    }
}

/// One try of a delivery.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AttemptItem {
    /// Counts from 1 over the delivery's whole life.
    number: u32,
    /// When it began.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// How long it took, in milliseconds.
    duration_ms: u64,
    /// What it came to.
    #[schema(value_type = OutcomeWord)]
    outcome: Outcome,
    /// The provider's own code, where it gave one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    code: Option<String>,
    /// The provider's words, where it had any.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    detail: Option<String>,
    /// How long the provider asked to wait, in milliseconds, where it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    retry_after_ms: Option<u64>,
}

impl From<&Attempt> for AttemptItem {
    fn from(attempt: &Attempt) -> Self {
        let millis = |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self {
            number: attempt.number,
            at: attempt.at,
            duration_ms: millis(attempt.duration),
            outcome: attempt.outcome,
            code: attempt.code.clone(),
            detail: attempt.detail.clone(),
            retry_after_ms: attempt.retry_after.map(millis),
        }
    }
}

/// A part of a list of notifications, newest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct NotificationPage {
    /// May be shorter than `limit`, even empty, though more follow.
    pub(crate) data: Vec<NotificationItem>,
    /// Pass it as `cursor` to get the next part; null where there is no more.
    #[schema(required)]
    pub(crate) next: Option<String>,
}

/// What became of the items of a batch, in their order.
#[derive(Serialize, ToSchema)]
pub(crate) struct BatchAnswer {
    /// One for each notification of the request.
    pub(crate) results: Vec<BatchResult>,
}

/// What became of one item of a batch.
#[derive(Serialize, ToSchema)]
pub(crate) struct BatchResult {
    /// 202: it is accepted. Otherwise the status with which it would have been refused alone.
    status: u16,
    /// The notification's id, where it is accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Uuid>, nullable = false)]
    id: Option<NotificationId>,
    /// Why it is refused, as a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    error: Option<String>,
    /// Each fault, where it is refused for its content.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<crate::api::words::DetailWord>, required = false)]
    details: Vec<Detail>,
}

impl BatchResult {
    /// An item that is on disk.
    pub(crate) fn accepted(id: NotificationId) -> Self {
        Self { status: 202, id: Some(id), error: None, details: Vec::new() }
    }
}

impl From<ApiError> for BatchResult {
    fn from(error: ApiError) -> Self {
        let (status, error, details) = error.into_item();
        Self { status, id: None, error: Some(error), details }
    }
}

/// What a dry run found.
#[derive(Serialize, ToSchema, Default)]
pub(crate) struct BulkCount {
    /// How many fit, as far as was looked.
    pub(crate) matched: usize,
    /// Whether there may be more than were counted.
    pub(crate) more: bool,
}

/// What a dry run found, or the bulk retry that was begun.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum BulkAnswer {
    /// Of a dry run.
    #[schema(title = "DryRun")]
    Counted(BulkCount),
    /// It was begun.
    #[schema(title = "Begun")]
    Begun(ReplayItem),
}

/// A tenant's channels.
#[derive(Serialize, ToSchema)]
pub(crate) struct ChannelPage {
    /// In the order of the configuration.
    pub(crate) data: Vec<ChannelItem>,
}

/// A channel and how it goes.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ChannelItem {
    /// Its id.
    #[schema(value_type = Uuid)]
    channel_id: ChannelId,
    /// Its name.
    channel_name: String,
    /// Its plugin's name.
    channel_type: &'static str,
    /// Whether it would probably take a message now.
    health: HealthItem,
    /// Whether attempts go through.
    #[schema(value_type = BreakerWord)]
    breaker: &'static str,
    /// Nothing is sent before this time; null where nothing holds it up.
    #[schema(value_type = Option<String>, format = DateTime, required)]
    paused_until: Option<Timestamp>,
    /// Deliveries that wait.
    queued: u64,
    /// When the oldest of them was accepted; null where none waits, or where so much of others waits before it that it
    /// was not found yet.
    #[schema(value_type = Option<String>, format = DateTime, required)]
    oldest_queued_at: Option<Timestamp>,
}

/// A channel's health.
#[derive(Serialize, ToSchema)]
pub(crate) struct HealthItem {
    /// `unknown` as long as nothing was sent or asked.
    #[schema(value_type = HealthWord)]
    status: &'static str,
    /// Why it is down; null otherwise.
    #[schema(required)]
    reason: Option<String>,
    /// Since when it is so; null as long as it is unknown.
    #[schema(value_type = Option<String>, format = DateTime, required)]
    since: Option<Timestamp>,
}

impl ChannelItem {
    /// A channel in which so many wait, the oldest since then.
    pub(crate) fn new(channel: &LiveChannel, queued: u64, oldest_queued_at: Option<Timestamp>, now: Timestamp) -> Self {
        let mut state = channel.state();
        // It is told when an attempt has been made; what has run out since is over all the same.
        if state.paused_until.is_some_and(|until| until <= now) {
            state.paused_until = None;
            if state.breaker == Breaker::Open {
                state.breaker = Breaker::HalfOpen;
            }
        }
        let (status, reason) = match state.health {
            Health::Up => ("up", None),
            Health::Down { reason } => ("down", Some(reason)),
            Health::Unknown => ("unknown", None),
        };
        let since = (state.since > Timestamp::ZERO).then_some(state.since);
        Self {
            channel_id: channel.id,
            channel_name: channel.name.clone(),
            channel_type: channel.kind,
            health: HealthItem { status, reason, since },
            breaker: state.breaker.as_str(),
            paused_until: state.paused_until,
            queued,
            oldest_queued_at,
        }
    }
}
