//! The loop that takes callbacks out of the store when they are due. Endpoints take turns, and those that fail share one
//! half of the slots, so that they leave the other to those that answer. So do those that have never answered.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use conductor_core::callbacks::Callback;
use conductor_core::{EndpointId, StoreError, Timestamp};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio_util::sync::CancellationToken;

use super::attempt::{self, Done};
use super::place::Place;
use crate::app::App;
use crate::registry::endpoint::Endpoint;

/// The loop looks at the clock so often, whatever it was told: the clock may jump.
const REST_MAX: Duration = Duration::from_secs(1);
/// An endpoint is asked for again after so long where the store could not be read, or no slot was to be had.
const AGAIN: Duration = Duration::from_secs(1);

/// Sends until `stop`; then lets what is under way end.
pub(super) async fn run(app: &App, slots: usize, stop: &CancellationToken) {
    let mut post = Post { app, slots, under_way: 0, failing: 0, places: HashMap::new(), looks: BTreeSet::new() };
    let mut attempts = FuturesUnordered::new();
    while !stop.is_cancelled() {
        let now = app.clock.now();
        for endpoint in app.store.arrived_callbacks() {
            post.look(endpoint, now);
        }
        for endpoint in app.store.renewed_endpoints() {
            post.renew(endpoint, now);
        }
        while let Some(id) = post.next(now) {
            match post.take(id, now).await {
                Ok((Some(endpoint), callbacks)) => {
                    attempts.extend(callbacks.into_iter().map(|each| attempt::make(app, Arc::clone(&endpoint), each)));
                }
                Ok((None, _)) => {}
                Err(error) => {
                    tracing::warn!(%error, endpoint.id = %id, "Callbacks could not be read; it is tried again");
                    post.look(id, now.plus(AGAIN));
                }
            }
        }
        tokio::select! {
            () = stop.cancelled() => {}
            Some(done) = attempts.next(), if !attempts.is_empty() => post.done(&done),
            () = app.store.callback_arrived() => {}
            () = tokio::time::sleep(post.rest(now)) => {}
        }
    }
    while attempts.next().await.is_some() {}
}

struct Post<'a> {
    app: &'a App,
    slots: usize,
    under_way: usize,
    /// How many of those are to endpoints that were failing when they began.
    failing: usize,
    /// The endpoints for which something waits: never more than are configured.
    places: HashMap<EndpointId, Place>,
    /// When which endpoint is to be looked at. Whoever has waited longest comes first.
    looks: BTreeSet<(Timestamp, EndpointId)>,
}

impl Post<'_> {
    /// Has an endpoint looked at at this time, or earlier if it is to be anyway.
    fn look(&mut self, id: EndpointId, at: Timestamp) {
        let place = self.places.entry(id).or_default();
        if let Some(before) = place.look {
            if before <= at {
                return;
            }
            self.looks.remove(&(before, id));
        }
        place.look = Some(at);
        self.looks.insert((at, id));
    }

    /// An endpoint was enabled, or is configured otherwise: it is not to wait for what it has asked for before.
    fn renew(&mut self, id: EndpointId, now: Timestamp) {
        if let Some(place) = self.places.get_mut(&id) {
            place.renew();
            self.look(id, now);
        }
    }

    /// The next endpoint whose turn it is and that may have an attempt more.
    fn next(&mut self, now: Timestamp) -> Option<EndpointId> {
        while self.under_way < self.slots {
            let (_, id) = self.looks.first().copied().filter(|(at, _)| *at <= now)?;
            self.looks.pop_first();
            let place = self.places.get_mut(&id)?;
            place.look = None;
            if let Some(until) = place.pause(now) {
                self.look(id, until);
            } else if place.free() > 0 {
                return Some(id);
            }
            // With as many under way as it may have, it is looked at when one of them has ended.
        }
        None
    }

    /// Takes what is due for an endpoint, as much as there is room for.
    async fn take(
        &mut self,
        id: EndpointId,
        now: Timestamp,
    ) -> Result<(Option<Arc<Endpoint>>, Vec<Callback>), StoreError> {
        let endpoint = self.app.registry().endpoint(id).map(Arc::clone);
        let is_crowded = self.failing >= self.slots / 2;
        let Some(place) = self.places.get(&id) else { return Ok((None, Vec::new())) };
        if endpoint.is_none() {
            // It is configured no more. An attempt may still be under way.
            if place.under_way() == 0 {
                self.places.remove(&id);
            }
            return Ok((None, Vec::new()));
        }
        // Thousands may fail and wait for the slots that those that fail may have: they are not read for nothing.
        if place.is_failing() && is_crowded {
            self.look(id, now.plus(AGAIN));
            return Ok((None, Vec::new()));
        }
        let room = place.free().min(self.slots - self.under_way);
        let waiting = self.app.store.callbacks(id, place.under_way() + room + 1).await?;
        let is_disabled = waiting.state.as_ref().is_none_or(|state| state.disabled_at.is_some());
        let place = self.places.entry(id).or_default();
        place.learn(waiting.state.and_then(|state| state.last).map(|last| last.ok));
        if place.is_failing() && is_crowded {
            self.look(id, now.plus(AGAIN));
            return Ok((None, Vec::new()));
        }
        let mut taken = Vec::new();
        let mut look = None;
        for callback in waiting.first {
            if place.has(callback.number) {
                continue;
            }
            if callback.due > now || taken.len() == room {
                look = Some(callback.due.max(now));
                break;
            }
            taken.push(callback);
        }
        if is_disabled {
            (taken, look) = (Vec::new(), None);
        }
        for callback in &taken {
            self.under_way += 1;
            self.failing += usize::from(place.enter(callback.number));
        }
        match look {
            Some(at) => self.look(id, at),
            None if self.places[&id].under_way() == 0 => drop(self.places.remove(&id)),
            None => {}
        }
        Ok((endpoint, taken))
    }

    fn done(&mut self, done: &Done) {
        self.under_way -= 1;
        let now = self.app.clock.now();
        if let Some(place) = self.places.get_mut(&done.endpoint) {
            self.failing -= usize::from(place.leave(done.number, done.ok, done.asked, now));
        }
        self.look(done.endpoint, now);
    }

    /// How long nothing is to be done, as far as is known.
    fn rest(&self, now: Timestamp) -> Duration {
        let first = self.looks.first().map_or(REST_MAX, |(at, _)| at.since(now));
        // Where all slots are taken, what is due waits for one of them.
        if self.under_way >= self.slots { REST_MAX } else { first.min(REST_MAX) }
    }
}
