//! The model: what each notification is, and what may and must happen to it. It knows no queue and no schedule, only
//! the promises.

use std::collections::HashMap;
use std::time::Duration;

use conductor_core::retry::{BACKOFF, rate_limit_pause};
use conductor_core::store::{DeliveryStory, Story};
use conductor_core::{
    DeliveryKey, FailureReason, ManualClock, NotificationId, Outcome, Priority, Scope, Status, Timestamp,
};

use super::life::{CHANNELS, channel_id, kind_of, tenant_of};
use super::provider::{Answer, Call, WORDS};

/// What is found, or why it is wrong.
pub(crate) type Check<T = ()> = Result<T, String>;

macro_rules! ensure {
    ($holds:expr, $($why:tt)+) => {
        if !$holds {
            return Err(format!($($why)+));
        }
    };
}
pub(crate) use ensure;

/// A clock that is put back by less is not taken as one that was.
const CLOCK_STEP: Duration = Duration::from_secs(1);
/// Whoever was told to wait so often in a row waits for longer than that, in the end.
const PATIENCE: usize = 2;
/// With fewer failures in a row no breaker opens.
const FAILURES_AT_LEAST: u32 = 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Waits,
    UnderWay,
    Held,
    Ended(Status),
}

/// A way out: a channel, and a target within it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Way {
    pub(crate) channel: usize,
    pub(crate) target: Option<u8>,
}

impl Way {
    pub(crate) fn target_id(self) -> Option<String> {
        self.target.map(|target| format!("target {target}"))
    }
}

/// One notification: its last delivery, and those before it.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) id: NotificationId,
    pub(crate) way: Way,
    /// Under which it holds a place, with the way on which it was accepted.
    pub(crate) key: Option<(u8, Way)>,
    pub(crate) priority: Priority,
    pub(crate) fallback: Vec<Way>,
    pub(crate) next_fallback: usize,
    pub(crate) ordinal: u8,
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) failures: u32,
    pub(crate) due: Timestamp,
    /// It has been due, though the clock may have been put back since.
    pub(crate) was_due: bool,
    pub(crate) expires_at: Timestamp,
    pub(crate) place: Place,
    /// When it came into its lane, as a number that grows.
    pub(crate) joined: u64,
    /// It was accepted to be sent at once, and nothing has happened to it since.
    pub(crate) fresh: bool,
    /// It waited when a process died.
    pub(crate) suspect: bool,
    /// It was under way when the last process died.
    pub(crate) was_under_way: bool,
    /// It was told to wait so often in a row that it lets others pass, for longer than it was told.
    pub(crate) makes_way: bool,
    /// The deliveries before this one: their ways, ends and attempts.
    pub(crate) past: Vec<(Way, Status, Vec<Outcome>)>,
}

/// A time to wait, between the shortest and the longest that it may be taken for once the clock has been put back.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Pause {
    earliest: Timestamp,
    latest: Timestamp,
    length: Duration,
}

impl Pause {
    fn extend(&mut self, now: Timestamp, length: Duration) {
        self.earliest = self.earliest.max(now.plus(length));
        if self.latest <= now.plus(length) {
            (self.latest, self.length) = (now.plus(length), length);
        }
    }

    fn may_last(&mut self, now: Timestamp, until: Timestamp) {
        if self.latest < until {
            (self.latest, self.length) = (until, until.since(now));
        }
    }

    fn put_back(&mut self, now: Timestamp, by: Duration) {
        self.earliest = self.earliest.minus(by);
        self.latest = self.latest.min(now.plus(self.length + CLOCK_STEP));
    }
}

/// What is known of a channel, in one life of the process.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gate {
    pub(crate) pause: Pause,
    lanes: HashMap<Option<u8>, Pause>,
    pub(crate) stopped: bool,
    /// The provider would take its credentials again.
    pub(crate) mended: bool,
    failures: u32,
    /// When sends began, since the clock was last put back.
    sends: Vec<Timestamp>,
    last_send: Option<Timestamp>,
    put_back: bool,
}

