//! What is to be done from time to time: ending what has expired, forgetting old idempotency keys and bulk retries,
//! removing what has ended long ago, writing down which keys were refused.

use std::sync::Arc;
use std::time::{Duration, Instant};

use conductor_core::replay;
use conductor_core::store::{BATCH_MAX, IDEMPOTENCY_KEPT};
use conductor_core::{FailureReason, Status, StoreError, Timestamp};
use tokio_util::sync::CancellationToken;

use crate::app::App;

mod refusals;
mod retention;

pub(crate) use refusals::write as write_refusals;

/// Expired deliveries are looked for so often. When something can be over, the look reads all that waits, so it is taken
/// at most a fiftieth of the time.
const EXPIRY_EVERY: Duration = Duration::from_secs(1);
const EXPIRY_SHARE: u32 = 50;
/// Old idempotency keys and bulk retries are looked for so often.
const FORGET_EVERY: Duration = Duration::from_secs(10 * 60);

/// Tidies up until `stop`. `last_known` is a time that has certainly passed, if any is known; `audit_kept` is how long
/// the audit log is kept, none for ever.
pub async fn run(app: Arc<App>, stop: CancellationToken, last_known: Option<Timestamp>, audit_kept: Option<Duration>) {
    tokio::join!(
        end_what_is_over(&app, &stop),
        retention::run(&app, &stop, last_known, audit_kept),
        refusals::run(&app, &stop),
    );
}

async fn end_what_is_over(app: &App, stop: &CancellationToken) {
    let mut forgot = Instant::now();
    let mut pause = EXPIRY_EVERY;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        let began = Instant::now();
        if let Err(error) = expire(app).await {
            tracing::warn!(%error, "Expired notifications could not be ended; it is tried again");
        }
        pause = EXPIRY_EVERY.max(began.elapsed() * EXPIRY_SHARE);
        if forgot.elapsed() >= FORGET_EVERY {
            forgot = Instant::now();
            if let Err(error) = forget(app).await {
                tracing::warn!(%error, "Old idempotency keys and bulk retries could not be forgotten; it is tried again");
            }
        }
    }
}

async fn expire(app: &App) -> Result<(), StoreError> {
    loop {
        let ended = app.store.expire(app.clock.now()).await?;
        let registry = app.registry();
        for expired in &ended {
            let kind = registry.channel(expired.channel).map_or("removed", |channel| channel.kind);
            app.metrics.failed(expired.tenant, kind, FailureReason::Expired);
            app.outcomes.tell(expired.key.notification, Status::Expired);
            tracing::warn!(
                notification.id = %expired.key.notification, delivery.id = %expired.key.id(),
                tenant.id = %expired.tenant, "Notification expired before it could be sent",
            );
        }
        if ended.len() < BATCH_MAX || app.stop.is_cancelled() {
            return Ok(());
        }
    }
}

async fn forget(app: &App) -> Result<(), StoreError> {
    let before = app.clock.now().minus(IDEMPOTENCY_KEPT);
    while app.store.forget_idempotency(before).await? == BATCH_MAX && !app.stop.is_cancelled() {}
    app.store.forget_replays(app.clock.now().minus(replay::KEPT)).await
}
