//! The HTTP API. Routes and document come from the same lines, so that they cannot part.

use std::sync::Arc;

use axum::Router;
use axum::http::Method;
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use bytes::Bytes;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::accept::InFlight;
use crate::api::error::{ApiError, ErrorKind};
use crate::app::App;

mod answers;
mod body;
mod bulk;
mod callbacks;
mod caller;
mod channels;
mod docs;
mod document;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod health;
mod hops;
mod idempotency;
mod notifications;
mod observe;
mod prefer;
mod reader;
mod receipts;
mod reload;
mod replays;
mod send;
mod transitions;
mod webhooks;
mod words;

/// What the handlers share.
pub(crate) struct Api {
    app: Arc<App>,
    in_flight: InFlight,
    document: Bytes,
}

/// The whole API, for the public port.
pub fn router(app: Arc<App>) -> Router {
    let (router, document) = routes().split_for_parts();
    let document = serde_json::to_vec(&document).expect("the document has only text keys");
    let api = Arc::new(Api { app, in_flight: InFlight::default(), document: Bytes::from(document) });
    let assets = Router::new().route("/docs/docs.css", get(docs::style)).route("/docs/docs.js", get(docs::script));
    finish(router.merge(assets).with_state(Arc::clone(&api)), &api.app)
}

/// `/metrics` without a key, and `/health`, for the operator's own listener.
pub fn metrics_router(app: Arc<App>) -> Router {
    let api = Arc::new(Api { app, in_flight: InFlight::default(), document: Bytes::new() });
    let router = Router::new().route("/metrics", get(health::open_metrics)).route("/health", get(health::health));
    finish(router.with_state(Arc::clone(&api)), &api.app)
}

/// The API's document, as `/openapi.json` serves it.
pub fn document() -> utoipa::openapi::OpenApi {
    routes().split_for_parts().1
}

fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::with_openapi(document::ApiDocument::openapi())
        .routes(routes!(send::send, notifications::list))
        .routes(routes!(send::send_batch))
        .routes(routes!(bulk::retry_many, replays::list))
        .routes(routes!(replays::get))
        .routes(routes!(replays::cancel))
        .routes(routes!(notifications::get))
        .routes(routes!(transitions::retry))
        .routes(routes!(transitions::cancel))
        .routes(routes!(transitions::resolve))
        .routes(routes!(channels::list))
        .routes(routes!(callbacks::list))
        .routes(routes!(callbacks::enable))
        .routes(routes!(receipts::take, receipts::check))
        .routes(routes!(health::welcome))
        .routes(routes!(health::health))
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
        .routes(routes!(health::metrics))
        .routes(routes!(reload::reload))
        .routes(routes!(docs::document))
        .routes(routes!(docs::page))
}

fn finish(router: Router, app: &Arc<App>) -> Router {
    router
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(CatchPanicLayer::custom(observe::panicked))
        .layer(from_fn_with_state(Arc::clone(app), observe::observe))
}

// Neither repeats the path: a key that was pasted into it would go on into the logs of the caller.
async fn not_found() -> ApiError {
    ApiError::new(ErrorKind::NotFound, "There is nothing at this path. /docs lists every call.")
}

async fn method_not_allowed(method: Method) -> ApiError {
    let method: String = method.as_str().chars().take(40).collect();
    ApiError::new(ErrorKind::MethodNotAllowed, format!("This path does not take {method}. /docs lists every call."))
}