/// What a channel shows of its breaker.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Shown {
    pub(crate) closed: bool,
    pub(crate) until: Timestamp,
}

pub(crate) struct Model {
    pub(crate) all: Vec<Known>,
    pub(crate) gates: Vec<Gate>,
    /// Which notification holds a `key`.
    pub(crate) holders: HashMap<(u8, Way), NotificationId>,
    /// Deliveries under way that began while the breaker was not closed.
    probes: Vec<NotificationId>,
}

impl Known {
    pub(crate) fn delivery(&self) -> DeliveryKey {
        DeliveryKey { notification: self.id, ordinal: self.ordinal }
    }

    /// As the store tells it.
    pub(crate) fn status(&self, now: Timestamp) -> Status {
        match self.place {
            Place::Ended(status) => status,
            Place::Held => Status::Held,
            Place::UnderWay => Status::Sending,
            Place::Waits if !self.outcomes.is_empty() => Status::Retrying,
            Place::Waits if self.due > now => Status::Scheduled,
            Place::Waits => Status::Queued,
        }
    }

    pub(crate) fn has_row(&self) -> bool {
        !matches!(self.place, Place::Ended(_))
    }

    /// Its lane waits for it, where the order counts.
    fn is_in_lane(&self) -> bool {
        self.place == Place::Waits && (self.was_due || !self.outcomes.is_empty())
    }

    /// Whether it has to leave before `other` in an ordered lane.
    fn precedes(&self, other: &Self) -> bool {
        self.way == other.way && self.delivery() < other.delivery()
    }

    /// A new delivery of the same notification follows.
    pub(crate) fn follow(&mut self, way: Way, now: Timestamp, joined: u64) {
        let Place::Ended(status) = self.place else { unreachable!("the one before has ended") };
        self.past.push((self.way, status, std::mem::take(&mut self.outcomes)));
        (self.way, self.ordinal, self.failures) = (way, self.ordinal + 1, 0);
        self.wait(now, joined);
        (self.suspect, self.was_under_way, self.makes_way) = (false, false, false);
    }

    /// It waits from now on.
    pub(crate) fn wait(&mut self, now: Timestamp, joined: u64) {
        (self.place, self.due, self.was_due, self.joined, self.fresh) = (Place::Waits, now, true, joined, false);
    }

    /// Its attempt went down with the process.
    fn lose_attempt(&mut self, told: &DeliveryStory, now: Timestamp) -> Check {
        let last = told.attempts.last().expect("there is one more than before");
        let agrees = last.outcome == Outcome::Unknown && last.detail.as_deref() != Some(WORDS) && self.suspect;
        ensure!(agrees, "an attempt that nobody made: {self:#?} {told:#?}");
        self.outcomes.push(Outcome::Unknown);
        self.failures += 1;
        // It may have expired since.
        let Some(due) = told.due_at else { return Ok(()) };
        self.due = due;
        let wait = self.due.since(now);
        ensure!(wait <= BACKOFF[BACKOFF.len() - 1], "waits for {wait:?} after a crash: {self:#?}");
        Ok(())
    }

