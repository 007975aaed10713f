//! What people read: long texts in parts, markup that is refused, the note on a delay.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::support::process::Process;
use super::support::provider::{Answer, Provider, Received};
use super::support::server::{KEY_A, TENANT_A, TestServer, World, answer, http};

/// The most characters that Discord takes.
const DISCORD_MAX: usize = 2_000;

/// Tenant A has a Discord channel to `provider`.
fn discord(provider: &Provider, options: &Value) -> World {
    let mut world = World::new();
    let mut all = json!({ "baseUrl": provider.url(), "allowNetworks": ["127.0.0.0/8"], "channelId": "42" });
    for (name, value) in options.as_object().into_iter().flatten() {
        all[name] = value.clone();
    }
    world.channels.push(json!({
        "tenantId": TENANT_A, "channelType": "discord", "channelName": "alerts",
        "env": { "botToken": "BOT" }, "options": all,
    }));
    world.variables.push(("BOT".into(), "a.bot.token".into()));
    world
}

async fn with_discord() -> (TestServer, Provider) {
    let provider = Provider::start().await;
    (discord(&provider, &json!({})).start().await, provider)
}

fn markdown(message: &str) -> Value {
    json!({ "channel": "discord", "title": "Report", "message": message, "format": "markdown", "priority": "high" })
}

/// Prose, a fence that is far too long for one message, and prose.
fn long() -> String {
    let prose = "Something *happened* in the cellar. ".repeat(20);
    let code: String = (0..300).map(|line| format!("    line {line}: pump off\n")).collect();
    format!("{prose}\n\n```log\n{code}```\n\n{prose}")
}

fn content(received: &Received) -> String {
    received.json()["content"].as_str().expect("a content").to_owned()
}

fn nonce(received: &Received) -> String {
    received.json()["nonce"].as_str().expect("a nonce").to_owned()
}

fn nonces(received: &[Received]) -> Vec<String> {
    received.iter().map(nonce).collect()
}

/// The number and the count in a part's last line, such as `(2/3)`.
fn number(content: &str) -> (usize, usize) {
    let line = content.lines().last().unwrap_or_default();
    let inner = line.strip_prefix('(').and_then(|line| line.strip_suffix(')'));
    let (part, parts) = inner.and_then(|inner| inner.split_once('/')).unwrap_or_else(|| panic!("no number: {line}"));
    (part.parse().expect("a number"), parts.parse().expect("a number"))
}

fn outcomes(story: &Value) -> Vec<&str> {
    let attempts = story["deliveries"][0]["attempts"].as_array().into_iter().flatten();
    attempts.filter_map(|attempt| attempt["outcome"].as_str()).collect()
}

/// The text without its fences, numbers and white space.
fn letters<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    let lines =
        texts.into_iter().flat_map(str::lines).filter(|line| !line.starts_with("```") && !line.starts_with('('));
    lines.flat_map(str::chars).filter(|letter| !letter.is_whitespace()).collect()
}

