//! The counters of each tenant and channel type. Which there are, the configuration says: a label that it does not name
//! makes no series.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use conductor_core::{FailureReason, Histogram, Outcome, TenantId, Timestamp};

use super::family::Text;

/// So many tenants, those with the smallest ids, have series of their own; the others share those of [`OTHER`]. A tenant
/// has some fifteen for each of its channel types.
pub const TENANTS_MAX: usize = 1_000;
/// The tenant's label of all that have none of their own.
pub const OTHER: &str = "other";
/// The channel type of what was to leave through a channel that is configured no more.
pub const REMOVED: &str = "removed";

/// In seconds: from a request to a server that idles to one whose disk is slow.
const ACCEPT_BOUNDS: &[f64] = &[0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];
/// In seconds: up to the time limit of an attempt.
const ATTEMPT_BOUNDS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// In seconds: from at once to the day after which most are given up.
const AGE_BOUNDS: &[f64] =
    &[0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0, 43_200.0, 86_400.0];

/// Whose series they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Owner {
    /// One tenant's.
    Tenant(TenantId),
    /// Those of all who have none of their own.
    Others,
}

impl Owner {
    pub(super) fn label(self) -> Text {
        match self {
            Self::Tenant(id) => Text::Shared(id.to_string().into()),
            Self::Others => Text::Word(OTHER),
        }
    }
}

/// The counters of an owner's channels of one type.
#[derive(Debug)]
pub(super) struct Meters {
    pub(super) accepted: AtomicU64,
    pub(super) sent: AtomicU64,
    /// In the order of [`Outcome::ALL`].
    pub(super) attempts: [AtomicU64; Outcome::ALL.len()],
    /// In the order of [`FailureReason::ALL`].
    pub(super) failed: [AtomicU64; FailureReason::ALL.len()],
    /// When the oldest that waits was accepted, as it was last seen, in milliseconds; 0 where it was not seen.
    oldest: AtomicI64,
    /// Whether it shows while all of it is zero.
    shown: AtomicBool,
}

impl Meters {
    fn new(shown: bool) -> Self {
        Self {
            accepted: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            attempts: Default::default(),
            failed: Default::default(),
            oldest: AtomicI64::new(0),
            shown: AtomicBool::new(shown),
        }
    }

