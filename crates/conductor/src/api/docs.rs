//! The API's document and the page that shows it, all of it in the binary.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;

use crate::api::Api;
use crate::api::document::AnyRefusal;

const PAGE: &str = include_str!("../../assets/docs/index.html");
const STYLE: &str = include_str!("../../assets/docs/docs.css");
const SCRIPT: &str = include_str!("../../assets/docs/docs.js");

/// Nothing from elsewhere, nothing inline.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    img-src 'self' data:; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// This document
#[utoipa::path(
    get, path = "/openapi.json", tag = "Server", operation_id = "document",
    responses((status = 200, description = "OpenAPI 3.1.", body = Object, content_type = "application/json"),
        AnyRefusal)
)]
pub(crate) async fn document(State(api): State<Arc<Api>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-cache")], api.document.clone())
}

/// A page that shows this document
#[utoipa::path(
    get, path = "/docs", tag = "Server", operation_id = "docs",
    responses((status = 200, description = "The page.", body = String, content_type = "text/html"), AnyRefusal)
)]
pub(crate) async fn page() -> impl IntoResponse {
    asset("text/html; charset=utf-8", PAGE)
}

/// The page's style sheet.
pub(crate) async fn style() -> impl IntoResponse {
    asset("text/css; charset=utf-8", STYLE)
}

/// The page's script.
pub(crate) async fn script() -> impl IntoResponse {
    asset("text/javascript; charset=utf-8", SCRIPT)
}

fn asset(content_type: &'static str, content: &'static str) -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, content_type),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, content)
}
