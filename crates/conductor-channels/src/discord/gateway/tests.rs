use conductor_core::ManualClock;
use tokio::task::JoinSet;

use super::fake::{FakeDiscord, OnResume, Script, Seen, Then};
use super::session::Closed;
use super::*;
use crate::contract::{captured, loopback, now, spec};
use crate::http::HttpClients;

const TOKEN: &str = "T0P-S3CRET.bot.token";
/// Longer than any test.
const NEVER: Duration = Duration::from_secs(600);

/// As Discord's, a hundred times as fast.
const QUICK: Pace = Pace {
    identify: Duration::from_millis(50),
    invalid: Duration::from_millis(10),
    again: Duration::from_millis(10),
    resume_max: Duration::from_millis(40),
    identify_max: Duration::from_millis(80),
    refused: Duration::from_millis(40),
    refused_max: Duration::from_millis(80),
    stable: Duration::from_secs(10),
};

/// A bot on its way.
struct Bot {
    standing: watch::Receiver<Option<Standing>>,
    stop: watch::Sender<bool>,
    task: JoinSet<()>,
}

impl Bot {
    fn start(discord: &FakeDiscord) -> Self {
        Self::start_at(discord, TOKEN)
    }

    fn start_at(discord: &FakeDiscord, token: &str) -> Self {
        let gateway = Gateway {
            http: HttpClients::new().client(&loopback()),
            base: discord.url().parse().unwrap(),
            token: Secret::new(token),
            authorization: HeaderValue::try_from(format!("Bot {token}")).unwrap(),
            clock: Arc::new(ManualClock::at(now())),
            pace: QUICK,
            standing: watch::Sender::new(None),
            identified: Arc::default(),
        };
        let (stop, stopped) = watch::channel(false);
        let standing = gateway.standing.subscribe();
        let mut task = JoinSet::new();
        task.spawn(async move { gateway.run(stopped).await });
        Self { standing, stop, task }
    }

    async fn up(&mut self) {
        self.is(|health| *health == Health::Up).await;
    }

    /// Waits until it is down. Gives the reason.
    async fn down(&mut self) -> String {
        match self.is(|health| matches!(health, Health::Down { .. })).await {
            Health::Down { reason } => reason,
            other => panic!("{other:?}"),
        }
    }

    async fn is(&mut self, wanted: impl Fn(&Health) -> bool) -> Health {
        let found = self.standing.wait_for(|now| now.as_ref().is_some_and(|now| wanted(&now.health)));
        let found = tokio::time::timeout(Duration::from_secs(20), found).await.expect("in time").expect("it runs");
        found.as_ref().map(|now| now.health.clone()).expect("it was waited for")
    }
}

async fn discord(scripts: impl IntoIterator<Item = Script>) -> FakeDiscord {
    let discord = FakeDiscord::start(TOKEN, NEVER).await;
    discord.plays(scripts);
    discord
}

fn then(then: Then) -> Script {
    Script { then, ..Script::default() }
}

#[tokio::test]
async fn a_bot_connects_and_the_log_says_so_without_its_token() {
    let (logs, _guard) = captured();
    let discord = discord([Script::default()]).await;
    let mut bot = Bot::start(&discord);
    bot.up().await;
    let seen = discord.seen();
    assert_eq!(seen[0], Seen::Asked("GET".into(), "/api/v10/gateway/bot".into(), serde_json::Value::Null));
    assert_eq!(seen[1], Seen::Opened("/gateway?v=10&encoding=json".into()));
    let Some(Seen::Identify(identify)) = seen.iter().find(|seen| matches!(seen, Seen::Identify(_))) else { panic!() };
    assert_eq!((&identify["token"], &identify["intents"]), (&TOKEN.into(), &0.into()));
    assert!(identify["properties"]["os"].is_string());
    assert!(logs.text().contains("conductor::plugin::discord: Discord bot connected\n"), "{}", logs.text());
    assert!(!logs.text().contains("T0P-S3CRET"), "{}", logs.text());
}

#[tokio::test]
async fn the_heart_beats_with_the_last_sequence() {
    let discord = FakeDiscord::start(TOKEN, Duration::from_millis(30)).await;
    let mut bot = Bot::start(&discord);
    bot.up().await;
    let beats = |discord: &FakeDiscord| discord.count(|seen| *seen == Seen::Heartbeat(1.into()));
    discord.until("heartbeats", |discord| beats(discord) >= 4).await;
    assert_eq!((discord.identifies(), discord.resumes()), (1, 0));
}