    /// Adds one to a counter of these.
    pub(super) fn count(&self, counter: impl FnOnce(&Self) -> &AtomicU64) {
        counter(self).fetch_add(1, Ordering::Relaxed);
        if !self.shown.load(Ordering::Relaxed) {
            self.shown.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn saw_oldest(&self, at: Timestamp) {
        self.oldest.store(at.millis(), Ordering::Relaxed);
    }

    pub(super) fn oldest(&self) -> Option<Timestamp> {
        let millis = self.oldest.load(Ordering::Relaxed);
        (millis != 0).then(|| Timestamp::from_millis(millis))
    }
}

/// The histograms of one channel type. By tenant they would be too many series.
#[derive(Debug)]
pub(super) struct Times {
    pub(super) accept: Histogram,
    pub(super) attempt: Histogram,
    pub(super) age: Histogram,
}

impl Times {
    fn new() -> Self {
        let [accept, attempt, age] = [ACCEPT_BOUNDS, ATTEMPT_BOUNDS, AGE_BOUNDS].map(Histogram::new);
        Self { accept, attempt, age }
    }
}

type ByType<T> = Vec<(&'static str, Arc<T>)>;

/// The counters of one version of the configuration. Finding one takes no lock.
#[derive(Debug)]
pub(super) struct Table {
    tenants: HashMap<TenantId, ByType<Meters>>,
    others: ByType<Meters>,
    /// Those that count as others.
    beyond: BTreeSet<TenantId>,
    times: ByType<Times>,
}

impl Default for Table {
    fn default() -> Self {
        let others = vec![(REMOVED, Arc::new(Meters::new(false)))];
        Self {
            tenants: HashMap::new(),
            others,
            beyond: BTreeSet::new(),
            times: vec![(REMOVED, Arc::new(Times::new()))],
        }
    }
}

impl Table {
    /// The counters for these tenants, each with its channel types; those that were counted before go on.
    pub(super) fn following(&self, tenants: impl IntoIterator<Item = (TenantId, BTreeSet<&'static str>)>) -> Self {
        let mut tenants: BTreeMap<TenantId, BTreeSet<&'static str>> = tenants.into_iter().collect();
        let mut types: BTreeSet<&'static str> = tenants.values().flatten().copied().collect();
        types.insert(REMOVED);
        let rest = match tenants.keys().nth(TENANTS_MAX).copied() {
            Some(first) => tenants.split_off(&first),
            None => BTreeMap::new(),
        };
        let shown: BTreeSet<&'static str> = rest.values().flatten().copied().collect();
        let meters = |before: Option<&ByType<Meters>>, kind, shown| {
            let before = before.and_then(|before| find(before, kind)).cloned();
            let meters = before.unwrap_or_else(|| Arc::new(Meters::new(shown)));
            meters.shown.fetch_or(shown, Ordering::Relaxed);
            (kind, meters)
        };
        let own = |(id, types): (TenantId, BTreeSet<&'static str>)| {
            let before = self.tenants.get(&id);
            let types = types.into_iter().map(|kind| meters(before, kind, true));
            (id, types.chain([meters(before, REMOVED, false)]).collect())
        };
        let times = |kind| (kind, find(&self.times, kind).cloned().unwrap_or_else(|| Arc::new(Times::new())));
        Self {
            tenants: tenants.into_iter().map(own).collect(),
            others: types.iter().map(|kind| meters(Some(&self.others), kind, shown.contains(kind))).collect(),
            beyond: rest.into_keys().collect(),
            times: types.iter().map(|kind| times(kind)).collect(),
        }
    }

    /// Whether the configuration has this tenant.
    pub(super) fn knows(&self, tenant: TenantId) -> bool {
        self.tenants.contains_key(&tenant) || self.beyond.contains(&tenant)
    }

    /// Whose counters count for a tenant.
    pub(super) fn owner(&self, tenant: TenantId) -> Owner {
        if self.tenants.contains_key(&tenant) { Owner::Tenant(tenant) } else { Owner::Others }
    }

    /// The counters for a tenant's channels of a type.
    pub(super) fn meters(&self, tenant: TenantId, kind: &str) -> Option<&Arc<Meters>> {
        let of = self.tenants.get(&tenant).unwrap_or(&self.others);
        find(of, kind).or_else(|| find(of, REMOVED))
    }

    /// The histograms of a channel type.
    pub(super) fn times(&self, kind: &str) -> Option<&Arc<Times>> {
        find(&self.times, kind).or_else(|| find(&self.times, REMOVED))
    }

    /// All counters that are to be shown, in the order of their labels.
    pub(super) fn shown(&self) -> Vec<(Owner, &'static str, &Meters)> {
        let tenants = self.tenants.iter().map(|(id, of)| (Owner::Tenant(*id), of));
        let all = tenants.chain([(Owner::Others, &self.others)]);
        let all = all.flat_map(|(owner, of)| of.iter().map(move |(kind, meters)| (owner, *kind, &**meters)));
        let mut shown: Vec<_> = all.filter(|(_, _, meters)| meters.shown.load(Ordering::Relaxed)).collect();
        shown.sort_unstable_by_key(|(owner, kind, _)| (*owner, *kind));
        shown
    }

    /// The histograms of all channel types.
    pub(super) fn all_times(&self) -> impl Iterator<Item = (&'static str, &Times)> {
        self.times.iter().map(|(kind, times)| (*kind, &**times))
    }
}

/// There are few types, and most tenants have one or two.
fn find<'a, T>(of: &'a ByType<T>, kind: &str) -> Option<&'a Arc<T>> {
    of.iter().find(|(known, _)| *known == kind).map(|(_, found)| found)
}

/// How long something took, counted for a channel type.
pub(super) fn observe(table: &Table, kind: &str, of: impl FnOnce(&Times) -> &Histogram, took: Duration) {
    if let Some(times) = table.times(kind) {
        of(times).observe(took);
    }
}
