use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::contract::{Answer, Provider, context, message, plugin};
use crate::http::HttpClients;
use crate::{ChannelContext, Plugin};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const ALLOWED: &[Allowance] = &[
    Allowance::of_all("a bot", 4, SECOND),
    Allowance::of_each("a chat", 2, SECOND),
    Allowance::of_each_that("a group", 3, Duration::from_secs(10), |place| place.starts_with('-')),
];

fn take(account: &Account, place: &str, now: Instant) -> Option<(Duration, Scope)> {
    match account.take(place, ALLOWED.iter(), now).err()?.kind {
        SendErrorKind::RateLimited { retry_after: Some(wait), scope } => Some((wait, scope)),
        other => panic!("{other:?}"),
    }
}

fn limited(seconds: Option<u64>, scope: Scope) -> SendErrorKind {
    SendErrorKind::RateLimited { retry_after: seconds.map(Duration::from_secs), scope }
}

#[test]
fn each_place_has_its_own_room_and_all_of_them_one_together() {
    let (account, start) = (Account::default(), Instant::now());
    assert_eq!(take(&account, "1", start), None);
    assert_eq!(take(&account, "1", start + 100 * MS), None);
    assert_eq!(take(&account, "1", start + 200 * MS), Some((801 * MS, Scope::Lane)));
    assert_eq!(take(&account, "2", start + 200 * MS), None);
    assert_eq!(take(&account, "-3", start + 300 * MS), None);
    assert_eq!(take(&account, "-3", start + 400 * MS), Some((601 * MS, Scope::Channel)));
    assert_eq!(take(&account, "1", start + 1000 * MS), None, "what was refused has taken no room");
}

#[test]
fn several_allowances_hold_at_once() {
    let (account, start) = (Account::default(), Instant::now());
    for at in [0, 1, 1000] {
        assert_eq!(take(&account, "-3", start + at * MS), None, "{at}");
    }
    assert_eq!(take(&account, "-3", start + 2500 * MS), Some((7501 * MS, Scope::Lane)));
    assert_eq!(take(&account, "3", start + 2500 * MS), None, "that is no group");
    assert_eq!(take(&account, "-3", start + 10_000 * MS), None);
}

#[test]
fn what_a_provider_says_holds_what_it_is_about_and_the_longest_counts() {
    let (account, start) = (Account::default(), Instant::now());
    account.told("1", limited(Some(3), Scope::Lane), start);
    account.told("1", limited(Some(1), Scope::Lane), start);
    assert_eq!(take(&account, "1", start), Some((2996 * MS, Scope::Lane)));
    assert_eq!(take(&account, "2", start), None);
    account.told("2", limited(None, Scope::Channel), start);
    assert_eq!(take(&account, "2", start), Some((4996 * MS, Scope::Channel)), "as long as the channel itself waits");
    assert_eq!(take(&account, "2", start + 5 * SECOND), None);
    account.told("2", SendErrorKind::Unauthorized, start);
    assert_eq!(take(&account, "2", start + 5 * SECOND), None, "only limits are shared");
}

#[test]
fn an_account_is_spent_when_it_says_nothing_any_more() {
    let account = Account::default();
    assert!(account.is_spent());
    assert_eq!(take(&account, "-3", Instant::now()), None);
    assert!(!account.is_spent());
    let account = Account::default();
    account.told("1", limited(Some(60), Scope::Lane), Instant::now());
    assert!(!account.is_spent());
}

#[test]
fn the_places_that_are_remembered_are_bounded() {
    let (account, start) = (Account::default(), Instant::now());
    for place in 0..2 * PLACES_MAX {
        account.told(&place.to_string(), limited(Some(9), Scope::Lane), start);
    }
    assert!(account.0.lock().unwrap().places.len() <= PLACES_MAX);
}

proptest! {
    /// Whatever is asked when: in no time as long as an allowance's is more sent than it says, and what is refused may
    /// go when the wait is over.
    #[test]
    fn no_more_goes_out_than_is_allowed(asked in prop::collection::vec((0..400_u32, 0..3_usize), 1..200)) {
        let (account, mut now) = (Account::default(), Instant::now());
        let mut sent: Vec<(Instant, &str)> = Vec::new();
        for (millis, place) in asked {
            now += millis * MS;
            let place = ["1", "2", "-3"][place];
            if let Some((wait, _)) = take(&account, place, now) {
                prop_assert!(wait > Duration::ZERO && wait <= 10 * SECOND + MS);
                continue;
            }
            sent.push((now, place));
        }
        for allowance in ALLOWED {
            for place in ["1", "2", "-3"] {
                let counts = |other: &str| match allowance.place {
                    None => true,
                    Some(is_one) => is_one(other) && other == place,
                };
                let times: Vec<Instant> = sent.iter().filter(|(_, to)| counts(to)).map(|(at, _)| *at).collect();
                for window in times.windows(allowance.most + 1) {
                    prop_assert!(window[allowance.most] - window[0] >= allowance.per, "{}", allowance.whose);
                }
            }
        }
    }
}

/// A channel of each plugin that shares, to a provider, with another secret where `other` says so.
struct Shop {
    kind: &'static str,
    values: fn(other: bool) -> serde_json::Value,
    target: Option<&'static str>,
}

const ACCOUNT: &str = "AC0123456789abcdef0123456789abcdef";

