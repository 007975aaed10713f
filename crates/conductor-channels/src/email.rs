//! Sends e-mail through a mail server (SMTP), encrypted by STARTTLS or TLS.
//!
//! The letter is written by `lettre`, the conversation with the server is our own: what a failure means depends on how
//! far the conversation had come, each recipient has an answer of its own, and the connection has to pass the egress
//! guard.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use conductor_core::{Channel, Health, Limits, Message, Problems, Receipt, Secret, SendError, SendErrorKind};
use lettre::Address;
use lettre::message::Mailbox;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use tokio::time::Instant;
use url::Host;
use uuid::Uuid;

use crate::http::tidy;
use crate::{ChannelContext, ChannelPlugin, Classic, InitError, Setting};
use letter::Letterhead;
use pool::Pool;
use smtp::{Conversation, Fault, Reply, Server, Step};

mod address;
mod answer;
mod letter;
mod markup;
mod pool;
mod smtp;
#[cfg(test)]
mod tests;

/// The most time that a health check may take.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(10);
/// The time in which a connection that has waited shows that it still leads to the server.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);
/// The time in which connections take leave when the channel is shut down.
const QUIT_TIMEOUT: Duration = Duration::from_secs(2);
/// The most messages of which it is remembered who has them already.
const PARTLY_MAX: usize = 1000;
/// The longest user name and password, in bytes.
const CREDENTIAL_MAX_BYTES: usize = 2048;

/// The `email` plugin.
pub struct Email {
    context: ChannelContext,
    server: Server,
    letterhead: Letterhead,
    recipients: Vec<Mailbox>,
    pool: Pool,
    partly: Partly,
}

/// What an `email` channel can be told.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// The mail server's name, such as `smtp.example.com`.
    pub host: String,
    /// Its port. Without it: 587 with `starttls`, 465 with `tls`, 25 with `none`.
    #[serde(default, deserialize_with = "port")]
    pub port: Option<u16>,
    /// The user name at the mail server.
    pub username: Option<String>,
    /// The password at the mail server.
    #[schemars(with = "Option<String>")]
    pub password: Option<Secret>,
    /// The sender, such as `Conductor <alerts@example.com>`.
    pub from: String,
    /// The recipients, with commas between them, such as `ops@example.com, Jo <jo@example.com>`.
    pub to: String,
    /// How the connection is encrypted.
    #[serde(default)]
    pub security: Security,
    /// Where answers go, if not to the sender.
    pub reply_to: Option<String>,
}

/// How the connection to the mail server is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Security {
    /// Begun by STARTTLS. Nothing is sent to a server that does not offer it.
    #[default]
    Starttls,
    /// From the first byte, as on port 465.
    Tls,
    /// Not at all: only to a server in one of the channel's `allowNetworks`, and without a password.
    None,
}

impl Security {
    const fn port(self) -> u16 {
        match self {
            Self::Starttls => 587,
            Self::Tls => 465,
            Self::None => 25,
        }
    }
}

/// A variable holds a text, a file may hold a number.
fn port<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u16>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Port {
        Number(u16),
        Text(String),
    }
    match Option::<Port>::deserialize(from)? {
        None => Ok(None),
        Some(Port::Number(port)) => Ok(Some(port)),
        Some(Port::Text(text)) => text.trim().parse().map(Some).map_err(serde::de::Error::custom),
    }
}

