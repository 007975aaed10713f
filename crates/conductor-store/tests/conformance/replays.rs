//! Bulk retries: steps and their place are one thing, also when the process dies.

use std::time::Duration;

use conductor_core::replay::{ENDED_MAX, RUNNING_MAX, ReplayItem, ReplayJob, ReplayStep, STEP_MAX};
use conductor_core::store::{Filter, Redirect};
use conductor_core::{Actor, DeliveryKey, NotificationId, ReplayId, Settlement, Status, TenantId};

use crate::harness::*;

fn dead() -> Filter {
    Filter { dead_letters: true, ..Filter::default() }
}

fn replay_id(w: &World, number: u64) -> ReplayId {
    ReplayId::new(id_at(w.now(), 1_000_000 + number).uuid())
}

/// A job of this tenant; `number` tells those of one time apart.
async fn begin_of(w: &World, tenant: TenantId, number: u64, interval: Duration) -> Option<ReplayJob> {
    let job = ReplayJob { interval, ..ReplayJob::new(replay_id(w, number), tenant, w.now(), dead()) };
    w.store().begin_replay(job).await.unwrap()
}

async fn begin(w: &World, interval: Duration) -> ReplayJob {
    begin_of(w, TENANT, 0, interval).await.expect("there is room")
}

/// The step that takes these from where the job stands.
fn step(w: &World, job: &ReplayJob, ids: &[NotificationId], is_last: bool) -> ReplayStep {
    ReplayStep {
        job: job.id,
        from: job.position,
        items: ids.iter().map(|id| ReplayItem { notification: *id, expires_after: HOUR }).collect(),
        due: job.next_due.max(w.now()),
        to: ids.last().copied().unwrap_or(job.position),
        ends_at: is_last.then(|| w.now()),
    }
}

async fn take(w: &World, step: ReplayStep) -> ReplayJob {
    w.store().step_replay(step).await.unwrap().expect("there is such a job")
}

/// Walks from the place of the job to the end, `limit` at a time. Gives the job and the ids in order.
async fn walk(w: &World, mut job: ReplayJob, limit: usize) -> (ReplayJob, Vec<NotificationId>) {
    let mut all = Vec::new();
    while job.ended_at.is_none() {
        let page = w.store().notifications(TENANT, &job.filter, limit, Some(job.position)).await.unwrap();
        let ids: Vec<_> = page.items.iter().map(|item| item.notification.id).collect();
        let mut next = step(w, &job, &ids, page.next.is_none());
        next.to = page.next.unwrap_or(next.to);
        job = take(w, next).await;
        all.extend(ids);
    }
    (job, all)
}

pub(crate) async fn a_step_queues_and_moves_on_together(mut w: World) {
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(w.dead_letter().await);
    }
    let canceled = w.plain().await;
    w.cancel(canceled).await;
    w.arriving().await;
    ids.reverse();
    let interval = Duration::from_micros(1_500);
    let job = begin(&w, interval).await;
    assert_eq!((job.last_due(), job.retried), (None, 0));
    let given = [ids[0], canceled, ids[1], ids[2]];
    let part = step(&w, &job, &given, false);
    let after = take(&w, part.clone()).await;
    assert_eq!((after.retried, after.skipped, after.position, after.ended_at), (3, 1, ids[2], None));
    assert_eq!(after.next_due, w.now().plus(Duration::from_millis(5)), "rounded up");
    assert_eq!(take(&w, part).await, after, "a step is taken once");
    for (index, id) in ids[..3].iter().enumerate() {
        let delivery = w.story(*id).await.deliveries.remove(1);
        assert_eq!(delivery.due_at, Some(w.now().plus(interval * u32::try_from(index).unwrap())));
    }
    w.crash().await;
    let left = w.store().running_replays(None, 10).await.unwrap();
    assert_eq!(left, [after]);
    let (job, rest) = walk(&w, left[0].clone(), 1).await;
    assert_eq!(rest, ids[3..]);
    assert_eq!((job.retried, job.ended_at, job.canceled), (5, Some(w.now()), false));
    assert_eq!(w.store().running_replays(None, 10).await.unwrap(), []);
    assert_eq!(w.store().replay_job(TENANT, job.id).await.unwrap(), Some(job));
    for id in ids {
        assert_eq!(w.story(id).await.deliveries.len(), 2);
    }
}

