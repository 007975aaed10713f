//! The dispatcher: one loop that owns the schedule, and a task for each attempt under way.
//!
//! The schedule holds hints about what may be due; the store decides, by giving a lease or not.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use conductor_core::retry::rate_limit_pause;
use conductor_core::store::{BATCH_MAX, BacklogRequest, Claim, Claimed, Lease, Queued};
use conductor_core::{DeliveryKey, FailureReason, Health, Scope, SendErrorKind, Settlement, Timestamp};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::app::App;
use crate::registry::fingerprint::Fingerprint;
use crate::registry::{InUse, LiveChannel, Registry};
use attempt::Turns;
use entry::{Entry, Limited};
use gate::Gate;
use schedule::{Lane, Schedule};
use share::UnderWayMax;

pub use shelf::Capacity;

mod attempt;
mod content;
mod entry;
mod follow;
mod gate;
mod question;
mod report;
mod schedule;
mod share;
mod shelf;
mod span;
mod stock;

/// The most that is claimed in one go.
const CLAIM_MAX: usize = 128;
/// A delivery that its provider tells to wait again and again, though others pass, waits longer than it was told, but
/// not for that reason longer than this.
const STRETCHED_MAX: Duration = Duration::from_secs(10 * 60);
/// A part of a text that has to wait longer for its turn is given back with the rest of it, to make room meanwhile.
const PART_PATIENCE: Duration = Duration::from_secs(10);
/// What is due within this time is held in memory; the store is asked for more when half of it has passed.
const LOOK_AHEAD: Duration = Duration::from_secs(10 * 60);
/// The loop looks at the clock at least so often: it may have been changed.
const LOOK_AT_CLOCK: Duration = Duration::from_secs(1);
/// How long the loop waits after the store failed.
const STORE_PAUSE: Duration = Duration::from_millis(500);

/// What the dispatcher may take at the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// How much of what waits is held in memory.
    pub capacity: Capacity,
    /// The open files that attempts may take: where they run short, each channel has fewer attempts under way.
    pub descriptors: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { capacity: Capacity::default(), descriptors: share::UNDER_WAY_MAX }
    }
}

/// What an attempt's task tells the loop.
enum Event {
    /// The send has returned, or there was none: the gate may go on, and the lane unless it is kept.
    Tried {
        entry: Entry,
        result: Option<Result<(), SendErrorKind>>,
        reason: String,
        began: Timestamp,
        at: Timestamp,
        keeps_lane: bool,
        /// Through whom it was sent: the channel may have another account by now.
        account: Option<Fingerprint>,
    },
    /// What became of it is written, or the store is closed: a kept lane may go on.
    Settled { entry: Entry, next: Option<Queued>, keeps_lane: bool },
    /// An attempt asks how long the next part of its text has to wait, if it is not to be given back.
    Part { place: u32, reply: oneshot::Sender<Option<Duration>> },
    /// A stopped channel was asked whether it works.
    Answered { place: u32, health: Health },
}

struct Dispatcher {
    app: Arc<App>,
    /// The configuration that the schedule follows.
    registry: Arc<Registry>,
    schedule: Schedule,
    under_way: usize,
    under_way_max: UnderWayMax,
    /// Those under way that were told to wait once more: until when they do, and until when their lane does.
    limited: HashMap<DeliveryKey, (Limited, Timestamp, Timestamp)>,
    /// What is due later, and was never tried, is left to the store.
    horizon: Timestamp,
    tracker: TaskTracker,
    events: mpsc::UnboundedSender<Event>,
}

/// Delivers what is due until `stop`; then waits for nothing: the attempts under way are `tracker`'s.
pub async fn run(app: Arc<App>, bounds: Bounds, tracker: TaskTracker, stop: CancellationToken) {
    // Bounded by the attempts under way and the channels that are asked: each sends two events at the most,
    // and asks for one part at a time.
    let (events, mut received) = mpsc::unbounded_channel();
    let mut dispatcher = Dispatcher {
        registry: app.registry(),
        app,
        schedule: Schedule::with_capacity(bounds.capacity),
        under_way: 0,
        under_way_max: UnderWayMax::with_descriptors(bounds.descriptors),
        limited: HashMap::new(),
        horizon: Timestamp::ZERO,
        tracker,
        events,
    };
    while !stop.is_cancelled() {
        let busy = dispatcher.step().await;
        while let Ok(event) = received.try_recv() {
            dispatcher.handle(event);
        }
        if busy {
            tokio::task::yield_now().await;
            continue;
        }
        let app = Arc::clone(&dispatcher.app);
        let wait = dispatcher.until_next_alarm();
        tokio::select! {
            () = stop.cancelled() => {}
            () = app.store.arrived() => {}
            () = app.registry_replaced() => {}
            () = tokio::time::sleep(wait) => {}
            event = received.recv() => {
                if let Some(event) = event {
                    dispatcher.handle(event);
                }
            }
        }
    }
}

