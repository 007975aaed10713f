//! What cannot be brought about from outside.

use conductor_core::callbacks::{Callbacks as _, Event, EventSet, Subscription, Subscriptions, WAITING_MAX};
use conductor_core::{EndpointId, Status, Store as _, TenantId};
use rusqlite::Connection;

use crate::sqlite::fault_tests::{NOW, accept, open};
use crate::sqlite::writer::Command;

/// The tenant of [`accept`].
const TENANT: TenantId = TenantId::from_bytes([1; 16]);

fn everything() -> (EndpointId, Subscriptions) {
    let endpoint = EndpointId::derive(TENANT, "https://a.example/");
    let mut subscriptions = Subscriptions::default();
    subscriptions.add(TENANT, Subscription { endpoint, events: EventSet::all(), fingerprint: [1; 32] });
    (endpoint, subscriptions)
}

#[tokio::test]
async fn the_oldest_makes_room_where_too_many_wait() {
    let (store, directory) = open();
    let (endpoint, subscriptions) = everything();
    store.subscribe(subscriptions).await.unwrap();
    for number in 1..=2 {
        let key = accept(&store, number).await.unwrap();
        store.cancel(TENANT, key.notification, NOW).await.unwrap();
    }
    let before = store.callbacks(endpoint, 10).await.unwrap().first;
    let beside = Connection::open(directory.path().join("conductor.db")).unwrap();
    beside.execute("UPDATE callback_endpoint SET waiting = ?1", [WAITING_MAX.cast_signed()]).unwrap();
    let key = accept(&store, 3).await.unwrap();
    store.cancel(TENANT, key.notification, NOW).await.unwrap();
    let after = store.callbacks(endpoint, 10).await.unwrap();
    let numbers: Vec<i64> = after.first.iter().map(|callback| callback.number).collect();
    assert_eq!((before.len(), numbers), (2, vec![2, 3]));
    let state = after.state.unwrap();
    assert_eq!((state.waiting, state.dropped), (WAITING_MAX, 1));
}

#[tokio::test]
async fn a_callback_goes_down_with_the_transaction_that_made_it() {
    let (store, directory) = open();
    let (endpoint, subscriptions) = everything();
    store.subscribe(subscriptions).await.unwrap();
    let key = accept(&store, 1).await.unwrap();
    // What ends the delivery is written, and then its callback cannot be.
    let beside = Connection::open(directory.path().join("conductor.db")).unwrap();
    let forbid = "CREATE TRIGGER forbid BEFORE INSERT ON callback BEGIN SELECT RAISE(ABORT, 'no'); END";
    beside.execute_batch(forbid).unwrap();
    store.cancel(TENANT, key.notification, NOW).await.unwrap_err();
    let story = store.notification(TENANT, key.notification).await.unwrap().unwrap();
    assert_eq!(story.status(), Status::Queued);
    assert_eq!(store.arrived_callbacks(), []);
    beside.execute_batch("DROP TRIGGER forbid").unwrap();
    store.cancel(TENANT, key.notification, NOW).await.unwrap();
    let waiting = store.callbacks(endpoint, 10).await.unwrap();
    let events: Vec<Event> = waiting.first.iter().map(|callback| callback.event).collect();
    assert_eq!((events, waiting.state.unwrap().waiting), (vec![Event::NotificationCanceled], 1));
    assert_eq!(store.arrived_callbacks(), [endpoint]);
}

#[tokio::test]
async fn a_command_that_fails_in_company_takes_no_callback_with_it() {
    let (store, _directory) = open();
    let (endpoint, subscriptions) = everything();
    store.subscribe(subscriptions).await.unwrap();
    let key = accept(&store, 1).await.unwrap();
    let panics = store.command(|reply| Command::Panic { after: false, reply });
    let (failed, canceled) = tokio::join!(panics, store.cancel(TENANT, key.notification, NOW));
    assert!(failed.is_err() && canceled.is_ok());
    assert_eq!(store.callbacks(endpoint, 10).await.unwrap().first.len(), 1);
    assert_eq!(store.arrived_callbacks(), [endpoint]);
}
