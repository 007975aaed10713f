//! What a provider lets all channels with the same credentials do together. A plugin says in [`ChannelPlugin::QUOTA`]
//! by which of its settings the provider counts, and how much it allows; the rest is done here, around its `send`.
//!
//! Where there is no room nothing is sent, and the error says at once how long to wait: that uses up no attempt. What one
//! channel is told by the provider holds for all of them.
//!
//! [`ChannelPlugin::QUOTA`]: crate::ChannelPlugin::QUOTA

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use conductor_core::receipts::{ReceiptAnswer, ReceiptError, ReceiptRequest};
use conductor_core::retry::rate_limit_pause;
use conductor_core::{Channel, Health, Message, Receipt, Scope, SendError, SendErrorKind, Standing};
use tokio::time::Instant;
use url::Url;

use crate::identity::{Identity, Kept, Shared};

#[cfg(test)]
mod tests;

/// The most places that are remembered for one account.
const PLACES_MAX: usize = 10_000;

/// So much earlier than it was told may one send: who was told waits by another clock, in milliseconds, and shall not be
/// held back when its own wait is over.
const HAIR: Duration = Duration::from_millis(5);

/// The accounts of all plugins.
static ACCOUNTS: Shared<Account> = Shared::new();

/// So many sends in any such time.
#[derive(Debug, Clone, Copy)]
pub struct Allowance {
    /// Whose sends are counted: `a bot`, `a group`.
    pub whose: &'static str,
    /// So many.
    pub most: usize,
    /// In any time as long as this.
    pub per: Duration,
    /// Which places it holds for, each for itself; none where it holds for all sends of the account together.
    place: Option<fn(&str) -> bool>,
}

impl Allowance {
    /// For all that the account sends.
    pub const fn of_all(whose: &'static str, most: usize, per: Duration) -> Self {
        Self { whose, most, per, place: None }
    }

    /// For what it sends to one place.
    pub const fn of_each(whose: &'static str, most: usize, per: Duration) -> Self {
        Self::of_each_that(whose, most, per, |_| true)
    }

    /// For what it sends to one place of those for which `is_one` holds.
    pub const fn of_each_that(whose: &'static str, most: usize, per: Duration, is_one: fn(&str) -> bool) -> Self {
        Self { whose, most, per, place: Some(is_one) }
    }
}

/// How a provider counts.
pub struct Quota<C> {
    credentials: fn(&C) -> Vec<&str>,
    allowances: &'static [Allowance],
    place: fn(&str) -> &str,
}

impl<C> Clone for Quota<C> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<C> Copy for Quota<C> {}

impl<C> Quota<C> {
    /// It counts by these settings, among them the secret, so that only who has that can take room from others.
    /// Nothing is known beforehand of how much it allows.
    pub const fn by(credentials: fn(&C) -> Vec<&str>) -> Self {
        Self { credentials, allowances: &[], place: |target| target }
    }

    /// And it allows so much.
    #[must_use]
    pub const fn with(self, allowances: &'static [Allowance]) -> Self {
        Self { allowances, ..self }
    }

    /// What of a target says which place it is, where that is not all of it.
    #[must_use]
    pub const fn placed(self, place: fn(&str) -> &str) -> Self {
        Self { place, ..self }
    }

    /// What it allows.
    pub(crate) const fn allowances(&self) -> &'static [Allowance] {
        self.allowances
    }

    /// The share of a channel in its account. `target` is the channel's own; `own_pace` says that its options name
    /// how fast it may send, which then counts instead of what all of the account may.
    pub(crate) fn share(
        self,
        kind: &str,
        base: Option<&Url>,
        config: &C,
        target: Option<String>,
        own_pace: bool,
    ) -> Share {
        let mut parts = vec![kind, base.map_or("", Url::as_str)];
        parts.extend((self.credentials)(config));
        let account = ACCOUNTS.of(Identity::of(&parts), Account::default);
        Share { account, allowances: self.allowances, place: self.place, target, own_pace }
    }
}

/// A channel's share in an account.
pub(crate) struct Share {
    account: Arc<Account>,
    allowances: &'static [Allowance],
    place: fn(&str) -> &str,
    target: Option<String>,
    own_pace: bool,
}

impl Share {
    fn place<'a>(&'a self, message: &'a Message) -> &'a str {
        let target = message.target.as_deref().or(self.target.as_deref());
        (self.place)(target.unwrap_or_default())
    }
}

/// A channel whose sends are counted together with those of others.
pub(crate) struct Counted<C> {
    pub(crate) channel: C,
    pub(crate) share: Share,
}

#[async_trait]
impl<C: Channel> Channel for Counted<C> {
    async fn send(&self, message: &Message) -> Result<Receipt, SendError> {
        let Share { account, allowances, own_pace, .. } = &self.share;
        let place = self.share.place(message);
        account.take(place, allowances, *own_pace, Instant::now())?;
        let result = self.channel.send(message).await;
        if let Err(error) = &result {
            account.told(place, error.kind, Instant::now());
        }
        result
    }

    fn length(&self, message: &Message) -> usize {
        self.channel.length(message)
    }

    async fn health_check(&self) -> Health {
        self.channel.health_check().await
    }

    fn open(&self) {
        self.channel.open();
    }

    fn standing(&self) -> Option<Standing> {
        self.channel.standing()
    }

    fn receipt(&self, request: &ReceiptRequest) -> Result<ReceiptAnswer, ReceiptError> {
        self.channel.receipt(request)
    }

    async fn shutdown(&self) {
        self.channel.shutdown().await;
    }
}

/// What is known of one account's room.
#[derive(Debug, Default)]
struct Account(Mutex<Room>);