impl Dispatcher {
    /// Takes in what has arrived and begins what may begin. Returns whether there may be more to do at once.
    async fn step(&mut self) -> bool {
        self.follow();
        self.look_ahead();
        let took_in = self.take_in().await;
        let filled = self.fill().await;
        let now = self.app.clock.now();
        self.schedule.ring(now);
        for place in self.schedule.take_to_ask() {
            self.ask(place, now);
        }
        let more = self.begin(now).await;
        took_in == BATCH_MAX || filled || more
    }

    fn look_ahead(&mut self) {
        let now = self.app.clock.now();
        let until = now.plus(LOOK_AHEAD);
        if now.plus(LOOK_AHEAD / 2) > self.horizon && self.app.store.look_ahead(until) {
            self.horizon = until;
        }
    }

    fn until_next_alarm(&self) -> Duration {
        let alarm = self.schedule.next_alarm().map(|at| at.since(self.app.clock.now()));
        // A millisecond is what the clock tells apart; less would be a busy wait.
        alarm.map_or(LOOK_AT_CLOCK, |wait| wait.clamp(Duration::from_millis(1), LOOK_AT_CLOCK))
    }

    async fn take_in(&mut self) -> usize {
        match self.app.store.arrivals(BATCH_MAX).await {
            Ok(arrived) => {
                let now = self.app.clock.now();
                for queued in &arrived {
                    if let Some(place) = self.place_of(queued) {
                        self.schedule.keep_pause(place, queued, now);
                        self.schedule.arrive(place, queued, now);
                    }
                }
                arrived.len()
            }
            Err(error) => {
                tracing::error!(%error, "What waits could not be read from the store; it is tried again");
                tokio::time::sleep(STORE_PAUSE).await;
                0
            }
        }
    }

    /// Takes in a part of what one channel had too much of, if one has run low. Returns whether there may be more.
    async fn fill(&mut self) -> bool {
        let Some(hungry) = self.schedule.hungry() else { return false };
        let (after, limit) = (hungry.want.rest.after, hungry.want.most.min(BATCH_MAX));
        let request = BacklogRequest { channel: hungry.channel, priority: hungry.priority, after, limit };
        match self.app.store.backlog(request).await {
            Ok(mut part) => {
                let horizon = self.horizon;
                part.found.retain(|queued| is_near(queued, horizon));
                self.schedule.feed(&hungry, &part.found, part.through, self.app.clock.now());
                true
            }
            Err(error) => {
                tracing::error!(%error, "A channel's backlog could not be read from the store; it is tried again");
                self.schedule.still_hungry(&hungry);
                tokio::time::sleep(STORE_PAUSE).await;
                false
            }
        }
    }

    /// The place of a delivery's channel, unless the store will hand it over again when its time comes near.
    fn place_of(&mut self, queued: &Queued) -> Option<u32> {
        if !is_near(queued, self.horizon) {
            return None;
        }
        let registry = &self.registry;
        let describe = || {
            let shape = follow::shape(registry.channel(queued.channel).map(Arc::as_ref));
            (Gate::new(shape.max, shape.rate), shape.ordered, follow::weight(registry, queued.tenant))
        };
        Some(self.schedule.channel_place(queued.tenant, queued.channel, describe))
    }

    /// Claims what may go now and begins the attempts. Returns whether there may be more to begin at once: as many were
    /// picked as can be, or some came to nothing and left their places to others.
    async fn begin(&mut self, now: Timestamp) -> bool {
        let mut picked = Vec::new();
        while picked.len() < CLAIM_MAX {
            let share = self.under_way_max.share(self.under_way + picked.len(), self.schedule.share());
            self.schedule.set_share(share);
            let Some(entry) = self.schedule.pick(now) else { break };
            picked.push(entry);
        }
        if picked.is_empty() {
            return false;
        }
        let mut more = picked.len() == CLAIM_MAX;
        let claims: Vec<Claim> = picked.iter().map(|entry| Claim { key: entry.key, suspect: entry.suspect }).collect();
        match self.app.store.claim(&claims, now).await {
            Ok(claimed) => {
                for (entry, claimed) in picked.iter().zip(claimed) {
                    more |= !matches!(claimed, Claimed::Leased(_));
                    self.begin_one(*entry, claimed, now);
                }
            }
            Err(error) => {
                tracing::error!(%error, "Deliveries could not be claimed; it is tried again");
                tokio::time::sleep(STORE_PAUSE).await;
                for entry in picked.iter().rev() {
                    self.schedule.channel(entry.channel()).gate.withdraw();
                    self.schedule.put_back(*entry, now);
                }
            }
        }
        more
    }

