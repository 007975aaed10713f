//! One attempt, from the lease to the settlement.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use conductor_core::store::{Finished, Lease, Progress, Settled};
use conductor_core::{
    Attempt, FailureReason, Message, Outcome, Receipt, SendError, SendErrorKind, Settlement, StoreError, Timestamp,
    TraceContext,
};
use futures_util::FutureExt as _;
use tokio::sync::{mpsc, oneshot};

use super::Event;
use super::content::{self, Content};
use super::span;
use crate::app::App;
use crate::registry::LiveChannel;
use crate::telemetry::traces::Span;

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
    /// Where it belongs in a trace.
    pub(crate) trace: Option<TraceContext>,
}

/// Sends what is left of the text, part after part, each when it is its `turns`. None: some are out, and the delivery is
/// to be given back, because the server stops or the rest has long to wait.
pub(super) async fn send(app: &App, channel: &LiveChannel, lease: &mut Lease, turns: &Turns) -> Option<Tried> {
    let (began, start) = (app.clock.now(), Instant::now());
    let span = span::begin(&app.tracer, channel, lease);
    let trace = span.as_ref().map(Span::context).or(lease.notification.trace);
    let result = match render(channel, lease, began) {
        Ok(mut content) => {
            content.messages.iter_mut().for_each(|message| message.trace = trace);
            send_all(app, channel, lease, &content, turns).await
        }
        Err(error) => Some(Err(error)),
    };
    if let Some(span) = span {
        span::end(span, result.as_ref());
    }
    Some(Tried { result: result?, began, took: start.elapsed(), trace })
}

async fn send_all(
    app: &App,
    channel: &LiveChannel,
    lease: &mut Lease,
    Content { messages, cuts }: &Content,
    turns: &Turns,
) -> Option<Result<Receipt, SendError>> {
    let count = u32::try_from(messages.len()).expect("the number of parts is small");
    let sent = usize::try_from(lease.progress.parts_sent).unwrap_or(usize::MAX);
    if sent > 0 && (sent >= cuts.len() || cuts[sent - 1] != lease.progress.cuts) {
        // The channel takes texts of another length now than when the others were sent: to go on would leave some out.
        lease.progress = Progress { plain: lease.progress.plain, ..Progress::default() };
    }
    let mut provider_id = lease.progress.provider_id.clone();
    let first = lease.progress.parts_sent;
    for (message, cuts) in messages.iter().zip(cuts).skip_while(|(message, _)| message.part < first) {
        if message.part > first && !turns.next(app).await {
            return None;
        }
        match send_one(channel, message).await {
            Ok(receipt) if message.part == 0 => provider_id = receipt.provider_id,
            Ok(_) => {}
            Err(error) => return Some(Err(of_part(error, message))),
        }
        let parts_sent = message.part + 1;
        if parts_sent < count {
            let progress =
                Progress { parts_sent, cuts: *cuts, plain: lease.progress.plain, provider_id: provider_id.clone() };
            advance(app, lease, progress).await?;
        }
    }
    Some(Ok(Receipt { provider_id }))
}

/// Where an attempt asks the dispatcher for the next part's turn.
pub(super) struct Turns {
    pub(super) place: u32,
    pub(super) events: mpsc::UnboundedSender<Event>,
}

impl Turns {
    /// Returns when the next part may go. False: not this time.
    async fn next(&self, app: &App) -> bool {
        let (reply, replied) = oneshot::channel();
        if app.stop.is_cancelled() || self.events.send(Event::Part { place: self.place, reply }).is_err() {
            return false;
        }
        // Nobody answers any more where the dispatcher has stopped.
        let Ok(Some(wait)) = replied.await else { return false };
        tokio::select! {
            () = app.stop.cancelled() => false,
            () = tokio::time::sleep(wait) => true,
        }
    }
}

/// One message, within its time.
async fn send_one(channel: &LiveChannel, message: &Message) -> Result<Receipt, SendError> {
    // All that is the plugin's happens in here, its end at the time limit included.
    let sending = async { tokio::time::timeout(channel.timeout + GRACE, channel.channel.send(message)).await };
    match AssertUnwindSafe(sending).catch_unwind().await {
        Ok(Ok(result)) => result,
        Err(_panic) => Err(plugin_failed()),
        Ok(Err(_)) => Err(SendError::new(SendErrorKind::Unknown, "no answer within the channel's time limit")),
    }
}

/// The messages, as the channel's plugin counts their length.
fn render(channel: &LiveChannel, lease: &Lease, now: Timestamp) -> Result<Content, SendError> {
    let content = catch_unwind(AssertUnwindSafe(|| content::content(channel, lease, now)));
    content.map_err(|_panic| plugin_failed())
}

fn plugin_failed() -> SendError {
    SendError::new(SendErrorKind::Retryable { retry_after: None }, "the channel's plugin failed unexpectedly")
}

/// Says which part it is about, where there are several.
fn of_part(mut error: SendError, message: &Message) -> SendError {
    if message.parts > 1 {
        error.message = format!("part {} of {}: {}", message.part + 1, message.parts, error.message);
    }
    error
}

/// Writes how far the attempt has come. None: the store is closed. What cannot be written otherwise is written with the
/// settlement; the parts that follow are more use to their reader than a disk that has room.
async fn advance(app: &App, lease: &mut Lease, progress: Progress) -> Option<()> {
    match app.store.advance(lease, progress).await {
        Ok(()) => {}
        Err(StoreError::Closed | StoreError::LeaseLost) => return None,
        Err(error @ (StoreError::Full | StoreError::Failed(_))) => tracing::warn!(
            delivery.id = %lease.key.id(),
            %error,
            "How far a text in parts has come could not be written; it is written with what becomes of the attempt",
        ),
    }
    Some(())
}

/// The word for what it came to.
pub(crate) fn outcome(tried: &Tried) -> Outcome {
    tried.result.as_ref().map_or_else(|error| error.kind.outcome(), |_| Outcome::Sent)
}

/// Decides what follows, and what is written of it.
pub(crate) fn conclude(channel: &LiveChannel, lease: &Lease, tried: &Tried, now: Timestamp, jitter: f64) -> Finished {
    let settlement = channel.policy.settle(
        &tried.result,
        lease.failures,
        content::is_rich(channel, lease),
        now,
        lease.expires_at,
        jitter,
    );
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
