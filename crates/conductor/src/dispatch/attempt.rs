//! One attempt, from the lease to the settlement.

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use conductor_core::store::{Finished, Lease, Settled};
use conductor_core::{
    Attempt, FailureReason, Message, Outcome, Receipt, SendError, SendErrorKind, Settlement, StoreError, Timestamp,
};
use futures_util::FutureExt as _;

use crate::app::App;
use crate::registry::LiveChannel;

/// The channel's own client ends a request in time; this is for a plugin that does not.
const GRACE: Duration = Duration::from_secs(2);
/// A settlement that the store could not write is tried again after so long, and twice as long each further time.
const SETTLE_AGAIN_FIRST: Duration = Duration::from_millis(50);
const SETTLE_AGAIN_MAX: Duration = Duration::from_secs(5);
/// The most of a provider's words that is kept, in characters.
const DETAIL_MAX: usize = 500;

/// What an attempt came to.
pub(crate) struct Tried {
    pub(crate) result: Result<Receipt, SendError>,
    pub(crate) began: Timestamp,
    pub(crate) took: Duration,
}

/// Sends the message, within its time.
pub(crate) async fn send(app: &App, channel: &LiveChannel, lease: &Lease) -> Tried {
    let message = render(lease);
    let (began, start) = (app.clock.now(), Instant::now());
    // All that is the plugin's happens in here, its end at the time limit included.
    let sending = async { tokio::time::timeout(channel.timeout + GRACE, channel.channel.send(&message)).await };
    let result = match AssertUnwindSafe(sending).catch_unwind().await {
        Ok(Ok(result)) => result,
        Err(_panic) => {
            let kind = SendErrorKind::Retryable { retry_after: None };
            Err(SendError::new(kind, "the channel's plugin failed unexpectedly"))
        }
        Ok(Err(_)) => Err(SendError::new(SendErrorKind::Unknown, "no answer within the channel's time limit")),
    };
    Tried { result, began, took: start.elapsed() }
}

/// The word for what it came to.
pub(crate) fn outcome(tried: &Tried) -> Outcome {
    tried.result.as_ref().map_or_else(|error| error.kind.outcome(), |_| Outcome::Sent)
}

/// Decides what follows, and what is written of it.
pub(crate) fn conclude(channel: &LiveChannel, lease: &Lease, tried: &Tried, now: Timestamp, jitter: f64) -> Finished {
    let settlement = channel.policy.settle(&tried.result, lease.failures, false, now, lease.expires_at, jitter);
    let error = tried.result.as_ref().err();
    let attempt = Attempt {
        number: lease.attempt,
        at: tried.began,
        duration: tried.took,
        outcome: outcome(tried),
        code: error.and_then(|error| error.code.clone()),
        detail: error.map(|error| error.message.chars().take(DETAIL_MAX).collect()),
        retry_after: error.and_then(|error| error.kind.retry_after()),
    };
    let provider_id = tried.result.as_ref().ok().and_then(|receipt| receipt.provider_id.clone());
    Finished { attempt: Some(attempt), settlement, provider_id, at: now }
}

/// What is written of a delivery that ends without an attempt.
pub(crate) fn give_up(reason: FailureReason, now: Timestamp) -> Finished {
    Finished { attempt: None, settlement: Settlement::Failed(reason), provider_id: None, at: now }
}

/// Writes what became of a lease, however often the store has to be asked. None: the store has been closed, and the
/// next start does it again.
pub(crate) async fn settle(app: &App, mut lease: Lease, mut finished: Finished) -> Option<Settled> {
    let mut wait = SETTLE_AGAIN_FIRST;
    loop {
        let unsettled = match app.store.settle(lease, finished).await {
            Ok(settled) => return Some(settled),
            Err(unsettled) => unsettled,
        };
        match unsettled.error {
            StoreError::Closed | StoreError::LeaseLost => return None,
            StoreError::Full | StoreError::Failed(_) => {
                tracing::warn!(
                    delivery.id = %unsettled.lease.key.id(),
                    error = %unsettled.error,
                    "An attempt's outcome could not be written; it is tried again",
                );
            }
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(SETTLE_AGAIN_MAX);
        (lease, finished) = (*unsettled.lease, unsettled.finished);
    }
}

fn render(lease: &Lease) -> Message {
    let notification = &lease.notification;
    Message {
        notification: notification.id,
        delivery: lease.key.id(),
        attempt: lease.attempt,
        target: lease.target.clone(),
        title: notification.title.clone(),
        body: notification.message.clone(),
        format: notification.format,
        priority: notification.priority,
        data: notification.data.clone(),
        metadata: notification.metadata.clone(),
        accepted_at: notification.accepted_at,
        part: 0,
        parts: 1,
    }
}