#[tokio::test]
async fn a_zombie_is_noticed_and_its_session_resumed() {
    let discord = FakeDiscord::start(TOKEN, Duration::from_millis(30)).await;
    discord.plays([Script { acks: Some(2), ..Script::default() }, Script::default()]);
    let mut bot = Bot::start(&discord);
    bot.up().await;
    discord.until("a resume", |discord| discord.resumes() == 1).await;
    let seen = discord.seen();
    assert!(seen.contains(&Seen::Closed(Some(4000))), "{seen:?}");
    assert!(seen.contains(&Seen::Opened("/resume?v=10&encoding=json".into())), "{seen:?}");
    let resume = serde_json::json!({ "token": TOKEN, "session_id": "a-session", "seq": 1 });
    assert!(seen.contains(&Seen::Resume(resume)), "{seen:?}");
    bot.up().await;
    assert_eq!(discord.identifies(), 1);
}

#[tokio::test]
async fn a_session_is_taken_up_again_after_whatever_leaves_it_whole() {
    for end in [Then::Reconnect, Then::Invalid(true), Then::Close(4000), Then::Close(1001), Then::Drop] {
        let discord = discord([then(end), Script::default()]).await;
        let mut bot = Bot::start(&discord);
        bot.up().await;
        discord.until("a resume", |discord| discord.resumes() == 1).await;
        bot.up().await;
        assert_eq!(discord.identifies(), 1, "{end:?}");
    }
}

#[tokio::test]
async fn a_session_that_is_gone_begins_anew_but_not_too_soon() {
    let invalid = Script { resume: OnResume::Invalid, ..Script::default() };
    for scripts in [
        vec![then(Then::Invalid(false)), Script::default()],
        vec![then(Then::Close(4009)), Script::default()],
        vec![then(Then::Reconnect), invalid, Script::default()],
    ] {
        let discord = discord(scripts.clone()).await;
        let begun = Instant::now();
        let _bot = Bot::start(&discord);
        discord.until("a second session", |discord| discord.identifies() == 2).await;
        assert!(begun.elapsed() >= QUICK.identify, "{scripts:?}");
    }
}

#[tokio::test]
async fn a_heartbeat_that_is_asked_for_is_sent_at_once() {
    let discord = discord([then(Then::Ask)]).await;
    let _bot = Bot::start(&discord);
    discord.until("a heartbeat", |discord| discord.count(|seen| *seen == Seen::Heartbeat(1.into())) == 1).await;
}

#[tokio::test]
async fn a_refused_token_stops_it_for_good_with_the_reason() {
    let (logs, _guard) = captured();
    let refused = Script { refuse: Some((4004, "Authentication failed.")), ..Script::default() };
    let discord = discord([refused]).await;
    let mut bot = Bot::start(&discord);
    let reason = bot.down().await;
    assert!(reason.contains("4004") && reason.contains("Authentication failed.") && reason.contains("token"));
    bot.task.join_next().await.expect("it ends").expect("without a panic");
    assert_eq!(discord.identifies(), 1);
    assert!(!format!("{reason}{}", logs.text()).contains("T0P-S3CRET"));
}

#[tokio::test]
async fn what_only_a_person_can_mend_is_never_tried_again() {
    for code in [4004, 4010, 4011, 4012, 4013, 4014] {
        let discord = discord([Script { refuse: Some((code, "No.")), ..Script::default() }]).await;
        let mut bot = Bot::start(&discord);
        let reason = bot.down().await;
        assert!(reason.contains(&format!("{code}: No.")), "{reason}");
        bot.task.join_next().await.expect("it ends").expect("without a panic");
        assert_eq!((discord.identifies(), discord.resumes()), (1, 0), "{code}");
    }
}

/// Each start knows nothing of those before it, as after a crash.
#[tokio::test]
async fn a_server_that_crashes_and_starts_again_without_end_leaves_a_days_sessions_for_the_day() {
    let discord = discord([Script::default()]).await;
    let sparse = u64::try_from(SPARSE).unwrap();
    discord.leaves_sessions(sparse + 5);
    for start in 1..=20 {
        let mut bot = Bot::start(&discord);
        if start <= 5 {
            bot.up().await;
        } else {
            let reason = bot.down().await;
            assert!(reason.contains("200 more sessions today"), "{reason}");
        }
    }
    assert_eq!((discord.identifies(), discord.remaining_sessions()), (5, sparse));
}

#[tokio::test]
async fn the_last_sessions_of_a_day_begin_when_their_time_has_come() {
    let discord = discord([Script::default()]).await;
    discord.leaves_sessions(10).resets_in(Duration::from_secs(2));
    let begun = Instant::now();
    let mut bot = Bot::start(&discord);
    assert!(bot.down().await.contains("10 more sessions"));
    bot.up().await;
    assert!(begun.elapsed() >= Duration::from_millis(200));
    assert_eq!(discord.identifies(), 1);
}