    /// Holds the story against all that is known.
    pub(crate) fn agrees(&self, story: &Story, now: Timestamp) -> Check {
        let ends = self.past.iter().map(|(way, status, outcomes)| (*way, *status, outcomes));
        let all: Vec<_> = ends.chain([(self.way, self.status(now), &self.outcomes)]).collect();
        let (count, told) = (all.len(), story.deliveries.len());
        ensure!(told == count, "{:?} has {told} deliveries, expected {count}: {story:#?}", self.id);
        for (ordinal, ((way, status, outcomes), told)) in all.into_iter().zip(&story.deliveries).enumerate() {
            let numbers = told.attempts.iter().map(|attempt| attempt.number);
            let found: Vec<_> = told.attempts.iter().map(|attempt| attempt.outcome).collect();
            let agrees = usize::from(told.key.ordinal) == ordinal
                && (told.channel_id, told.channel.as_str()) == (channel_id(way.channel), kind_of(way.channel))
                && told.target == way.target_id()
                && told.status == status
                && &found == outcomes
                && numbers.eq(1..=u32::try_from(outcomes.len()).unwrap());
            ensure!(agrees, "expected delivery {ordinal} on {way:?} {status} after {outcomes:?}, but it is {told:#?}");
        }
        let due = story.deliveries.last().and_then(|last| last.due_at);
        ensure!(self.place != Place::Waits || due == Some(self.due), "{:?} is due at {due:?}: {self:#?}", self.id);
        Ok(())
    }
}

impl Model {
    pub(crate) fn new() -> Self {
        let gates = vec![Gate::default(); CHANNELS.len()];
        Self { all: Vec::new(), gates, holders: HashMap::new(), probes: Vec::new() }
    }

    fn under_way(&self) -> impl Iterator<Item = &Known> {
        self.all.iter().filter(|known| known.place == Place::UnderWay)
    }

    /// Takes note of a send, if it may be.
    pub(crate) fn begins(&mut self, call: &Call, shown: &[Shown], now: Timestamp) -> Check<NotificationId> {
        let found = self.all.iter().position(|known| known.delivery().id() == call.delivery);
        let at =
            found.ok_or_else(|| format!("sent what nobody accepted, or what was followed by another: {call:?}"))?;
        self.may_begin(&self.all[at], call, shown, now)?;
        let known = &mut self.all[at];
        (known.place, known.fresh) = (Place::UnderWay, false);
        let (id, channel) = (known.id, known.way.channel);
        let gate = &mut self.gates[channel];
        gate.sends.push(now);
        gate.last_send = Some(now);
        if !shown[channel].closed {
            self.probes.push(id);
        }
        Ok(id)
    }

    fn may_begin(&self, known: &Known, call: &Call, shown: &[Shown], now: Timestamp) -> Check {
        let channel = known.way.channel;
        let (shape, gate, shown) = (&CHANNELS[channel], &self.gates[channel], &shown[channel]);
        ensure!(known.place == Place::Waits, "sent though {:?}: {known:#?}", known.place);
        ensure!(call.at == now, "sent at {}, not at {now}: {known:#?}", call.at);
        ensure!(known.was_due, "sent before it was due: {known:#?}");
        ensure!(now < known.expires_at, "sent after it had expired: {known:#?}");
        let way = (channel_id(channel), known.way.target_id());
        ensure!(way == (call.channel, call.target.clone()), "sent on the wrong way: {call:?} {known:#?}");
        let number = u32::try_from(known.outcomes.len()).unwrap() + 1;
        ensure!(call.attempt == number, "attempt {} of {known:#?}", call.attempt);
        let same_channel: Vec<_> = self.under_way().filter(|other| other.way.channel == channel).collect();
        ensure!(same_channel.len() < shape.max as usize, "more than {} under way: {known:#?}", shape.max);
        let same_lane = same_channel.iter().find(|other| other.way == known.way);
        ensure!(same_lane.is_none(), "sent while {same_lane:#?} was under way in its lane: {known:#?}");
        ensure!(gate.pause.earliest <= now, "sent during {:?} of its channel: {known:#?}", gate.pause);
        let pause = gate.lanes.get(&known.way.target).copied().unwrap_or_default();
        ensure!(pause.earliest <= now, "sent during {pause:?} of its lane: {known:#?}");
        ensure!(!gate.stopped || gate.mended, "sent on a channel that is refused: {known:#?}");
        if !gate.put_back && !shown.closed {
            ensure!(shown.until <= now, "sent while the breaker is open until {}: {known:#?}", shown.until);
            let other = same_channel.iter().find(|other| self.probes.contains(&other.id));
            ensure!(other.is_none(), "two probes at once: {known:#?} and {other:#?}");
        }
        self.keeps_pace(channel, now)?;
        let overtaken = self.all.iter().find(|other| {
            let before = other.precedes(known) && other.is_in_lane() && other.joined < known.joined;
            let both_fresh = other.fresh && known.fresh && other.priority == known.priority && other.due <= now;
            before && if shape.ordered { other.due <= now || !other.outcomes.is_empty() } else { both_fresh }
        });
        ensure!(overtaken.is_none(), "out of order: {known:#?} overtook {overtaken:#?}");
        Ok(())
    }

