//! What the audit log says of the server itself.

use conductor_core::Actor;
use conductor_core::audit::{AuditEvent, AuditKind, Details};

use crate::app::App;
use crate::janitor;

/// The server serves from now on.
pub(super) async fn started(app: &App) {
    let registry = app.registry();
    let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    let details = Details::new()
        .text("version", env!("CARGO_PKG_VERSION"))
        .text("configuration", &registry.version().hash)
        .number("tenants", count(registry.tenants().count()))
        .number("channels", count(registry.channels().count()));
    record(app, AuditKind::Started, details).await;
}

/// Nobody can ask for anything any more, and nothing is under way.
pub(super) async fn stopped(app: &App) {
    janitor::write_refusals(app).await;
    record(app, AuditKind::Stopped, Details::new()).await;
}

async fn record(app: &App, kind: AuditKind, details: Details) {
    if let Err(error) = app.store.record(AuditEvent::of_server(kind, Actor::Server, details)).await {
        tracing::warn!(%error, "The audit log does not say that the server has {kind}");
    }
}
