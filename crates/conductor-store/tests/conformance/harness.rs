//! The seam between cases and engines, and the words in which the cases are written.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use conductor_core::store::{
    Accepted, Claim, Claimed, Filter, Finished, Lease, NewNotification, Page, Queued, Settled, Story, Transition,
};
use conductor_core::{
    Attempt, ChannelId, Clock, DeliveryKey, Draft, FailureReason, Fallback, Format, ManualClock, Notification,
    NotificationId, Outcome, Priority, Settlement, Status, Store, StoreError, TenantId, Timestamp,
};

/// When every case begins, in milliseconds since 1970.
const START_MILLIS: i64 = 1_705_314_600_000;
pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const HOUR: Duration = Duration::from_secs(3_600);
pub(crate) const DAY: Duration = Duration::from_secs(86_400);
/// No case takes longer, unless it hangs.
const CASE_MAX: Duration = Duration::from_secs(120);

/// The tenant of whom the cases speak, and one who must not see anything of it.
pub(crate) const TENANT: TenantId = TenantId::from_bytes([0x11; 16]);
pub(crate) const OTHER_TENANT: TenantId = TenantId::from_bytes([0x22; 16]);
pub(crate) const CHANNEL: ChannelId = ChannelId::from_bytes([0xc1; 16]);
pub(crate) const OTHER_CHANNEL: ChannelId = ChannelId::from_bytes([0xc2; 16]);
pub(crate) const THIRD_CHANNEL: ChannelId = ChannelId::from_bytes([0xc3; 16]);

/// An engine with a place of its own.
#[async_trait]
pub(crate) trait Engine: Send + Sync {
    /// The same engine with another place.
    fn elsewhere(&self) -> Box<dyn Engine>;
    /// Opens the store at this engine's place, as a process that starts does.
    async fn open(&self, clock: Arc<ManualClock>) -> Arc<dyn Store>;
    /// Ends the store as `kill -9` would.
    async fn crash(&self, store: Arc<dyn Store>);
}

/// Runs one case in a world of its own.
pub(crate) fn run<F: Future<Output = ()>>(engine: impl FnOnce() -> Box<dyn Engine>, case: impl FnOnce(World) -> F) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let world = World::new(engine()).await;
        tokio::time::timeout(CASE_MAX, case(world)).await.expect("the case ends in time");
    });
}

/// One store with its clock.
pub(crate) struct World {
    engine: Box<dyn Engine>,
    /// None while no process runs.
    process: Option<Arc<dyn Store>>,
    pub(crate) clock: Arc<ManualClock>,
    ids: AtomicU64,
}

pub(crate) fn start() -> Timestamp {
    Timestamp::from_millis(START_MILLIS)
}

/// A UUIDv7 of this time; `number` tells those of one millisecond apart, in order.
pub(crate) fn id_at(at: Timestamp, number: u64) -> NotificationId {
    let time = u128::from(at.millis().unsigned_abs()) << 80;
    let id = time | 0x7 << 76 | 0b10 << 62 | u128::from(number);
    NotificationId::from_bytes(id.to_be_bytes())
}

/// A notification as plain as can be.
pub(crate) fn draft(id: NotificationId, at: Timestamp) -> Draft {
    Draft {
        id,
        tenant: TENANT,
        channel: "log".into(),
        channel_id: CHANNEL,
        target: None,
        message: "Test notification".into(),
        title: None,
        priority: Priority::Normal,
        format: Format::Text,
        data: serde_json::Map::new(),
        metadata: std::collections::BTreeMap::new(),
        key: None,
        fallback: Vec::new(),
        accepted_at: at,
        send_at: None,
        expires_at: at.plus(DAY),
        trace: None,
    }
}

pub(crate) fn new(draft: Draft) -> NewNotification {
    NewNotification { notification: Arc::new(Notification::new(draft).unwrap()), idempotency: None }
}

/// The first delivery of a notification.
pub(crate) fn first(notification: NotificationId) -> DeliveryKey {
    DeliveryKey { notification, ordinal: 0 }
}

pub(crate) fn fallback(channel: &str, channel_id: ChannelId, target: Option<&str>) -> Fallback {
    Fallback { channel: channel.into(), channel_id, target_id: target.map(Into::into) }
}

pub(crate) fn queued_key(queued: &Queued) -> DeliveryKey {
    queued.key
}

impl World {
    async fn new(engine: Box<dyn Engine>) -> Self {
        let clock = Arc::new(ManualClock::at(start()));
        let store = engine.open(Arc::clone(&clock)).await;
        Self { engine, process: Some(store), clock, ids: AtomicU64::new(0) }
    }