    fn keeps_pace(&self, channel: usize, now: Timestamp) -> Check {
        let Some((seconds, burst)) = CHANNELS[channel].pace else { return Ok(()) };
        let sends = &self.gates[channel].sends;
        for (index, earlier) in sends.iter().enumerate() {
            let count = sends.len() - index + 1;
            let allowed = now.since(*earlier).as_secs() / seconds + u64::from(burst);
            ensure!(count as u64 <= allowed, "{count} sends on channel {channel} from {earlier} to {now}");
        }
        Ok(())
    }

    /// A delivery that has to be under way by now, and is not.
    pub(crate) fn missing(&self, shown: &[Shown], now: Timestamp) -> Option<&Known> {
        self.all.iter().find(|known| {
            let (channel, way) = (known.way.channel, known.way);
            let lane = self.gates[channel].lanes.get(&way.target).copied().unwrap_or_default();
            known.place == Place::Waits
                && known.due <= now
                && now < known.expires_at
                && !known.makes_way
                && self.is_open(channel, &shown[channel], now)
                && lane.latest <= now
                && !self.under_way().any(|other| other.way == way)
                && !(CHANNELS[channel].ordered
                    // What was due before the clock was put back holds its lane until it is due again.
                    && (self.gates[channel].put_back || self.all.iter().any(|other| other.precedes(known) && other.is_in_lane())))
        })
    }

    fn is_open(&self, channel: usize, shown: &Shown, now: Timestamp) -> bool {
        let (gate, shape) = (&self.gates[channel], &CHANNELS[channel]);
        let under_way = self.under_way().filter(|known| known.way.channel == channel);
        let probes = self.under_way().any(|known| known.way.channel == channel && self.probes.contains(&known.id));
        let paced = shape.pace.zip(gate.last_send);
        let waits = paced.is_some_and(|((seconds, _), last)| last.plus(Duration::from_secs(seconds)) > now);
        let broken = !shown.closed && (shown.until > now || probes || gate.put_back);
        !gate.stopped && gate.pause.latest <= now && under_way.count() < shape.max as usize && !waits && !broken
    }

    /// A breaker that is open has a cause.
    pub(crate) fn agrees_with(&self, shown: &[Shown], now: Timestamp) -> Check {
        for (channel, (gate, shown)) in self.gates.iter().zip(shown).enumerate() {
            // A stopped channel that works again goes on with a probe.
            let cause = gate.failures >= FAILURES_AT_LEAST || gate.stopped && gate.mended;
            ensure!(shown.closed || cause, "the breaker of channel {channel} opened without cause: {gate:?}");
            let told = gate.stopped || gate.pause.earliest <= now || shown.until >= gate.pause.earliest;
            ensure!(told, "channel {channel} shows no pause: {gate:?} {shown:?}");
        }
        Ok(())
    }

