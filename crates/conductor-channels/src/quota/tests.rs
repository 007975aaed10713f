use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::contract::samples::{Sample, samples};
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
    match account.take(place, ALLOWED, false, now).err()?.kind {
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

/// A channel of another tenant for `tenant` 2.
async fn channel(sample: &Sample, provider: &Provider, other: bool, tenant: u128) -> Arc<dyn Channel> {
    let plugin: &Plugin = plugin(sample.kind);
    let own = context(&HttpClients::new(), Some(provider.url()));
    let tenant = conductor_core::TenantId::new(uuid::Uuid::from_u128(tenant));
    let context = ChannelContext { tenant, ..own };
    let values = (sample.values)(other).as_object().cloned().expect("an object");
    plugin.initialize(values, context).await.expect("the settings are valid")
}

fn to(target: Option<&str>) -> Message {
    Message { target: target.map(str::to_owned), ..message("hello") }
}

#[tokio::test]
async fn what_one_channel_is_told_holds_for_all_with_its_credentials_and_for_a_channel_made_anew() {
    for sample in samples() {
        let kind = sample.kind;
        let limited = Answer::status(429).with("retry-after", "30");
        let provider = Provider::answering([limited, Answer::status(500)]).await;
        let (first, second) =
            (channel(&sample, &provider, false, 1).await, channel(&sample, &provider, false, 2).await);
        let told = first.send(&to(sample.target)).await.expect_err("a limit");
        assert!(matches!(told.kind, SendErrorKind::RateLimited { .. }), "{kind}: {told:?}");
        // With all the targets that there are, so that what is held back is not only the one place.
        let error = second.send(&to(sample.target)).await.expect_err("the other is held back");
        let SendErrorKind::RateLimited { retry_after: Some(wait), scope } = error.kind else {
            panic!("{kind}: {error:?}")
        };
        assert_eq!(scope, Scope::Channel, "{kind}");
        assert!(wait > 25 * SECOND && wait <= 30 * SECOND + MS, "{kind}: {wait:?}");
        assert!(error.message.starts_with("not asked: "), "{kind}: {error}");
        drop((first, second));
        let anew = channel(&sample, &provider, false, 1).await;
        assert!(matches!(anew.send(&to(sample.target)).await, Err(error) if error.message.starts_with("not asked: ")));
        assert_eq!(provider.seen().len(), 1, "{kind}");
        let stranger = channel(&sample, &provider, true, 1).await;
        let _ = stranger.send(&to(sample.target)).await;
        assert_eq!(provider.seen().len(), 2, "{kind}: another's credentials have room of their own");
    }
}

#[tokio::test]
async fn a_pace_that_a_channels_options_name_takes_the_place_of_what_all_may_send() {
    let provider = Provider::answering([Answer::json(200, &json!({ "name": "spaces/A/messages/B" }))]).await;
    let sample = samples().into_iter().find(|sample| sample.kind == "google-chat").expect("it is there");
    let paced = async |rate| {
        let context = ChannelContext { rate, ..context(&HttpClients::new(), Some(provider.url())) };
        let values = (sample.values)(false).as_object().cloned().expect("an object");
        plugin(sample.kind).initialize(values, context).await.expect("the settings are valid")
    };
    let (usual, own) = (paced(None).await, paced(plugin("telegram").rate).await);
    for _ in 0..6 {
        assert!(own.send(&message("hello")).await.is_ok());
    }
    let error = usual.send(&message("hello")).await.expect_err("what the other has sent counts all the same");
    assert!(matches!(error.kind, SendErrorKind::RateLimited { scope: Scope::Channel, .. }), "{error:?}");
    assert!(error.message.starts_with("not asked: the provider's limit for a webhook is used up"), "{error}");
    assert_eq!(provider.seen().len(), 6);
}