#[tokio::test]
async fn a_long_text_goes_out_in_numbered_parts_that_each_fit() {
    let (server, provider) = with_discord().await;
    provider.next(Answer { body: r#"{"id":"1001"}"#, ..Answer::status(200) });
    provider.then(Answer { body: r#"{"id":"1002"}"#, ..Answer::status(200) });
    let id = server.send(KEY_A, &markdown(&long())).await;
    let story = server.wait_for(KEY_A, &id, "sent").await;
    assert_eq!(outcomes(&story), ["sent"]);
    assert_eq!(story["deliveries"][0]["providerId"], "1001", "the first part's");
    let received = provider.received();
    let contents: Vec<String> = received.iter().map(content).collect();
    assert!(contents.len() > 3, "{}", contents.len());
    for (index, content) in contents.iter().enumerate() {
        assert_eq!(number(content), (index + 1, contents.len()));
        assert!(content.chars().count() <= DISCORD_MAX);
        assert_eq!(content.lines().filter(|line| line.starts_with("```")).count() % 2, 0, "an open fence: {content}");
        assert_eq!(content.starts_with("⚠️ **HIGH PRIORITY**\n**Report**\n"), index == 0);
    }
    assert!(contents[2].starts_with("```log\n    line"), "{}", contents[2]);
    let head = "⚠️ **HIGH PRIORITY**\n**Report**\n";
    assert_eq!(letters(contents.iter().map(String::as_str)), letters([head, &long()]));
    assert_eq!(nonces(&received).into_iter().collect::<HashSet<_>>().len(), contents.len());
}

#[tokio::test]
async fn a_retry_goes_on_with_the_part_that_failed() {
    let (server, provider) = with_discord().await;
    provider.next(Answer::status(200)).next(Answer::status(500)).next(Answer::status(503));
    let id = server.send(KEY_A, &markdown(&long())).await;
    let story = server.wait_for(KEY_A, &id, "sent").await;
    assert_eq!(outcomes(&story), ["unknown", "retryable", "sent"]);
    let detail = story["deliveries"][0]["attempts"][0]["detail"].as_str().expect("a detail");
    let received = provider.received();
    let (_, parts) = number(&content(&received[0]));
    assert!(detail.starts_with(&format!("part 2 of {parts}: ")), "{detail}");
    let numbers: Vec<usize> = received.iter().map(|received| number(&content(received)).0).collect();
    assert_eq!(numbers, [1, 2, 2].into_iter().chain(2..=parts).collect::<Vec<_>>());
    let nonces = nonces(&received);
    assert!(nonces[1] == nonces[2] && nonces[2] == nonces[3]);
    assert_eq!(nonces.into_iter().collect::<HashSet<_>>().len(), parts);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_killed_between_two_parts_goes_on_with_the_second() {
    let provider = Provider::start().await;
    provider.next(Answer::status(200)).next(Answer::status(200).after(Duration::from_secs(60)));
    let world = discord(&provider, &json!({}));
    let directory = TempDir::new().expect("a directory");
    world.write(&directory.path().join("config"));
    let process = Process::start(&directory, &world);
    let sent = http().post(format!("{}/notifications", process.url)).bearer_auth(KEY_A).json(&markdown(&long()));
    let (status, body) = answer(sent).await;
    assert_eq!(status, 202, "{body}");
    provider.wait_for(2).await;
    drop(process);
    let _process = Process::start(&directory, &world);
    let (_, parts) = number(&content(&provider.received()[0]));
    let received = provider.wait_for(parts + 1).await;
    let numbers: Vec<usize> = received.iter().map(|received| number(&content(received)).0).collect();
    assert_eq!(numbers, [1, 2].into_iter().chain(2..=parts).collect::<Vec<_>>());
    assert_eq!(nonce(&received[1]), nonce(&received[2]), "what Discord knows the doubled part by");
}

#[tokio::test]
async fn a_stop_between_two_parts_leaves_the_rest_to_the_next_start() {
    let provider = Provider::start().await;
    let world = discord(&provider, &json!({}));
    let server = world.clone().start().await;
    provider.next(Answer::status(200)).next(Answer::status(200).held_until(&server.server.app().stop));
    let id = server.send(KEY_A, &markdown(&long())).await;
    let first = provider.wait_for(2).await.remove(0);
    let directory = server.stop().await;
    let (_, parts) = number(&content(&first));
    assert_eq!(provider.received().len(), 2, "of {parts}: it ends the part under way and begins no other");
    let server = world.start_in(directory).await;
    let story = server.wait_for(KEY_A, &id, "sent").await;
    assert_eq!(outcomes(&story), ["sent"], "what was given back is no attempt");
    let numbers: Vec<usize> = provider.received().iter().map(|received| number(&content(received)).0).collect();
    assert_eq!(numbers, (1..=parts).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_text_that_another_configuration_cuts_elsewhere_begins_anew_and_loses_nothing() {
    let provider = Provider::start().await;
    provider.next(Answer::status(200)).next(Answer::status(503).header("retry-after", "1"));
    let server = discord(&provider, &json!({ "delayNote": "24h" })).start().await;
    let text: String = (0..700).map(|number| format!("word{number}. ")).collect();
    let id = server.send(KEY_A, &markdown(&text)).await;
    provider.wait_for(2).await;
    let directory = server.stop().await;
    let server = discord(&provider, &json!({})).start_in(directory).await;
    server.wait_for(KEY_A, &id, "sent").await;
    let received = provider.received();
    let (before, after) = received.split_at(2);
    assert_ne!(content(&before[0]), content(&after[0]), "the cuts have moved");
    let head = "⚠️ **HIGH PRIORITY**\n**Report**\n";
    let contents: Vec<String> = after.iter().map(content).collect();
    assert_eq!(letters(contents.iter().map(String::as_str)), letters([head, &text]));
    let all = nonces(&received).into_iter().collect::<HashSet<_>>();
    assert_eq!(all.len(), received.len(), "Discord takes none of them for a repetition");
}

#[tokio::test]
async fn every_part_keeps_the_channels_pace() {
    let provider = Provider::start().await;
    let rate = json!({ "rate": { "per": "1s", "limit": 20, "burst": 1 }, "maxConcurrency": 4 });
    let server = discord(&provider, &rate).start().await;
    let begun = Instant::now();
    let ids = [server.send(KEY_A, &markdown(&long())).await, server.send(KEY_A, &markdown(&long())).await];
    for id in ids {
        assert_eq!(outcomes(&server.wait_for(KEY_A, &id, "sent").await), ["sent"]);
    }
    let received = provider.received();
    assert_eq!(received.len(), 2 * number(&content(&received[0])).1);
    for (before, received) in (0..).zip(&received) {
        let waited = received.at.duration_since(begun);
        assert!(waited >= Duration::from_millis(50) * before, "the part after {before} others came after {waited:?}");
    }
}

#[tokio::test]
async fn a_text_whose_next_part_has_long_to_wait_makes_room_meanwhile() {
    let provider = Provider::start().await;
    let rate = json!({ "rate": { "per": "1h", "limit": 1, "burst": 2 }, "ordered": true });
    let server = discord(&provider, &rate).start().await;
    let id = server.send(KEY_A, &markdown(&long())).await;
    let parts = number(&content(&provider.wait_for(2).await[0])).1;
    let story = server.wait_for(KEY_A, &id, "queued").await;
    assert!(parts > 2 && outcomes(&story).is_empty(), "what was given back is no attempt");
    assert_eq!(server.post(KEY_A, &format!("/notifications/{id}/cancel"), &json!({})).await.0, 200);
    assert_eq!(provider.received().len(), 2);
}

#[tokio::test]
async fn markup_that_is_refused_is_left_off() {
    let (server, provider) = with_discord().await;
    provider.next(Answer { body: r#"{"message":"Invalid Form Body","code":50035}"#, ..Answer::status(400) });
    let id = server.send(KEY_A, &json!({ "channel": "discord", "message": "a *b* c", "format": "markdown" })).await;
    let story = server.wait_for(KEY_A, &id, "sent").await;
    assert_eq!(outcomes(&story), ["rejected", "sent"]);
    let contents: Vec<String> = provider.received().iter().map(content).collect();
    assert_eq!(contents, ["a *b* c", r"a \*b\* c"]);
}

#[tokio::test]
async fn plain_text_that_is_refused_fails_and_its_fallback_begins_anew() {
    let (refusing, taking) = (Provider::start().await, Provider::start().await);
    refusing.then(Answer::status(400));
    let world = discord(&refusing, &json!({})).webhook(TENANT_A, "hook", &taking.url(), &json!({}));
    let server = world.start().await;
    let id = server.send(KEY_A, &json!({ "channel": "discord", "message": "a *b* c" })).await;
    assert_eq!(outcomes(&server.wait_for(KEY_A, &id, "failed").await), ["rejected"]);
    let mut both = markdown("a *b* c");
    both["fallback"] = json!([{ "channel": "webhook" }]);
    let id = server.send(KEY_A, &both).await;
    let story = server.wait_for(KEY_A, &id, "sent").await;
    assert_eq!(outcomes(&story), ["rejected", "rejected"]);
    assert_eq!(taking.received()[0].json()["data"]["format"], "markdown");
}

#[tokio::test]
async fn a_part_that_is_refused_goes_out_as_plain_text_and_the_cuts_stay_where_they_are() {
    let (server, provider) = with_discord().await;
    provider.next(Answer::status(200)).next(Answer::status(400));
    let text = "Many *words* in **one** _sentence_. ".repeat(150);
    let id = server.send(KEY_A, &markdown(&text)).await;
    let story = server.wait_for(KEY_A, &id, "sent").await;
    assert_eq!(outcomes(&story), ["rejected", "sent"]);
    let contents: Vec<String> = provider.received().iter().map(content).collect();
    let parts = number(&contents[0]).1;
    assert_eq!(
        contents.iter().map(|content| number(content)).collect::<Vec<_>>(),
        [(1, parts), (2, parts)].into_iter().chain((2..=parts).map(|part| (part, parts))).collect::<Vec<_>>()
    );
    assert!(contents.iter().all(|content| content.chars().count() <= DISCORD_MAX));
    assert_eq!(contents[2].replace('\\', ""), contents[1]);
    let shown: Vec<String> =
        contents.iter().enumerate().filter(|(index, _)| *index != 1).map(|(_, c)| c.replace('\\', "")).collect();
    assert!(letters(shown.iter().map(String::as_str)).ends_with(&letters([text.as_str()])));
}

#[tokio::test]
async fn a_late_message_says_how_late_it_is() {
    let provider = Provider::start().await;
    provider.next(Answer::status(503).header("retry-after", "2"));
    let world = World::new().webhook(TENANT_A, "hook", &provider.url(), &json!({ "delayNote": "1s" }));
    let server = world.start().await;
    let id = server.send(KEY_A, &json!({ "channel": "webhook", "message": "It rains" })).await;
    server.wait_for(KEY_A, &id, "sent").await;
    let messages: Vec<String> = provider.received().iter().map(Received::message).collect();
    assert_eq!(messages[0], "It rains");
    let note = messages[1].strip_prefix("It rains\ndelayed by ").and_then(|note| note.strip_suffix(" s"));
    assert!(note.and_then(|seconds| seconds.parse::<u32>().ok()).is_some_and(|seconds| seconds >= 2), "{messages:?}");
}

#[tokio::test]
async fn the_note_on_a_delay_moves_no_cut() {
    let provider = Provider::start().await;
    provider.next(Answer::status(200)).next(Answer::status(503).header("retry-after", "2"));
    let server = discord(&provider, &json!({ "delayNote": "1s" })).start().await;
    let id = server.send(KEY_A, &markdown(&long())).await;
    let story = server.wait_for(KEY_A, &id, "sent").await;
    assert_eq!(outcomes(&story), ["retryable", "sent"]);
    let contents: Vec<String> = provider.received().iter().map(content).collect();
    let (_, parts) = number(&contents[0]);
    assert_eq!(contents[1], contents[2], "the part that failed is the same when it is late");
    let numbers: Vec<_> = contents[2..].iter().map(|content| number(content)).collect();
    assert_eq!(numbers, (2..=parts).map(|part| (part, parts)).collect::<Vec<_>>());
    let late: Vec<_> = contents.iter().filter(|content| content.contains("\ndelayed by ")).collect();
    assert_eq!(late, [contents.last().expect("it came")]);
    assert!(contents.iter().all(|content| content.chars().count() <= DISCORD_MAX));
}