impl ChannelPlugin for Email {
    const KIND: &'static str = "email";
    const ABOUT: &'static str = "Sends e-mail through a mail server (SMTP)";
    const SETTINGS: &'static [Setting] = &[
        setting("HOST", true, "The mail server's name, from your mail provider's help (SMTP).", "smtp.example.com"),
        setting("PORT", false, "Its port; 587 by default, 465 with `\"security\": \"tls\"`.", "587"),
        setting("USERNAME", false, "The user name at the mail server, often the whole address.", "alerts@example.com"),
        Setting {
            secret: true,
            classic: Some(Classic::Secret),
            ..setting("PASSWORD", false, "The password at the mail server; often an app password.", "example-password")
        },
        setting(
            "FROM",
            true,
            "The sender, which the account must be allowed to use.",
            "Conductor <alerts@example.com>",
        ),
        Setting {
            classic: Some(Classic::Id),
            ..setting("TO", true, "The recipients, with commas between them.", "ops@example.com, Jo <jo@example.com>")
        },
    ];
    const STEPS: &'static [&'static str] = &[
        "Look for *SMTP* or *outgoing mail* in your mail provider's help: it names the server, the port, and the \
         kind of encryption.",
        "Providers with two-factor login want a password of its own for each program. Make one: Google calls it \
         [App password](https://myaccount.google.com/apppasswords), others *app-specific password* or *SMTP \
         credentials*.",
        "The sender has to be an address that the account may send from.",
    ];
    /// The server's own limit, SIZE, is asked for each time; a notification's text keeps below any usual one.
    const LIMITS: Limits = Limits { text: None, rich: true };
    /// Servers count connections of one client, and refuse those beyond ten or so.
    const MAX_CONCURRENCY: u32 = 4;
    const TARGET: Option<&'static str> = Some("TO");
    /// Mailboxes may notice that a Message-ID comes twice; servers do not.
    const DEDUPES: bool = false;
    type Config = Config;

    fn validate(config: &Config, problems: &mut Problems) {
        if let Err(reason) = host(&config.host) {
            problems.add_with_help("host", reason, "for example smtp.example.com; the port is a setting of its own");
        }
        if config.port == Some(0) {
            problems.add_with_help("port", "is 0; expected a number from 1 to 65535", "for example 587");
        }
        if let Err(reason) = address::mailbox(&config.from) {
            problems.add_with_help("from", reason, "for example Conductor <alerts@example.com>");
        }
        if let Err(reason) = address::mailboxes(&config.to) {
            problems.add_with_help("to", reason, "for example ops@example.com, Jo <jo@example.com>");
        }
        if let Some(Err(reason)) = config.reply_to.as_deref().map(address::mailbox) {
            problems.add_with_help("replyTo", reason, "for example help@example.com");
        }
        if let Err((place, reason, help)) = credentials(config) {
            problems.add_with_help(place, reason, help);
        }
    }

    async fn initialize(config: Config, context: ChannelContext) -> Result<Self, InitError> {
        let at = |place: &'static str| move |reason: String| InitError(format!("{place} {reason}"));
        if context.base_url.is_some() {
            return Err(InitError("baseUrl is for channels that speak HTTP; host and port name a mail server".into()));
        }
        let credentials = credentials(&config).map_err(|(place, reason, _)| at(place)(reason.into()))?;
        let server = Server {
            http: context.http.clone(),
            host: host(&config.host).map_err(|reason| at("host")(reason.into()))?,
            port: config.port.unwrap_or(config.security.port()),
            security: config.security,
            credentials,
        };
        let reply_to = config.reply_to.as_deref().map(address::mailbox).transpose().map_err(at("replyTo"))?;
        let letterhead = Letterhead { from: address::mailbox(&config.from).map_err(at("from"))?, reply_to };
        let recipients = address::mailboxes(&config.to).map_err(at("to"))?;
        Ok(Self { context, server, letterhead, recipients, pool: Pool::default(), partly: Partly::default() })
    }
}

const fn setting(name: &'static str, required: bool, about: &'static str, example: &'static str) -> Setting {
    Setting { name, secret: false, required, about, example, classic: None }
}

/// A server's name or address, as DNS and TLS know it.
fn host(text: &str) -> Result<Host<String>, &'static str> {
    if text.is_empty() {
        return Err("is empty; expected the mail server's name");
    }
    if text.contains('/') || (text.contains(':') && !text.starts_with('[')) {
        return Err("is more than a name; expected the mail server's name alone");
    }
    if text.contains('%') {
        return Err("is no name of a server");
    }
    Host::parse(text).map_err(|_| "is no name of a server")
}

type Credentials = Option<(String, Secret)>;

fn credentials(config: &Config) -> Result<Credentials, (&'static str, &'static str, &'static str)> {
    let given = |text: &str| !text.is_empty();
    let username = config.username.as_deref().filter(|name| given(name));
    let password = config.password.as_ref().filter(|password| given(password.expose()));
    match (username, password) {
        (None, None) => Ok(None),
        (Some(_), None) => Err(("password", "is missing beside the user name", "set both, or neither")),
        (None, Some(_)) => Err(("username", "is missing beside the password", "set both, or neither")),
        (Some(_), Some(_)) if config.security == Security::None => Err((
            "security",
            "is \"none\", so that anybody on the way could read the password",
            "use \"starttls\" or \"tls\", or a server that takes mail from this address without a login",
        )),
        (Some(username), Some(_)) if username.len() > CREDENTIAL_MAX_BYTES || username.contains('\0') => {
            Err(("username", "is too long or holds a NUL", "copy it from the mail provider"))
        }
        (Some(_), Some(password))
            if password.expose().len() > CREDENTIAL_MAX_BYTES || password.expose().contains('\0') =>
        {
            Err(("password", "is too long or holds a NUL", "copy it from the mail provider"))
        }
        (Some(username), Some(password)) => Ok(Some((username.to_owned(), password.clone()))),
    }
}

