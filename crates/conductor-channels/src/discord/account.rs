//! What all channels with one token share, whoever they belong to: Discord's limits, and one gateway connection.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use conductor_core::{Secret, Standing};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use url::Url;

use super::budget::Budget;
use super::gateway::Gateway;
use crate::identity::{Identity, Kept, Shared};

/// How long the gateway's goodbye is waited for.
const GOODBYE_MAX: Duration = Duration::from_secs(3);

/// Every account that has a channel.
static ACCOUNTS: Shared<Account> = Shared::new();

/// One bot, or one webhook.
#[derive(Default)]
pub(super) struct Account {
    pub(super) budget: Budget,
    standing: watch::Sender<Option<Standing>>,
    identified: Arc<Mutex<Option<Instant>>>,
    connection: Mutex<Option<Connection>>,
}

/// The gateway's task, and how many channels need it. Dropping it breaks the connection off.
struct Connection {
    channels: usize,
    stop: watch::Sender<bool>,
    task: JoinSet<()>,
}

impl Account {
    /// The account of these credentials at this address: the same one for all that ask while one of them has it.
    pub(super) fn of(base: &Url, credentials: &Secret) -> Arc<Self> {
        ACCOUNTS.of(Identity::of(&[base.as_str(), credentials.expose()]), Self::default)
    }

    /// How the gateway connection is doing; none where there is none, or nothing is known yet.
    pub(super) fn standing(&self) -> Option<Standing> {
        self.standing.borrow().clone()
    }

    /// One more channel wants the bot connected. The first one begins it, as `gateway` says.
    pub(super) fn open(
        &self,
        gateway: impl FnOnce(watch::Sender<Option<Standing>>, Arc<Mutex<Option<Instant>>>) -> Gateway,
    ) {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(connection) = &mut *connection {
            connection.channels += 1;
            return;
        }
        let gateway = gateway(self.standing.clone(), Arc::clone(&self.identified));
        let (stop, stopped) = watch::channel(false);
        let mut task = JoinSet::new();
        task.spawn(async move { gateway.run(stopped).await });
        *connection = Some(Connection { channels: 1, stop, task });
    }

    /// One channel less wants the bot connected. What the last one leaves is to be said goodbye to, or dropped.
    pub(super) fn leave(&self) -> Option<Parting> {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let open = connection.as_mut()?;
        open.channels -= 1;
        if open.channels > 0 {
            return None;
        }
        self.standing.send_replace(None);
        connection.take().map(Parting)
    }
}

impl Kept for Account {
    /// Discord lets no session begin soon after the last one.
    fn is_spent(&self) -> bool {
        let identified = *self.identified.lock().unwrap_or_else(PoisonError::into_inner);
        let is_recent = identified.is_some_and(|at| at.elapsed() < super::gateway::Pace::DISCORD.identify);
        !is_recent && self.budget.is_spent(Instant::now())
    }
}

/// A connection that nobody needs any more.
pub(super) struct Parting(Connection);

impl Parting {
    /// Closes it properly, so that the bot shows as offline at once.
    pub(super) async fn goodbye(self) {
        let Connection { stop, mut task, .. } = self.0;
        stop.send_replace(true);
        // One that takes longer is broken off.
        let _ = timeout(GOODBYE_MAX, task.join_next()).await;
    }
}
