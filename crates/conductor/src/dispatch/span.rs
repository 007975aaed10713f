//! The span of an attempt: below that of the request which brought the notification, however long ago that was.

use conductor_core::store::Lease;
use conductor_core::{Outcome, Receipt, SendError};

use crate::registry::LiveChannel;
use crate::telemetry::traces::{Side, Span, Tracer};

/// Begins it, where spans are made.
pub(super) fn begin(tracer: &Tracer, channel: &LiveChannel, lease: &Lease) -> Option<Span> {
    let notification = &lease.notification;
    let mut span = tracer.begin(Side::Client, notification.trace, || format!("attempt {}", channel.kind).into())?;
    span.set("conductor.tenant.id", || channel.tenant.to_string());
    span.set("conductor.channel.type", || channel.kind);
    span.set("conductor.channel.id", || channel.id.to_string());
    span.set("conductor.notification.id", || notification.id.to_string());
    span.set("conductor.delivery.id", || lease.key.id().to_string());
    span.set("conductor.attempt", || lease.attempt);
    Some(span)
}

/// It came to this; none where the rest of its parts goes later.
pub(super) fn end(mut span: Span, result: Option<&Result<Receipt, SendError>>) {
    let outcome = match result {
        None => "givenBack",
        Some(Ok(_)) => Outcome::Sent.as_str(),
        Some(Err(error)) => {
            let outcome = error.kind.outcome().as_str();
            span.set("error.type", || outcome);
            if let Some(code) = &error.code {
                span.set("conductor.code", || code.clone());
            }
            span.fail();
            outcome
        }
    };
    span.set("conductor.outcome", || outcome);
    span.end();
}
