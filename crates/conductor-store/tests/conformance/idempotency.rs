//! The same request twice.

use conductor_core::store::{Accepted, IDEMPOTENCY_KEPT, Idempotency, NewNotification};
use conductor_core::{Draft, Settlement, StoreError};

use crate::harness::*;

fn with_key(draft: Draft, key: &str, fingerprint: u8) -> NewNotification {
    let idempotency = Idempotency { key: key.into(), part: None, fingerprint: [fingerprint; 32] };
    NewNotification { idempotency: Some(idempotency), ..new(draft) }
}

async fn accept(w: &World, key: &str, fingerprint: u8) -> Result<Accepted, StoreError> {
    w.store().accept(with_key(w.draft(), key, fingerprint)).await
}

const NEW: Result<Accepted, StoreError> = Ok(Accepted::New { superseded: None });

pub(crate) async fn the_same_request_is_replayed(mut w: World) {
    let new = with_key(w.draft(), "order-7", 1);
    assert_eq!(w.store().accept(new.clone()).await, NEW);
    let replayed = Ok(Accepted::Replayed(Box::new((*new.notification).clone())));
    assert_eq!(accept(&w, "order-7", 1).await, replayed);
    w.attempt(first(new.notification.id), Settlement::Sent).await;
    w.crash().await;
    assert_eq!(accept(&w, "order-7", 1).await, replayed);
    assert_eq!(w.list(Default::default()).await.len(), 1);
    let both = tokio::join!(accept(&w, "order-8", 1), accept(&w, "order-8", 1));
    assert!(matches!(both, (NEW, Ok(Accepted::Replayed(_))) | (Ok(Accepted::Replayed(_)), NEW)), "{both:?}");
}

pub(crate) async fn another_request_with_the_same_key_is_a_conflict(w: World) {
    assert_eq!(accept(&w, "order-7", 1).await, NEW);
    assert_eq!(accept(&w, "order-7", 2).await, Ok(Accepted::Conflict));
    assert_eq!(accept(&w, "order-8", 2).await, NEW);
    assert_eq!(w.arriving().await.len(), 2);
}

pub(crate) async fn a_key_is_forgotten_after_a_day(w: World) {
    assert_eq!(accept(&w, "order-7", 1).await, NEW);
    w.clock.advance(IDEMPOTENCY_KEPT - SECOND);
    assert_eq!(accept(&w, "order-7", 2).await, Ok(Accepted::Conflict));
    w.clock.advance(SECOND);
    assert_eq!(accept(&w, "order-7", 2).await, NEW);
    assert_eq!(accept(&w, "order-7", 1).await, Ok(Accepted::Conflict), "the new request holds the key now");
}

pub(crate) async fn a_key_belongs_to_its_tenant(w: World) {
    assert_eq!(accept(&w, "order-7", 1).await, NEW);
    let theirs = Draft { tenant: OTHER_TENANT, ..w.draft() };
    assert_eq!(w.store().accept(with_key(theirs, "order-7", 2)).await, NEW);
}

pub(crate) async fn old_keys_are_forgotten_when_told(w: World) {
    assert_eq!(accept(&w, "old", 1).await, NEW);
    w.clock.advance(HOUR);
    assert_eq!(accept(&w, "young", 1).await, NEW);
    assert_eq!(w.store().forget_idempotency(w.now()).await, Ok(1));
    assert_eq!(w.store().forget_idempotency(w.now()).await, Ok(0));
    assert_eq!(accept(&w, "young", 2).await, Ok(Accepted::Conflict));
    assert_eq!(accept(&w, "old", 2).await, NEW);
}

pub(crate) async fn a_replayed_request_supersedes_nothing(w: World) {
    let door = |w: &World| Draft { key: Some("door".into()), ..w.draft() };
    let one = with_key(door(&w), "order-7", 1);
    assert_eq!(w.store().accept(one.clone()).await, NEW);
    assert!(matches!(w.store().accept(with_key(door(&w), "order-7", 1)).await, Ok(Accepted::Replayed(_))));
    assert!(matches!(w.store().accept(with_key(door(&w), "order-7", 2)).await, Ok(Accepted::Conflict)));
    assert_eq!(w.arriving().await, [first(one.notification.id)]);
    w.lease(first(one.notification.id)).await;
}