    /// A world of its own, on the same engine.
    pub(crate) async fn elsewhere(&self) -> Self {
        Self::new(self.engine.elsewhere()).await
    }

    /// Ends the process as `kill -9` does and starts the next one.
    pub(crate) async fn crash(&mut self) {
        let store = self.process.take().expect("a process runs");
        self.engine.crash(store).await;
        self.process = Some(self.engine.open(Arc::clone(&self.clock)).await);
    }

    /// Stops the process in good order and starts the next one.
    pub(crate) async fn restart(&mut self) {
        self.store().close().await;
        self.process = None;
        self.process = Some(self.engine.open(Arc::clone(&self.clock)).await);
    }

    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        self.process.as_ref().expect("a process runs")
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) fn draft(&self) -> Draft {
        let now = self.now();
        draft(id_at(now, self.ids.fetch_add(1, Ordering::SeqCst)), now)
    }

    /// Accepts a draft that is changed as the case needs it. Panics unless it is new.
    pub(crate) async fn accept(&self, change: impl FnOnce(&mut Draft)) -> NotificationId {
        self.accept_superseding(change).await.0
    }

    /// As [`World::accept`]; tells also whose place it took.
    pub(crate) async fn accept_superseding(
        &self,
        change: impl FnOnce(&mut Draft),
    ) -> (NotificationId, Option<NotificationId>) {
        let mut draft = self.draft();
        change(&mut draft);
        let id = draft.id;
        match self.store().accept(new(draft)).await.unwrap() {
            Accepted::New { superseded } => (id, superseded),
            other => panic!("expected a new notification, got {other:?}"),
        }
    }

    /// Accepts a plain notification.
    pub(crate) async fn plain(&self) -> NotificationId {
        self.accept(|_| {}).await
    }

    pub(crate) async fn claim(&self, key: DeliveryKey) -> Claimed {
        self.claim_as(key, false).await
    }

    pub(crate) async fn claim_as(&self, key: DeliveryKey, suspect: bool) -> Claimed {
        let mut claimed = self.store().claim(&[Claim { key, suspect }], self.now()).await.unwrap();
        assert_eq!(claimed.len(), 1);
        claimed.remove(0)
    }

    /// Leases a delivery that has to be free and due.
    pub(crate) async fn lease(&self, key: DeliveryKey) -> Lease {
        leased(self.claim(key).await)
    }

    /// Whether a claim is answered with [`Claimed::Gone`].
    pub(crate) async fn is_gone(&self, key: DeliveryKey) -> bool {
        matches!(self.claim(key).await, Claimed::Gone)
    }

    /// Leases a delivery and settles it at once.
    pub(crate) async fn attempt(&self, key: DeliveryKey, settlement: Settlement) -> Settled {
        let lease = self.lease(key).await;
        let finished = self.finished(&lease, settlement);
        self.store().settle(lease, finished).await.unwrap()
    }

    /// An attempt that just came to this settlement.
    pub(crate) fn finished(&self, lease: &Lease, settlement: Settlement) -> Finished {
        finished(lease, settlement, self.now())
    }

    pub(crate) fn retry_in(&self, wait: Duration) -> Settlement {
        Settlement::RetryAt { due: self.now().plus(wait), counts: true, limited: None }
    }

    pub(crate) async fn story(&self, id: NotificationId) -> Story {
        self.store().notification(TENANT, id).await.unwrap().expect("the tenant has this notification")
    }

    /// The status as the story has it, which has to be the one that the list has.
    pub(crate) async fn status(&self, id: NotificationId) -> Status {
        let status = self.story(id).await.status();
        let listed = self.list(Filter::default()).await.into_iter().find(|(listed, _)| *listed == id);
        assert_eq!(listed, Some((id, status)), "list and story agree");
        let by_status = self.list(Filter { status: Some(status), ..Filter::default() }).await;
        assert!(by_status.contains(&(id, status)), "the list of {status} has it");
        status
    }

    /// A whole list, by small pages.
    pub(crate) async fn list(&self, filter: Filter) -> Vec<(NotificationId, Status)> {
        self.walk(TENANT, filter, 7).await
    }

    pub(crate) async fn walk(&self, tenant: TenantId, filter: Filter, limit: usize) -> Vec<(NotificationId, Status)> {
        let mut found = Vec::new();
        let mut before = None;
        loop {
            let Page { items, next } = self.store().notifications(tenant, &filter, limit, before).await.unwrap();
            assert!(items.len() <= limit);
            assert!(items.iter().all(|item| item.notification.tenant == tenant));
            found.extend(items.iter().map(|item| (item.notification.id, item.status)));
            match next {
                None => return found,
                Some(next) => {
                    assert!(before.is_none_or(|before| next < before), "a walk goes on");
                    before = Some(next);
                }
            }
        }
    }

    /// Takes all that is to be handed over, in parts of `limit`.
    pub(crate) async fn arrivals(&self, limit: usize) -> Vec<Queued> {
        let mut all = Vec::new();
        loop {
            let part = self.store().arrivals(limit).await.unwrap();
            assert!(part.len() <= limit);
            if part.is_empty() {
                return all;
            }
            all.extend(part);
        }
    }

    /// The keys of all that is to be handed over.
    pub(crate) async fn arriving(&self) -> Vec<DeliveryKey> {
        self.arrivals(100).await.iter().map(queued_key).collect()
    }

    /// Lets the first delivery of a new notification fail for good.
    pub(crate) async fn dead_letter(&self) -> NotificationId {
        let id = self.plain().await;
        let settled = self.attempt(first(id), Settlement::Failed(FailureReason::Permanent)).await;
        assert_eq!(settled, Settled { status: Status::Failed, next: None });
        id
    }

    /// A notification of which nobody knows whether it was sent.
    pub(crate) async fn held(&self) -> NotificationId {
        let id = self.plain().await;
        let settled = self.attempt(first(id), Settlement::Hold).await;
        assert_eq!(settled, Settled { status: Status::Held, next: None });
        id
    }

    pub(crate) async fn cancel(&self, id: NotificationId) -> Transition {
        self.store().cancel(TENANT, id, self.now()).await.unwrap()
    }

    pub(crate) async fn resolve(&self, id: NotificationId) -> Transition {
        self.store().resolve(TENANT, id, self.now()).await.unwrap()
    }

    pub(crate) async fn replay(&self, id: NotificationId) -> Transition {
        self.store().replay(TENANT, id, None, self.now(), self.now().plus(DAY)).await.unwrap()
    }

    /// Accepts many plain notifications from 64 tasks at once. Their ids, as they were acknowledged.
    pub(crate) async fn accept_many(&self, count: usize) -> Vec<NotificationId> {
        let mut tasks = tokio::task::JoinSet::new();
        for part in 0..64 {
            let drafts: Vec<_> = (part..count).step_by(64).map(|_| self.draft()).collect();
            let store = Arc::clone(self.store());
            tasks.spawn(async move {
                let mut accepted = Vec::new();
                for draft in drafts {
                    let id = draft.id;
                    assert_eq!(store.accept(new(draft)).await, Ok(Accepted::New { superseded: None }));
                    accepted.push(id);
                }
                accepted
            });
        }
        tasks.join_all().await.concat()
    }
}