#[async_trait]
impl Channel for Email {
    async fn send(&self, message: &Message) -> Result<Receipt, SendError> {
        let deadline = Instant::now() + self.context.request_timeout();
        let named = self.recipients(message)?;
        let letter = self.letterhead.write(message, &named, self.context.clock.now());
        let letter = letter.map_err(|error| {
            SendError::new(SendErrorKind::Rejected, format!("no e-mail can be made of the notification: {error}"))
        })?;
        let id = message.part_id();
        let have = self.partly.of(id);
        let open: Vec<&Address> =
            named.iter().map(|mailbox| &mailbox.email).filter(|address| !have.contains(address)).collect();
        let asked = async {
            let (mut conversation, size) = self.begin(message, letter.len(), deadline).await?;
            if let Some(most) = size {
                self.pool.put(conversation);
                return Ok(Err(too_large(letter.len(), most)));
            }
            let handed = self.hand_over(&mut conversation, &open, &letter).await?;
            self.pool.put(conversation);
            Ok(Ok(handed))
        };
        let handed = asked.await.map_err(|fault| answer::error(fault, &self.server))??;
        self.conclude(message, have, named.len(), &handed)
    }

    async fn health_check(&self) -> Health {
        let deadline = Instant::now() + self.context.request_timeout().min(HEALTH_TIMEOUT);
        let asked = async {
            let mut conversation = self.server.connect(deadline).await?;
            conversation.ask(Step::Check, "NOOP", 250).await?;
            Ok(conversation)
        };
        match asked.await {
            Ok(conversation) => {
                self.pool.put(conversation);
                Health::Up
            }
            Err(fault) => Health::Down { reason: answer::error(fault, &self.server).message },
        }
    }

    async fn shutdown(&self) {
        let deadline = Instant::now() + QUIT_TIMEOUT;
        for conversation in self.pool.drain() {
            conversation.quit(deadline).await;
        }
    }
}

/// What became of a letter, recipient by recipient.
struct Handed {
    taken: Vec<Address>,
    refused: Vec<(Address, Reply)>,
}

impl Email {
    fn recipients(&self, message: &Message) -> Result<Vec<Mailbox>, SendError> {
        let Some(target) = &message.target else { return Ok(self.recipients.clone()) };
        address::mailboxes(target)
            .map_err(|reason| SendError::new(SendErrorKind::Permanent, tidy(&format!("the targetId {reason}"), &[])))
    }

    /// A conversation in which the server has taken the sender, on a connection that waits where there is one. The
    /// number is the server's limit where the letter is beyond it.
    async fn begin(
        &self,
        message: &Message,
        length: usize,
        deadline: Instant,
    ) -> Result<(Conversation, Option<usize>), Fault> {
        while let Some(mut conversation) = self.pool.take() {
            conversation.deadline = deadline.min(Instant::now() + CHECK_TIMEOUT);
            let reset = conversation.ask(Step::Check, "RSET", 250).await;
            if reset.is_err() {
                continue;
            }
            conversation.deadline = deadline;
            match self.introduce(&mut conversation, message, length).await {
                Ok(size) => return Ok((conversation, size)),
                // It closes connections that are old or have carried enough.
                Err(Fault::Lost(..)) => {}
                Err(Fault::Refused(_, reply)) if reply.code == 421 => {}
                Err(fault) => return Err(fault),
            }
        }
        let mut conversation = self.server.connect(deadline).await?;
        let size = self.introduce(&mut conversation, message, length).await?;
        Ok((conversation, size))
    }

    async fn introduce(
        &self,
        conversation: &mut Conversation,
        message: &Message,
        length: usize,
    ) -> Result<Option<usize>, Fault> {
        if let Some(most) = conversation.offers.size_max.filter(|most| length > *most) {
            return Ok(Some(most));
        }
        let mut line = format!("MAIL FROM:<{}>", self.letterhead.from.email);
        if conversation.offers.size {
            line.push_str(&format!(" SIZE={length}"));
        }
        if conversation.offers.dsn {
            // A bounce then names the delivery.
            line.push_str(&format!(" RET=HDRS ENVID={}", message.part_id()));
        }
        conversation.ask(Step::Sender, &line, 250).await?;
        Ok(None)
    }

