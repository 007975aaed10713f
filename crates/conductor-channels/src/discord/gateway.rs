//! A bot's standing connection to Discord's gateway: it shows the bot as online, and tells at once when its token is
//! refused. Sends never wait for it.
//!
//! <https://discord.com/developers/docs/events/gateway>

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use conductor_core::{Clock, Health, Secret, SendErrorKind, Standing};
use http::HeaderValue;
use http::header::{AUTHORIZATION, USER_AGENT};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use url::Url;

use super::answer::Whose;
use super::{AGENT, answer};
use crate::http::{HttpClient, Request, Response, WebSocket, below, wait};

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod foreign;
mod session;
#[cfg(test)]
mod tests;

use session::{End, Held, Next, Session};

/// The time for one request, and for opening the connection.
const CONNECT_MAX: Duration = Duration::from_secs(20);
/// The longest message that is read, in bytes: READY names every server that the bot is in.
const MESSAGE_MAX: usize = 4 * 1024 * 1024;
/// A session that could not be resumed so often is given up.
const RESUMES_MAX: u32 = 3;
/// When no more than so many of a day's sessions are left, the rest is spread over what is left of the day: a server that
/// crashes and starts again without end would use them up.
const SPARSE: i64 = 200;
/// No wait that Discord names is longer.
const TOLD_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// How long things take. Tests are quicker.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Between two sessions that begin anew: Discord allows one in five seconds.
    pub(super) identify: Duration,
    /// Before a session begins anew after Discord has called the old one invalid; up to five times as long.
    pub(super) invalid: Duration,
    /// Before the first try again; twice as long before each further one, with jitter down to the half.
    pub(super) again: Duration,
    /// At most so long before a session is resumed, which Discord does not count.
    pub(super) resume_max: Duration,
    /// At most so long before one begins anew.
    pub(super) identify_max: Duration,
    /// At least so long before Discord is asked again with a token that it has refused.
    pub(super) refused: Duration,
    /// And at most.
    pub(super) refused_max: Duration,
    /// A session that has lived so long makes good for all failures before it.
    pub(super) stable: Duration,
}

impl Pace {
    /// Discord takes a bot's token away after 1,000 sessions begun in a day. At this pace there are fewer than 600,
    /// whatever the other side does.
    pub(super) const DISCORD: Self = Self {
        identify: Duration::from_secs(5),
        invalid: Duration::from_secs(1),
        again: Duration::from_secs(1),
        resume_max: Duration::from_secs(30),
        identify_max: Duration::from_secs(5 * 60),
        refused: Duration::from_secs(60),
        refused_max: Duration::from_secs(60 * 60),
        stable: Duration::from_secs(10 * 60),
    };

    /// How long to wait after so many failures in a row. `chance` is from 0 to 1.
    fn pause(&self, failures: u32, kind: Pause, chance: f64) -> Duration {
        let (first, max) = match kind {
            Pause::Resume => (self.again, self.resume_max),
            Pause::Identify => (self.again, self.identify_max),
            Pause::Refused => (self.refused, self.refused_max),
        };
        let Some(doublings) = failures.checked_sub(1) else { return Duration::ZERO };
        let whole = first.saturating_mul(1 << doublings.min(20)).min(max);
        whole.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pause {
    Resume,
    Identify,
    Refused,
}

/// What Discord says of a session that is to begin.
struct Start {
    address: Url,
    /// The time between two sessions, where few are left.
    spread: Option<Duration>,
    /// How many are left.
    left: i64,
}

/// What the connection of one bot needs, and what it tells.
pub(super) struct Gateway {
    pub(super) http: HttpClient,
    pub(super) base: Url,
    pub(super) token: Secret,
    pub(super) authorization: HeaderValue,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) pace: Pace,
    /// How it goes; none until that is known.
    pub(super) standing: watch::Sender<Option<Standing>>,
    /// When a session was begun last.
    pub(super) identified: Arc<Mutex<Option<Instant>>>,
}

impl Gateway {
    /// Keeps a session until `stop` is true, or until Discord refuses the bot for good.
    pub(super) async fn run(&self, mut stop: watch::Receiver<bool>) {
        let mut held = None;
        let mut failures = 0_u32;
        let began = Instant::now();
        loop {
            let Some(link) = unless(&mut stop, self.connect(&mut held, began)).await else { return };
            let end = match link {
                Ok(socket) => Session::new(self, held.take()).run(socket, &mut stop).await,
                Err(end) => end,
            };
            if matches!(end.next, Next::Stop) {
                return;
            }
            failures = if end.lived >= self.pace.stable { 1 } else { failures.saturating_add(1) };
            // The first time, a session that was there is taken up again before anybody needs to know.
            if end.lived.is_zero() || failures > 1 {
                self.tell(Health::Down { reason: end.reason.clone() });
            }
            let (pause, least) = match end.next {
                Next::Stop | Next::Never => return self.refused(end.reason),
                Next::Resume(session) => {
                    held = Some(*session);
                    (Pause::Resume, Duration::ZERO)
                }
                Next::Identify { after } => (Pause::Identify, after),
                Next::Mend { after } => (Pause::Refused, after),
            };
            let wait = self.pace.pause(failures, pause, fastrand::f64()).max(least);
            report(&end.reason, wait, failures);
            if unless(&mut stop, sleep(wait)).await.is_none() {
                return;
            }
        }
    }

