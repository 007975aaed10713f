//! A client of the API: one tenant's key, answers taken apart.

use std::time::{Duration, Instant};

use http::{HeaderMap, Method, StatusCode};
use serde_json::Value;

use crate::support::description;
use crate::support::provider::DEADLINE;
use crate::support::server::TestServer;

/// Asks one server with one key, or none.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: String,
    key: Option<String>,
}

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        let text = String::from_utf8_lossy(&self.body);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {} {text:?}", self.status))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("visible ASCII"))
    }

    /// The body, after a look at the status.
    pub(crate) fn expect(&self, status: u16) -> Value {
        let text = String::from_utf8_lossy(&self.body);
        assert_eq!(self.status.as_u16(), status, "{text}");
        self.json()
    }

    /// The body of an error, after a look at everything that errors have in common.
    pub(crate) fn problem(&self, status: u16) -> Value {
        let body = self.expect(status);
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        assert_eq!(body["status"], status);
        for member in ["type", "title", "error", "detail"] {
            assert!(body[member].as_str().is_some_and(|text| !text.is_empty()), "{member} in {body}");
        }
        body
    }

    /// The fields that an error's details name.
    pub(crate) fn fields(&self) -> Vec<String> {
        let body = self.json();
        let details = body["details"].as_array().cloned().unwrap_or_default();
        details.iter().map(|detail| detail["field"].as_str().expect("a field").to_owned()).collect()
    }
}

impl Client {
    #[expect(clippy::disallowed_methods, reason = "the server's own guard would refuse loopback")]
    pub(crate) fn new(server: &TestServer, key: Option<&str>) -> Self {
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        Self { http, base: server.url(""), key: key.map(str::to_owned) }
    }

    /// The same client for another address.
    pub(crate) fn at(&self, base: &str) -> Self {
        Self { base: base.to_owned(), ..self.clone() }
    }

    /// A request that has the key and nothing else.
    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base)).timeout(DEADLINE * 2);
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        reply(self.request(Method::GET, path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Reply {
        reply(self.request(Method::POST, path).json(body)).await
    }

    /// Without a body.
    pub(crate) async fn act(&self, path: &str) -> Reply {
        reply(self.request(Method::POST, path)).await
    }

    pub(crate) async fn post_with(&self, path: &str, headers: &[(&str, &str)], body: &Value) -> Reply {
        let mut request = self.request(Method::POST, path).json(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        reply(request).await
    }

    /// Sends and returns the id.
    pub(crate) async fn send(&self, body: &Value) -> String {
        let accepted = self.post("/notifications", body).await.expect(202);
        accepted["id"].as_str().expect("an id").to_owned()
    }

    /// Waits until the notification has this status.
    pub(crate) async fn until(&self, id: &str, status: &str) -> Value {
        let start = Instant::now();
        loop {
            let story = self.get(&format!("/notifications/{id}")).await.expect(200);
            if story["status"] == status {
                return story;
            }
            assert!(start.elapsed() < DEADLINE, "never {status}: {story:#}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// Sends a request and holds the answer against the API's description.
pub(crate) async fn reply(request: reqwest::RequestBuilder) -> Reply {
    let (client, request) = request.build_split();
    let request = request.expect("a request");
    let (method, path) = (request.method().clone(), request.url().path().to_owned());
    let response = client.execute(request).await.expect("an answer");
    let (status, headers) = (response.status(), response.headers().clone());
    let body = response.bytes().await.expect("a whole answer").to_vec();
    let reply = Reply { status, headers, body };
    description::check(&method, &path, &reply);
    reply
}
