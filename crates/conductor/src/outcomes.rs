//! Callers that wait for what becomes of a notification (`Prefer: wait`).

use std::collections::HashMap;
use std::sync::Mutex;

use conductor_core::{NotificationId, Status};
use tokio::sync::watch;

pub use replays::ReplaySignals;

mod replays;

/// Tells those who wait. Bounded by the number of requests that the server takes at once.
#[derive(Debug, Default)]
pub struct Outcomes(Mutex<HashMap<NotificationId, watch::Sender<Option<Status>>>>);

/// One caller's wait. Dropping it ends the wait.
#[derive(Debug)]
pub struct Wait<'a> {
    outcomes: &'a Outcomes,
    id: NotificationId,
    receiver: watch::Receiver<Option<Status>>,
}

impl Outcomes {
    /// Begins to wait for `id`: before it is accepted, so that nothing is missed.
    pub fn wait(&self, id: NotificationId) -> Wait<'_> {
        let mut waiting = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let sender = waiting.entry(id).or_insert_with(|| watch::Sender::new(None));
        Wait { outcomes: self, id, receiver: sender.subscribe() }
    }

    /// Tells those who wait for `id` that it came to `status`, which is an end or a state that waits for a person.
    pub fn tell(&self, id: NotificationId, status: Status) {
        let waiting = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(sender) = waiting.get(&id) {
            sender.send_replace(Some(status));
        }
    }
}

impl Wait<'_> {
    /// Returns the status that was told. Never returns if none is: put a time limit around it.
    pub async fn outcome(&mut self) -> Status {
        // The guard that `wait_for` gives must not live across another wait.
        let told = self.receiver.wait_for(Option::is_some).await.ok().and_then(|told| *told);
        match told {
            Some(status) => status,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let mut waiting = self.outcomes.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if waiting.get(&self.id).is_some_and(|sender| sender.receiver_count() <= 1) {
            waiting.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[tokio::test]
    async fn everybody_who_waits_is_told_and_nothing_is_left_behind() {
        let outcomes = Outcomes::default();
        let id = NotificationId::new(Uuid::from_u128(1));
        let (mut first, mut second) = (outcomes.wait(id), outcomes.wait(id));
        outcomes.tell(NotificationId::new(Uuid::from_u128(2)), Status::Failed);
        outcomes.tell(id, Status::Sent);
        assert_eq!((first.outcome().await, second.outcome().await), (Status::Sent, Status::Sent));
        drop(first);
        assert_eq!(outcomes.0.lock().expect("not poisoned").len(), 1);
        drop(second);
        assert!(outcomes.0.lock().expect("not poisoned").is_empty());
    }
}
