//! `POST /reload`.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use conductor_core::{ChannelId, TenantId, Timestamp};
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::Api;
use crate::api::caller::OperatorOnly;
use crate::api::document::ReloadRefusal;
use crate::api::error::{ApiError, Detail, ErrorKind};
use crate::app::reloads::{Accepted, Cause, Refused};
use crate::registry::plan::{ChannelPart, Parts, TenantPart, Version};

/// A reload is waited for no longer: it gives up what takes too long before.
const WAIT_MAX: Duration = Duration::from_secs(75);
/// Seconds after which to try again.
const RETRY_AFTER: u64 = 5;

/// Which configuration is in use.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ConfigurationItem {
    /// 1 at the start, and one more with each that was taken over.
    #[schema(example = 1)]
    version: u64,
    /// A short hash of the three files: the same files have the same on every server.
    #[schema(example = "3f9a01c2be77")]
    hash: String,
    /// When it was taken over.
    #[schema(value_type = String, format = DateTime)]
    loaded_at: Timestamp,
}

impl From<&Version> for ConfigurationItem {
    fn from(version: &Version) -> Self {
        Self { version: version.number, hash: version.hash.clone(), loaded_at: version.loaded_at }
    }
}

/// What a reload has changed.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ReloadAnswer {
    /// False: what was read is what is in use already.
    changed_anything: bool,
    /// The configuration in use now.
    configuration: ConfigurationItem,
    /// What was not there before.
    added: PartsItem,
    /// What is there still, and not as it was.
    changed: PartsItem,
    /// What is there no more.
    removed: PartsItem,
    /// Whether the operator's key is another.
    operator_key_changed: bool,
    /// What can be used and was probably not meant so, each as the start would print it.
    warnings: Vec<String>,
}

/// Tenants and channels.
#[derive(Serialize, ToSchema)]
pub(crate) struct PartsItem {
    /// Tenants.
    tenants: Vec<TenantItem>,
    /// Channels.
    channels: Vec<ChannelOfTenant>,
}

/// A tenant.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TenantItem {
    /// Its id.
    #[schema(value_type = Uuid)]
    tenant_id: TenantId,
    /// Its name.
    tenant_name: String,
}

/// A channel.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ChannelOfTenant {
    /// Whose it is.
    #[schema(value_type = Uuid)]
    tenant_id: TenantId,
    /// Its id.
    #[schema(value_type = Uuid)]
    channel_id: ChannelId,
    /// Its name.
    channel_name: String,
    /// Its type.
    channel_type: String,
}

impl From<Parts> for PartsItem {
    fn from(parts: Parts) -> Self {
        let tenant = |TenantPart { tenant_id, tenant_name }| TenantItem { tenant_id, tenant_name };
        let channel = |part| {
            let ChannelPart { tenant_id, channel_id, channel_name, channel_type } = part;
            ChannelOfTenant { tenant_id, channel_id, channel_name, channel_type }
        };
        Self {
            tenants: parts.tenants.into_iter().map(tenant).collect(),
            channels: parts.channels.into_iter().map(channel).collect(),
        }
    }
}

impl From<Accepted> for ReloadAnswer {
    fn from(accepted: Accepted) -> Self {
        let Accepted { version, plan, is_new, warnings } = accepted;
        Self {
            changed_anything: is_new,
            configuration: ConfigurationItem::from(&version),
            added: plan.added.into(),
            changed: plan.changed.into(),
            removed: plan.removed.into(),
            operator_key_changed: plan.operator_key,
            warnings: warnings.into_iter().map(|warning| warning.text).collect(),
        }
    }
}

/// Take over a changed configuration
///
/// Reads the three files and the variables again. What is good is taken over as a whole at once; what has any fault is
/// refused as a whole, and the configuration before stays in use. Without an operator's key this is off.
#[utoipa::path(
    post, path = "/reload", tag = "Server", operation_id = "reload",
    responses(
        (status = 200, description = "It is in use, or has not changed.", body = ReloadAnswer,
            example = json!({ "changedAnything": true,
                "configuration": { "version": 2, "hash": "3f9a01c2be77", "loadedAt": "2024-01-15T10:30:00.000Z" },
                "added": { "tenants": [{ "tenantId": "01943c2a-7c3e-7000-8000-123456789abc", "tenantName": "Acme" }],
                    "channels": [] },
                "changed": { "tenants": [], "channels": [] }, "removed": { "tenants": [], "channels": [] },
                "operatorKeyChanged": false, "warnings": [] })),
        ReloadRefusal
    ),
    security(("operatorKey" = []))
)]
pub(crate) async fn reload(State(api): State<Arc<Api>>, _: OperatorOnly) -> Result<Json<ReloadAnswer>, ApiError> {
    let unavailable =
        || ApiError::new(ErrorKind::Unavailable, "The server is busy or stopping.").retry_after(RETRY_AFTER);
    let answered = api.app.reloads.ask(Cause::Operator).ok_or_else(unavailable)?;
    match tokio::time::timeout(WAIT_MAX, answered).await {
        Ok(Ok(Ok(accepted))) => Ok(Json(accepted.into())),
        Ok(Ok(Err(refused))) => Err(refusal(refused)),
        Ok(Err(_)) | Err(_) => Err(unavailable()),
    }
}

fn refusal(refused: Refused) -> ApiError {
    let Refused { folder, summary, faults } = refused;
    let error = format!("The configuration in {folder} cannot be used ({summary}). The one before stays in use.");
    let detail = |(field, message)| Detail { field, message };
    let details = faults.into_iter().map(|fault| (fault.place.unwrap_or_default(), fault.text)).map(detail);
    ApiError::new(ErrorKind::BadConfiguration, error)
        .with_details(details.collect())
        .with_member("folder", folder)
        .with_member("summary", summary)
}