#[tokio::test]
async fn a_gateway_that_cannot_be_reached_comes_back_by_itself() {
    for (status, words) in [(503, "503"), (401, "token")] {
        let discord = discord([Script::default()]).await;
        discord.answers_gateway(Some(status));
        let mut bot = Bot::start(&discord);
        let reason = bot.down().await;
        assert!(reason.contains(words), "{reason}");
        discord.answers_gateway(None);
        bot.up().await;
    }
    let closed = Script { status: Some(502), ..Script::default() };
    let discord = discord([closed.clone(), closed, Script::default()]).await;
    let mut bot = Bot::start(&discord);
    assert!(bot.down().await.contains("502"));
    bot.up().await;
    assert_eq!(discord.identifies(), 1);
}

#[tokio::test]
async fn no_session_begins_where_discord_allows_none() {
    let discord = discord([Script::default()]).await;
    discord.leaves_sessions(0);
    let mut bot = Bot::start(&discord);
    assert!(bot.down().await.contains("session_start_limit"));
    assert_eq!(discord.count(|seen| matches!(seen, Seen::Opened(_))), 0);
}

#[tokio::test]
async fn an_address_in_a_private_network_is_never_contacted() {
    let discord = discord([Script::default()]).await;
    let gateway = Url::parse(&discord.gateway_url()).unwrap();
    let http = HttpClients::new().client(&[]);
    let error = http.web_socket(&gateway, CONNECT_MAX, MESSAGE_MAX).await.expect_err("refused");
    assert!(error.to_string().contains("\"allowNetworks\""), "{error}");
    assert!(discord.seen().is_empty());
}

#[tokio::test]
async fn a_stop_says_goodbye_so_that_the_bot_is_offline_at_once() {
    let discord = discord([Script::default()]).await;
    let mut bot = Bot::start(&discord);
    bot.up().await;
    bot.stop.send_replace(true);
    bot.task.join_next().await.expect("it ends").expect("without a panic");
    discord.until("a goodbye", |discord| discord.seen().contains(&Seen::Closed(Some(1000)))).await;
}

#[test]
fn every_close_code_has_its_meaning() {
    for code in [4000, 4001, 4002, 4003, 4005, 4008, 1000, 1001, 1006] {
        assert_eq!(Closed::of(Some(code)), Closed::Resume, "{code}");
    }
    assert_eq!(Closed::of(None), Closed::Resume);
    for code in [4007, 4009] {
        assert_eq!(Closed::of(Some(code)), Closed::Identify, "{code}");
    }
    for code in [4004, 4010, 4011, 4012, 4013, 4014] {
        assert!(matches!(Closed::of(Some(code)), Closed::Never(_)), "{code}");
    }
    let Some(table) = spec("error_classes.json") else { return };
    let rows = table["providers"]["discord_gateway_close"].as_array().expect("the table has the gateway");
    for row in rows {
        let codes = row["code"].as_str().expect("codes").split(',').filter_map(|code| code.trim().parse().ok());
        for code in codes {
            let never = matches!(Closed::of(Some(code)), Closed::Never(_));
            assert_eq!(never, row["class"] == "auth", "{code}");
        }
    }
}

/// Discord takes the token away at 1,000 sessions in a day. The worst that the other side can do is to let every
/// session live for a certain time and then call it invalid; the least chance makes the shortest pauses.
#[test]
fn whatever_happens_fewer_than_a_thousand_sessions_begin_in_a_day() {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let pace = Pace::DISCORD;
    for lived in [0, 1, 60, 599, 600, 601, 3600].map(Duration::from_secs) {
        let (mut passed, mut failures, mut begun) = (Duration::ZERO, 0, 0);
        while passed < DAY {
            begun += 1;
            failures = if lived >= pace.stable { 1 } else { failures + 1 };
            let pause = pace.pause(failures, Pause::Identify, 0.0);
            passed += (lived + pause).max(pace.identify);
        }
        assert!(begun < 600, "{begun} sessions that lived {lived:?}");
    }
}

#[test]
fn pauses_grow_have_jitter_and_an_end() {
    let pause = |failures, chance| Pace::DISCORD.pause(failures, Pause::Identify, chance).as_millis();
    assert_eq!([0, 1, 2, 3].map(|failures| pause(failures, 1.0)), [0, 1000, 2000, 4000]);
    assert_eq!(pause(3, 0.0), 2000);
    assert_eq!(pause(u32::MAX, 1.0), 300_000);
    assert_eq!(Pace::DISCORD.pause(99, Pause::Resume, 1.0), Duration::from_secs(30));
    assert_eq!(Pace::DISCORD.pause(1, Pause::Refused, 0.0), Duration::from_secs(30));
}
