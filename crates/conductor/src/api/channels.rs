//! `GET /channels`.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use conductor_core::{ChannelId, Timestamp};

use crate::api::Api;
use crate::api::answers::{ChannelItem, ChannelPage};
use crate::api::caller::Caller;
use crate::api::document::ChannelRefusal;
use crate::api::error::ApiError;
use crate::registry::LiveChannel;

/// List the channels
///
/// The tenant's channels with their health and what waits in them.
#[utoipa::path(
    get, path = "/channels", tag = "Channels", operation_id = "listChannels",
    responses(
        (status = 200, description = "The channels.", body = ChannelPage,
            example = json!({ "data": [{ "channelId": "01943c2a-7c3e-7000-8000-0000000000c1", "channelName": "alerts",
                "channelType": "discord", "health": { "status": "up", "reason": null,
                    "since": "2024-01-15T10:30:00.000Z" },
                "breaker": "closed", "pausedUntil": null, "queued": 0, "oldestQueuedAt": null }] })),
        ChannelRefusal
    ),
    security(("tenantKey" = []))
)]
pub(crate) async fn list(State(api): State<Arc<Api>>, caller: Caller) -> Result<Json<ChannelPage>, ApiError> {
    let store = &api.app.store;
    let ids: Vec<ChannelId> = caller.tenant.channels.iter().map(|channel| channel.id).collect();
    let oldest: HashMap<ChannelId, Timestamp> = store.oldest(caller.tenant.id, &ids).await?.into_iter().collect();
    let item = |channel: &Arc<LiveChannel>| {
        ChannelItem::new(channel, store.waiting(channel.id), oldest.get(&channel.id).copied(), api.app.clock.now())
    };
    Ok(Json(ChannelPage { data: caller.tenant.channels.iter().map(item).collect() }))
}
