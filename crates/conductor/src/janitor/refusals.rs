//! Writes refused keys into the audit log: a single one soon, many of them together.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::app::App;

/// So long after a refusal it is written, with all that came meanwhile.
const FIRST: Duration = Duration::from_secs(1);
/// As long as more come, this time doubles up to here.
const MOST: Duration = Duration::from_secs(60);

/// Works until `stop`. What came last is written by [`write`], when nobody can ask any more.
pub(super) async fn run(app: &App, stop: &CancellationToken) {
    let mut pause = FIRST;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = app.refusals.changed() => {}
            // Nobody has tried for a while.
            () = tokio::time::sleep(MOST), if pause > FIRST => {
                pause = FIRST;
                continue;
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        write(app).await;
        pause = (pause * 2).min(MOST);
    }
}

/// Writes what was refused since the last time.
pub(crate) async fn write(app: &App) {
    let Some(counts) = app.refusals.take() else { return };
    if let Err(error) = app.store.record(counts.event()).await {
        tracing::warn!(%error, "Refused keys could not be written into the audit log; it is tried again");
        app.refusals.give_back(counts);
    }
}
