//! What a callback says.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{ChannelNews, Event};
use crate::delivery::{Attempt, DeliveryKey, FailureReason, Outcome, Status};
use crate::id::{ChannelId, DeliveryId, NotificationId, TenantId};
use crate::notification::{Notification, Priority};
use crate::receipts::Reception;
use crate::time::Timestamp;

/// What happened to a notification.
#[derive(Debug)]
pub struct News<'a> {
    /// What.
    pub event: Event,
    /// When.
    pub at: Timestamp,
    /// The notification.
    pub notification: &'a Notification,
    /// The delivery that came to another state.
    pub delivery: DeliveryKey,
    /// The channel's type and target, where they are not the notification's own.
    pub own: Option<(&'a str, Option<&'a str>)>,
    /// Its channel.
    pub channel: ChannelId,
    /// Its status.
    pub status: Status,
    /// Why it was given up.
    pub reason: Option<FailureReason>,
    /// The provider's id of the message.
    pub provider_id: Option<&'a str>,
    /// How many attempts were made.
    pub attempts: u32,
    /// The last of them.
    pub last: Option<&'a Attempt>,
    /// What the provider reported.
    pub receipt: Option<&'a Reception>,
}

#[derive(Serialize)]
struct Body<T> {
    r#type: Event,
    timestamp: Timestamp,
    data: T,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NotificationBody<'a> {
    id: NotificationId,
    tenant_id: TenantId,
    channel: &'a str,
    channel_id: ChannelId,
    target_id: Option<&'a str>,
    status: Status,
    priority: Priority,
    key: Option<&'a str>,
    metadata: &'a BTreeMap<String, String>,
    timestamp: Timestamp,
    delivery: DeliveryBody<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DeliveryBody<'a> {
    id: DeliveryId,
    channel: &'a str,
    channel_id: ChannelId,
    target_id: Option<&'a str>,
    status: Status,
    reason: Option<FailureReason>,
    provider_id: Option<&'a str>,
    attempts: u32,
    last_attempt: Option<AttemptBody<'a>>,
    receipt: Option<ReceiptBody<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AttemptBody<'a> {
    number: u32,
    at: Timestamp,
    duration_ms: u64,
    outcome: Outcome,
    code: Option<&'a str>,
    detail: Option<&'a str>,
}

#[derive(Serialize)]
struct ReceiptBody<'a> {
    status: Status,
    at: Timestamp,
    code: Option<&'a str>,
    detail: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ChannelBody<'a> {
    tenant_id: TenantId,
    channel: &'a str,
    channel_id: ChannelId,
    channel_name: &'a str,
    status: &'static str,
    reason: Option<&'a str>,
    since: Timestamp,
}

impl News<'_> {
    /// The body that is posted: JSON without the message, its title and its data.
    pub fn body(&self) -> String {
        let notification = self.notification;
        let own = (notification.channel.as_str(), notification.target.as_deref());
        let (channel, target_id) = self.own.unwrap_or(own);
        let last_attempt = self.last.map(|attempt| AttemptBody {
            number: attempt.number,
            at: attempt.at,
            duration_ms: u64::try_from(attempt.duration.as_millis()).unwrap_or(u64::MAX),
            outcome: attempt.outcome,
            code: attempt.code.as_deref(),
            detail: attempt.detail.as_deref(),
        });
        let receipt = self.receipt.map(|receipt| ReceiptBody {
            status: receipt.arrival.status(),
            at: receipt.at,
            code: receipt.code.as_deref(),
            detail: receipt.detail.as_deref(),
        });
        text(
            self.event,
            self.at,
            NotificationBody {
                id: notification.id,
                tenant_id: notification.tenant,
                channel: &notification.channel,
                channel_id: notification.channel_id,
                target_id: notification.target.as_deref(),
                status: self.status,
                priority: notification.priority,
                key: notification.key.as_deref(),
                metadata: &notification.metadata,
                timestamp: notification.accepted_at,
                delivery: DeliveryBody {
                    id: self.delivery.id(),
                    channel,
                    channel_id: self.channel,
                    target_id,
                    status: self.status,
                    reason: self.reason,
                    provider_id: self.provider_id,
                    attempts: self.attempts,
                    last_attempt,
                    receipt,
                },
            },
        )
    }
}

impl ChannelNews {
    /// What it tells.
    pub const fn event(&self) -> Event {
        if self.down.is_some() { Event::ChannelDown } else { Event::ChannelUp }
    }

    /// The body that is posted.
    pub fn body(&self, at: Timestamp) -> String {
        text(
            self.event(),
            at,
            ChannelBody {
                tenant_id: self.tenant,
                channel: &self.kind,
                channel_id: self.channel,
                channel_name: &self.name,
                status: if self.down.is_some() { "down" } else { "up" },
                reason: self.down.as_deref(),
                since: self.since,
            },
        )
    }
}

fn text<T: Serialize>(event: Event, timestamp: Timestamp, data: T) -> String {
    let body = Body { r#type: event, timestamp, data };
    serde_json::to_string(&body).expect("a body has text keys and no failing serializers")
}
