//! One trial: each step is taken by the real thing and by the model, and then they are compared.

use std::sync::Arc;
use std::time::{Duration, Instant};

use conductor::dispatch::Capacity;
use conductor::registry::flow::Breaker;
use conductor_core::store::{Accepted, NewNotification, Redirect, Story, Transition};
use conductor_core::{
    Clock as _, Draft, Fallback, Format, ManualClock, Notification, NotificationId, Priority, Status, Timestamp,
};
use tempfile::TempDir;

use super::expected::{Check, Known, Model, Place, Shown, Way, ensure, shift};
use super::life::{CHANNELS, Life, NUDGED, channel_id, kind_of, tenant_id, tenant_of};
use super::provider::{Answer, Provider};
use super::steps::{Accept, Step, of_same_tenant};

/// When every trial begins.
const START: Timestamp = Timestamp::ZERO;
const START_MILLIS: i64 = 1_705_314_600_000;
/// How long the real thing may take for what has to happen, and as long as a failure is made shorter.
const PATIENCE: Duration = Duration::from_secs(10);
const PATIENCE_SHRINKING: Duration = Duration::from_millis(2_500);
/// How long it is waited for a send before it is looked again.
const LOOK_AGAIN: Duration = Duration::from_millis(1);
/// Time passes in strides of this length: what is due within ten minutes is in the dispatcher's memory.
const STRIDE_MILLIS: i64 = 290_000;
/// At the end so many rounds of answers have to be enough.
const ROUNDS_MAX: usize = 400;
const DAY: Duration = Duration::from_secs(86_400);
/// Between two steps the numbers of [`Known::joined`] leave room for all that happens in one.
const STEP_WIDTH: u64 = 100_000;

const SCARCE: Capacity = Capacity { shelf: 4, shelf_when_scarce: 2, lane: 2, all: 40 };

pub(crate) struct Trial {
    directory: TempDir,
    clock: Arc<ManualClock>,
    provider: Arc<Provider>,
    /// None while no process runs.
    life: Option<Life>,
    /// How much of what waits the dispatcher holds in memory.
    capacity: Capacity,
    model: Model,
    patience: Duration,
    joined: u64,
    /// What has changed since it was compared.
    touched: Vec<usize>,
}

/// With every other seed so little is held in memory that most of what waits is left to the store.
fn capacity(seed: u64) -> Capacity {
    if seed.is_multiple_of(2) { SCARCE } else { Capacity::default() }
}

/// Runs all steps and then heals everything.
pub(crate) fn run(seed: u64, steps: &[Step], shrinking: bool) -> Check {
    // The engine draws its jitter on this thread.
    fastrand::seed(seed);
    let directory = TempDir::new().unwrap();
    let clock = Arc::new(ManualClock::at(Timestamp::from_millis(START_MILLIS)));
    let provider = Provider::install();
    let capacity = capacity(seed);
    let life = Some(Life::begin(directory.path(), &clock, capacity));
    let patience = if shrinking { PATIENCE_SHRINKING } else { PATIENCE };
    let (model, touched) = (Model::new(), Vec::new());
    let mut trial = Trial { directory, clock, provider, life, capacity, model, patience, joined: 0, touched };
    for (number, step) in steps.iter().enumerate() {
        trial.joined += STEP_WIDTH;
        let taken = trial.take(step).and_then(|()| trial.compare());
        taken.map_err(|why| format!("after step {number}, {step:?}: {why}"))?;
    }
    trial.heal().map_err(|why| format!("when all was healed: {why}"))
}