    /// A connection to where the session is to be taken up, or to where Discord says that one may begin. `began` is when
    /// this process began with it: what was before is known to Discord alone.
    async fn connect(&self, held: &mut Option<Held>, began: Instant) -> Result<WebSocket, End> {
        if let Some(mut session) = held.take() {
            return match self.open(&session.address).await {
                Ok(socket) => {
                    *held = Some(session);
                    Ok(socket)
                }
                Err(reason) => {
                    session.tries += 1;
                    let kept = Some(session).filter(|session| session.tries < RESUMES_MAX);
                    let next = kept
                        .map_or(Next::Identify { after: Duration::ZERO }, |session| Next::Resume(Box::new(session)));
                    Err(End::failed(reason, next))
                }
            };
        }
        let Start { address, spread, left } = self.ask().await?;
        let last = *self.identified.lock().unwrap_or_else(PoisonError::into_inner);
        let spread_from = last.unwrap_or(began);
        if let Some(spread) = spread.filter(|spread| spread_from.elapsed() < *spread) {
            let after = (spread - spread_from.elapsed()).as_secs().saturating_add(1);
            let reason =
                format!("Discord lets this bot begin {left} more sessions today: the next one begins in {after} s");
            self.tell(Health::Down { reason });
            sleep_until(spread_from + spread).await;
        }
        if let Some(last) = last {
            sleep_until(last + self.pace.identify).await;
        }
        let failed = |reason| End::failed(reason, Next::Identify { after: Duration::ZERO });
        self.open(&address).await.map_err(failed)
    }

    async fn open(&self, address: &Url) -> Result<WebSocket, String> {
        // The token goes there: never in the open where the API itself is asked under TLS.
        if self.base.scheme() == "https" && address.scheme() != "wss" {
            return Err("the gateway's address does not begin with wss://".to_owned());
        }
        let mut url = address.clone();
        url.set_query(Some("v=10&encoding=json"));
        let opened = self.http.web_socket(&url, CONNECT_MAX, MESSAGE_MAX).await;
        opened.map_err(|error| format!("the gateway: {error}"))
    }

    /// Asks where the gateway is, and whether a session may begin.
    async fn ask(&self) -> Result<Start, End> {
        let again = |after| Next::Identify { after };
        let request = Request::get(below(&self.base, "/api/v10/gateway/bot"))
            .timeout(CONNECT_MAX)
            .header(AUTHORIZATION, self.authorization.clone())
            .header(USER_AGENT, HeaderValue::from_static(AGENT));
        let response = self.http.send(request).await;
        let response = response.map_err(|error| End::failed(error.to_string(), again(Duration::ZERO)))?;
        if !response.status.is_success() {
            let error = answer::error(&response, Whose::Bot { own: true }, self.token.expose(), self.clock.now());
            let after = error.kind.retry_after().unwrap_or_default();
            let refused = error.kind == SendErrorKind::Unauthorized;
            let next = if refused { Next::Mend { after } } else { again(after) };
            return Err(End::failed(error.message, next));
        }
        self.start_of(&response)
    }

    fn start_of(&self, response: &Response) -> Result<Start, End> {
        let again = |after| Next::Identify { after };
        let body = response.json();
        let limit = &body["session_start_limit"];
        let left = limit["remaining"].as_i64().unwrap_or(i64::MAX);
        let after = limit["reset_after"].as_f64().and_then(|millis| wait(millis / 1000.0)).unwrap_or(TOLD_MAX);
        if left <= 0 {
            let reason = "Discord lets this bot begin no further session today (session_start_limit)".to_owned();
            return Err(End::failed(reason, again(after)));
        }
        let address = body["url"].as_str().and_then(|url| Url::parse(url).ok());
        let spread = u32::try_from(left).ok().filter(|_| left <= SPARSE).map(|left| after / left);
        address.map(|address| Start { address, spread, left }).ok_or_else(|| {
            let reason = "Discord did not say where its gateway is: is baseUrl right, does a proxy stand between?";
            End::failed(reason.to_owned(), again(Duration::ZERO))
        })
    }

    /// Remembers that a session begins.
    fn begins(&self) {
        *self.identified.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn refused(&self, reason: String) {
        tracing::error!(
            target: "conductor::plugin::discord",
            reason,
            "Discord's gateway refuses this bot for good: it stays offline until the configuration is mended and the \
             server is started again"
        );
        self.tell(Health::Down { reason });
    }

    fn tell(&self, health: Health) {
        let since = self.clock.now();
        self.standing.send_if_modified(|standing| {
            let same = |known: &Health| std::mem::discriminant(known) == std::mem::discriminant(&health);
            let since = standing.as_ref().filter(|known| same(&known.health)).map_or(since, |known| known.since);
            let next = Some(Standing { health, since });
            let changed = *standing != next;
            *standing = next;
            changed
        });
    }
}

fn report(reason: &str, wait: Duration, failures: u32) {
    if failures <= 1 {
        tracing::info!(target: "conductor::plugin::discord", reason, "Discord bot reconnects");
    } else {
        tracing::warn!(
            target: "conductor::plugin::discord",
            { reason, next_seconds = wait.as_secs_f32() },
            "Discord bot not connected; it is tried again, and messages go out all the same"
        );
    }
}

/// What a future gives, unless it is to stop before.
async fn unless<T>(stop: &mut watch::Receiver<bool>, future: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        () = told_to(stop) => None,
        done = future => Some(done),
    }
}

/// Returns when it is to stop, or nobody is left who could say so.
async fn told_to(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}
