//! What the clients ask for while the process lives, and what they are told.

use std::sync::Arc;
use std::time::{Duration, Instant};

use conductor::clock::SystemClock;
use conductor_core::Clock as _;
use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::super::support::server::KEY_A;

/// The channels' ids.
pub(super) const HOOK: &str = "01943c2a-7c3e-7000-8000-0000000000c1";
pub(super) const ORDERED: &str = "01943c2a-7c3e-7000-8000-0000000000c2";
pub(super) const LIMITED: &str = "01943c2a-7c3e-7000-8000-0000000000c3";
pub(super) const REFUSING: &str = "01943c2a-7c3e-7000-8000-0000000000c4";
/// Where a fallback leads.
pub(super) const SECOND: &str = "second";
/// So many keys are in use at once.
const KEYS: usize = 3;
const BATCH: usize = 20;

/// What a client does all the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Sends at once or later, and takes some back.
    Plain,
    /// Sends to a target whose order matters, one after the other, and takes some back.
    InOrder,
    /// Says the last word again and again.
    Keyed,
    /// Sends where nothing is taken, mostly with a second way.
    Falling,
    /// Sends to a provider that often asks for patience.
    Limited,
    /// Sends many in one request.
    Bulk,
    /// Waits for the outcome.
    Waiting,
}

/// One client of each entry sends at a time.
pub(super) const ROLES: [Role; 10] = [
    Role::Plain,
    Role::Plain,
    Role::InOrder,
    Role::InOrder,
    Role::InOrder,
    Role::Keyed,
    Role::Falling,
    Role::Limited,
    Role::Bulk,
    Role::Waiting,
];

/// What became of the wish to take it back.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Cancel {
    /// There was none, or it came too late.
    No,
    /// It was granted, at this time.
    Granted(Instant),
    /// The process was killed before it answered.
    Unanswered,
}

/// What a client was told.
#[derive(Debug, Clone)]
pub(super) struct Said {
    pub(super) id: String,
    pub(super) client: usize,
    pub(super) role: Role,
    /// The process that has said it, counted from 0.
    pub(super) life: usize,
    pub(super) asked: Instant,
    pub(super) accepted: Instant,
    /// It is not to be sent before this time.
    pub(super) not_before: Option<Instant>,
    pub(super) cancel: Cancel,
    pub(super) key: Option<usize>,
    /// It has a second way.
    pub(super) falls_back: bool,
    /// When it was said to have been sent.
    pub(super) told_sent: Option<Instant>,
}

/// One client during one life of the process.
struct Sender {
    http: Client,
    url: String,
    client: usize,
    life: usize,
    chance: fastrand::Rng,
}

impl Sender {
    fn role(&self) -> Role {
        ROLES[self.client]
    }

    fn post(&self, path: &str) -> RequestBuilder {
        self.http.post(format!("{}{path}", self.url)).bearer_auth(KEY_A)
    }

    fn body(&mut self, number: usize) -> (Value, Option<Instant>) {
        let (channel, target) = match self.role() {
            Role::InOrder => (ORDERED, self.client.to_string()),
            Role::Limited => (LIMITED, (number % 4).to_string()),
            Role::Falling => (REFUSING, "first".to_owned()),
            Role::Plain | Role::Keyed | Role::Bulk | Role::Waiting => (HOOK, self.client.to_string()),
        };
        let message = format!("{}/{}/{number}", self.life, self.client);
        let mut body = json!({ "channelId": channel, "message": message, "targetId": target });
        let mut later = None;
        match self.role() {
            Role::Plain if number % 4 == 1 => later = Some(self.chance.u64(50..2_000)),
            Role::Keyed => {
                body["key"] = json!(format!("door {}", number % KEYS));
                later = Some(self.chance.u64(20..300));
            }
            Role::Falling if number % 4 != 3 => body["fallback"] = json!([{ "channelId": HOOK, "targetId": SECOND }]),
            _ => {}
        }
        let later = later.map(Duration::from_millis);
        // Read before the clock, so that a pause between the two makes it early, never late.
        let now = Instant::now();
        if let Some(later) = later {
            body["sendAt"] = json!(SystemClock.now().plus(later));
        }
        // The clock of the other side is read in whole milliseconds.
        (body, later.map(|later| now + later - Duration::from_millis(2)))
    }

