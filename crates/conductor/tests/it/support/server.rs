//! A real server on a free port with a configuration of its own in a temporary directory.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use conductor::clock::SystemClock;
use conductor::config::Source;
use conductor::config::environment::Environment;
use conductor::server::limits::Limits;
use conductor::server::{Options, Server};
use conductor_channels::{PLUGINS, Plugin};
use conductor_core::Clock;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::provider::DEADLINE;

/// The first tenant's id and key.
pub(crate) const TENANT_A: &str = "01943c2a-7c3e-7000-8000-00000000000a";
pub(crate) const KEY_A: &str = "a-test-key-of-the-first-tenant-0123456789abcdef";
/// The second tenant's.
pub(crate) const TENANT_B: &str = "01943c2a-7c3e-7000-8000-00000000000b";
pub(crate) const KEY_B: &str = "b-test-key-of-the-second-tenant-0123456789abcde";
/// The operator's key.
pub(crate) const ADMIN_KEY: &str = "the-operators-test-key-0123456789abcdef-0123456";
/// The secret with which the webhook channels of both tenants sign.
pub(crate) const WEBHOOK_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// What a test's server is configured with. Both tenants have a `log` channel; [`World::webhook`] adds others.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) tenants: Value,
    pub(crate) channels: Vec<Value>,
    pub(crate) plugins: Value,
    /// The plugins that the server is built with.
    pub(crate) table: &'static [Plugin],
    pub(crate) variables: Vec<(String, String)>,
    /// What clients may take.
    pub(crate) limits: Limits,
    /// The proxies that are believed.
    pub(crate) trusted_proxies: Vec<ipnet::IpNet>,
    /// Where providers reach the server for receipts.
    pub(crate) public_url: Option<&'static str>,
    /// The time.
    pub(crate) clock: Arc<dyn Clock>,
    /// How long the audit log is kept.
    pub(crate) audit_kept: Option<Duration>,
}

impl World {
    pub(crate) fn new() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let tenant = |id, name, key| json!({ "id": id, "name": name, "authKeyEnvVar": key });
        let log = |tenant, name| json!({ "tenantId": tenant, "channelType": "log", "channelName": name });
        let variables = [("KEY_A", KEY_A), ("KEY_B", KEY_B), ("CONDUCTOR_ADMIN_KEY", ADMIN_KEY)];
        Self {
            tenants: json!([tenant(TENANT_A, "Tenant A", "KEY_A"), tenant(TENANT_B, "Tenant B", "KEY_B")]),
            channels: vec![log(TENANT_A, "log a"), log(TENANT_B, "log b")],
            table: PLUGINS,
            limits: Limits::of_this_process(),
            trusted_proxies: Vec::new(),
            public_url: None,
            clock: Arc::new(SystemClock),
            audit_kept: None,
            plugins: json!([{ "name": "log" }, { "name": "webhook" }, { "name": "discord" },
                            { "name": "sms" }, { "name": "whatsapp" }]),
            variables: variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        }
    }

    /// Adds a webhook channel that posts to `url` and may reach this machine. `options` are added to its options.
    pub(crate) fn webhook(mut self, tenant: &str, name: &str, url: &str, options: &Value) -> Self {
        let (address, secret) = (format!("URL_{}", self.channels.len()), format!("SECRET_{}", self.channels.len()));
        let mut all = json!({ "allowNetworks": ["127.0.0.0/8"] });
        for (name, value) in options.as_object().into_iter().flatten() {
            all[name] = value.clone();
        }
        self.channels.push(json!({
            "tenantId": tenant, "channelType": "webhook", "channelName": name,
            "providerIdEnvVar": address, "providerSecretEnvVar": secret, "options": all,
        }));
        self.variables.push((address, url.to_owned()));
        self.variables.push((secret, WEBHOOK_SECRET.to_owned()));
        self
    }

    /// Starts a server on a directory of its own.
    pub(crate) async fn start(self) -> TestServer {
        let directory = TempDir::new().expect("a temporary directory");
        self.start_in(directory).await
    }

    /// Starts a server on a directory that an earlier one has left.
    pub(crate) async fn start_in(self, directory: TempDir) -> TestServer {
        let config = directory.path().join("config");
        self.write(&config);
        let environment = Environment::from_pairs(self.variables.clone());
        let loaded = conductor::config::load(&config, &environment, self.table);
        let (configuration, _) = loaded.unwrap_or_else(|report| panic!("{report}"));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let variables = Arc::new(Mutex::new(self.variables.clone()));
        let read = Arc::clone(&variables);
        let environment = Box::new(move || Environment::from_pairs(read.lock().unwrap().clone()));
        let options = Options {
            configuration,
            source: Source { config_dir: config, plugins: self.table, settings: None, environment },
            data_dir: directory.path().to_owned(),
            listener,
            metrics_listener: Some(TcpListener::bind("127.0.0.1:0").expect("a free port")),
            plugins: self.table,
            public_url: self.public_url.map(|url| url.parse().expect("a URL")),
            clock: Arc::clone(&self.clock),
            limits: self.limits,
            audit_kept: self.audit_kept,
            trusted_proxies: self.trusted_proxies,
        };
        let server = Server::start(options).await.unwrap_or_else(|error| panic!("{error}"));
        TestServer { server, directory, variables }
    }

    /// Writes the three files.
    pub(crate) fn write(&self, config: &Path) {
        std::fs::create_dir_all(config).expect("a directory");
        let channels = Value::from(self.channels.clone());
        let files = [("tenants", &self.tenants), ("channels", &channels), ("plugins", &self.plugins)];
        for (name, value) in files {
            let text = serde_json::to_string_pretty(value).expect("JSON");
            std::fs::write(config.join(format!("{name}.json")), text).expect("a file");
        }
    }
}