    /// An attempt has been answered and written down, as its story tells. `joined`: see [`Known::joined`].
    pub(crate) fn settle(&mut self, at: usize, answer: Answer, story: &Story, now: Timestamp, joined: u64) -> Check {
        self.tell_gate(at, answer, now);
        let (id, shape) = (self.all[at].id, &CHANNELS[self.all[at].way.channel]);
        self.probes.retain(|probe| *probe != id);
        let known = &mut self.all[at];
        let told = &story.deliveries[usize::from(known.ordinal)];
        let number = known.outcomes.len();
        let last = told.attempts.get(number).ok_or_else(|| format!("no attempt {number}: {story:#?}"))?;
        let agrees = (last.outcome, last.retry_after) == (answer.outcome(), answer.asks());
        ensure!(agrees, "{answer:?} became {last:#?}");
        known.outcomes.push(last.outcome);
        (known.suspect, known.was_under_way) = (false, false);
        let told_to_wait = known.outcomes.iter().rev().take_while(|outcome| **outcome == Outcome::RateLimited);
        known.makes_way = told_to_wait.count() >= PATIENCE;
        let step = BACKOFF[usize::try_from(known.failures).unwrap().min(BACKOFF.len() - 1)];
        let asked = answer.asks().unwrap_or_default();
        let (shortest, longest, counts) = match answer {
            Answer::Sent => return self.end(at, Status::Sent),
            Answer::Permanent => return self.fail(at, FailureReason::Permanent, now, joined),
            Answer::Rejected => return self.fail(at, FailureReason::Rejected, now, joined),
            Answer::Unknown if shape.hold && !shape.dedupes => {
                known.place = Place::Held;
                return Ok(());
            }
            Answer::Retryable { .. } | Answer::Unknown | Answer::Panic => (asked, asked.max(step), true),
            Answer::Limited { .. } => (rate_limit_pause(answer.asks()), rate_limit_pause(answer.asks()), false),
            Answer::Unauthorized => (Duration::ZERO, Duration::ZERO, false),
        };
        match told.due_at {
            Some(due) => {
                let fits = now.plus(shortest) <= due && due <= now.plus(longest) && due < known.expires_at;
                ensure!(fits, "due at {due}, not {shortest:?} to {longest:?} after {now}: {known:#?}");
                known.failures += u32::from(counts);
                (known.place, known.due, known.was_due) = (Place::Waits, due, due <= now);
                Ok(())
            }
            None => {
                let late = now.plus(longest) >= known.expires_at;
                ensure!(late, "it ended though there was time for another attempt: {known:#?} {story:#?}");
                self.fail(at, FailureReason::Expired, now, joined)
            }
        }
    }

    fn tell_gate(&mut self, at: usize, answer: Answer, now: Timestamp) {
        let way = self.all[at].way;
        let gate = &mut self.gates[way.channel];
        match answer {
            Answer::Sent | Answer::Rejected | Answer::Permanent => gate.failures = 0,
            Answer::Retryable { .. } | Answer::Unknown | Answer::Panic => gate.failures += 1,
            Answer::Unauthorized => (gate.stopped, gate.mended) = (true, false),
            Answer::Limited { scope, .. } => {
                let pause = match scope {
                    Scope::Channel => &mut gate.pause,
                    Scope::Lane => gate.lanes.entry(way.target).or_default(),
                };
                pause.extend(now, rate_limit_pause(answer.asks()));
            }
        }
    }

    fn fail(&mut self, at: usize, reason: FailureReason, now: Timestamp, joined: u64) -> Check {
        let known = &mut self.all[at];
        let in_time = reason != FailureReason::Expired || now < known.expires_at;
        match known.fallback.get(known.next_fallback).copied().filter(|_| in_time) {
            Some(way) => {
                known.place = Place::Ended(reason.status());
                known.next_fallback += 1;
                known.follow(way, now, joined);
                Ok(())
            }
            None => self.end(at, reason.status()),
        }
    }

    /// A notification has ended, and leaves its `key` to others.
    pub(crate) fn end(&mut self, at: usize, status: Status) -> Check {
        let known = &mut self.all[at];
        known.place = Place::Ended(status);
        if let Some(key) = known.key
            && self.holders.get(&(key.0, key.1)) == Some(&known.id)
        {
            self.holders.remove(&(key.0, key.1));
        }
        Ok(())
    }

