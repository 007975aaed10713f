//! `/receipts/{channelId}`: what providers report later. No key opens it: the channel's plugin checks who calls.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, Path, RawQuery, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use conductor_core::ChannelId;
use conductor_core::receipts::{REPORTS_MAX, ReceiptError, ReceiptMethod, ReceiptRequest, Report, Reported, Reporter};
use futures_util::future::join_all;

use crate::api::Api;
use crate::api::body;
use crate::api::caller::failed;
use crate::api::client::ClientAddress;
use crate::api::document::{ReceiptCheckRefusal, ReceiptRefusal};
use crate::api::error::{ApiError, ErrorKind};
use crate::registry::LiveChannel;

/// The largest body that a provider may send, in bytes: Meta's are up to 3 MB.
const RECEIPT_MAX_BYTES: usize = 4 * 1024 * 1024;

/// Take a provider's receipt
///
/// For providers: Twilio (`sms`) and Meta (`whatsapp`). There is no key; the request is signed with the channel's secret.
/// The same receipt again changes nothing.
#[utoipa::path(
    post, path = "/receipts/{channelId}", tag = "Channels", operation_id = "takeReceipt",
    params(("channelId" = uuid::Uuid, Path, description = "The channel.")),
    responses(
        (status = 200, description = "It is kept.", body = String, content_type = "text/plain"),
        ReceiptRefusal
    )
)]
pub(crate) async fn take(
    State(api): State<Arc<Api>>,
    Path(channel): Path<String>,
    RawQuery(query): RawQuery,
    client: Option<Extension<ClientAddress>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let channel = find(&api, &channel)?;
    let body = body::read_any(&headers, body, RECEIPT_MAX_BYTES).await?;
    let request = request(&channel, ReceiptMethod::Post, query, &headers, body.to_vec());
    let answer = channel.channel.receipt(&request).map_err(|error| refused(&api, client, &channel, error))?;
    let reporter = Reporter { tenant: channel.tenant, channel: channel.kind.to_owned() };
    for reports in answer.reports.chunks(REPORTS_MAX) {
        // All at once, so that the store writes them with one commit.
        let kept = join_all(reports.iter().map(|report| keep(&api, &reporter, report)));
        kept.await.into_iter().collect::<Result<(), ApiError>>()?;
    }
    Ok(plain(answer.reply))
}

/// Answer a provider that checks the address
///
/// For providers that ask, before they send receipts, whether the address expects them (`whatsapp`).
#[utoipa::path(
    get, path = "/receipts/{channelId}", tag = "Channels", operation_id = "checkReceiptAddress",
    params(("channelId" = uuid::Uuid, Path, description = "The channel.")),
    responses(
        (status = 200, description = "What the provider wants to hear.", body = String, content_type = "text/plain"),
        ReceiptCheckRefusal
    )
)]
pub(crate) async fn check(
    State(api): State<Arc<Api>>,
    Path(channel): Path<String>,
    RawQuery(query): RawQuery,
    client: Option<Extension<ClientAddress>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let channel = find(&api, &channel)?;
    let request = request(&channel, ReceiptMethod::Get, query, &headers, Vec::new());
    let answer = channel.channel.receipt(&request).map_err(|error| refused(&api, client, &channel, error))?;
    Ok(plain(answer.reply))
}

fn find(api: &Api, id: &str) -> Result<Arc<LiveChannel>, ApiError> {
    let id: Option<ChannelId> = id.parse().ok();
    let registry = api.app.registry();
    id.and_then(|id| registry.channel(id).cloned()).ok_or_else(not_taken)
}

/// The same for a channel that exists and one that does not: the caller has shown nothing.
fn not_taken() -> ApiError {
    ApiError::new(ErrorKind::NotFound, "There is no channel here that takes receipts.")
}

fn refused(
    api: &Api,
    client: Option<Extension<ClientAddress>>,
    channel: &LiveChannel,
    error: ReceiptError,
) -> ApiError {
    match error {
        ReceiptError::NotTaken => not_taken(),
        ReceiptError::WrongSignature => {
            if let Some(excess) = failed(api, client.map(|Extension(client)| client.0)) {
                return excess;
            }
            tracing::warn!(
                channel.id = %channel.id,
                channel.name = %channel.name,
                "A receipt was refused: its signature does not fit the channel's secret and PUBLIC_URL",
            );
            ApiError::new(ErrorKind::WrongSignature, "The signature does not fit.")
        }
        ReceiptError::Malformed(why) => {
            ApiError::new(ErrorKind::Invalid, format!("The receipt cannot be read: {why}."))
        }
    }
}

fn request(
    channel: &LiveChannel,
    method: ReceiptMethod,
    query: Option<String>,
    headers: &HeaderMap,
    body: Vec<u8>,
) -> ReceiptRequest {
    let url = channel.receipts_url.as_ref().map(|url| match &query {
        Some(query) => format!("{url}?{query}"),
        None => url.to_string(),
    });
    let text =
        |name: &header::HeaderName| Some((name.as_str().to_owned(), headers.get(name)?.to_str().ok()?.to_owned()));
    let headers: BTreeMap<String, String> = headers.keys().filter_map(text).collect();
    ReceiptRequest { method, url, query: query.unwrap_or_default(), headers, body }
}

async fn keep(api: &Api, reporter: &Reporter, report: &Report) -> Result<(), ApiError> {
    let key = report.part.delivery;
    let (notification, delivery) = (key.notification, key.id());
    match api.app.store.report(reporter, report.clone(), api.app.clock.now()).await? {
        Reported::Changed(status) => tracing::info!(
            notification.id = %notification,
            delivery.id = %delivery,
            code = report.code,
            "The provider reports: {status}",
        ),
        reported @ (Reported::Unchanged | Reported::Unknown) => {
            tracing::debug!(notification.id = %notification, delivery.id = %delivery, ?reported, "A receipt changes nothing");
        }
    }
    Ok(())
}

fn plain(text: String) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")], text)
        .into_response()
}