    fn said(&self, id: &str, number: usize, asked: Instant, not_before: Option<Instant>) -> Said {
        Said {
            id: id.to_owned(),
            client: self.client,
            role: self.role(),
            life: self.life,
            asked,
            accepted: Instant::now(),
            not_before,
            cancel: Cancel::No,
            key: (self.role() == Role::Keyed).then_some(number % KEYS),
            falls_back: self.role() == Role::Falling && number % 4 != 3,
            told_sent: None,
        }
    }

    /// None: the process is gone.
    async fn send_one(&mut self, number: usize) -> Option<Said> {
        let (body, not_before) = self.body(number);
        let mut request = self.post("/notifications").json(&body);
        if self.role() == Role::Waiting {
            request = request.header("prefer", "wait=5");
        }
        let asked = Instant::now();
        let answer = request.send().await.ok()?;
        let status = answer.status().as_u16();
        assert!([200, 202].contains(&status), "{status} to a notification");
        let location = answer.headers().get("location").and_then(|place| place.to_str().ok());
        let id = location.and_then(|place| place.rsplit('/').next()).expect("an id").to_owned();
        let mut said = self.said(&id, number, asked, not_before);
        said.told_sent = (status == 200).then_some(said.accepted);
        let takes_back = match self.role() {
            Role::Plain => number % 8 == 1 || number % 8 == 2,
            Role::InOrder => number % 8 == 3,
            _ => false,
        };
        if takes_back {
            let canceled = self.post(&format!("/notifications/{id}/cancel")).send().await;
            said.cancel = match canceled.map(|answer| answer.status().as_u16()) {
                Ok(200) => Cancel::Granted(Instant::now()),
                Ok(409) => Cancel::No,
                Ok(other) => panic!("{other} to a cancel"),
                Err(_) => Cancel::Unanswered,
            };
        }
        Some(said)
    }

    /// None: the process is gone.
    async fn send_many(&mut self, number: usize) -> Option<Vec<Said>> {
        let all: Vec<Value> = (0..BATCH).map(|part| self.body(number * BATCH + part).0).collect();
        let asked = Instant::now();
        let request = self.post("/notifications/batch").json(&json!({ "notifications": all }));
        let answer = request.send().await.ok()?;
        assert_eq!(answer.status(), 207, "a batch");
        let results: Value = answer.json().await.ok()?;
        let results = results["results"].as_array().expect("results");
        assert!(results.iter().all(|result| result["status"] == 202), "{results:?}");
        Some(results.iter().map(|result| self.said(result["id"].as_str().unwrap(), number, asked, None)).collect())
    }
}

/// Sends until the process is gone. Gives those that it has said 202 to.
pub(super) async fn send_until_gone(
    (http, url): (Client, String),
    client: usize,
    life: usize,
    seed: u64,
    began: Arc<watch::Sender<bool>>,
) -> Vec<Said> {
    let chance = fastrand::Rng::with_seed(seed ^ (life * ROLES.len() + client) as u64);
    let mut sender = Sender { http, url, client, life, chance };
    let pause = match sender.role() {
        Role::InOrder => Duration::from_millis(10),
        Role::Falling | Role::Keyed | Role::Limited => Duration::from_millis(5),
        Role::Bulk => Duration::from_millis(80),
        Role::Plain | Role::Waiting => Duration::ZERO,
    };
    let mut accepted = Vec::new();
    for number in 0.. {
        let said = match sender.role() {
            Role::Bulk => sender.send_many(number).await,
            _ => sender.send_one(number).await.map(|said| vec![said]),
        };
        let Some(said) = said else { break };
        began.send_replace(true);
        accepted.extend(said);
        tokio::time::sleep(pause).await;
    }
    accepted
}
