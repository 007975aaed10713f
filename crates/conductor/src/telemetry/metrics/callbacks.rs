//! What is counted of callbacks. They are few beside the notifications, so that one lock serves them all.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use conductor_core::TenantId;
use conductor_core::callbacks::{CallbackNext, Event};

use super::family::{Family, Text};
use super::table::{Owner, Table};

/// What follows an attempt.
const OUTCOMES: [&str; 4] = ["delivered", "retried", "givenUp", "disabled"];

/// Counters of callbacks.
#[derive(Debug, Default)]
pub struct CallbackMetrics(Mutex<BTreeMap<TenantId, Counts>>);

/// Those of one tenant, or of several.
#[derive(Debug, Clone, Default, PartialEq)]
struct Counts {
    /// For each event that was told, in the order of [`OUTCOMES`].
    attempts: BTreeMap<Event, [u64; OUTCOMES.len()]>,
    dropped: u64,
    waiting: u64,
    disabled: u64,
}

impl Counts {
    fn add(&mut self, other: &Self) {
        for (event, counts) in &other.attempts {
            let all = self.attempts.entry(*event).or_default();
            all.iter_mut().zip(counts).for_each(|(all, count)| *all += count);
        }
        self.dropped += other.dropped;
        self.waiting += other.waiting;
        self.disabled += other.disabled;
    }
}

impl CallbackMetrics {
    fn all(&self) -> MutexGuard<'_, BTreeMap<TenantId, Counts>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An attempt was made, and this follows.
    pub fn attempted(&self, tenant: TenantId, event: Event, next: CallbackNext) {
        let outcome = match next {
            CallbackNext::Done => 0,
            CallbackNext::Again(_) => 1,
            CallbackNext::GiveUp => 2,
            CallbackNext::Disable => 3,
        };
        self.all().entry(tenant).or_default().attempts.entry(event).or_default()[outcome] += 1;
    }

    /// So many were thrown away unsent.
    pub fn dropped(&self, tenant: TenantId, count: u64) {
        self.all().entry(tenant).or_default().dropped += count;
    }

    /// So many wait, and so many endpoints are disabled.
    pub fn waiting(&self, tenant: TenantId, waiting: u64, disabled: u64) {
        let mut all = self.all();
        let counts = all.entry(tenant).or_default();
        (counts.waiting, counts.disabled) = (waiting, disabled);
    }

    /// Forgets all tenants but these.
    pub(super) fn follow(&self, is_known: impl Fn(TenantId) -> bool) {
        self.all().retain(|tenant, _| is_known(*tenant));
    }

    pub(super) fn families(&self, table: &Table) -> [Family; 4] {
        let mut owners: BTreeMap<Owner, Counts> = BTreeMap::new();
        for (tenant, counts) in &*self.all() {
            owners.entry(table.owner(*tenant)).or_default().add(counts);
        }
        let mut attempts =
            Family::counter("conductor_callbacks_total", "Attempts to send callbacks, by what followed.");
        let mut dropped =
            Family::counter("conductor_callbacks_dropped_total", "Callbacks that were thrown away unsent.");
        let mut waiting = Family::gauge("conductor_callbacks_waiting", "Callbacks that wait.");
        let mut disabled =
            Family::gauge("conductor_callback_endpoints_disabled", "Endpoints of callbacks that answered 410 Gone.");
        // Tenants that were removed are still looked after for a while.
        owners.retain(|owner, counts| *owner != Owner::Others || *counts != Counts::default());
        for (owner, counts) in owners {
            let tenant = || ("tenant", owner.label());
            for (event, of_event) in counts.attempts {
                for (outcome, count) in OUTCOMES.iter().zip(of_event) {
                    let labels = [tenant(), ("event", Text::Word(event.as_str())), ("outcome", Text::Word(outcome))];
                    attempts.add(labels, count);
                }
            }
            dropped.add([tenant()], counts.dropped);
            waiting.add([tenant()], counts.waiting);
            disabled.add([tenant()], counts.disabled);
        }
        [attempts, dropped, waiting, disabled]
    }
}