    fn begin_one(&mut self, entry: Entry, claimed: Claimed, now: Timestamp) {
        match claimed {
            Claimed::Leased(lease) => {
                self.under_way += 1;
                self.app.metrics.under_way(self.under_way);
                self.schedule.channel(entry.channel()).tasks += 1;
                let (app, events) = (Arc::clone(&self.app), self.events.clone());
                self.tracker.spawn(attempt(app, entry, *lease, events));
            }
            Claimed::NotDue(queued) => {
                if is_near(&queued, self.horizon) {
                    self.schedule.insert(entry.channel(), &queued, entry.limited, now);
                }
                self.give_back(entry, now);
            }
            Claimed::Gone => self.give_back(entry, now),
        }
    }

    /// Nothing came of a pick.
    fn give_back(&mut self, entry: Entry, now: Timestamp) {
        self.schedule.channel(entry.channel()).gate.withdraw();
        self.schedule.left(entry, Lane::Free, now);
    }

    fn handle(&mut self, event: Event) {
        self.follow();
        let now = self.app.clock.now();
        match event {
            Event::Tried { entry, result: None, keeps_lane, .. } => {
                self.schedule.channel(entry.channel()).gate.withdraw();
                if !keeps_lane {
                    self.schedule.left(entry, Lane::Free, now);
                }
            }
            Event::Tried { entry, result: Some(result), reason, began, at, keeps_lane, account } => {
                let lane = self.lane_after(&entry, &result, at);
                let is_current = self.is_current(entry.channel(), account);
                let gate = &mut self.schedule.channel(entry.channel()).gate;
                if is_current {
                    let was_stopped = gate.is_stopped();
                    gate.leave(result, &reason, pause_of(&result, at).unwrap_or(at), began, at);
                    if gate.is_stopped() && !was_stopped {
                        let after = gate.next_ask();
                        self.schedule.ask_at(entry.channel(), now.plus(after));
                    }
                } else {
                    gate.leave_behind(began);
                }
                self.tell(entry.channel());
                if !keeps_lane {
                    self.schedule.left(entry, lane, now);
                }
            }
            Event::Settled { entry, next, keeps_lane } => {
                self.under_way -= 1;
                self.app.metrics.under_way(self.under_way);
                self.schedule.channel(entry.channel()).tasks -= 1;
                let (limited, until, pause) = self.limited.remove(&entry.key).unwrap_or_default();
                match next {
                    Some(next) if next.key == entry.key => {
                        let next = Queued { due: next.due.max(until), ..next };
                        self.schedule.insert(entry.channel(), &next, limited, now);
                    }
                    // A fallback: it has come anew, to another channel.
                    Some(next) => {
                        if let Some(place) = self.place_of(&next) {
                            self.schedule.arrive(place, &next, now);
                        }
                    }
                    None => {}
                }
                if keeps_lane {
                    // The lane waits as it was told also where its head has ended.
                    let lane = if pause > now { Lane::FreeAt(pause) } else { Lane::Free };
                    self.schedule.left(entry, lane, now);
                }
            }
            Event::Part { place, reply } => {
                let at = self.schedule.channel(place).gate.admit_part(now, PART_PATIENCE);
                let _ = reply.send(at.map(|at| at.since(now)));
            }
            Event::Answered { place, health } => {
                self.schedule.channel(place).tasks -= 1;
                self.answered(place, &health, now);
            }
        }
    }

    /// How a lane goes on after an attempt. A delivery that was told to wait keeps its place in it at first; the next
    /// time it lets the others pass, and where they do, each time has it wait longer.
    fn lane_after(&mut self, entry: &Entry, result: &Result<(), SendErrorKind>, at: Timestamp) -> Lane {
        let Err(SendErrorKind::RateLimited { scope, retry_after }) = *result else { return Lane::Free };
        let others_pass = self.schedule.channel(entry.channel()).gate.others_pass();
        let limited = entry.limited.again(others_pass && scope == Scope::Channel);
        let pause = rate_limit_pause(retry_after);
        let stretched = (pause * limited.stretch()).min(STRETCHED_MAX).max(pause);
        self.limited.insert(entry.key, (limited, at.plus(stretched), at.plus(pause)));
        if scope == Scope::Lane || !limited.makes_way() { Lane::FreeAt(at.plus(pause)) } else { Lane::Free }
    }

    /// Shows a channel's state, and logs when it changes for better or worse.
    fn tell(&mut self, place: u32) {
        let id = self.schedule.channel_id(place);
        let gate = &self.schedule.channel(place).gate;
        let (state, stopped) = (gate.state(), gate.is_stopped());
        let Some(channel) = self.registry.channel(id) else { return };
        let before = channel.flow.state();
        if before == state {
            return;
        }
        if before.health != state.health {
            report::health(channel, &before.health, &state.health, stopped);
        }
        channel.flow.update(|shown| *shown = state);
    }
}

