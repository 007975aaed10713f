//! No plugin of the table reaches what is not public, however its address is written, whatever its name resolves to, and
//! wherever in the configuration it stands.

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use conductor_core::{Health, Rate, SendError, SendErrorKind};
use ipnet::IpNet;
use serde_json::{Value, json};

use crate::contract::{Answer, Provider, context, message, plugin};
use crate::http::{HttpClients, Lookup};
use crate::{ChannelContext, PLUGINS};

/// Hosts that are addresses, in all notations that a URL may have for them.
const NUMBERS: &[&str] = &[
    "127.0.0.1",
    "127.1",
    "0x7f000001",
    "2130706433",
    "0177.0.0.1",
    "0",
    "0.0.0.0",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "0xa9fea9fe",
    "100.100.100.200",
    "100.64.0.1",
    "192.0.0.8",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "[::]",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:169.254.169.254]",
    "[::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b::a9fe:a9fe]",
    "[64:ff9b:1::1]",
    "[2002:7f00:1::]",
    "[2001:0:4136:e378:8000:63bf:80ff:fffe]",
    "[fd00:ec2::254]",
    "[fc00::1]",
    "[fe80::1]",
    "[fec0::1]",
    "[ff02::1]",
    "[2001:db8::1]",
];

/// Names, and what they resolve to.
const NAMES: &[(&str, &[&str])] = &[
    ("loopback.example", &["127.0.0.1"]),
    ("loopback.example.", &["127.0.0.1"]),
    ("private.example", &["10.0.0.1", "192.168.0.1"]),
    ("metadata.example", &["169.254.169.254"]),
    ("mapped.example", &["::ffff:127.0.0.1"]),
    ("nat64.example", &["64:ff9b::7f00:1"]),
    ("six.example", &["::1", "fd00:ec2::254", "fe80::1"]),
];

/// Answers for [`NAMES`].
struct Table;

