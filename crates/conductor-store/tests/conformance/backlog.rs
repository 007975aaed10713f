//! What a caller finds again that could not keep all it was handed.

use conductor_core::store::{Backlog, BacklogRequest};
use conductor_core::{ChannelId, DeliveryKey, Priority, Settlement};

use crate::harness::*;

fn request(channel: ChannelId, after: Option<DeliveryKey>, limit: usize) -> BacklogRequest {
    BacklogRequest { channel, priority: None, after, limit }
}

async fn part(w: &World, request: BacklogRequest) -> Backlog {
    w.store().backlog(request).await.unwrap()
}

/// All of it, in parts of at most `limit`.
async fn all(w: &World, channel: ChannelId, priority: Option<Priority>, limit: usize) -> Vec<DeliveryKey> {
    let mut after = None;
    let mut keys = Vec::new();
    loop {
        let Backlog { found, through } = part(w, BacklogRequest { priority, ..request(channel, after, limit) }).await;
        assert!(found.len() <= limit, "{} were found", found.len());
        assert!(through.is_none() || through > after, "each part goes on");
        keys.extend(found.iter().map(queued_key));
        match through {
            Some(through) => after = Some(through),
            None => return keys,
        }
    }
}

pub(crate) async fn a_channels_backlog_is_found_in_parts_and_in_order(w: World) {
    let mut expected = [Vec::new(), Vec::new()];
    let mut high = Vec::new();
    for number in 0..120 {
        let (which, channel) = if number % 3 == 0 { (1, OTHER_CHANNEL) } else { (0, CHANNEL) };
        let priority = if number % 4 == 0 { Priority::High } else { Priority::Normal };
        let id = w.accept(|d| (d.channel_id, d.priority) = (channel, priority)).await;
        expected[which].push(first(id));
        if priority == Priority::High && channel == CHANNEL {
            high.push(first(id));
        }
    }
    for limit in [1, 7, 1_000] {
        assert_eq!(all(&w, CHANNEL, None, limit).await, expected[0]);
        assert_eq!(all(&w, OTHER_CHANNEL, None, limit).await, expected[1]);
        assert_eq!(all(&w, CHANNEL, Some(Priority::High), limit).await, high);
        assert_eq!(all(&w, THIRD_CHANNEL, None, limit).await, []);
    }
    let behind = part(&w, request(CHANNEL, Some(expected[0][10]), 5)).await;
    assert_eq!(behind.found.iter().map(queued_key).collect::<Vec<_>>(), expected[0][11..16]);
    let arrived = w.arrivals(1_000).await;
    assert!(behind.found.iter().all(|queued| arrived.contains(queued)), "the same that was handed over");
}

pub(crate) async fn a_part_of_a_backlog_is_bounded_also_where_nothing_is_found(w: World) {
    w.accept_many(9_000).await;
    let last = first(w.accept(|d| d.channel_id = OTHER_CHANNEL).await);
    let nothing = part(&w, request(OTHER_CHANNEL, None, 10)).await;
    assert_eq!(nothing.found, []);
    assert!(nothing.through.is_some(), "it did not look at all of it");
    assert_eq!(all(&w, OTHER_CHANNEL, None, 10).await, [last]);
}

pub(crate) async fn the_oldest_of_a_channel_is_found_little_by_little_behind_those_of_others(mut w: World) {
    let oldest = async |w: &World| {
        let oldest = w.store().oldest(TENANT, &[THIRD_CHANNEL, CHANNEL]).await.unwrap();
        assert!(oldest.iter().all(|(channel, _)| *channel == CHANNEL));
        oldest.first().map(|(_, at)| *at)
    };
    assert_eq!(oldest(&w).await, None);
    let dead = w.dead_letter().await;
    let (dead_at, first_at) = (w.now(), w.now().plus(SECOND));
    w.clock.advance(SECOND);
    let before = w.plain().await;
    for _ in 0..9_000 {
        w.accept(|d| (d.tenant, d.channel_id) = (OTHER_TENANT, OTHER_CHANNEL)).await;
    }
    w.clock.advance(SECOND);
    let behind_at = w.now();
    w.plain().await;
    for crash in [false, true] {
        if crash {
            w.crash().await;
        }
        assert_eq!(oldest(&w).await, Some(first_at));
    }
    w.cancel(before).await;
    let mut looks = 1;
    while oldest(&w).await != Some(behind_at) {
        looks += 1;
        assert!(looks < 10, "each look goes on where the last one stopped");
    }
    assert!(looks > 1, "one look has gone through all that waits");
    assert_eq!(oldest(&w).await, Some(behind_at));
    w.replay(dead).await;
    assert_eq!(oldest(&w).await, Some(dead_at), "an older one has come back");
}

pub(crate) async fn what_is_held_or_over_is_no_backlog(w: World) {
    let sent = w.plain().await;
    w.attempt(first(sent), Settlement::Sent).await;
    w.held().await;
    let canceled = w.plain().await;
    w.cancel(canceled).await;
    let late = w.now().plus(HOUR);
    let tried = w.plain().await;
    w.attempt(first(tried), Settlement::RetryAt { due: late, counts: true, limited: None }).await;
    let found = part(&w, request(CHANNEL, None, 10)).await.found;
    let [queued] = found[..] else { panic!("{found:?}") };
    assert_eq!((queued.key, queued.due, queued.tried), (first(tried), late, true));
}

pub(crate) async fn a_backlog_that_saw_a_process_die_is_suspect(mut w: World) {
    let before = w.plain().await;
    w.crash().await;
    w.arrivals(10).await;
    let since = w.plain().await;
    let found = part(&w, request(CHANNEL, None, 10)).await.found;
    let suspects: Vec<_> = found.iter().map(|queued| (queued.key, queued.suspect)).collect();
    assert_eq!(suspects, [(first(before), true), (first(since), false)]);
}