#[derive(Debug, Default)]
struct Room {
    whole: Place,
    places: HashMap<String, Place>,
}

/// What was sent there, and how long nothing may be.
#[derive(Debug, Default)]
struct Place {
    paused: Pause,
    sent: Sent,
}

impl Place {
    fn is_spent(&self, now: Instant) -> bool {
        self.paused.left(now).is_none() && self.sent.is_over(now)
    }
}

impl Account {
    /// Takes room for one message to `place`; else the error that says how long there is none. With a pace of its own, a
    /// message counts for what all may send, but is not held back by it.
    fn take(
        &self,
        place: &str,
        allowances: &'static [Allowance],
        own_pace: bool,
        now: Instant,
    ) -> Result<(), SendError> {
        let mut room = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(wait) = room.whole.paused.left(now) {
            return Err(too_fast("these credentials", wait, Scope::Channel));
        }
        let known = room.places.get(place);
        if let Some(wait) = known.and_then(|known| known.paused.left(now)) {
            return Err(too_fast("this target", wait, Scope::Lane));
        }
        let holds = |allowance: &&Allowance| allowance.place.is_none_or(|is_one| is_one(place));
        let (of_place, of_all): (Vec<&Allowance>, Vec<&Allowance>) =
            allowances.iter().filter(holds).partition(|allowance| allowance.place.is_some());
        for allowance in of_all.iter().filter(|_| !own_pace) {
            if let Some(wait) = room.whole.sent.wait(allowance, now) {
                return Err(too_fast(allowance.whose, wait, Scope::Channel));
            }
        }
        for allowance in &of_place {
            if let Some(wait) = known.and_then(|known| known.sent.wait(allowance, now)) {
                return Err(too_fast(allowance.whose, wait, Scope::Lane));
            }
        }
        if !of_all.is_empty() {
            room.whole.sent.push(&of_all, now);
        }
        if !of_place.is_empty() {
            room.place(place, now).sent.push(&of_place, now);
        }
        Ok(())
    }

    /// Keeps what the provider has said of its limits, so that the others need not be told as well.
    fn told(&self, place: &str, kind: SendErrorKind, now: Instant) {
        let SendErrorKind::RateLimited { retry_after, scope } = kind else { return };
        let mut room = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = match scope {
            Scope::Channel => &mut room.whole,
            Scope::Lane => room.place(place, now),
        };
        known.paused.until(now + rate_limit_pause(retry_after).saturating_sub(HAIR));
    }
}

impl Kept for Account {
    fn is_spent(&self) -> bool {
        let (room, now) = (self.0.lock().unwrap_or_else(PoisonError::into_inner), Instant::now());
        room.whole.is_spent(now) && room.places.values().all(|place| place.is_spent(now))
    }
}

impl Room {
    fn place(&mut self, place: &str, now: Instant) -> &mut Place {
        bounded(&mut self.places, PLACES_MAX, place, |known| known.is_spent(now));
        self.places.entry(place.to_owned()).or_default()
    }
}

/// Makes room for one more among the places that are remembered: first those go that are spent, and where that is not
/// enough, all of them.
pub(crate) fn bounded<K, Q, V>(places: &mut HashMap<K, V>, most: usize, next: &Q, is_spent: impl Fn(&V) -> bool)
where
    K: std::hash::Hash + Eq + std::borrow::Borrow<Q>,
    Q: std::hash::Hash + Eq + ?Sized,
{
    if places.len() >= most && !places.contains_key(next) {
        places.retain(|_, known| !is_spent(known));
        if places.len() >= most {
            places.clear();
        }
    }
}

/// How long something rests.
#[derive(Debug, Clone, Copy, Default)]
struct Pause(Option<Instant>);

impl Pause {
    /// At least until then.
    fn until(&mut self, until: Instant) {
        self.0 = self.0.max(Some(until));
    }

    /// How much of it is left.
    fn left(self, now: Instant) -> Option<Duration> {
        self.0.map(|until| until.saturating_duration_since(now)).filter(|wait| !wait.is_zero())
    }
}

/// When the last sends were, the oldest first: no more than any allowance counts.
#[derive(Debug, Default)]
struct Sent {
    at: VecDeque<Instant>,
    /// The longest time that any of them counts for.
    counts_for: Duration,
}

impl Sent {
    /// How long it is until another may be sent.
    fn wait(&self, allowance: &Allowance, now: Instant) -> Option<Duration> {
        let first = *self.at.get(self.at.len().checked_sub(allowance.most)?)?;
        let wait = allowance.per.saturating_sub(now.saturating_duration_since(first));
        (!wait.is_zero()).then_some(wait)
    }

    /// One more was sent, and counts for these.
    fn push(&mut self, allowances: &[&Allowance], now: Instant) {
        let most = allowances.iter().map(|allowance| allowance.most).max().unwrap_or_default();
        let per = allowances.iter().map(|allowance| allowance.per).max().unwrap_or_default();
        self.counts_for = self.counts_for.max(per);
        self.at.push_back(now);
        while self.at.len() > most {
            self.at.pop_front();
        }
    }

    /// Whether none counts any more.
    fn is_over(&self, now: Instant) -> bool {
        self.at.back().is_none_or(|last| now.saturating_duration_since(*last) >= self.counts_for)
    }
}

/// What is said of a message for which there is no room.
pub(crate) fn too_fast(whose: &str, wait: Duration, scope: Scope) -> SendError {
    // Up to the next millisecond, so that the wait is never too short.
    let wait = Duration::from_millis(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).saturating_add(1));
    let message = format!("not asked: the provider's limit for {whose} is used up for another {wait:?}");
    SendError::new(SendErrorKind::RateLimited { retry_after: Some(wait), scope }, message)
}