impl Trial {
    fn life(&self) -> &Life {
        self.life.as_ref().expect("a process runs")
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn take(&mut self, step: &Step) -> Check {
        match step {
            Step::Accept(accept) => self.accept(accept),
            Step::Answer { of, answer } => self.answer(*of, *answer),
            Step::AnswerAndCancel { of, answer } => self.answer_and_cancel(*of, *answer),
            Step::Time { millis } => self.pass_time(*millis),
            Step::Jump { millis } => self.move_clock(*millis),
            Step::Stop { answers } => self.begin_again(answers, None),
            Step::Crash { answers, turns } => self.begin_again(answers, Some(*turns)),
            Step::Mend { channel } => {
                self.provider.refuse(channel_id(*channel), false);
                self.model.gates[*channel].mended = true;
                Ok(())
            }
            _ if self.model.all.is_empty() => Ok(()),
            Step::Cancel { of } => self.cancel(of % self.model.all.len()),
            Step::Resolve { of } => self.resolve(of % self.model.all.len()),
            Step::Replay { of, redirect } => self.replay(of % self.model.all.len(), *redirect),
        }
    }

    fn draft(&self, way: Way, expires_at: Timestamp) -> Draft {
        let now = self.now();
        Draft {
            id: self.life().app.ids.next(now),
            tenant: tenant_id(tenant_of(way.channel)),
            channel: kind_of(way.channel).to_owned(),
            channel_id: channel_id(way.channel),
            target: way.target_id(),
            message: "text".to_owned(),
            title: None,
            priority: Priority::Normal,
            format: Format::Text,
            data: serde_json::Map::new(),
            metadata: std::collections::BTreeMap::new(),
            key: None,
            fallback: Vec::new(),
            accepted_at: now,
            send_at: None,
            expires_at,
            trace: None,
        }
    }

    fn keep(&self, draft: Draft) -> Check<Accepted> {
        let notification = Arc::new(Notification::new(draft).unwrap());
        let life = self.life();
        let kept = life.run(life.app.store.accept(NewNotification { notification, idempotency: None }));
        kept.map_err(|error| format!("not accepted: {error}"))
    }

    fn accept(&mut self, accept: &Accept) -> Check {
        let Accept { way, priority, .. } = *accept;
        let now = self.now();
        let send_at = accept.send_in.map(|seconds| now.plus(Duration::from_secs(seconds)));
        let due = send_at.unwrap_or(now);
        let expires_at = due.plus(Duration::from_secs(accept.life));
        let fallback = accept.fallback.iter().map(|way| Fallback {
            channel: kind_of(way.channel).to_owned(),
            channel_id: channel_id(way.channel),
            target_id: way.target_id(),
        });
        let fallback = fallback.collect();
        let key = accept.key.map(|key| format!("key {key}"));
        let draft = Draft { priority, key, fallback, send_at, ..self.draft(way, expires_at) };
        let id = draft.id;
        let holder = accept.key.and_then(|key| self.model.take_key(key, way, id));
        let expected = Accepted::New { superseded: holder.map(|holder| self.model.all[holder].id) };
        let kept = self.keep(draft)?;
        ensure!(kept == expected, "accepted as {kept:?}, expected {expected:?}");
        if let Some(holder) = holder {
            self.end(holder, Status::Superseded)?;
        }
        let (was_due, fresh) = (due <= now, send_at.is_none());
        self.touched.push(self.model.all.len());
        self.model.all.push(Known {
            id,
            way,
            key: accept.key.map(|key| (key, way)),
            priority,
            fallback: accept.fallback.clone(),
            next_fallback: 0,
            ordinal: 0,
            outcomes: Vec::new(),
            failures: 0,
            due,
            was_due,
            expires_at,
            place: Place::Waits,
            joined: self.joined,
            fresh,
            suspect: false,
            was_under_way: false,
            makes_way: false,
            past: Vec::new(),
        });
        Ok(())
    }

    fn end(&mut self, at: usize, status: Status) -> Check {
        self.touched.push(at);
        self.model.end(at, status)
    }

    /// Those under way, in the order of their acceptance.
    fn under_way(&self) -> Vec<usize> {
        (0..self.model.all.len()).filter(|at| self.model.all[*at].place == Place::UnderWay).collect()
    }

    fn pick_under_way(&self, of: usize) -> Option<usize> {
        let under_way = self.under_way();
        (!under_way.is_empty()).then(|| under_way[of % under_way.len()])
    }

    /// Has the provider answer, and gives the story once it tells of that.
    fn answer(&mut self, of: usize, answer: Answer) -> Check {
        let Some(at) = self.pick_under_way(of) else { return Ok(()) };
        self.send_answer(at, answer)?;
        let story = self.settled(at)?;
        self.settle(at, answer, &story)
    }

    fn settle(&mut self, at: usize, answer: Answer, story: &Story) -> Check {
        self.touched.push(at);
        self.model.settle(at, answer, story, self.clock.now(), self.joined)?;
        // A fallback that comes too late ends at once.
        if self.life.is_some() { self.expire() } else { Ok(()) }
    }

    fn send_answer(&self, at: usize, answer: Answer) -> Check {
        let known = &self.model.all[at];
        if answer == Answer::Unauthorized {
            self.provider.refuse(channel_id(known.way.channel), true);
        }
        ensure!(self.provider.answer(known.delivery().id(), answer), "nobody waits for an answer: {known:#?}");
        Ok(())
    }

    /// The story, once the attempt under way stands in it.
    fn settled(&self, at: usize) -> Check<Story> {
        let known = &self.model.all[at];
        self.story_where(at, |story| {
            let told = &story.deliveries[usize::from(known.ordinal)];
            ensure!(
                told.attempts.len() > known.outcomes.len(),
                "the attempt was not written down: {known:#?} {told:#?}"
            );
            Ok(())
        })
    }

    /// The story, as soon as it agrees.
    fn story_where(&self, at: usize, agrees: impl Fn(&Story) -> Check) -> Check<Story> {
        let end = Instant::now() + self.patience;
        loop {
            let story = self.story(at)?;
            match agrees(&story) {
                Ok(()) => return Ok(story),
                Err(why) if Instant::now() >= end => return Err(why),
                Err(_) => self.wait(),
            }
        }
    }

    fn story(&self, at: usize) -> Check<Story> {
        let known = &self.model.all[at];
        let (life, tenant) = (self.life(), tenant_id(tenant_of(known.way.channel)));
        let story = life.run(life.app.store.notification(tenant, known.id));
        story.map_err(|error| error.to_string())?.ok_or_else(|| format!("lost: {known:#?}"))
    }

    /// Lets the process run for a moment.
    fn wait(&self) {
        self.life().run(async {
            let _ = tokio::time::timeout(LOOK_AGAIN, self.provider.called()).await;
        });
    }

    /// A cancel and an answer at once: either comes first, and both keep to it.
    fn answer_and_cancel(&mut self, of: usize, answer: Answer) -> Check {
        let Some(at) = self.pick_under_way(of) else { return Ok(()) };
        let known = &self.model.all[at];
        let (tenant, id) = (tenant_id(tenant_of(known.way.channel)), known.id);
        self.send_answer(at, answer)?;
        let life = self.life();
        let transition = life.run(life.app.store.cancel(tenant, id, self.now())).map_err(|error| error.to_string())?;
        let story = self.settled(at)?;
        match transition {
            Transition::Done(Status::Canceled) => {
                // The attempt was written first, and what followed from it was taken back.
                self.settle_canceled(at, answer, story)
            }
            Transition::WrongStatus(status) => {
                self.settle(at, answer, &story)?;
                let now = self.model.all[at].status(self.now());
                ensure!(status == Status::Sending || status == now, "not canceled as {status}, but it is {now}");
                Ok(())
            }
            other => Err(format!("cancel led to {other:?}")),
        }
    }

    /// What was taken back shows no longer when it was due; the earliest time is as good as any.
    fn settle_canceled(&mut self, at: usize, answer: Answer, mut story: Story) -> Check {
        let ordinal = usize::from(self.model.all[at].ordinal);
        let pause = match answer {
            Answer::Limited { .. } => conductor_core::retry::rate_limit_pause(answer.asks()),
            _ => answer.asks().unwrap_or_default(),
        };
        if ordinal + 1 == story.deliveries.len() {
            story.deliveries[ordinal].due_at = Some(self.now().plus(pause));
        }
        self.settle(at, answer, &story)?;
        ensure!(self.model.all[at].has_row(), "canceled though it had ended: {:#?}", self.model.all[at]);
        self.end(at, Status::Canceled)
    }

    fn cancel(&mut self, at: usize) -> Check {
        let known = &self.model.all[at];
        let expected = match known.place {
            Place::Waits | Place::Held => Transition::Done(Status::Canceled),
            _ => Transition::WrongStatus(known.status(self.now())),
        };
        let (life, tenant) = (self.life(), tenant_id(tenant_of(known.way.channel)));
        let transition = life.run(life.app.store.cancel(tenant, known.id, self.now()));
        ensure!(transition == Ok(expected), "cancel led to {transition:?}, expected {expected:?}: {known:#?}");
        if let Transition::Done(status) = expected { self.end(at, status) } else { Ok(()) }
    }

    fn resolve(&mut self, at: usize) -> Check {
        let known = &self.model.all[at];
        let expected = match known.place {
            Place::Held => Transition::Done(Status::Sent),
            _ => Transition::WrongStatus(known.status(self.now())),
        };
        let (life, tenant) = (self.life(), tenant_id(tenant_of(known.way.channel)));
        let transition = life.run(life.app.store.resolve(tenant, known.id, self.now()));
        ensure!(transition == Ok(expected), "resolve led to {transition:?}, expected {expected:?}: {known:#?}");
        if let Transition::Done(status) = expected { self.end(at, status) } else { Ok(()) }
    }

    fn replay(&mut self, at: usize, redirect: Option<Way>) -> Check {
        let (now, joined) = (self.now(), self.joined);
        let expires_at = now.plus(DAY);
        let redirect = redirect.map(|way| of_same_tenant(way, self.model.all[at].way));
        let to = redirect.map(|way| Redirect {
            channel: kind_of(way.channel).to_owned(),
            channel_id: channel_id(way.channel),
            target: way.target_id(),
        });
        let known = &self.model.all[at];
        let (life, tenant) = (self.life(), tenant_id(tenant_of(known.way.channel)));
        let transition = life.run(life.app.store.replay(tenant, known.id, to, now, expires_at));
        let known = &mut self.model.all[at];
        match known.place {
            Place::Held if redirect.is_none() => {
                known.failures = 0;
                known.wait(now, joined);
            }
            Place::Held => known.place = Place::Ended(Status::Canceled),
            Place::Ended(Status::Failed | Status::Expired) => {}
            _ => {
                let expected = Transition::WrongStatus(known.status(now));
                ensure!(transition == Ok(expected), "replay led to {transition:?}, expected {expected:?}");
                return Ok(());
            }
        }
        if known.place != Place::Waits {
            known.follow(redirect.unwrap_or(known.way), now, joined);
        }
        known.expires_at = expires_at;
        let expected = Transition::Done(known.status(now));
        ensure!(transition == Ok(expected), "replay led to {transition:?}, expected {expected:?}: {known:#?}");
        self.touched.push(at);
        Ok(())
    }

    /// Moves the clock as time passes: in strides that leave the dispatcher its look ahead.
    fn pass_time(&mut self, mut millis: i64) -> Check {
        while millis > 0 {
            self.move_clock(millis.min(STRIDE_MILLIS))?;
            self.compare()?;
            self.joined += 1;
            millis -= STRIDE_MILLIS;
        }
        Ok(())
    }

    /// Has the clock jump.
    fn move_clock(&mut self, millis: i64) -> Check {
        let before = self.now();
        shift(&self.clock, millis);
        self.model.moved(before, self.clock.now(), self.joined);
        self.expire()?;
        // The dispatcher sleeps by another clock.
        self.nudge()
    }

    /// What the janitor does every second.
    fn expire(&mut self) -> Check {
        let over = self.model.expire(self.clock.now());
        self.touched.extend(over);
        let life = self.life();
        life.run(life.app.store.expire(self.now())).map(drop).map_err(|error| error.to_string())
    }

    /// Ends the process while answers come, and begins the next. `crash`: it dies after so many turns of its tasks.
    fn begin_again(&mut self, answers: &[(usize, Answer)], crash: Option<u8>) -> Check {
        let mut answered: Vec<(usize, Answer)> = Vec::new();
        if crash.is_none() {
            self.life().begin_to_stop();
        }
        for (of, answer) in answers {
            let left: Vec<_> =
                self.under_way().into_iter().filter(|at| answered.iter().all(|(other, _)| other != at)).collect();
            if let Some(at) = left.get(of % left.len().max(1)) {
                self.send_answer(*at, *answer)?;
                answered.push((*at, *answer));
            }
        }
        if crash.is_none() {
            for (at, answer) in std::mem::take(&mut answered) {
                let story = self.settled(at)?;
                self.settle(at, answer, &story)?;
            }
        }
        let life = self.life.take().expect("a process runs");
        match crash {
            Some(turns) => life.crash(turns),
            None => life.stop(),
        }
        self.provider.hang_up();
        self.life = Some(Life::begin(self.directory.path(), &self.clock, self.capacity));
        for (at, answer) in answered {
            let (story, known) = (self.story(at)?, &self.model.all[at]);
            let told = story.deliveries[usize::from(known.ordinal)].attempts.get(known.outcomes.len());
            let lost =
                told.is_none_or(|told| told.detail.as_deref().is_some_and(|text| text.contains("server stopped")));
            if !lost {
                self.settle(at, answer, &story)?;
            }
        }
        let stories: Vec<_> = (0..self.model.all.len()).map(|at| self.story(at)).collect::<Check<_>>()?;
        self.model.begin_again(crash.is_some(), &stories, self.clock.now(), self.joined)?;
        self.touched.extend(0..self.model.all.len());
        self.expire()
    }

    fn shown(&self) -> Vec<Shown> {
        let registry = self.life().app.registry();
        let state = |channel| registry.channel(channel_id(channel)).expect("it is configured").flow.state();
        let shown = (0..CHANNELS.len()).map(state).map(|state| Shown {
            closed: state.breaker == Breaker::Closed,
            until: state.paused_until.unwrap_or(START),
        });
        shown.collect()
    }

    fn take_calls(&mut self) -> Check<usize> {
        let calls = self.provider.take_calls();
        let (shown, now) = (self.shown(), self.now());
        for call in &calls {
            let id = self.model.begins(call, &shown, now)?;
            self.touched.extend(self.model.all.iter().position(|known| known.id == id));
        }
        Ok(calls.len())
    }

    /// Waits until all that has to happen has, and checks that nothing else did.
    fn compare(&mut self) -> Check {
        let end = Instant::now() + self.patience;
        loop {
            self.take_calls()?;
            if let Some(missing) = self.model.missing(&self.shown(), self.now()) {
                ensure!(Instant::now() < end, "not sent: {missing:#?}");
                self.wait();
                continue;
            }
            // The first wakes the dispatcher, the second finds it after it has looked at everything.
            self.nudge()?;
            self.nudge()?;
            if self.take_calls()? == 0 && self.model.missing(&self.shown(), self.now()).is_none() {
                break;
            }
        }
        self.model.agrees_with(&self.shown(), self.now())?;
        let mut touched = std::mem::take(&mut self.touched);
        touched.sort_unstable();
        touched.dedup();
        for at in touched {
            self.story_where(at, |story| self.model.all[at].agrees(story, self.now()))?;
        }
        let store = &self.life().app.store;
        for channel in 0..CHANNELS.len() {
            let (told, expected) = (store.waiting(channel_id(channel)), self.model.waiting(channel));
            ensure!(told == expected, "{told} wait on channel {channel}, expected {expected}");
        }
        Ok(())
    }

    /// Has the dispatcher send something, which it does after it has looked at everything else.
    fn nudge(&self) -> Check {
        let way = Way { channel: NUDGED, target: None };
        let draft = self.draft(way, self.now().plus(DAY));
        let (id, life): (NotificationId, _) = (draft.id, self.life());
        let mut wait = life.app.outcomes.wait(id);
        self.keep(draft)?;
        let outcome = life.run(async { tokio::time::timeout(self.patience, wait.outcome()).await });
        ensure!(outcome == Ok(Status::Sent), "the dispatcher has stopped: {outcome:?}");
        Ok(())
    }

    /// The provider is well again, the clock goes on: all that was accepted ends.
    fn heal(&mut self) -> Check {
        for channel in 0..CHANNELS.len() {
            self.take(&Step::Mend { channel })?;
        }
        self.begin_again(&[], None)?;
        for _ in 0..ROUNDS_MAX {
            self.joined += STEP_WIDTH;
            self.compare()?;
            let held = self.model.all.iter().position(|known| known.place == Place::Held);
            if let Some(at) = held {
                self.resolve(at)?;
            } else if !self.under_way().is_empty() {
                self.answer(0, Answer::Sent)?;
            } else if self.model.all.iter().any(Known::has_row) {
                let next = self.next_due().unwrap_or_else(|| self.now().plus(Duration::from_secs(1)));
                self.pass_time(next.millis() - self.now().millis())?;
            } else {
                return self.compare_all();
            }
        }
        Err(format!("not ended: {:#?}", self.model.all.iter().filter(|known| known.has_row()).collect::<Vec<_>>()))
    }

    /// When the next of those that wait becomes due.
    fn next_due(&self) -> Option<Timestamp> {
        let waiting = self.model.all.iter().filter(|known| known.place == Place::Waits);
        waiting.map(|known| known.due).filter(|due| *due > self.now()).min()
    }

    fn compare_all(&mut self) -> Check {
        self.touched = (0..self.model.all.len()).collect();
        self.compare()
    }
}
