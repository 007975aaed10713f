//! Random operations against a model that fits on a page: after each step store and model say the same.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use conductor_core::store::{Claimed, Filter, Lease, Load, Progress, Redirect, Transition};
use conductor_core::{DeliveryKey, FailureReason, NotificationId, Settlement, Status, Timestamp};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::harness::*;

const CASES: u32 = 64;
const STEPS_MAX: usize = 40;

/// What can happen. An index means one of those that exist, counted round.
#[derive(Debug, Clone)]
enum Step {
    Accept { key: Option<bool>, delay: u32, life: u32, fallbacks: usize },
    Claim { of: usize },
    ClaimOld { of: usize },
    Settle { lease: usize, settlement: Ending },
    Advance { lease: usize },
    Release { lease: usize },
    Cancel { of: usize },
    Replay { of: usize, redirect: bool },
    Resolve { of: usize },
    Expire,
    Wait { seconds: u32 },
    TakeArrivals,
    Crash { take_arrivals: bool },
    Restart { take_arrivals: bool },
}

#[derive(Debug, Clone, Copy)]
enum Ending {
    Sent,
    Retry { seconds: u32, counts: bool },
    StepDown,
    Hold,
    Failed,
    Expired,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let any_one = || 0..1_000usize;
    let ending = prop_oneof![
        Just(Ending::Sent),
        (0..5u32, any::<bool>()).prop_map(|(seconds, counts)| Ending::Retry { seconds, counts }),
        Just(Ending::StepDown),
        Just(Ending::Hold),
        Just(Ending::Failed),
        Just(Ending::Expired),
    ];
    let accept = (proptest::option::of(any::<bool>()), 0..3u32, 10..60u32, 0..3usize)
        .prop_map(|(key, delay, life, fallbacks)| Step::Accept { key, delay, life, fallbacks });
    let step = prop_oneof![
        6 => accept,
        8 => any_one().prop_map(|of| Step::Claim { of }),
        1 => any_one().prop_map(|of| Step::ClaimOld { of }),
        8 => (any_one(), ending).prop_map(|(lease, settlement)| Step::Settle { lease, settlement }),
        3 => any_one().prop_map(|lease| Step::Advance { lease }),
        1 => any_one().prop_map(|lease| Step::Release { lease }),
        2 => any_one().prop_map(|of| Step::Cancel { of }),
        4 => (any_one(), any::<bool>()).prop_map(|(of, redirect)| Step::Replay { of, redirect }),
        1 => any_one().prop_map(|of| Step::Resolve { of }),
        1 => Just(Step::Expire),
        3 => (0..20u32).prop_map(|seconds| Step::Wait { seconds }),
        1 => Just(Step::TakeArrivals),
        2 => any::<bool>().prop_map(|take_arrivals| Step::Crash { take_arrivals }),
        1 => any::<bool>().prop_map(|take_arrivals| Step::Restart { take_arrivals }),
    ];
    proptest::collection::vec(step, 1..STEPS_MAX)
}

/// One notification as the model sees it: its last delivery.
#[derive(Debug, Clone)]
struct Modelled {
    id: NotificationId,
    key: Option<bool>,
    fallbacks: usize,
    ordinal: u8,
    next_fallback: usize,
    attempts: u32,
    failures: u32,
    due: Timestamp,
    expires_at: Timestamp,
    place: Place,
    /// The process before this one died with it.
    suspect: bool,
    /// Attempts in a row that a dying process took with it.
    lost: u32,
    parts_sent: u32,
    plain: bool,
    /// What it takes of its tenant's room while it waits.
    bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Waits,
    UnderWay,
    Held,
    Ended(Status),
}

impl Modelled {
    fn delivery(&self) -> DeliveryKey {
        DeliveryKey { notification: self.id, ordinal: self.ordinal }
    }

    fn status(&self, now: Timestamp) -> Status {
        match self.place {
            Place::Ended(status) => status,
            Place::Held => Status::Held,
            Place::UnderWay => Status::Sending,
            Place::Waits if self.attempts > 0 => Status::Retrying,
            Place::Waits if self.due > now => Status::Scheduled,
            Place::Waits => Status::Queued,
        }
    }

    /// A new delivery of the same notification waits.
    fn next_delivery(&mut self, due: Timestamp) {
        *self = Self { ordinal: self.ordinal + 1, attempts: 0, failures: 0, lost: 0, suspect: false, ..self.clone() };
        (self.place, self.due, self.parts_sent, self.plain) = (Place::Waits, due, 0, false);
    }
}

