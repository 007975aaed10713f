//! What says that the server works: `/`, `/health`, `/livez`, `/readyz`, `/metrics`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use conductor_core::{StoreError, Timestamp};
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::Api;
use crate::api::caller::Operator;
use crate::api::document::{AnyRefusal, OperatorRefusal, StoreRefusal};
use crate::api::error::ApiError;
use crate::api::reload::ConfigurationItem;
use crate::readings;
use crate::telemetry::metrics::family;

/// What this server is.
#[derive(Serialize, ToSchema)]
pub(crate) struct Welcome {
    /// `conductor`
    #[schema(example = "conductor")]
    name: &'static str,
    /// Its version.
    version: &'static str,
    /// What it does.
    description: &'static str,
    /// Where the documentation page is.
    #[schema(example = "/docs")]
    docs: &'static str,
    /// Where the API's document is.
    #[schema(example = "/openapi.json")]
    openapi: &'static str,
    /// Where it says whether it works.
    #[schema(example = "/health")]
    health: &'static str,
}

/// Whether the server works.
#[derive(Serialize, ToSchema)]
pub(crate) struct HealthAnswer {
    /// `ok`
    #[schema(example = "ok")]
    status: &'static str,
    /// The server's time.
    #[schema(value_type = String, format = DateTime)]
    timestamp: Timestamp,
}

/// Whether the server works, and with which configuration.
#[derive(Serialize, ToSchema)]
pub(crate) struct ServerHealth {
    /// `ok`
    #[schema(example = "ok")]
    status: &'static str,
    /// The server's time.
    #[schema(value_type = String, format = DateTime)]
    timestamp: Timestamp,
    /// The configuration in use.
    configuration: ConfigurationItem,
}

/// What this is
#[utoipa::path(
    get, path = "/", tag = "Server", operation_id = "welcome",
    responses((status = 200, description = "Name, version, where to read on.", body = Welcome), AnyRefusal)
)]
pub(crate) async fn welcome() -> Json<Welcome> {
    Json(Welcome {
        name: "conductor",
        version: env!("CARGO_PKG_VERSION"),
        description: "A self-hosted messaging gateway that never loses a message.",
        docs: "/docs",
        openapi: "/openapi.json",
        health: "/health",
    })
}

fn ok(api: &Api) -> Json<HealthAnswer> {
    Json(HealthAnswer { status: "ok", timestamp: api.app.clock.now() })
}

/// Whether it answers
#[utoipa::path(
    get, path = "/health", tag = "Server", operation_id = "health",
    responses((status = 200, description = "It answers.", body = ServerHealth), AnyRefusal)
)]
pub(crate) async fn health(State(api): State<Arc<Api>>) -> Json<ServerHealth> {
    let configuration = ConfigurationItem::from(api.app.registry().version());
    Json(ServerHealth { status: "ok", timestamp: api.app.clock.now(), configuration })
}

/// Whether it lives
///
/// For orchestrators: restart it when this fails.
#[utoipa::path(
    get, path = "/livez", tag = "Server", operation_id = "live",
    responses((status = 200, description = "It lives.", body = HealthAnswer), StoreRefusal)
)]
pub(crate) async fn live(State(api): State<Arc<Api>>) -> Result<Json<HealthAnswer>, ApiError> {
    if !api.app.store.is_running() {
        return Err(StoreError::Closed.into());
    }
    Ok(ok(&api))
}

/// Whether it can accept notifications
///
/// For orchestrators: send nothing here as long as this fails.
#[utoipa::path(
    get, path = "/readyz", tag = "Server", operation_id = "ready",
    responses((status = 200, description = "The store can write.", body = HealthAnswer), StoreRefusal)
)]
pub(crate) async fn ready(State(api): State<Arc<Api>>) -> Result<Json<HealthAnswer>, ApiError> {
    api.app.store.ping().await?;
    Ok(ok(&api))
}

/// What is counted
///
/// For Prometheus. Needs the operator's key where one is configured.
#[utoipa::path(
    get, path = "/metrics", tag = "Server", operation_id = "metrics",
    responses((status = 200, description = "The metrics as text.", body = String,
        content_type = "text/plain"), OperatorRefusal),
    security(("operatorKey" = []))
)]
pub(crate) async fn metrics(State(api): State<Arc<Api>>, _: Operator) -> impl IntoResponse {
    metrics_text(&api).await
}

/// The metrics without a key, for their own listener.
pub(crate) async fn open_metrics(State(api): State<Arc<Api>>) -> impl IntoResponse {
    metrics_text(&api).await
}

async fn metrics_text(api: &Api) -> impl IntoResponse + use<> {
    ([(header::CONTENT_TYPE, family::CONTENT_TYPE)], family::text(&readings::families(&api.app).await))
}