fn shops() -> Vec<Shop> {
    let shop = |kind, values, target| Shop { kind, values, target };
    vec![
        shop("discord", |o| json!({ "botToken": pick(o, "a.b.c", "d.e.f"), "channelId": "41" }), Some("42")),
        shop(
            "discord-webhook",
            |o| json!({ "webhookUrl": format!("https://discord.com/api/webhooks/77/{}", pick(o, "aaa", "bbb")) }),
            Some("42"),
        ),
        shop("slack", |o| json!({ "botToken": pick(o, "xoxb-a", "xoxb-b"), "channel": "C1" }), Some("C2")),
        shop("telegram", |o| json!({ "botToken": pick(o, "1:aaa", "1:bbb"), "chatId": "-1" }), None),
        shop(
            "matrix",
            |o| json!({ "homeserverUrl": "https://m.example", "accessToken": pick(o, "a", "b"), "roomId": "!a:x" }),
            Some("!b:x"),
        ),
        shop(
            "sms",
            |o| json!({ "accountSid": ACCOUNT, "authToken": pick(o, "a", "b"), "from": "+15551234567" }),
            Some("+15557654321"),
        ),
        shop(
            "whatsapp",
            |o| json!({ "accessToken": pick(o, "a", "b"), "phoneNumberId": "1", "to": "+15551234567" }),
            Some("+15557654321"),
        ),
        shop("ntfy", |o| json!({ "topic": "a", "token": pick(o, "tk_a", "tk_b") }), Some("b")),
        shop("gotify", |o| json!({ "serverUrl": "https://g.example", "appToken": pick(o, "a", "b") }), None),
        shop(
            "pushover",
            |o| json!({ "token": pick(o, "a", "b").repeat(30), "user": "u".repeat(30) }),
            Some("gznej3rKEVAvPUxu9vvNnqpmZpokzF"),
        ),
        shop(
            "mattermost",
            |o| json!({ "serverUrl": "https://c.example", "botToken": pick(o, "a", "b"), "channelId": "c".repeat(26) }),
            Some("dddddddddddddddddddddddddd"),
        ),
        shop(
            "teams",
            |o| json!({ "webhookUrl": format!("https://t.example/x?sig={}", pick(o, "aaaa", "bbbb")) }),
            None,
        ),
        shop(
            "google-chat",
            |o| json!({ "webhookUrl": format!("https://g.example/v1/spaces/A/messages?key=k&token={}", pick(o, "a", "b")) }),
            None,
        ),
        shop("apns", apple, Some("ab12")),
    ]
}

fn pick(other: bool, one: &'static str, another: &'static str) -> &'static str {
    if other { another } else { one }
}

fn apple(other: bool) -> serde_json::Value {
    let key = include_str!("../apns/test_key.p8");
    json!({ "key": key, "keyId": pick(other, "QUOTA00001", "QUOTA00002"), "teamId": "DEF123GHIJ",
        "topic": "com.example.app", "deviceToken": "00fc13ad" })
}

/// A channel of another tenant for `tenant` 2.
async fn channel(shop: &Shop, provider: &Provider, other: bool, tenant: u128) -> Arc<dyn Channel> {
    let plugin: &Plugin = plugin(shop.kind);
    let own = context(&HttpClients::new(), Some(provider.url()));
    let tenant = conductor_core::TenantId::new(uuid::Uuid::from_u128(tenant));
    let context = ChannelContext { tenant, ..own };
    let values = (shop.values)(other).as_object().cloned().expect("an object");
    plugin.initialize(values, context).await.expect("the settings are valid")
}

fn to(target: Option<&str>) -> Message {
    Message { target: target.map(str::to_owned), ..message("hello") }
}

#[tokio::test]
async fn what_one_channel_is_told_holds_for_all_with_its_credentials_and_for_a_channel_made_anew() {
    for shop in shops() {
        let kind = shop.kind;
        let limited = Answer::status(429).with("retry-after", "30");
        let provider = Provider::answering([limited, Answer::status(500)]).await;
        let (first, second) = (channel(&shop, &provider, false, 1).await, channel(&shop, &provider, false, 2).await);
        let told = first.send(&to(shop.target)).await.expect_err("a limit");
        assert!(matches!(told.kind, SendErrorKind::RateLimited { .. }), "{kind}: {told:?}");
        // With all the targets that there are, so that what is held back is not only the one place.
        let error = second.send(&to(shop.target)).await.expect_err("the other is held back");
        let SendErrorKind::RateLimited { retry_after: Some(wait), scope } = error.kind else {
            panic!("{kind}: {error:?}")
        };
        assert_eq!(scope, Scope::Channel, "{kind}");
        assert!(wait > 25 * SECOND && wait <= 30 * SECOND + MS, "{kind}: {wait:?}");
        assert!(error.message.starts_with("not asked: "), "{kind}: {error}");
        drop((first, second));
        let anew = channel(&shop, &provider, false, 1).await;
        assert!(matches!(anew.send(&to(shop.target)).await, Err(error) if error.message.starts_with("not asked: ")));
        assert_eq!(provider.seen().len(), 1, "{kind}");
        let stranger = channel(&shop, &provider, true, 1).await;
        let _ = stranger.send(&to(shop.target)).await;
        assert_eq!(provider.seen().len(), 2, "{kind}: another's credentials have room of their own");
    }
}