    /// The clock has been moved.
    pub(crate) fn moved(&mut self, before: Timestamp, now: Timestamp, joined: u64) {
        let back = before.since(now);
        for gate in self.gates.iter_mut().filter(|_| !back.is_zero()) {
            gate.pause.put_back(now, back);
            gate.lanes.values_mut().for_each(|pause| pause.put_back(now, back));
            gate.sends.clear();
            gate.last_send = gate.last_send.map(|last| last.min(now.plus(CLOCK_STEP)));
            gate.put_back = true;
        }
        for known in self.all.iter_mut().filter(|known| known.place == Place::Waits) {
            if !known.was_due && known.due <= now {
                known.was_due = true;
                if known.outcomes.is_empty() {
                    known.joined = joined;
                }
            }
        }
    }

    /// Ends what has waited too long. Returns which.
    pub(crate) fn expire(&mut self, now: Timestamp) -> Vec<usize> {
        let over = |known: &Known| known.place == Place::Waits && known.expires_at <= now;
        let over: Vec<_> = (0..self.all.len()).filter(|at| over(&self.all[*at])).collect();
        for at in &over {
            self.end(*at, Status::Expired).expect("an end cannot fail");
        }
        over
    }

    /// Another process has begun, after a crash or a stop. The stories say what the old one has still written.
    pub(crate) fn begin_again(&mut self, crashed: bool, stories: &[Story], now: Timestamp, joined: u64) -> Check {
        self.gates = vec![Gate::default(); CHANNELS.len()];
        self.probes.clear();
        for (place, (known, story)) in self.all.iter_mut().zip(stories).enumerate() {
            let was_under_way = known.place == Place::UnderWay;
            if was_under_way {
                known.place = Place::Waits;
            }
            // One that waited may have been claimed a moment before the end.
            let told = &story.deliveries[usize::from(known.ordinal)];
            let lost = crashed && known.place == Place::Waits && told.attempts.len() > known.outcomes.len();
            if lost {
                known.lose_attempt(told, now)?;
            }
            let counted = lost || !(crashed && was_under_way && known.was_under_way);
            ensure!(counted, "the second crash in a row was not counted: {known:#?}");
            known.was_under_way = crashed && was_under_way;
            known.was_due = known.place == Place::Waits && known.due <= now;
            // With the clock put back it waits for a time now, as what its caller wants to be sent later.
            known.fresh &= known.was_due;
            known.suspect = crashed && known.has_row();
            known.makes_way = false;
            known.joined = joined + place as u64;
            if known.place == Place::Waits && known.outcomes.last() == Some(&Outcome::RateLimited) {
                // What it was told is kept for its channel or its lane, as far as the store knows of it.
                let gate = &mut self.gates[known.way.channel];
                gate.pause.may_last(now, known.due);
                gate.lanes.entry(known.way.target).or_default().may_last(now, known.due);
            }
        }
        Ok(())
    }

    /// How many rows a channel has in the store.
    pub(crate) fn waiting(&self, channel: usize) -> u64 {
        self.all.iter().filter(|known| known.way.channel == channel && known.has_row()).count() as u64
    }

    /// The holder of a key that the next with the same takes the place of, if it still waits.
    pub(crate) fn take_key(&mut self, key: u8, way: Way, id: NotificationId) -> Option<usize> {
        let holder = self.holders.insert((key, way), id)?;
        let at = self.all.iter().position(|known| known.id == holder)?;
        (self.all[at].place == Place::Waits).then_some(at)
    }

    pub(crate) fn of_tenant(way: Way) -> u8 {
        tenant_of(way.channel)
    }
}

/// Moves the clock back or forth, in milliseconds.
pub(crate) fn shift(clock: &ManualClock, millis: i64) {
    use conductor_core::Clock as _;
    clock.set(Timestamp::from_millis(clock.now().millis() + millis));
}
