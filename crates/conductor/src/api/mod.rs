//! The HTTP API. Routes and document come from the same lines, so that they cannot part.

use std::sync::Arc;

use axum::Router;
use axum::http::Method;
use axum::routing::get;
use bytes::Bytes;
use ipnet::IpNet;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::accept::InFlight;
use crate::accept::room::Rooms;
use crate::api::client::Proxies;
use crate::api::error::{ApiError, ErrorKind};
use crate::api::failures::Failures;
use crate::api::observe::{ObserveLayer, Observer};
use crate::app::App;

mod answers;
pub(crate) mod audit;
mod body;
mod bulk;
mod callbacks;
mod caller;
mod channels;
mod client;
mod docs;
mod document;
mod error;
mod failures;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod health;
mod hops;
mod idempotency;
mod notifications;
mod observe;
mod prefer;
mod quota;
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
    rooms: Rooms,
    failures: Failures,
    document: Bytes,
}

impl Api {
    fn new(app: Arc<App>, document: Bytes) -> Arc<Self> {
        let (in_flight, rooms) = (InFlight::default(), Rooms::default());
        Arc::new(Self { app, in_flight, rooms, failures: Failures::new(), document })
    }
}

/// The whole API, for the public port. Proxies in `trusted` are believed when they say whom they speak for.
pub fn router(app: Arc<App>, trusted: &[IpNet]) -> Router {
    let (router, document) = described();
    let document = serde_json::to_vec(&document).expect("the document has only text keys");
    let api = Api::new(app, Bytes::from(document));
    let assets = Router::new().route("/docs/docs.css", get(docs::style)).route("/docs/docs.js", get(docs::script));
    let proxies = Proxies::new(trusted);
    finish(router.merge(assets).with_state(Arc::clone(&api)), Observer { app: Arc::clone(&api.app), proxies })
}

/// `/metrics` without a key, and `/health`, for the operator's own listener.
pub fn metrics_router(app: Arc<App>) -> Router {
    let api = Api::new(app, Bytes::new());
    let router = Router::new().route("/metrics", get(health::open_metrics)).route("/health", get(health::health));
    let observer = Observer { app: Arc::clone(&api.app), proxies: Proxies::default() };
    finish(router.with_state(api), observer)
}

/// The API's document, as `/openapi.json` serves it.
pub fn document() -> utoipa::openapi::OpenApi {
    described().1
}

fn described() -> (Router<Arc<Api>>, utoipa::openapi::OpenApi) {
    let (router, mut document) = routes().split_for_parts();
    quota::describe(&mut document);
    (router, document)
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
        .routes(routes!(audit::list))
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

fn finish(router: Router, observer: Observer) -> Router {
    router.fallback(not_found).method_not_allowed_fallback(method_not_allowed).layer(ObserveLayer::new(observer))
}

// Neither repeats the path: a key that was pasted into it would go on into the logs of the caller.
async fn not_found() -> ApiError {
    ApiError::new(ErrorKind::NotFound, "There is nothing at this path. /docs lists every call.")
}

async fn method_not_allowed(method: Method) -> ApiError {
    let method: String = method.as_str().chars().take(40).collect();
    ApiError::new(ErrorKind::MethodNotAllowed, format!("This path does not take {method}. /docs lists every call."))
}
