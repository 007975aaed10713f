//! The provider that does as the trial says: it keeps every send waiting until it is told how to answer.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use conductor_channels::{ChannelContext, ChannelPlugin, InitError, Plugin, Setting};
use conductor_core::{
    Channel, ChannelId, Clock, DeliveryId, Health, Limits, Message, Outcome, Problems, Receipt, Scope, SendError,
    SendErrorKind, Timestamp,
};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::{Notify, oneshot};

/// What the provider says of its own accord, so that its words are told from the engine's.
pub(crate) const WORDS: &str = "as the trial wants it";

/// A table with the provider's two faces: one that makes doubles and one that does not.
pub(crate) static PLUGINS: &[Plugin] = &[Plugin::of::<Scripted<false>>(), Plugin::of::<Scripted<true>>()];

thread_local! {
    /// A plugin gets nothing but its settings, so it finds the trial by the thread on which all of it runs.
    static PROVIDER: RefCell<Arc<Provider>> = RefCell::default();
}

/// How the provider answers a send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Sent,
    Retryable { seconds: Option<u64> },
    Limited { seconds: Option<u64>, scope: Scope },
    Unauthorized,
    Rejected,
    Permanent,
    Unknown,
    Panic,
}

/// A send that has reached the provider.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) delivery: DeliveryId,
    pub(crate) attempt: u32,
    pub(crate) channel: ChannelId,
    pub(crate) target: Option<String>,
    pub(crate) at: Timestamp,
}

/// The provider of one trial.
#[derive(Default)]
pub(crate) struct Provider {
    state: Mutex<State>,
    called: Notify,
}

#[derive(Default)]
struct State {
    calls: Vec<Call>,
    hanging: BTreeMap<DeliveryId, oneshot::Sender<Answer>>,
    /// Channels whose credentials are refused.
    refused: HashSet<ChannelId>,
}

impl Answer {
    /// Under which word the attempt is kept.
    pub(crate) fn outcome(self) -> Outcome {
        match self {
            Self::Sent => Outcome::Sent,
            Self::Retryable { .. } | Self::Panic => Outcome::Retryable,
            Self::Limited { .. } => Outcome::RateLimited,
            Self::Unauthorized => Outcome::Unauthorized,
            Self::Rejected => Outcome::Rejected,
            Self::Permanent => Outcome::Permanent,
            Self::Unknown => Outcome::Unknown,
        }
    }

    /// How long it asks to wait.
    pub(crate) fn asks(self) -> Option<Duration> {
        match self {
            Self::Retryable { seconds } | Self::Limited { seconds, .. } => seconds.map(Duration::from_secs),
            _ => None,
        }
    }
}

impl Provider {
    /// A new one, which the channels that this thread makes from now on send to.
    pub(crate) fn install() -> Arc<Self> {
        let provider = Arc::new(Self::default());
        PROVIDER.set(Arc::clone(&provider));
        provider
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// The sends that have come since this was asked last.
    pub(crate) fn take_calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.state().calls)
    }

    /// Returns when a send comes, or at once if one came since.
    pub(crate) async fn called(&self) {
        self.called.notified().await;
    }

    /// Answers the send that hangs for this delivery. False: none does.
    pub(crate) fn answer(&self, delivery: DeliveryId, answer: Answer) -> bool {
        let hanging = self.state().hanging.remove(&delivery);
        hanging.is_some_and(|reply| reply.send(answer).is_ok())
    }

    /// Forgets what hangs: the process that waited for it is gone.
    pub(crate) fn hang_up(&self) {
        *self.state() = State::default();
    }

    /// Takes a channel's credentials again, or refuses them.
    pub(crate) fn refuse(&self, channel: ChannelId, refused: bool) {
        let mut state = self.state();
        if refused {
            state.refused.insert(channel);
        } else {
            state.refused.remove(&channel);
        }
    }
}

/// The plugin. `DEDUPES`: whether it recognises a repeated message.
pub(crate) struct Scripted<const DEDUPES: bool> {
    provider: Arc<Provider>,
    channel: ChannelId,
    clock: Arc<dyn Clock>,
    obliging: bool,
}

/// What the plugin is told.
#[derive(Deserialize, JsonSchema)]
pub(crate) struct Options {
    /// Whether everything is taken at once, and not counted.
    #[serde(default)]
    obliging: bool,
}

#[async_trait]
impl<const DEDUPES: bool> Channel for Scripted<DEDUPES> {
    async fn send(&self, message: &Message) -> Result<Receipt, SendError> {
        if self.obliging {
            return Ok(Receipt::default());
        }
        let (reply, answer) = oneshot::channel();
        {
            let (delivery, attempt, target) = (message.delivery, message.attempt, message.target.clone());
            let mut state = self.provider.state();
            let call = Call { delivery, attempt, channel: self.channel, target, at: self.clock.now() };
            state.calls.push(call);
            state.hanging.insert(delivery, reply);
        }
        self.provider.called.notify_one();
        let kind = match answer.await {
            Err(_) => std::future::pending().await,
            Ok(Answer::Sent) => return Ok(Receipt::default()),
            // Without the message that the panic hook would print.
            Ok(Answer::Panic) => std::panic::resume_unwind(Box::new(WORDS)),
            Ok(answer @ Answer::Retryable { .. }) => SendErrorKind::Retryable { retry_after: answer.asks() },
            Ok(answer @ Answer::Limited { scope, .. }) => {
                SendErrorKind::RateLimited { retry_after: answer.asks(), scope }
            }
            Ok(Answer::Unauthorized) => SendErrorKind::Unauthorized,
            Ok(Answer::Rejected) => SendErrorKind::Rejected,
            Ok(Answer::Permanent) => SendErrorKind::Permanent,
            Ok(Answer::Unknown) => SendErrorKind::Unknown,
        };
        Err(SendError::new(kind, WORDS))
    }

    async fn health_check(&self) -> Health {
        if self.provider.state().refused.contains(&self.channel) {
            return Health::Down { reason: WORDS.to_owned() };
        }
        Health::Up
    }
}

impl<const DEDUPES: bool> ChannelPlugin for Scripted<DEDUPES> {
    const KIND: &'static str = if DEDUPES { "scripted-once" } else { "scripted" };
    const ABOUT: &'static str = "Answers as the trial wants it.";
    const SETTINGS: &'static [Setting] = &[];
    const DEDUPES: bool = DEDUPES;
    const LIMITS: Limits = Limits::NONE;
    type Config = Options;

    fn validate(_config: &Options, _problems: &mut Problems) {}

    async fn initialize(config: Options, context: ChannelContext) -> Result<Self, InitError> {
        let provider = PROVIDER.with_borrow(Arc::clone);
        Ok(Self { provider, channel: context.channel, clock: context.clock, obliging: config.obliging })
    }
}
