//! What must hold for any request, as a function that panics where it does not. The fuzz target calls it with what the
//! fuzzer makes up, the test with what it has found (`fuzz/corpus`).

use std::sync::{Arc, LazyLock};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use conductor_channels::PLUGINS;
use conductor_channels::http::HttpClients;
use conductor_core::notification::{
    DATA_MAX_BYTES, FALLBACK_MAX, KEY_MAX_BYTES, MESSAGE_MAX_BYTES, METADATA_MAX_BYTES, METADATA_MAX_ENTRIES,
    TARGET_MAX_BYTES, TITLE_MAX_BYTES,
};
use conductor_core::store::BATCH_MAX;
use conductor_core::{Clock, ManualClock, Notification, NotificationId, Status, Timestamp};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::accept;
use crate::api::body::{self, BATCH_MAX_BYTES};
use crate::api::bulk::{PER_MAX, read_wish};
use crate::api::error::ApiError;
use crate::api::notifications::{self, LIMIT_MAX, SEARCH_MAX_BYTES};
use crate::api::{hops, idempotency, prefer, reader, send, transitions};
use crate::config::{self, Environment};
use crate::registry::{Registry, Tenant};

const TENANT: &str = "01943c2a-7c3e-7000-8000-00000000000a";
const KEY: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0";
/// 2024-01-15T10:30:00Z
static NOW: LazyLock<Timestamp> = LazyLock::new(|| Timestamp::from_millis(1_705_314_600_000));

/// Whoever asks: a tenant with three channels of two types.
static CALLER: LazyLock<Arc<Tenant>> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let webhook = |name: &str| {
        json!({ "tenantId": TENANT, "channelType": "webhook", "channelName": name,
            "options": { "url": "https://receiver.example/" } })
    };
    let log = json!({ "tenantId": TENANT, "channelType": "log", "channelId": "01943c2a-7c3e-7000-8000-0000000000c1" });
    for (name, list) in [
        ("tenants", json!([{ "id": TENANT, "name": "Acme", "authKeyEnvVar": "KEY" }])),
        ("channels", json!([log, webhook("one"), webhook("two")])),
        ("plugins", json!([{ "name": "log" }, { "name": "webhook" }])),
    ] {
        let file = folder.path().join(format!("{name}.json"));
        std::fs::write(file, list.to_string()).expect("the folder takes a file");
    }
    let variables = Environment::from_pairs([("KEY", KEY), ("TENANT_URL", "")]);
    let loaded = config::load(folder.path(), &variables, PLUGINS);
    let (configuration, _) = loaded.unwrap_or_else(|report| panic!("{report}"));
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(*NOW));
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime can be made");
    let registry = runtime.block_on(Registry::build(configuration, &HttpClients::new(), &clock, None));
    let registry = registry.expect("the channels can be made");
    Arc::clone(registry.tenant_of_key(KEY).expect("the tenant has this key"))
});

/// A request: the first byte says which part of which call the rest is.
pub fn request(data: &[u8]) {
    let [call, rest @ ..] = data else { return };
    match call % 7 {
        0 => json_of(rest, notification),
        1 => json_of(rest, batch),
        2 => json_of(rest, bulk_retry),
        3 => json_of(rest, |value| drop(transitions::read_route(value).map_err(|error| is_told(error, 1)))),
        4 => query(&String::from_utf8_lossy(rest)),
        5 => idempotency_key(rest),
        _ => preferences(rest),
    }
}

/// JSON is read as everybody else reads it, and what is none is refused with words.
fn json_of(raw: &[u8], with: impl FnOnce(Value)) {
    assert!(raw.len() <= BATCH_MAX_BYTES, "the body was cut before");
    let bare = std::str::from_utf8(raw).map(|text| text.trim_start_matches('\u{feff}')).unwrap_or_default();
    let other = serde_json::from_str::<Value>(bare).ok();
    match body::parse(raw) {
        Ok(value) => {
            assert_eq!(Some(&value), other.as_ref(), "read in another way");
            with(value);
        }
        Err(error) => {
            assert!(other.is_none() || error.status() == 413, "good JSON is refused");
            is_told(error, 0);
        }
    }
}

/// A refusal blames the caller, and says for what.
fn is_told(error: ApiError, details_min: usize) {
    let (status, sentence, details) = error.into_item();
    assert!(matches!(status, 400 | 413), "{status}: {sentence}");
    assert!(!sentence.is_empty() && details.len() >= details_min, "{sentence}: {details:?}");
    assert!(details.iter().all(|detail| !detail.field.is_empty() && !detail.message.is_empty()), "{details:?}");
}

fn notification(value: Value) {
    let posted = value.clone();
    let id = NotificationId::new(Uuid::from_u128(1));
    let checked = send::read(value).and_then(|(request, problems)| {
        accept::check(PLUGINS, &CALLER, request, problems, (id, *NOW)).map_err(ApiError::invalid)
    });
    match checked {
        Ok(prepared) => {
            keeps_the_limits(&prepared.notification);
            says_what_was_posted(&prepared.notification, &posted);
        }
        Err(error) => is_told(error, 1),
    }
}

