//! What the process knows of callbacks beside the file: who wants what, and for whom something was written.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use conductor_core::callbacks::{Event, Subscriptions};
use conductor_core::{EndpointId, TenantId};
use tokio::sync::Notify;

use super::{CallbackChange, CallbackNext, Called};

#[derive(Debug, Default)]
pub(crate) struct Marks {
    state: Mutex<State>,
    arrival: Notify,
}

#[derive(Debug, Default)]
struct State {
    subscriptions: Subscriptions,
    subscribed: Arc<HashSet<EndpointId>>,
    /// They get nothing: they have said that they want no more.
    disabled: HashSet<EndpointId>,
    /// Something was written for these in the transaction that is being tried.
    written: HashSet<EndpointId>,
    /// And for these since the worker has asked; at most every endpoint there is.
    arrived: HashSet<EndpointId>,
    /// These were enabled or are configured otherwise, since the worker has asked; at most every endpoint there is.
    renewed: HashSet<EndpointId>,
}

impl Marks {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The tenant's endpoints that are to be told of this event. Nothing is allocated where there are none.
    pub(super) fn wanting(&self, tenant: TenantId, event: Event) -> Vec<EndpointId> {
        let state = self.lock();
        let wanting = state.subscriptions.wanting(tenant, event).map(|subscription| subscription.endpoint);
        wanting.filter(|endpoint| !state.disabled.contains(endpoint)).collect()
    }

    /// Every endpoint that is configured.
    pub(super) fn subscribed(&self) -> Arc<HashSet<EndpointId>> {
        Arc::clone(&self.lock().subscribed)
    }

    pub(super) fn write_for(&self, endpoint: EndpointId) {
        self.lock().written.insert(endpoint);
    }

    /// The transaction was committed, or was not.
    pub(crate) fn end_of_transaction(&self, committed: bool) {
        let mut state = self.lock();
        if state.written.is_empty() {
            return;
        }
        let written = std::mem::take(&mut state.written);
        if committed {
            state.arrived.extend(written);
            drop(state);
            self.arrival.notify_one();
        }
    }

    /// Makes known what a change has brought, which was committed.
    pub(crate) fn publish(&self, change: CallbackChange, called: Called) {
        let mut state = self.lock();
        state.renewed.extend(called.renewed);
        match change {
            CallbackChange::Subscribe(subscriptions) => {
                state.subscribed = Arc::new(subscriptions.iter().map(|(_, each)| each.endpoint).collect());
                state.subscriptions = subscriptions;
                state.disabled = called.disabled.unwrap_or_default();
            }
            CallbackChange::Settle(finished) if finished.next == CallbackNext::Disable => {
                state.disabled.insert(finished.callback.endpoint);
            }
            CallbackChange::Enable(_, endpoint) if called.count > 0 => {
                state.disabled.remove(&endpoint);
                state.renewed.insert(endpoint);
                state.arrived.insert(endpoint);
                self.arrival.notify_one();
            }
            _ => {}
        }
        if !called.arrived.is_empty() {
            state.arrived.extend(called.arrived);
            self.arrival.notify_one();
        }
    }

    pub(super) async fn arrived(&self) {
        self.arrival.notified().await;
    }

    pub(super) fn take_renewed(&self) -> Vec<EndpointId> {
        std::mem::take(&mut self.lock().renewed).into_iter().collect()
    }

    pub(super) fn take_arrived(&self) -> Vec<EndpointId> {
        std::mem::take(&mut self.lock().arrived).into_iter().collect()
    }
}
