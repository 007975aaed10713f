//! Many callers at once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::task::Poll;

use conductor_core::store::{Accepted, Claim, Claimed, Transition};
use conductor_core::{NotificationId, Settlement, Status, StoreError};
use tokio::task::JoinSet;

use crate::harness::*;

pub(crate) async fn all_that_was_acknowledged_is_there_after_a_crash(mut w: World) {
    let accepted: BTreeSet<_> = w.accept_many(12_800).await.into_iter().map(first).collect();
    assert_eq!(accepted.len(), 12_800);
    w.crash().await;
    let left: BTreeSet<_> = w.arrivals(1_000).await.iter().map(queued_key).collect();
    assert_eq!(left, accepted);
}

pub(crate) async fn a_race_for_one_delivery_has_one_winner(w: World) {
    for _ in 0..20 {
        let key = first(w.plain().await);
        let mut racers = JoinSet::new();
        for _ in 0..16 {
            let (store, now) = (Arc::clone(w.store()), w.now());
            racers.spawn(async move { store.claim(&[Claim { key, suspect: false }], now).await.unwrap().remove(0) });
        }
        let won = racers.join_all().await.into_iter().filter(|claimed| matches!(claimed, Claimed::Leased(_))).count();
        assert_eq!(won, 1);
    }
}

pub(crate) async fn a_race_between_cancel_and_claim_has_one_winner(w: World) {
    let (mut canceled, mut claimed) = (0, 0);
    for round in 0..200 {
        let id = w.plain().await;
        let claim = async {
            if round % 2 == 0 {
                tokio::task::yield_now().await;
            }
            w.claim(first(id)).await
        };
        match tokio::join!(w.cancel(id), claim) {
            // Who claims it while it is being taken back may be told to come again.
            (Transition::Done(Status::Canceled), Claimed::Gone | Claimed::NotDue(_)) => canceled += 1,
            (Transition::WrongStatus(Status::Sending), Claimed::Leased(lease)) => {
                claimed += 1;
                let sent = w.finished(&lease, Settlement::Sent);
                w.store().settle(*lease, sent).await.unwrap();
            }
            other => panic!("both or neither won: {other:?}"),
        }
    }
    assert_eq!(canceled + claimed, 200);
}

/// What one worker of the test below did before the store was closed under its hands.
#[derive(Default)]
struct Done {
    accepted: Vec<NotificationId>,
    sent: Vec<NotificationId>,
}

pub(crate) async fn a_stop_under_load_loses_nothing(mut w: World) {
    let mut workers = JoinSet::new();
    for worker in 0..64 {
        let (store, now) = (Arc::clone(w.store()), w.now());
        let mut sent = (0..1_000_000).map(move |n| draft(id_at(now, worker * 1_000_000 + n), now));
        workers.spawn(async move {
            let mut done = Done::default();
            loop {
                let draft = sent.next().expect("the store is closed long before");
                let id = draft.id;
                match store.accept(new(draft)).await {
                    Ok(accepted) => assert_eq!(accepted, Accepted::New { superseded: None }),
                    Err(error) => {
                        assert_eq!(error, StoreError::Closed);
                        return done;
                    }
                }
                done.accepted.push(id);
                let Ok(mut claimed) = store.claim(&[Claim { key: first(id), suspect: false }], now).await else {
                    return done;
                };
                let lease = leased(claimed.remove(0));
                let finished = finished(&lease, Settlement::Sent, now);
                match store.settle(lease, finished).await {
                    Ok(_) => done.sent.push(id),
                    Err(unsettled) => {
                        assert_eq!((unsettled.error, unsettled.lease.key), (StoreError::Closed, first(id)));
                        return done;
                    }
                }
            }
        });
    }
    // Not before there is something to lose.
    while w.walk(TENANT, Default::default(), 1_000).await.len() < 1_000 {
        tokio::task::yield_now().await;
    }
    w.restart().await;
    let done = workers.join_all().await;
    assert!(done.iter().map(|done| done.accepted.len()).sum::<usize>() >= 1_000);
    let waiting: BTreeSet<_> = w.arrivals(1_000).await.into_iter().map(|queued| queued.key.notification).collect();
    for done in done {
        for id in &done.sent {
            assert_eq!(w.story(*id).await.status(), Status::Sent);
        }
        for id in done.accepted.iter().filter(|id| !done.sent.contains(id)) {
            assert!(waiting.contains(id), "{id} was accepted and not sent");
        }
    }
}

pub(crate) async fn a_dropped_claim_leases_nothing(mut w: World) {
    let id = w.plain().await;
    w.crash().await;
    for suspect in [false, true] {
        let claims = [Claim { key: first(id), suspect }];
        // An engine may be done at the first look; now and then it is not, and that claim is dropped.
        for _ in 0..1_000 {
            let mut claim = w.store().claim(&claims, w.now());
            match std::future::poll_fn(|context| Poll::Ready(claim.as_mut().poll(context))).await {
                Poll::Pending => break,
                Poll::Ready(claimed) => w.store().release(leased(claimed.unwrap().remove(0))).await,
            }
        }
        w.store().release(leased(w.claim_as(first(id), suspect).await)).await;
    }
}
