//! From a request to a notification on disk: which channel, the limits, the expiry.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use conductor_channels::Plugin;
use conductor_core::store::{Accepted, Idempotency, NewNotification};
use conductor_core::{
    ChannelId, Draft, Fallback, Format, Notification, NotificationId, Priority, Problem, Problems, Status, StoreError,
    TenantId, Timestamp, TraceContext,
};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::app::App;
use crate::registry::{LiveChannel, Tenant};

pub mod room;

/// A way that a caller named: a channel type, a channel, or both; and the target within it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Route {
    /// `channel`
    pub channel: Option<String>,
    /// `channelId`
    pub channel_id: Option<ChannelId>,
    /// `targetId`
    pub target: Option<String>,
}

/// What a caller posted, with every field of the right type and nothing else checked.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SendRequest {
    /// `channel`, `channelId`, `targetId`
    pub route: Route,
    /// `message`
    pub message: String,
    /// `title`
    pub title: Option<String>,
    /// `priority`
    pub priority: Priority,
    /// `format`
    pub format: Format,
    /// `data`
    pub data: Map<String, Value>,
    /// `metadata`
    pub metadata: BTreeMap<String, String>,
    /// `key`
    pub key: Option<String>,
    /// `fallback`
    pub fallback: Vec<Route>,
    /// `sendAt`
    pub send_at: Option<Timestamp>,
    /// `expiresAt`
    pub expires_at: Option<Timestamp>,
    /// Where the request belongs in a trace.
    pub trace: Option<TraceContext>,
}

/// A notification that keeps all limits, and the channel that it leaves through first.
pub struct Prepared {
    /// The notification.
    pub notification: Arc<Notification>,
    /// The kind of its channel, for the metrics.
    pub kind: &'static str,
}

/// Finds the channels and checks the limits. `problems` is what reading the request has found already: everything that
/// is wrong is told together, and nothing twice.
pub fn prepare(app: &App, tenant: &Tenant, request: SendRequest, problems: Problems) -> Result<Prepared, Problems> {
    let now = app.clock.now();
    check(app.plugins, tenant, request, problems, (app.ids.next(now), now))
}

/// [`prepare`] with the notification's id and the time of its acceptance: a pure function.
pub(crate) fn check(
    plugins: &[Plugin],
    tenant: &Tenant,
    request: SendRequest,
    mut problems: Problems,
    (id, now): (NotificationId, Timestamp),
) -> Result<Prepared, Problems> {
    let channel = match channel_of(plugins, tenant, &request.route) {
        Ok(channel) => Some(channel),
        Err(problem) => {
            add_unless_told(&mut problems, within("", problem));
            None
        }
    };
    let mut fallback = Vec::with_capacity(request.fallback.len());
    for (index, route) in request.fallback.into_iter().enumerate() {
        match channel_of(plugins, tenant, &route) {
            Ok(channel) => fallback.push(Fallback {
                channel: channel.kind.to_owned(),
                channel_id: channel.id,
                target_id: route.target,
            }),
            Err(problem) => add_unless_told(&mut problems, within(&format!("fallback.{index}."), problem)),
        }
    }
    let first_due = request.send_at.map_or(now, |at| at.max(now));
    let expires_after = channel.map_or(DEFAULT_EXPIRY, |channel| channel.expires_after);
    let draft = Draft {
        id,
        tenant: tenant.id,
        channel: channel.map_or_else(String::new, |channel| channel.kind.to_owned()),
        channel_id: channel.map_or(ChannelId::new(Uuid::nil()), |channel| channel.id),
        target: request.route.target,
        message: request.message,
        title: request.title,
        priority: request.priority,
        format: request.format,
        data: request.data,
        metadata: request.metadata,
        key: request.key,
        fallback,
        accepted_at: now,
        send_at: request.send_at,
        expires_at: request.expires_at.unwrap_or_else(|| first_due.plus(expires_after)),
        trace: request.trace,
    };
    match (Notification::new(draft), channel) {
        (Ok(notification), Some(channel)) if problems.is_empty() => {
            Ok(Prepared { notification: Arc::new(notification), kind: channel.kind })
        }
        (checked, _) => {
            for problem in checked.err().into_iter().flatten() {
                add_unless_told(&mut problems, problem);
            }
            Err(problems)
        }
    }
}

/// How long a notification is tried whose channel is not configured any more.
pub const DEFAULT_EXPIRY: std::time::Duration = std::time::Duration::from_secs(24 * 60 * 60);

/// Keeps a prepared notification. What it returns is on disk.
pub async fn keep(app: &App, prepared: Prepared, idempotency: Option<Idempotency>) -> Result<Accepted, StoreError> {
    let Prepared { notification, kind } = prepared;
    let tenant = notification.tenant;
    let began = Instant::now();
    let accepted = app.store.accept(NewNotification { notification, idempotency }).await?;
    if let Accepted::New { superseded } = &accepted {
        app.metrics.accepted(tenant, kind, began.elapsed());
        if let Some(id) = superseded {
            app.outcomes.tell(*id, Status::Superseded);
        }
    }
    Ok(accepted)
}

/// The most characters of a channel type that a problem repeats.
const TYPE_SHOWN_MAX: usize = 40;

