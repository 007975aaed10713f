//! Takes connections: a bounded number at once.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::{House, serve};
use super::limits::Limits;

/// How long to wait when the system has no more sockets to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// That connections cannot be taken is told so often at the most.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Serves `router` until `stop`; then lets the requests that have begun end.
pub(super) async fn run(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    connections: TaskTracker,
    stop: CancellationToken,
) {
    let permits = Arc::new(Semaphore::new(limits.connections));
    let (crowd, crowded) = watch::channel(false);
    let house = House { router, limits, stop: stop.clone(), crowded };
    let mut told: Option<Instant> = None;
    let mut tell = move |what: &str| {
        if told.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
            told = Some(Instant::now());
            tracing::warn!("{what}");
        }
    };
    loop {
        let permit = match Arc::clone(&permits).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                tell("All connections are taken: further clients wait, and idle connections are closed early");
                crowd.send_replace(true);
                let Some(permit) = next_permit(&permits, &stop).await else { return };
                crowd.send_replace(false);
                permit
            }
        };
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let house = house.clone();
                connections.spawn(async move {
                    serve(stream, peer, house).await;
                    drop(permit);
                });
            }
            Err(error) => {
                // The client's own trouble is over at once; the system's (no descriptors left) needs a moment.
                if !matches!(error.kind(), std::io::ErrorKind::ConnectionAborted | std::io::ErrorKind::ConnectionReset)
                {
                    tell(&format!("A connection could not be taken: {error}"));
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// None: the server stops.
async fn next_permit(permits: &Arc<Semaphore>, stop: &CancellationToken) -> Option<OwnedSemaphorePermit> {
    tokio::select! {
        () = stop.cancelled() => None,
        permit = Arc::clone(permits).acquire_owned() => permit.ok(),
    }
}