/// The model with the store that it is held against.
struct Trial {
    w: World,
    all: Vec<Modelled>,
    leases: Vec<Lease>,
    /// Which notification holds a `key`.
    holders: BTreeMap<bool, NotificationId>,
    /// What has come since arrivals were taken.
    arriving: BTreeSet<DeliveryKey>,
}

pub(crate) async fn random_operations_agree_with_a_simple_model(w: World) {
    let mut runner = TestRunner::new(Config { cases: CASES, failure_persistence: None, ..Config::default() });
    let runtime = tokio::runtime::Handle::current();
    let result = tokio::task::block_in_place(|| {
        runner.run(&steps(), |steps| {
            runtime.block_on(async {
                let holders = BTreeMap::new();
                let w = w.elsewhere().await;
                let mut trial = Trial { w, all: Vec::new(), leases: Vec::new(), holders, arriving: BTreeSet::new() };
                for step in steps {
                    trial.take(step).await;
                    trial.compare().await;
                }
            });
            Ok(())
        })
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

impl Trial {
    async fn take(&mut self, step: Step) {
        let count = self.all.len();
        match step {
            Step::Accept { key, delay, life, fallbacks } => self.accept(key, delay, life, fallbacks).await,
            Step::Expire => self.expire().await,
            Step::Wait { seconds } => self.w.clock.advance(SECOND * seconds),
            Step::TakeArrivals => self.take_arrivals().await,
            Step::Crash { take_arrivals } => self.start_again(true, take_arrivals).await,
            Step::Restart { take_arrivals } => self.start_again(false, take_arrivals).await,
            Step::Settle { lease, settlement } if !self.leases.is_empty() => {
                let lease = self.leases.swap_remove(lease % self.leases.len());
                self.settle(lease, settlement).await;
            }
            Step::Release { lease } if !self.leases.is_empty() => {
                let lease = self.leases.swap_remove(lease % self.leases.len());
                let released = self.of_lease(&lease);
                self.all[released].place = Place::Waits;
                self.w.store().release(lease).await;
            }
            Step::Advance { lease } if !self.leases.is_empty() => self.advance(lease % self.leases.len()).await,
            Step::Settle { .. } | Step::Advance { .. } | Step::Release { .. } => {}
            _ if count == 0 => {}
            Step::Claim { of } => self.claim(of % count).await,
            Step::ClaimOld { of } => {
                let current = self.all[of % count].delivery();
                if let Some(ordinal) = current.ordinal.checked_sub(1) {
                    assert!(self.w.is_gone(DeliveryKey { ordinal, ..current }).await);
                }
            }
            Step::Cancel { of } => self.cancel(of % count).await,
            Step::Replay { of, redirect } => self.replay(of % count, redirect).await,
            Step::Resolve { of } => self.resolve(of % count).await,
        }
    }

    async fn accept(&mut self, key: Option<bool>, delay: u32, life: u32, fallbacks: usize) {
        // No two have the same time, so that ids are in the order of acceptance also across restarts.
        self.w.clock.advance(Duration::from_millis(1));
        let now = self.w.now();
        let (due, expires_at) = (now.plus(SECOND * delay), now.plus(SECOND * life));
        let (id, superseded) = self
            .w
            .accept_superseding(|d| {
                d.key = key.map(|key| format!("key-{key}"));
                d.send_at = Some(due);
                d.expires_at = expires_at;
                d.fallback = vec![fallback("slack", OTHER_CHANNEL, Some("#ops")); fallbacks];
                d.message = "é".repeat(usize::try_from(life).unwrap());
                d.metadata.extend((0..delay).map(|number| (number.to_string(), "\"x\"\n".to_owned())));
                d.data.extend((0..delay).map(|number| (number.to_string(), serde_json::json!([0.1, 1e300, "ü\t"]))));
            })
            .await;
        let bytes = self.w.story(id).await.notification.bytes();
        let mut expected = None;
        if let Some(holder) = key.and_then(|key| self.holders.insert(key, id)) {
            let holder = self.all.iter_mut().find(|known| known.id == holder).unwrap();
            if holder.place == Place::Waits {
                holder.place = Place::Ended(Status::Superseded);
                expected = Some(holder.id);
            }
        }
        assert_eq!(superseded, expected);
        let (ordinal, next_fallback, attempts, failures, lost) = (0, 0, 0, 0, 0);
        let (place, suspect) = (Place::Waits, false);
        let new = Modelled {
            id,
            key,
            fallbacks,
            ordinal,
            next_fallback,
            attempts,
            failures,
            due,
            expires_at,
            place,
            suspect,
            lost,
            parts_sent: 0,
            plain: false,
            bytes,
        };
        self.arriving.insert(new.delivery());
        self.all.push(new);
    }

    async fn claim(&mut self, of: usize) {
        let now = self.w.now();
        let known = &mut self.all[of];
        match (self.w.claim_as(known.delivery(), known.suspect).await, known.place) {
            (Claimed::Leased(lease), Place::Waits) if known.due <= now => {
                assert_eq!(
                    (lease.key, lease.attempt, lease.failures),
                    (known.delivery(), known.attempts + 1, known.failures)
                );
                assert_eq!(
                    (lease.expires_at, usize::from(lease.next_fallback)),
                    (known.expires_at, known.next_fallback)
                );
                assert_eq!((lease.progress.parts_sent, lease.progress.plain), (known.parts_sent, known.plain));
                known.place = Place::UnderWay;
                self.leases.push(*lease);
            }
            (Claimed::NotDue(queued), Place::Waits) if known.due > now => {
                assert_eq!((queued.due, queued.suspect), (known.due, known.suspect));
            }
            (Claimed::Gone, Place::UnderWay | Place::Held | Place::Ended(_)) => {}
            (claimed, _) => panic!("{known:?} gave {claimed:?}"),
        }
    }

    async fn settle(&mut self, lease: Lease, ending: Ending) {
        let now = self.w.now();
        let settlement = match ending {
            Ending::Sent => Settlement::Sent,
            Ending::Retry { seconds, counts } => {
                Settlement::RetryAt { due: now.plus(SECOND * seconds), counts, limited: None }
            }
            Ending::StepDown => Settlement::StepDown,
            Ending::Hold => Settlement::Hold,
            Ending::Failed => Settlement::Failed(FailureReason::Permanent),
            Ending::Expired => Settlement::Failed(FailureReason::Expired),
        };
        let of = self.of_lease(&lease);
        let finished = self.w.finished(&lease, settlement);
        let settled = self.w.store().settle(lease, finished).await.unwrap();
        let known = &mut self.all[of];
        (known.attempts, known.suspect, known.lost) = (known.attempts + 1, false, 0);
        let mut status = None;
        match settlement {
            Settlement::Sent => self.end(of, Status::Sent),
            Settlement::RetryAt { due, counts, .. } => {
                (known.place, known.due, known.failures) = (Place::Waits, due, known.failures + u32::from(counts));
            }
            Settlement::StepDown => (known.place, known.due, known.plain) = (Place::Waits, now, true),
            Settlement::Hold => known.place = Place::Held,
            Settlement::Failed(reason)
                if known.next_fallback < known.fallbacks
                    && (reason != FailureReason::Expired || now < known.expires_at) =>
            {
                known.next_delivery(now);
                known.next_fallback += 1;
                status = Some(reason.status());
            }
            Settlement::Failed(reason) => self.end(of, reason.status()),
        }
        let known = &self.all[of];
        let waits = known.place == Place::Waits;
        assert_eq!(settled.status, status.unwrap_or(known.status(now)));
        assert_eq!(settled.next.map(|next| (next.key, next.due)), waits.then_some((known.delivery(), known.due)));
    }

    async fn advance(&mut self, lease: usize) {
        let of = self.of_lease(&self.leases[lease]);
        let lease = &mut self.leases[lease];
        let progress = Progress { parts_sent: lease.progress.parts_sent + 1, ..lease.progress.clone() };
        assert_eq!(self.w.store().advance(lease, progress).await, Ok(()));
        self.all[of].parts_sent += 1;
    }

    async fn cancel(&mut self, of: usize) {
        let known = &self.all[of];
        let expected = match known.place {
            Place::Waits | Place::Held => Transition::Done(Status::Canceled),
            _ => Transition::WrongStatus(known.status(self.w.now())),
        };
        assert_eq!(self.w.cancel(known.id).await, expected);
        self.end_if(of, expected);
    }

    async fn resolve(&mut self, of: usize) {
        let known = &self.all[of];
        let expected = match known.place {
            Place::Held => Transition::Done(Status::Sent),
            _ => Transition::WrongStatus(known.status(self.w.now())),
        };
        assert_eq!(self.w.resolve(known.id).await, expected);
        self.end_if(of, expected);
    }

    async fn replay(&mut self, of: usize, redirected: bool) {
        let now = self.w.now();
        let expires_at = now.plus(30 * SECOND);
        let redirect =
            redirected.then(|| Redirect { channel: "matrix".into(), channel_id: THIRD_CHANNEL, target: None });
        let id = self.all[of].id;
        let transition = self.w.store().replay(TENANT, id, redirect, now, expires_at).await.unwrap();
        let known = &mut self.all[of];
        match known.place {
            Place::Held if !redirected => {
                (known.place, known.due, known.failures, known.suspect, known.lost) = (Place::Waits, now, 0, false, 0);
            }
            Place::Held | Place::Ended(Status::Failed | Status::Expired) => known.next_delivery(now),
            _ => {
                assert_eq!(transition, Transition::WrongStatus(known.status(now)));
                return;
            }
        }
        known.expires_at = expires_at;
        self.arriving.insert(known.delivery());
        assert_eq!(transition, Transition::Done(known.status(now)));
    }

    async fn expire(&mut self) {
        let now = self.w.now();
        let expired: Vec<_> = self.w.store().expire(now).await.unwrap().iter().map(|expired| expired.key).collect();
        let is_due = |known: &Modelled| known.place == Place::Waits && known.expires_at <= now;
        let due: Vec<usize> = (0..self.all.len()).filter(|of| is_due(&self.all[*of])).collect();
        assert_eq!(expired, due.iter().map(|of| self.all[*of].delivery()).collect::<Vec<_>>());
        for of in due {
            self.end(of, Status::Expired);
        }
    }

    /// The process ends, in good order or not, and another begins.
    async fn start_again(&mut self, crash: bool, take_arrivals: bool) {
        self.leases.clear();
        if crash {
            self.w.crash().await;
        } else {
            self.w.restart().await;
        }
        let now = self.w.now();
        self.arriving.clear();
        for known in &mut self.all {
            match known.place {
                Place::UnderWay if crash && known.suspect => {
                    let wait = match known.lost {
                        0..3 => Duration::ZERO,
                        lost => (SECOND * 2u32.pow(lost - 3)).min(HOUR),
                    };
                    (known.attempts, known.failures, known.lost) =
                        (known.attempts + 1, known.failures + 1, known.lost + 1);
                    (known.place, known.due) = (Place::Waits, now.plus(wait));
                }
                Place::UnderWay => known.place = Place::Waits,
                _ => {}
            }
            known.suspect = crash;
            if known.place == Place::Waits {
                self.arriving.insert(known.delivery());
            }
        }
        if take_arrivals {
            let arrivals = self.w.arrivals(3).await;
            assert!(arrivals.iter().all(|queued| queued.suspect == crash));
            assert_eq!(
                arrivals.iter().map(queued_key).collect::<Vec<_>>(),
                self.arriving.iter().copied().collect::<Vec<_>>()
            );
            self.arriving.clear();
        }
    }

    /// All that came since and still waits has to be among them.
    async fn take_arrivals(&mut self) {
        let waiting: BTreeSet<_> =
            self.all.iter().filter(|known| known.place == Place::Waits).map(Modelled::delivery).collect();
        let arrivals: BTreeSet<_> = self.w.arrivals(3).await.iter().map(queued_key).collect();
        let missing: Vec<_> =
            self.arriving.iter().filter(|key| waiting.contains(key) && !arrivals.contains(key)).collect();
        assert!(missing.is_empty(), "{missing:?} were not handed over");
        self.arriving.clear();
    }

    async fn compare(&self) {
        let now = self.w.now();
        for known in &self.all {
            let story = self.w.story(known.id).await;
            let last = story.deliveries.last().unwrap();
            let told = (story.status(), last.key, last.attempts.len(), story.deliveries.len());
            let (attempts, deliveries) = (usize::try_from(known.attempts).unwrap(), usize::from(known.ordinal) + 1);
            assert_eq!(told, (known.status(now), known.delivery(), attempts, deliveries), "{known:?}");
            let due = matches!(known.place, Place::Waits | Place::UnderWay).then_some(known.due);
            assert_eq!(last.due_at, due, "{known:?}");
        }
        let listed = self.w.list(Filter::default()).await;
        let known: Vec<_> = self.all.iter().rev().map(|known| (known.id, known.status(now))).collect();
        assert_eq!(listed, known);
        let waiting = self.all.iter().filter(|known| !matches!(known.place, Place::Ended(_)));
        let load = waiting.fold(Load::default(), |load, known| Load {
            notifications: load.notifications + 1,
            bytes: load.bytes + known.bytes,
        });
        assert_eq!(self.w.store().load(TENANT), load);
    }

    fn of_lease(&self, lease: &Lease) -> usize {
        self.all.iter().position(|known| known.delivery() == lease.key).expect("a lease is of a known delivery")
    }

    fn end_if(&mut self, of: usize, transition: Transition) {
        if let Transition::Done(status) = transition {
            self.end(of, status);
        }
    }

    fn end(&mut self, of: usize, status: Status) {
        let known = &mut self.all[of];
        known.place = Place::Ended(status);
        if let Some(key) = known.key.filter(|key| self.holders.get(key) == Some(&known.id)) {
            self.holders.remove(&key);
        }
    }
}