pub(crate) async fn a_job_takes_each_once_though_it_fails_again_and_nothing_newer(w: World) {
    let old = w.dead_letter().await;
    let expired = w.accept(|d| d.expires_at = d.accepted_at.plus(SECOND)).await;
    w.clock.advance(SECOND);
    w.store().expire(w.now()).await.unwrap();
    let job = begin(&w, Duration::ZERO).await;
    w.clock.advance(SECOND);
    let newer = w.dead_letter().await;
    let take_one = async |job: ReplayJob, id| {
        let job = take(&w, step(&w, &job, &[id], false)).await;
        w.attempt(
            DeliveryKey { notification: id, ordinal: 1 },
            Settlement::Failed(conductor_core::FailureReason::Expired),
        )
        .await;
        job
    };
    let page = w.store().notifications(TENANT, &dead(), 9, Some(job.position)).await.unwrap();
    let ids: Vec<_> = page.items.iter().map(|item| item.notification.id).collect();
    assert_eq!(ids, [expired, old], "of whatever kind they are");
    let job = take_one(job, expired).await;
    let (job, rest) = walk(&w, job, 9).await;
    assert_eq!((rest, job.retried), (vec![old], 2));
    assert_eq!(w.status(newer).await, Status::Failed);
    let next = begin_of(&w, TENANT, 1, Duration::ZERO).await.unwrap();
    assert_eq!(walk(&w, next, 9).await.1, [newer, expired], "another job takes what failed again");
}

pub(crate) async fn a_job_keeps_its_filter_and_its_way(mut w: World) {
    let id = w.dead_letter().await;
    let filter = Filter {
        status: Some(Status::Failed),
        dead_letters: true,
        channel: Some("log".into()),
        channel_id: Some(CHANNEL),
        from: Some(start()),
        to: Some(start().plus(DAY)),
        text: Some("TEST".into()),
    };
    let redirect = Redirect { channel: "slack".into(), channel_id: OTHER_CHANNEL, target: Some("#ops".into()) };
    let job = ReplayJob::new(replay_id(&w, 0), TENANT, w.now(), filter);
    let job = ReplayJob { redirect: Some(redirect), interval: SECOND / 3, ..job };
    assert_eq!(w.store().begin_replay(job.clone()).await.unwrap(), Some(job.clone()));
    w.crash().await;
    assert_eq!(w.store().replay_job(TENANT, job.id).await.unwrap(), Some(job.clone()));
    w.clock.advance(DAY);
    assert_eq!(walk(&w, job, 9).await.1, [id]);
    let lease = w.lease(DeliveryKey { notification: id, ordinal: 1 }).await;
    assert_eq!((lease.channel, lease.target.as_deref()), (OTHER_CHANNEL, Some("#ops")));
    assert_eq!(lease.expires_at, w.now().plus(HOUR));
    assert_eq!((w.store().waiting(CHANNEL), w.store().waiting(OTHER_CHANNEL)), (0, 1));
}

pub(crate) async fn held_ones_go_on_in_a_step(w: World) {
    let (one, two) = (w.held().await, w.held().await);
    w.arriving().await;
    let job = begin(&w, Duration::ZERO).await;
    let lease_of = |id| DeliveryKey { notification: id, ordinal: 0 };
    w.resolve(two).await;
    let after = take(&w, step(&w, &job, &[two, one], true)).await;
    assert_eq!((after.retried, after.skipped), (1, 1));
    assert_eq!(w.arriving().await, [lease_of(one)]);
    assert_eq!(w.store().waiting(CHANNEL), 1);
    assert_eq!(w.lease(lease_of(one)).await.expires_at, w.now().plus(HOUR));
}

