//! Requests to a running Conductor.

use std::time::Duration;

use conductor_core::Secret;
use reqwest::redirect;
use serde_json::Value;
use url::Url;

use super::Failure;
use crate::config::settings::Settings;

/// The most of an answer that is read, in bytes.
const ANSWER_MAX_BYTES: usize = 1024 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Talks to the server at an address that the operator gave: the egress guard of the channels would refuse it.
pub(super) struct Server {
    http: reqwest::Client,
    base: Url,
}

/// What the server answered.
pub(super) struct Answer {
    pub(super) status: u16,
    /// Null where the answer was no JSON.
    pub(super) body: Value,
}

impl Server {
    /// The server at `url`, else the one of the settings on this machine.
    pub(super) fn new(url: Option<&str>, settings: &Settings, timeout: Duration) -> Result<Self, Failure> {
        let given = url.map_or_else(|| settings.loopback_url(), str::to_owned);
        let base = Url::parse(&given).ok().filter(|url| {
            matches!(url.scheme(), "http" | "https")
                && url.has_host()
                && url.username().is_empty()
                && url.query().is_none()
        });
        let base = base.ok_or_else(|| {
            Failure::Refused(
                "--url is no address of a server\n  expected: http:// or https://, a host, and a port if it is not the \
                 usual one, without a user or a query\n  help: write for example --url http://127.0.0.1:3333"
                    .to_owned(),
            )
        })?;
        #[expect(clippy::disallowed_methods, reason = "the own server is where the egress guard lets nobody go")]
        let mut builder = reqwest::Client::builder()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(timeout)
            .user_agent(concat!("conductor/", env!("CARGO_PKG_VERSION")));
        if base.scheme() == "http" {
            // Reading the system's certificates would take longer than the request.
            builder = builder.tls_certs_only([]);
        }
        let http = builder.build().map_err(|error| Failure::Failed(format!("no connection can be made: {error}")))?;
        Ok(Self { http, base })
    }

    pub(super) async fn get(&self, path: &str) -> Result<Answer, Failure> {
        self.ask(self.http.get(self.address(path))).await
    }

    /// Posts JSON with a tenant's key. `wait` is in seconds.
    pub(super) async fn post(&self, path: &str, key: &Secret, wait: u64, body: &Value) -> Result<Answer, Failure> {
        let mut request = self.http.post(self.address(path)).bearer_auth(key.expose()).json(body);
        if wait > 0 {
            request = request.header("prefer", format!("wait={wait}"));
        }
        self.ask(request).await
    }

    fn address(&self, path: &str) -> Url {
        let mut address = self.base.clone();
        let folder = self.base.path().trim_end_matches('/');
        address.set_path(&format!("{folder}{path}"));
        address
    }

    async fn ask(&self, request: reqwest::RequestBuilder) -> Result<Answer, Failure> {
        let mut response = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = response.status().as_u16();
        let mut body = Vec::new();
        while let Some(part) = response.chunk().await.map_err(|error| self.unreachable(&error))? {
            if body.len() + part.len() > ANSWER_MAX_BYTES {
                return Err(Failure::Failed(format!("what answers at {} is no Conductor", self.base)));
            }
            body.extend_from_slice(&part);
        }
        Ok(Answer { status, body: serde_json::from_slice(&body).unwrap_or(Value::Null) })
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let what = if error.is_timeout() {
            "did not answer in time"
        } else if error.is_connect() {
            "cannot be reached"
        } else {
            "broke off"
        };
        Failure::Failed(format!(
            "the server at {} {what}\n  help: does it run (`conductor`), and is this its address? PORT, HOST or --url \
             say another one",
            self.base
        ))
    }
}