fn keeps_the_limits(accepted: &Notification) {
    let text = |text: &str, max: usize| {
        assert!(!text.trim().is_empty() && text.len() <= max && !text.contains('\0'), "{} bytes", text.len());
    };
    text(&accepted.message, MESSAGE_MAX_BYTES);
    let optional = [(&accepted.title, TITLE_MAX_BYTES), (&accepted.target, TARGET_MAX_BYTES)];
    for (found, max) in optional.into_iter().chain([(&accepted.key, KEY_MAX_BYTES)]) {
        found.iter().for_each(|found| text(found, max));
    }
    let targets = accepted.fallback.iter().filter_map(|fallback| fallback.target_id.as_deref());
    targets.for_each(|target| text(target, TARGET_MAX_BYTES));
    assert!(accepted.fallback.len() <= FALLBACK_MAX);
    assert!(accepted.fallback.iter().all(|fallback| CALLER.channel(fallback.channel_id).is_some()));
    assert!(accepted.metadata.len() <= METADATA_MAX_ENTRIES);
    let bounded = |text: &str| text.len() <= METADATA_MAX_BYTES && !text.contains('\0');
    assert!(accepted.metadata.iter().all(|(name, value)| !name.is_empty() && bounded(name) && bounded(value)));
    assert!(accepted.data.is_empty() || json!(accepted.data).to_string().len() <= DATA_MAX_BYTES);
    let channel = CALLER.channel(accepted.channel_id).expect("the caller's own channel");
    assert_eq!(channel.kind, accepted.channel);
    assert!(accepted.expires_at > accepted.first_due(), "it could never be sent");
}

fn says_what_was_posted(accepted: &Notification, posted: &Value) {
    assert_eq!(posted["message"], accepted.message);
    assert!(posted["priority"].is_null() || posted["priority"] == accepted.priority.as_str());
    assert!(posted["format"].is_null() || posted["format"] == accepted.format.as_str());
    for (name, taken) in [("title", &accepted.title), ("targetId", &accepted.target), ("key", &accepted.key)] {
        assert_eq!(posted[name].as_str(), taken.as_deref(), "{name}");
    }
    assert_eq!(posted["metadata"].as_object().map_or(0, serde_json::Map::len), accepted.metadata.len());
    let times = [("sendAt", accepted.send_at), ("expiresAt", Some(accepted.expires_at))];
    for (name, taken) in times {
        let given = posted[name].as_str().map(|text| Timestamp::parse(text).expect("it was taken"));
        assert!(given.is_none() || given == taken, "{name}");
    }
}

fn batch(value: Value) {
    match send::read_batch(value) {
        Ok(items) => {
            assert!((1..=BATCH_MAX).contains(&items.len()), "{} items", items.len());
            items.into_iter().for_each(notification);
        }
        Err(error) => is_told(error, 1),
    }
}

fn bulk_retry(value: Value) {
    match read_wish(value, PLUGINS, &CALLER) {
        Ok(wish) => {
            assert!(wish.interval <= PER_MAX, "{:?}", wish.interval);
            let status = wish.filter.status;
            assert!(status.is_none_or(|status| status.is_dead_letter() || status == Status::Held), "{status:?}");
            assert!(wish.filter.text.is_none_or(|text| text.len() <= SEARCH_MAX_BYTES));
            assert!(wish.route.is_none_or(|route| route.channel.is_some() || route.channel_id.is_some()));
        }
        Err(error) => is_told(error, 1),
    }
}

/// The address of the next part asks for the same list.
fn query(text: &str) {
    match notifications::read_query(text, PLUGINS, &CALLER) {
        Ok(wish) => {
            assert!((1..=usize::try_from(LIMIT_MAX).expect("it is small")).contains(&wish.limit), "{}", wish.limit);
            assert!(wish.filter.text.as_ref().is_none_or(|text| text.len() <= SEARCH_MAX_BYTES));
            let last = NotificationId::new(Uuid::from_u128(7));
            let next = notifications::next_address("/notifications", text, &reader::cursor(last.bytes()));
            assert!(HeaderValue::from_str(&next).is_ok(), "{next:?} can stand in no header");
            let (path, query) = next.split_once('?').expect("a query");
            assert_eq!(path, "/notifications");
            let again = notifications::read_query(query, PLUGINS, &CALLER).ok();
            assert_eq!(again, Some(notifications::Wish { before: Some(last), ..wish }), "{next}");
        }
        Err(error) => is_told(error, 1),
    }
}

fn header(name: &'static str, value: &[u8]) -> Option<HeaderMap> {
    let value = HeaderValue::from_bytes(value).ok()?;
    Some(HeaderMap::from_iter([(HeaderName::from_static(name), value)]))
}

fn idempotency_key(value: &[u8]) {
    let Some(headers) = header(idempotency::HEADER, value) else { return };
    match idempotency::of(&headers, "POST /notifications", b"{}") {
        Ok(read) => {
            let key = read.expect("there is one").key;
            assert!((1..=255).contains(&key.len()) && key.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{key:?}");
            let quoted = format!("\"{}\"", key.replace('\\', "\\\\").replace('"', "\\\""));
            let again = header(idempotency::HEADER, quoted.as_bytes()).expect("visible ASCII");
            let again = idempotency::of(&again, "POST /notifications", b"{}").ok().flatten();
            assert_eq!(again.map(|again| again.key), Some(key), "bare and quoted are two keys");
        }
        Err(error) => is_told(error, 1),
    }
}

fn preferences(value: &[u8]) {
    if let Some(wait) = header(prefer::HEADER, value).and_then(|headers| prefer::Wait::of(&headers)) {
        assert!(wait.duration().as_secs() <= prefer::WAIT_MAX_SECONDS);
        assert_eq!(wait.applied(), format!("wait={}", wait.duration().as_secs()));
    }
    if let Some(Err(error)) = header(conductor_channels::webhook::HOPS, value).map(|headers| hops::refuse_own(&headers))
    {
        is_told(error, 1);
    }
}

#[cfg(test)]
mod tests {
    use crate::config::fuzzing::replay::replay;

    #[test]
    fn what_the_fuzzer_found_for_requests_holds() {
        replay("request", super::request);
    }
}