pub(crate) async fn a_canceled_job_queues_nothing_more(mut w: World) {
    let (one, two) = (w.dead_letter().await, w.dead_letter().await);
    let job = begin(&w, Duration::ZERO).await;
    let job = take(&w, step(&w, &job, &[two], false)).await;
    let canceled = w.store().cancel_replay(TENANT, job.id, Actor::Tenant, w.now()).await.unwrap().unwrap();
    assert_eq!((canceled.canceled, canceled.ended_at, canceled.retried), (true, Some(w.now()), 1));
    assert_eq!(take(&w, step(&w, &job, &[one], true)).await, canceled);
    w.clock.advance(SECOND);
    assert_eq!(w.store().cancel_replay(TENANT, job.id, Actor::Tenant, w.now()).await.unwrap(), Some(canceled.clone()));
    w.crash().await;
    assert_eq!(w.store().replay_job(TENANT, job.id).await.unwrap(), Some(canceled));
    assert_eq!(w.store().running_replays(None, 9).await.unwrap(), []);
    assert_eq!(w.status(one).await, Status::Failed);
    assert_eq!(w.status(two).await, Status::Queued);
    let other = begin_of(&w, TENANT, 1, Duration::ZERO).await.unwrap();
    let done = take(&w, step(&w, &other, &[], true)).await;
    assert_eq!(
        w.store().cancel_replay(TENANT, done.id, Actor::Tenant, w.now()).await.unwrap(),
        Some(done),
        "it stays done"
    );
}

pub(crate) async fn a_tenant_has_its_own_jobs_and_only_a_few(w: World) {
    let theirs = w.dead_letter().await;
    let jobs = RUNNING_MAX as u64;
    for number in 0..jobs {
        assert!(begin_of(&w, TENANT, number, Duration::ZERO).await.is_some());
    }
    assert_eq!(begin_of(&w, TENANT, 99, Duration::ZERO).await, None);
    let other = begin_of(&w, OTHER_TENANT, 100, Duration::ZERO).await.unwrap();
    let first = replay_id(&w, 0);
    assert_eq!(w.store().replay_job(OTHER_TENANT, first).await.unwrap(), None);
    assert_eq!(w.store().cancel_replay(OTHER_TENANT, first, Actor::Tenant, w.now()).await.unwrap(), None);
    assert_eq!(w.store().replay_jobs(OTHER_TENANT).await.unwrap(), std::slice::from_ref(&other));
    let tried = take(&w, step(&w, &other, &[theirs], true)).await;
    assert_eq!((tried.retried, tried.skipped), (0, 1), "a job of one tenant does not touch another's");
    assert_eq!(w.status(theirs).await, Status::Failed);
    let ids: Vec<_> = w.store().replay_jobs(TENANT).await.unwrap().iter().map(|job| job.id).collect();
    assert_eq!(ids, (0..jobs).rev().map(|number| replay_id(&w, number)).collect::<Vec<_>>());
    let two = w.store().running_replays(None, 2).await.unwrap();
    let rest = w.store().running_replays(Some(two[1].id), 9).await.unwrap();
    assert_eq!(rest.iter().map(|job| job.id).collect::<Vec<_>>(), ids[..2].iter().rev().copied().collect::<Vec<_>>());
    w.store().cancel_replay(TENANT, first, Actor::Tenant, w.now()).await.unwrap();
    assert!(begin_of(&w, TENANT, 99, Duration::ZERO).await.is_some());
}

pub(crate) async fn old_jobs_are_forgotten_and_running_ones_are_not(w: World) {
    let running = begin(&w, Duration::ZERO).await;
    let mut ended = Vec::new();
    for number in 1..=(ENDED_MAX as u64 + 2) {
        let job = begin_of(&w, TENANT, number, Duration::ZERO).await.unwrap();
        w.store().cancel_replay(TENANT, job.id, Actor::Tenant, w.now()).await.unwrap();
        ended.push(job.id);
    }
    let listed = w.store().replay_jobs(TENANT).await.unwrap();
    assert_eq!(listed.len(), ENDED_MAX + 2, "the last was not there when the others were counted");
    assert_eq!(w.store().replay_job(TENANT, ended[0]).await.unwrap(), None);
    w.store().forget_replays(w.now()).await.unwrap();
    assert_eq!(w.store().replay_jobs(TENANT).await.unwrap().len(), ENDED_MAX + 2);
    w.clock.advance(SECOND);
    w.store().forget_replays(w.now()).await.unwrap();
    assert_eq!(w.store().replay_jobs(TENANT).await.unwrap(), [running]);
}

pub(crate) async fn a_step_that_is_too_large_is_not_taken(w: World) {
    let id = w.dead_letter().await;
    let job = begin(&w, Duration::ZERO).await;
    assert_eq!(take(&w, step(&w, &job, &vec![id; STEP_MAX + 1], true)).await, job);
    assert_eq!(take(&w, step(&w, &job, &vec![id; STEP_MAX], true)).await.retried, 1, "no matter how often it is named");
}
