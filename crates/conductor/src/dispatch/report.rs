//! What the log tells of deliveries and channels. Never a body, a target or a secret.

use std::time::Duration;

use conductor_core::store::{Finished, Lease};
use conductor_core::{Health, Settlement};
use tracing::field::display;

use super::attempt::{Tried, outcome};
use crate::registry::LiveChannel;

/// The one line that tells of an attempt.
pub(super) fn attempt(channel: &LiveChannel, lease: &Lease, tried: &Tried, finished: &Finished) {
    let duration_ms = u64::try_from(tried.took.as_millis()).unwrap_or(u64::MAX);
    let trace = tried.trace.map(|trace| display(trace.id()));
    let Err(error) = &tried.result else {
        tracing::info!(
            notification.id = %lease.notification.id, delivery.id = %lease.key.id(), tenant.id = %channel.tenant,
            channel.name = %channel.name, channel.kind = channel.kind, attempt = lease.attempt, duration_ms,
            trace.id = trace, "Notification sent",
        );
        return;
    };
    let follows = match finished.settlement {
        Settlement::RetryAt { due, .. } => format!("tried again at {due}"),
        Settlement::StepDown => "sent as plain text".to_owned(),
        Settlement::Hold => "held for a person".to_owned(),
        Settlement::Failed(reason) => format!("given up: {reason}"),
        Settlement::Sent => "sent".to_owned(),
    };
    tracing::warn!(
        notification.id = %lease.notification.id, delivery.id = %lease.key.id(), tenant.id = %channel.tenant,
        channel.name = %channel.name, channel.kind = channel.kind, attempt = lease.attempt, duration_ms,
        outcome = %outcome(tried), code = error.code.as_deref(), detail = %error.message, follows,
        trace.id = trace, "Notification not sent",
    );
}

/// A channel has become better or worse.
pub(super) fn health(channel: &LiveChannel, before: &Health, now: &Health, stopped: bool) {
    match (before, now) {
        (_, Health::Down { reason }) if stopped => tracing::error!(
            channel.id = %channel.id, channel.name = %channel.name, channel.kind = channel.kind, reason,
            "The provider refuses this channel: it is stopped. Its deliveries wait until its settings are mended, or \
             until the provider, which is asked from time to time, says that the channel works",
        ),
        (_, Health::Down { reason }) => tracing::warn!(
            channel.id = %channel.id, channel.name = %channel.name, channel.kind = channel.kind, reason,
            "The channel is down: attempts pause, and one at a time probes it",
        ),
        (Health::Down { .. }, Health::Up) => tracing::info!(
            channel.id = %channel.id, channel.name = %channel.name, channel.kind = channel.kind,
            "The channel is up again",
        ),
        _ => {}
    }
}

/// A stopped channel has another account.
pub(super) fn mended(channel: &LiveChannel) {
    tracing::info!(
        channel.id = %channel.id, channel.name = %channel.name, channel.kind = channel.kind,
        "The settings of a stopped channel have changed: what waits is sent",
    );
}

/// A stopped channel was asked whether it works, and does not, or does not know.
pub(super) fn still_stopped(channel: &LiveChannel, health: &Health, next: Duration) {
    let detail = match health {
        Health::Down { reason } => reason,
        Health::Up | Health::Unknown => "it does not say whether it works",
    };
    tracing::warn!(
        channel.id = %channel.id, channel.name = %channel.name, channel.kind = channel.kind, detail,
        next_seconds = next.as_secs(),
        "The stopped channel was asked whether it works again, and stays stopped",
    );
}
