//! What has to be done now and then: the store's subscriptions are those of the configuration, what can never be sent is
//! thrown away, and what waits is counted.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use conductor_core::callbacks::{AGE_MAX, EndpointState};
use conductor_core::{EndpointId, StoreError, TenantId};
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::registry::Registry;

/// Whether the configuration has changed is looked at so often. Whoever changes it has the store told at once; this is
/// for when the store could not take it.
const SUBSCRIBE_EVERY: Duration = Duration::from_secs(1);
/// The endpoints are looked through so often.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Between two steps of throwing away, so that others get to write.
const CLEAR_PAUSE: Duration = Duration::from_millis(20);

pub(super) async fn run(app: &App, stop: &CancellationToken) {
    let mut seen = Seen::default();
    let mut subscribed: Weak<Registry> = Weak::new();
    let mut looked: Option<Instant> = None;
    loop {
        let registry = app.registry();
        if subscribed.as_ptr() != Arc::as_ptr(&registry) {
            match app.subscribe().await {
                Ok(()) => (subscribed, looked) = (Arc::downgrade(&registry), None),
                Err(error) => tracing::warn!(%error, "Who wants callbacks could not be written; it is tried again"),
            }
        }
        if looked.is_none_or(|looked| looked.elapsed() >= LOOK_EVERY) {
            looked = Some(Instant::now());
            if let Err(error) = look(app, &registry, &mut seen, stop).await {
                tracing::warn!(%error, "The callbacks could not be looked through; it is tried again");
            }
        }
        drop(registry);
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(SUBSCRIBE_EVERY) => {}
        }
    }
}

/// What the last look has found.
#[derive(Default)]
struct Seen {
    dropped: HashMap<EndpointId, u64>,
    tenants: HashMap<TenantId, Counts>,
}

#[derive(Default, Clone, Copy)]
struct Counts {
    waiting: u64,
    disabled: u64,
}

async fn look(app: &App, registry: &Registry, seen: &mut Seen, stop: &CancellationToken) -> Result<(), StoreError> {
    let states = app.store.all_endpoints().await?;
    seen.tenants.values_mut().for_each(|counts| *counts = Counts::default());
    let mut dropped = HashMap::with_capacity(states.len());
    for state in &states {
        let counts = seen.tenants.entry(state.tenant).or_default();
        counts.waiting += state.waiting;
        counts.disabled += u64::from(state.disabled_at.is_some());
        // What an earlier process has thrown away, it has told of.
        let new = seen.dropped.get(&state.endpoint).map_or(0, |before| state.dropped.saturating_sub(*before));
        if new > 0 {
            app.metrics.callbacks.dropped(state.tenant, new);
            tracing::warn!(
                tenant.id = %state.tenant, endpoint.id = %state.endpoint, count = new, waiting = state.waiting,
                "Callbacks thrown away unsent: too many wait for this endpoint, or for too long, or it is disabled",
            );
        }
        dropped.insert(state.endpoint, state.dropped);
    }
    seen.dropped = dropped;
    for (tenant, counts) in &seen.tenants {
        app.metrics.callbacks.waiting(*tenant, counts.waiting, counts.disabled);
    }
    let is_idle = |state: &&EndpointState| {
        registry.endpoint(state.endpoint).is_none() || (state.disabled_at.is_some() && state.waiting > 0)
    };
    for state in states.iter().filter(is_idle) {
        clear(app, registry, state, stop).await?;
    }
    let before = app.clock.now().minus(AGE_MAX);
    for state in states.iter().filter(|state| state.oldest.is_some_and(|oldest| oldest < before)) {
        while app.store.drop_old_callbacks(state.endpoint, before).await? > 0 && !stop.is_cancelled() {
            tokio::time::sleep(CLEAR_PAUSE).await;
        }
    }
    Ok(())
}

/// Throws away all that is kept of an endpoint to which nothing is to be sent.
async fn clear(
    app: &App,
    registry: &Registry,
    state: &EndpointState,
    stop: &CancellationToken,
) -> Result<(), StoreError> {
    let mut count = 0;
    loop {
        let step = app.store.clear_callbacks(state.endpoint).await?;
        count += step;
        if step == 0 || stop.is_cancelled() {
            break;
        }
        tokio::time::sleep(CLEAR_PAUSE).await;
    }
    // One that is disabled is told of with the count that it keeps.
    if count > 0 && registry.endpoint(state.endpoint).is_none() {
        app.metrics.callbacks.dropped(state.tenant, u64::try_from(count).unwrap_or(u64::MAX));
        tracing::warn!(
            tenant.id = %state.tenant, endpoint.id = %state.endpoint, count,
            "Callbacks thrown away unsent: their endpoint is configured no more",
        );
    }
    Ok(())
}
