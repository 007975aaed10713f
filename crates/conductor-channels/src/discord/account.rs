//! What all channels with one token share, whoever they belong to: Discord's limits, and one gateway connection.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use conductor_core::{Secret, Standing};
use ring::digest::{Context, SHA256};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use url::Url;

use super::budget::Budget;
use super::gateway::Gateway;

/// How long the gateway's goodbye is waited for.
const GOODBYE_MAX: Duration = Duration::from_secs(3);

/// A hash of the credentials and of the address that they are for.
type Key = [u8; 32];

/// Every account that has a channel.
static ACCOUNTS: Mutex<Option<HashMap<Key, Known>>> = Mutex::new(None);

/// What stays known a little longer than the account is in use.
struct Known {
    account: Weak<Account>,
    /// When a session was begun last.
    identified: Arc<Mutex<Option<Instant>>>,
}

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
        let mut context = Context::new(&SHA256);
        context.update(base.as_str().as_bytes());
        context.update(&[0]);
        context.update(credentials.expose().as_bytes());
        let mut key = Key::default();
        key.copy_from_slice(context.finish().as_ref());
        let mut accounts = ACCOUNTS.lock().unwrap_or_else(PoisonError::into_inner);
        let accounts = accounts.get_or_insert_default();
        accounts.retain(|_, known| known.account.strong_count() > 0 || known.is_recent());
        let known = accounts.entry(key).or_insert_with(|| Known { account: Weak::new(), identified: Arc::default() });
        known.account.upgrade().unwrap_or_else(|| {
            let account = Arc::new(Self { identified: Arc::clone(&known.identified), ..Self::default() });
            known.account = Arc::downgrade(&account);
            account
        })
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

impl Known {
    fn is_recent(&self) -> bool {
        let identified = *self.identified.lock().unwrap_or_else(PoisonError::into_inner);
        identified.is_some_and(|at| at.elapsed() < super::gateway::Pace::DISCORD.identify)
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