/// The channel that a route means. The problem's place is `channel` or `channelId`.
pub fn channel_of<'a>(plugins: &[Plugin], tenant: &'a Tenant, route: &Route) -> Result<&'a Arc<LiveChannel>, Problem> {
    let by_id = match route.channel_id {
        Some(id) => Some(tenant.channel(id).ok_or_else(|| unknown_id(tenant))?),
        None => None,
    };
    let Some(name) = &route.channel else {
        return by_id.ok_or_else(|| problem("channel", "is required (or \"channelId\")", allowed(tenant, None)));
    };
    let by_type = tenant.channel_of_type(plugins, name);
    let by_type = by_type.ok_or_else(|| {
        // What is longer may be a key that was pasted into the wrong field.
        let shown = if name.chars().nth(TYPE_SHOWN_MAX).is_some() { "…" } else { name };
        problem("channel", format!("\"{shown}\" is not a channel type of this tenant"), allowed(tenant, Some(name)))
    })?;
    match by_id {
        Some(channel) if channel.kind != by_type.kind => {
            let message = format!("names a channel of type \"{}\", but \"channel\" is \"{name}\"", channel.kind);
            Err(problem("channelId", message, "leave one of the two out".to_owned()))
        }
        Some(channel) => Ok(channel),
        None => Ok(by_type),
    }
}

/// The most channels whose ids an answer lists.
const LISTED_MAX: usize = 20;

fn unknown_id(tenant: &Tenant) -> Problem {
    let listed: Vec<_> = tenant.channels.iter().take(LISTED_MAX).map(|c| format!("{} ({})", c.id, c.name)).collect();
    let help = if listed.is_empty() { NO_CHANNELS.to_owned() } else { format!("allowed: {}", listed.join(", ")) };
    problem("channelId", "is not a channel of this tenant", help)
}

const NO_CHANNELS: &str = "this tenant has no channels yet: the operator adds one to channels.json";

fn allowed(tenant: &Tenant, found: Option<&str>) -> String {
    let mut kinds: Vec<&str> = Vec::new();
    for channel in &tenant.channels {
        if !kinds.contains(&channel.kind) {
            kinds.push(channel.kind);
        }
    }
    if kinds.is_empty() {
        return NO_CHANNELS.to_owned();
    }
    let meant = found.and_then(|name| nearest(name, kinds.iter().copied()));
    let meant = meant.map(|kind| format!("; did you mean \"{kind}\"?")).unwrap_or_default();
    format!("allowed: {}{meant}", kinds.join(", "))
}

/// The likeliest word that somebody meant who wrote `found`, if one is near enough.
pub fn nearest<'a>(found: &str, words: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if found.len() > 64 {
        return None;
    }
    let lower = found.to_lowercase();
    let scored = words.map(|word| (strsim::damerau_levenshtein(&lower, &word.to_lowercase()), word));
    let (distance, word) = scored.min_by_key(|(distance, _)| *distance)?;
    (distance <= (word.len() / 3).max(1)).then_some(word)
}

fn problem(place: &str, message: impl Into<String>, help: String) -> Problem {
    Problem { place: place.to_owned(), message: message.into(), help: Some(help) }
}

fn within(prefix: &str, mut problem: Problem) -> Problem {
    problem.place.insert_str(0, prefix);
    problem
}

/// One fault is told once: a missing channel is none where `channelId` was given and wrong, and nothing is missing in
/// what is no object.
fn add_unless_told(problems: &mut Problems, problem: Problem) {
    let inside = |inner: &str, outer: &str| inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('.'));
    let told = |place: &str| problems.iter().any(|other| other.place == place || inside(place, &other.place));
    let other = problem.place.strip_suffix("channel").map(|prefix| format!("{prefix}channelId"));
    if !told(&problem.place) && !other.is_some_and(|other| told(&other)) {
        problems.push(problem);
    }
}

/// The idempotency keys of requests that are being accepted at this moment.
#[derive(Debug, Default)]
pub struct InFlight(Mutex<HashSet<(TenantId, String)>>);

/// One request's claim to its key. Dropping it ends the claim.
#[derive(Debug)]
pub struct Flight<'a> {
    all: &'a InFlight,
    entry: (TenantId, String),
}

impl InFlight {
    /// Claims a key. None while another request has it.
    pub fn enter(&self, tenant: TenantId, key: &str) -> Option<Flight<'_>> {
        let entry = (tenant, key.to_owned());
        let mut entries = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        entries.insert(entry.clone()).then(|| Flight { all: self, entry })
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.all.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(&self.entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_claimed_by_one_request_at_a_time_and_by_each_tenant() {
        let flights = InFlight::default();
        let (one, two) = (TenantId::new(Uuid::from_u128(1)), TenantId::new(Uuid::from_u128(2)));
        let first = flights.enter(one, "k");
        assert!(first.is_some());
        assert!(flights.enter(one, "k").is_none());
        assert!(flights.enter(two, "k").is_some());
        drop(first);
        assert!(flights.enter(one, "k").is_some());
    }

    #[test]
    fn only_a_near_word_is_suggested() {
        let words = ["message", "metadata", "channelId"];
        assert_eq!(nearest("mesage", words.into_iter()), Some("message"));
        assert_eq!(nearest("channelid", words.into_iter()), Some("channelId"));
        assert_eq!(nearest("colour", words.into_iter()), None);
    }
}