    /// Names the recipients, and sends the letter to those that the server takes.
    async fn hand_over(
        &self,
        conversation: &mut Conversation,
        open: &[&Address],
        letter: &[u8],
    ) -> Result<Handed, Fault> {
        let notify = if conversation.offers.dsn { " NOTIFY=FAILURE,DELAY" } else { "" };
        let mut handed = Handed { taken: Vec::new(), refused: Vec::new() };
        for address in open {
            match conversation.ask(Step::Recipient, &format!("RCPT TO:<{address}>{notify}"), 250).await {
                Ok(_) => handed.taken.push((*address).clone()),
                Err(Fault::Refused(_, reply)) if !ends(&reply) => handed.refused.push(((*address).clone(), reply)),
                Err(fault) => return Err(fault),
            }
        }
        if !handed.taken.is_empty() {
            conversation.ask(Step::Data, "DATA", 354).await?;
            conversation.text(letter).await?;
            conversation.carried += 1;
        }
        Ok(handed)
    }

    /// One who has the message is enough for it to be sent; but as long as another may still get it, it is tried
    /// again for that one.
    fn conclude(
        &self,
        message: &Message,
        mut have: Vec<Address>,
        of: usize,
        handed: &Handed,
    ) -> Result<Receipt, SendError> {
        let id = message.part_id();
        have.extend(handed.taken.iter().cloned());
        let again = |(_, reply): &&(Address, Reply)| {
            matches!(answer::kind(Step::Recipient, reply), SendErrorKind::Retryable { .. })
        };
        let first = handed.refused.iter().find(again).or(handed.refused.first());
        let Some((address, reply)) = first else {
            self.partly.forget(id);
            return Ok(Receipt { provider_id: Some(self.letterhead.message_id(message)) });
        };
        let mut error = answer::refusal(Step::Recipient, reply, &self.server);
        if of > 1 {
            let count = have.len();
            error.message = format!("{count} of {of} recipients have it; {address}: {}", error.message);
        }
        if have.is_empty() {
            return Err(error);
        }
        if matches!(error.kind, SendErrorKind::Retryable { .. }) {
            self.partly.remember(id, have);
            return Err(error);
        }
        self.partly.forget(id);
        Ok(self.taken_by_some(message, handed))
    }

    fn taken_by_some(&self, message: &Message, handed: &Handed) -> Receipt {
        let ChannelContext { tenant_name, channel_name, .. } = &self.context;
        let (delivery, count) = (message.delivery, handed.refused.len());
        tracing::warn!(
            { tenant.name = %tenant_name, channel.name = %channel_name, delivery.id = %delivery, count },
            "The mail server refused some of a message's recipients for good; the others have it"
        );
        let refused = handed.refused.iter().map(|(address, reply)| format!("{address}: {} {}", reply.code, reply.text));
        let refused = refused.collect::<Vec<_>>().join("; ");
        let refused = answer::hidden(&refused, &self.server);
        Receipt { provider_id: Some(format!("{} (refused for {refused})", self.letterhead.message_id(message))) }
    }
}

/// Whether an answer to a recipient is about the connection or the login and not about the recipient.
fn ends(reply: &Reply) -> bool {
    reply.code == 421 || answer::kind(Step::Recipient, reply) == SendErrorKind::Unauthorized
}

fn too_large(length: usize, most: usize) -> SendError {
    let text = format!("the e-mail has {length} bytes, and the server takes {most} at the most");
    SendError::new(SendErrorKind::Rejected, text)
}

/// Who has a message already, of which others are still to get it. Kept in memory: after a restart everybody gets it
/// once more, with the same Message-ID.
#[derive(Default)]
struct Partly(Mutex<VecDeque<(Uuid, Vec<Address>)>>);

impl Partly {
    fn of(&self, id: Uuid) -> Vec<Address> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().find(|(known, _)| *known == id).map(|(_, have)| have.clone()).unwrap_or_default()
    }

    fn remember(&self, id: Uuid, have: Vec<Address>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(known, _)| *known != id);
        if known.len() >= PARTLY_MAX {
            known.pop_front();
        }
        known.push_back((id, have));
    }

    fn forget(&self, id: Uuid) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|(known, _)| *known != id);
    }
}

impl fmt::Debug for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Email")
    }
}