/// A server that a test has started.
pub(crate) struct TestServer {
    pub(crate) server: Server,
    directory: TempDir,
    variables: Arc<Mutex<Vec<(String, String)>>>,
}

impl TestServer {
    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Where its configuration and its data lie.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Puts another world's variables and files in the place of its own. It is for the server to notice, or to be told.
    pub(crate) fn put(&self, world: &World) {
        *self.variables.lock().unwrap() = world.variables.clone();
        world.write(&self.directory.path().join("config"));
    }

    /// The same, and has it taken over. Gives the answer.
    pub(crate) async fn reload(&self, world: &World) -> (u16, Value) {
        self.put(world);
        self.post(ADMIN_KEY, "/reload", &Value::Null).await
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address())
    }

    /// Posts a notification and expects it to be accepted. Gives its id.
    pub(crate) async fn send(&self, key: &str, body: &Value) -> String {
        let (status, answer) = self.post(key, "/notifications", body).await;
        assert_eq!(status, 202, "{answer}");
        answer["id"].as_str().expect("an id").to_owned()
    }

    pub(crate) async fn post(&self, key: &str, path: &str, body: &Value) -> (u16, Value) {
        answer(http().post(self.url(path)).bearer_auth(key).json(body)).await
    }

    pub(crate) async fn get(&self, key: &str, path: &str) -> (u16, Value) {
        answer(http().get(self.url(path)).bearer_auth(key)).await
    }

    /// Waits until a notification has this status. Gives its story.
    pub(crate) async fn wait_for(&self, key: &str, id: &str, status: &str) -> Value {
        let start = Instant::now();
        loop {
            let (_, story) = self.get(key, &format!("/notifications/{id}")).await;
            if story["status"] == status {
                return story;
            }
            assert!(start.elapsed() < DEADLINE, "not {status} in time: {story:#}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until a channel's health has this status. Gives its reason.
    pub(crate) async fn wait_for_health(&self, key: &str, name: &str, status: &str) -> Value {
        let start = Instant::now();
        loop {
            let (_, page) = self.get(key, "/channels").await;
            let channels = page["data"].as_array().expect("channels");
            let channel = channels.iter().find(|channel| channel["channelName"] == name).expect("the channel");
            if channel["health"]["status"] == status {
                return channel["health"]["reason"].clone();
            }
            assert!(start.elapsed() < DEADLINE, "not {status} in time: {channel:#}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Stops it as SIGTERM would. The directory is for the next one.
    pub(crate) async fn stop(self) -> TempDir {
        self.server.stop().await;
        self.directory
    }
}

/// A client for the tests' own requests.
pub(crate) fn http() -> reqwest::Client {
    static CLIENT: OnceLock<()> = OnceLock::new();
    CLIENT.get_or_init(|| drop(rustls::crypto::ring::default_provider().install_default()));
    #[expect(clippy::disallowed_methods, reason = "the tests speak to their own server")]
    let builder = reqwest::Client::builder();
    builder.no_proxy().build().expect("a client")
}

/// Sends a request and reads its answer as JSON.
pub(crate) async fn answer(request: reqwest::RequestBuilder) -> (u16, Value) {
    let answer = request.send().await.expect("an answer");
    let status = answer.status().as_u16();
    let text = answer.text().await.expect("a body");
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}