/// An attempt that came to this settlement at this time.
pub(crate) fn finished(lease: &Lease, settlement: Settlement, at: Timestamp) -> Finished {
    let outcome = match settlement {
        Settlement::Sent => Outcome::Sent,
        Settlement::RetryAt { counts: true, .. } => Outcome::Retryable,
        Settlement::RetryAt { counts: false, .. } => Outcome::RateLimited,
        Settlement::StepDown => Outcome::Rejected,
        Settlement::Hold => Outcome::Unknown,
        Settlement::Failed(_) => Outcome::Permanent,
    };
    let attempt = Attempt {
        number: lease.attempt,
        at,
        duration: Duration::from_millis(212),
        outcome,
        code: Some("418".into()),
        detail: Some("as the provider says".into()),
        retry_after: (outcome == Outcome::RateLimited).then_some(Duration::from_millis(376)),
    };
    let provider_id = (settlement == Settlement::Sent).then(|| format!("provider-{}", lease.attempt));
    Finished { attempt: Some(attempt), settlement, provider_id, at }
}

pub(crate) fn leased(claimed: Claimed) -> Lease {
    match claimed {
        Claimed::Leased(lease) => *lease,
        other => panic!("expected a lease, got {other:?}"),
    }
}

/// A second lease of the same right, as only a fault could make one.
pub(crate) fn forge(lease: &Lease) -> Lease {
    Lease {
        key: lease.key,
        notification: Arc::clone(&lease.notification),
        channel: lease.channel,
        target: lease.target.clone(),
        redirected: lease.redirected.clone(),
        attempt: lease.attempt,
        failures: lease.failures,
        expires_at: lease.expires_at,
        next_fallback: lease.next_fallback,
        progress: lease.progress.clone(),
    }
}

/// Whether a settlement is refused because the lease is used up.
pub(crate) async fn is_lost(store: &Arc<dyn Store>, lease: Lease, finished: Finished) -> bool {
    match store.settle(lease, finished).await {
        Ok(_) => false,
        Err(unsettled) => unsettled.error == StoreError::LeaseLost,
    }
}