/// Whether it is held in memory: not what its caller wants to be sent much later.
fn is_near(queued: &Queued, horizon: Timestamp) -> bool {
    queued.tried || queued.due <= horizon
}

/// How long a rate-limited channel or lane is left alone.
fn pause_of(result: &Result<(), SendErrorKind>, at: Timestamp) -> Option<Timestamp> {
    match result {
        Err(SendErrorKind::RateLimited { retry_after, .. }) => Some(at.plus(rate_limit_pause(*retry_after))),
        _ => None,
    }
}

/// An attempt ends after some parts of its text. The rest keeps its place in the lane.
async fn give_back(
    app: &App,
    account: Fingerprint,
    entry: Entry,
    lease: Lease,
    began: Timestamp,
    events: &mpsc::UnboundedSender<Event>,
) {
    let (at, keeps_lane, account) = (app.clock.now(), true, Some(account));
    let next = entry.queued(&lease);
    let (result, reason) = (Some(Ok(())), String::new());
    let _ = events.send(Event::Tried { entry, result, reason, began, at, keeps_lane, account });
    app.store.release(lease).await;
    let _ = events.send(Event::Settled { entry, next: Some(next), keeps_lane });
}

/// A delivery's channel as it is configured now, and a promise that it is not shut down meanwhile. None: it is configured
/// no more.
fn enter(app: &App, lease: &Lease) -> Option<(Arc<LiveChannel>, InUse)> {
    loop {
        let registry = app.registry();
        let channel = registry.channel(lease.channel).filter(|channel| channel.tenant == lease.notification.tenant)?;
        if let Some(in_use) = channel.enter() {
            return Some((Arc::clone(channel), in_use));
        }
        // It is being shut down, so that another configuration is in place by now.
    }
}

/// One attempt under way.
async fn attempt(app: Arc<App>, entry: Entry, mut lease: Lease, events: mpsc::UnboundedSender<Event>) {
    let now = app.clock.now();
    let (id, tenant, accepted_at) = (lease.notification.id, lease.notification.tenant, lease.notification.accepted_at);
    let skip = |keeps_lane| {
        let (result, reason, began, at, account) = (None, String::new(), now, now, None);
        let _ = events.send(Event::Tried { entry, result, reason, began, at, keeps_lane, account });
        keeps_lane
    };
    let entered = enter(&app, &lease);
    let kind = entered.as_ref().map_or("removed", |(channel, _)| channel.kind);
    let (finished, keeps_lane) = match entered {
        None => (attempt::give_up(FailureReason::ChannelRemoved, now), skip(false)),
        Some((channel, _)) if now >= lease.expires_at => {
            (attempt::give_up(FailureReason::Expired, now), skip(channel.ordered))
        }
        Some((channel, in_use)) => {
            let turns = Turns { place: entry.channel(), events: events.clone() };
            let account = channel.prints.account;
            let Some(tried) = attempt::send(&app, &channel, &mut lease, &turns).await else {
                return give_back(&app, account, entry, lease, now, &events).await;
            };
            drop(in_use);
            let at = app.clock.now();
            let finished = attempt::conclude(&channel, &lease, &tried, at, fastrand::f64());
            report::attempt(&channel, &lease, &tried, &finished);
            let outcome = attempt::outcome(&tried);
            app.metrics.attempted(tenant, channel.kind, outcome, tried.took);
            // What was sent in order has left in order, whenever that is written down.
            let keeps_lane = channel.ordered && tried.result.is_err();
            let reason = tried.result.as_ref().err().map(|error| error.message.clone()).unwrap_or_default();
            let (result, account) = (Some(tried.result.map(drop).map_err(|error| error.kind)), Some(account));
            let _ = events.send(Event::Tried { entry, result, reason, began: now, at, keeps_lane, account });
            (finished, keeps_lane)
        }
    };
    let settlement = finished.settlement;
    let settled = attempt::settle(&app, lease, finished).await;
    if let Some(settled) = settled {
        match settlement {
            Settlement::Sent => app.metrics.sent(tenant, kind, app.clock.now().since(accepted_at)),
            Settlement::Failed(reason) => app.metrics.failed(tenant, kind, reason),
            Settlement::RetryAt { .. } | Settlement::StepDown | Settlement::Hold => {}
        }
        if settled.next.is_none() {
            app.outcomes.tell(id, settled.status);
        }
    }
    let _ = events.send(Event::Settled { entry, next: settled.and_then(|settled| settled.next), keeps_lane });
}