impl Lookup for Table {
    fn lookup(&self, name: String) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>> {
        let known: HashMap<_, _> = NAMES.iter().copied().collect();
        let found = known.get(name.as_str()).map(|all| all.iter().map(|address| address.parse().unwrap()).collect());
        Box::pin(async move { found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such name")) })
    }
}

/// One way in which a plugin is told an address: the settings, with `HOST` and `PORT` in them, or `baseUrl`.
struct Way {
    kind: &'static str,
    values: Value,
    by_base_url: bool,
}

/// Every way of every plugin that sends anything over a network.
fn ways() -> Vec<Way> {
    let by_base_url = |kind, values| Way { kind, values, by_base_url: true };
    let by_setting = |kind, values| Way { kind, values, by_base_url: false };
    let url = "http://HOST:PORT/v1/spaces/AAAA/messages?key=0123456789&token=0123456789";
    let key = include_str!("apns/test_key.p8");
    let account = |token_uri: &str| {
        let mut account: Value = serde_json::from_str(include_str!("fcm/example.json")).unwrap();
        account["token_uri"] = token_uri.into();
        json!({ "serviceAccount": account.to_string(), "target": "device" })
    };
    let bot = json!({ "botToken": "bot.to.ken", "channelId": "290926798999357250" });
    let (sid, mattermost) = (format!("AC{}", "0".repeat(32)), "4xp9fdt77pncbef59f4k1qe83o");
    let sms = json!({ "accountSid": sid, "authToken": "0".repeat(32), "from": "+15017122661", "to": "+15558675310" });
    let apns = json!({
        "key": key, "keyId": "ABC123DEFG", "teamId": "DEF123GHIJ", "topic": "com.example.app", "deviceToken": "a".repeat(64),
    });
    let discord_url = "https://discord.com/api/webhooks/223704706495545344/a_token_of_the_webhook";
    let slack_url = "https://hooks.slack.com/services/T00000000/B00000000/XXXXXXXXXXXXXXXXXXXXXXXX";
    let whatsapp = json!({ "accessToken": "token", "phoneNumberId": "106540352242922", "to": "15558675310" });
    let mail = |security: &str| {
        let port = "PORT";
        json!({ "host": "HOST", "port": port, "security": security, "from": "a@example.com", "to": "b@example.com" })
    };
    vec![
        by_setting("webhook", json!({ "url": url })),
        by_base_url("webhook", json!({ "url": "https://example.com/hook" })),
        by_base_url("discord", bot),
        by_base_url("discord-webhook", json!({ "webhookUrl": discord_url })),
        by_setting("email", mail("none")),
        by_setting("email", mail("starttls")),
        by_setting("email", mail("tls")),
        by_base_url("telegram", json!({ "botToken": "123456:ABC-DEF1234ghIkl-zyx57W2v1u123ew11", "chatId": "42" })),
        by_setting(
            "matrix",
            json!({ "homeserverUrl": "http://HOST:PORT", "accessToken": "syt_x", "roomId": "!r:example.org" }),
        ),
        by_base_url(
            "matrix",
            json!({ "homeserverUrl": "https://example.org", "accessToken": "syt_x", "roomId": "!r:example.org" }),
        ),
        by_base_url("slack", json!({ "botToken": "xoxb-token", "channel": "C1H9RESGL" })),
        by_setting("slack", json!({ "webhookUrl": slack_url.replace("https://hooks.slack.com", "http://HOST:PORT") })),
        by_base_url("slack", json!({ "webhookUrl": slack_url })),
        by_setting(
            "mattermost",
            json!({ "serverUrl": "http://HOST:PORT", "botToken": "token", "channelId": mattermost }),
        ),
        by_setting("mattermost", json!({ "webhookUrl": "http://HOST:PORT/hooks/0123456789abcdef" })),
        by_base_url("mattermost", json!({ "webhookUrl": "https://chat.example.com/hooks/0123456789abcdef" })),
        by_setting("teams", json!({ "webhookUrl": url })),
        by_base_url("teams", json!({ "webhookUrl": url.replace("http://HOST:PORT", "https://example.com") })),
        by_setting("google-chat", json!({ "webhookUrl": url })),
        by_base_url("google-chat", json!({ "webhookUrl": url.replace("http://HOST:PORT", "https://example.com") })),
        by_base_url("sms", sms),
        by_base_url("whatsapp", whatsapp),
        // The token's address is asked first, and that of the messages is never reached.
        by_setting("fcm", account("http://HOST:PORT/token")),
        by_base_url("apns", apns),
        by_setting("ntfy", json!({ "serverUrl": "http://HOST:PORT", "topic": "alerts" })),
        by_base_url("ntfy", json!({ "topic": "alerts" })),
        by_setting("gotify", json!({ "serverUrl": "http://HOST:PORT", "appToken": "AKy123" })),
        by_base_url("gotify", json!({ "serverUrl": "https://gotify.example.com", "appToken": "AKy123" })),
        by_base_url("pushover", json!({ "token": "a".repeat(30), "user": "u".repeat(30) })),
    ]
}

impl Way {
    /// What a send comes to where the address is this one.
    async fn send(&self, clients: &HttpClients, allowed: &[IpNet], host: &str, port: u16) -> Result<(), SendError> {
        let filled = self.values.to_string().replace("HOST", host);
        let filled = filled.replace("\"PORT\"", &port.to_string()).replace("PORT", &port.to_string());
        let Ok(Value::Object(values)) = serde_json::from_str(&filled) else { panic!("{filled}") };
        let base_url = self.by_base_url.then(|| format!("http://{host}:{port}/").parse().expect("a URL"));
        // How often a provider lets one send is another test's matter.
        let often = NonZeroU32::new(1_000_000).expect("it is not zero");
        let rate = Some(Rate { limit: often, per: Duration::from_secs(1), burst: often });
        let context = ChannelContext { http: clients.client(allowed), rate, ..context(clients, base_url) };
        let channel = plugin(self.kind).initialize(values, context).await;
        let channel = channel.unwrap_or_else(|error| panic!("{}: {error}", self.kind));
        let sent = tokio::time::timeout(Duration::from_secs(20), channel.send(&message("hello"))).await;
        sent.expect("a send ends").map(drop)
    }
}

fn networks(networks: &[&str]) -> Vec<IpNet> {
    networks.iter().map(|network| network.parse().unwrap()).collect()
}

#[test]
fn every_plugin_is_tried() {
    let tried: BTreeSet<&str> = ways().iter().map(|way| way.kind).collect();
    let all: BTreeSet<&str> = PLUGINS.iter().map(|plugin| plugin.kind).collect();
    let untried: Vec<_> = all.difference(&tried).collect();
    assert_eq!(untried, [&"log"], "a plugin is missing in `ways`");
}

#[tokio::test]
async fn no_plugin_reaches_what_is_not_public_however_it_is_written() {
    let provider = Provider::on_localhost([]).await;
    let clients = HttpClients::with_lookup(Arc::new(Table));
    let mut faults = Vec::new();
    for way in ways() {
        let hosts = NUMBERS.iter().copied().chain(NAMES.iter().map(|(name, _)| *name));
        for host in hosts {
            let error = way.send(&clients, &[], host, provider.port()).await.expect_err("nobody answers");
            if error.kind != SendErrorKind::Permanent || !error.message.contains("\"allowNetworks\": [") {
                faults.push(format!("{} {} at {host}: {error:?}", way.kind, way.values));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert_eq!(provider.connections(), 0);
}

#[tokio::test]
async fn an_allowed_network_opens_for_a_plugin_what_it_names_and_nothing_beside_it() {
    let clients = HttpClients::with_lookup(Arc::new(Table));
    let only = networks(&["127.0.0.1/32"]);
    for way in ways() {
        let provider = Provider::on_localhost([]).await;
        for host in ["127.0.0.2", "[::1]", "10.0.0.1", "six.example", "metadata.example"] {
            let error = way.send(&clients, &only, host, provider.port()).await.expect_err("nobody answers");
            assert!(error.message.contains("\"allowNetworks\": ["), "{} at {host}: {error}", way.kind);
        }
        assert_eq!(provider.connections(), 0, "{}", way.kind);
        for host in ["127.0.0.1", "loopback.example"] {
            let before = provider.connections();
            let error = way.send(&clients, &only, host, provider.port()).await.err();
            let refused = error.is_some_and(|error| error.message.contains("\"allowNetworks\": ["));
            assert!(!refused && provider.connections() > before, "{} at {host}", way.kind);
        }
    }
}

/// A name that leads to a good address when it is looked at, and to a bad one when it is used.
struct Rebinding(AtomicUsize);

impl Lookup for Rebinding {
    fn lookup(&self, _: String) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>> {
        let address = if self.0.fetch_add(1, Ordering::SeqCst) == 0 { "127.0.0.2" } else { "127.0.0.1" };
        Box::pin(async move { Ok(vec![address.parse().unwrap()]) })
    }
}

#[tokio::test]
async fn the_address_that_was_checked_is_the_one_that_is_connected_to() {
    for way in ways() {
        // Only the address that the second look-up finds is listened on.
        let provider = Provider::on_localhost([]).await;
        let lookup = Arc::new(Rebinding(AtomicUsize::new(0)));
        let clients = HttpClients::with_lookup(Arc::<Rebinding>::clone(&lookup));
        let only = networks(&["127.0.0.2/32"]);
        let error = way.send(&clients, &only, "rebinding.example", provider.port()).await.expect_err("nobody listens");
        assert_eq!((provider.connections(), lookup.0.load(Ordering::SeqCst)), (0, 1), "{}: {error}", way.kind);
        let error = way.send(&clients, &only, "rebinding.example", provider.port()).await.expect_err("refused");
        assert!(error.message.contains("\"allowNetworks\": ["), "{}: {error}", way.kind);
        assert_eq!(provider.connections(), 0, "{}", way.kind);
    }
}

#[tokio::test]
async fn an_address_that_discord_names_for_its_gateway_is_guarded_too() {
    let clients = HttpClients::new();
    for address in ["ws://10.0.0.1:81/", "ws://127.0.0.2:81/", "wss://[fd00:ec2::254]/", "ws://0x7f000002:81/"] {
        let limit = json!({ "total": 1000, "remaining": 999, "reset_after": 0, "max_concurrency": 1 });
        let answer = Answer::json(200, &json!({ "url": address, "shards": 1, "session_start_limit": limit }));
        let provider = Provider::on_localhost([answer]).await;
        let context = ChannelContext {
            http: clients.client(&networks(&["127.0.0.1/32"])),
            ..context(&clients, Some(provider.url()))
        };
        let Value::Object(values) = json!({ "botToken": "bot.to.ken", "channelId": "290926798999357250" }) else {
            unreachable!("it is an object")
        };
        let channel = plugin("discord").initialize(values, context).await.unwrap();
        channel.open();
        let start = Instant::now();
        loop {
            let standing = channel.standing();
            if let Some(Health::Down { reason }) = standing.as_ref().map(|standing| &standing.health) {
                assert!(reason.contains("\"allowNetworks\": ["), "{address}: {reason}");
                break;
            }
            assert!(start.elapsed() < Duration::from_secs(20), "{address}: {standing:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        channel.shutdown().await;
    }
}
