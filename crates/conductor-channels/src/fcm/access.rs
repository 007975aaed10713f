//! The access token: what Google gives for a text that the service account has signed.
//!
//! <https://developers.google.com/identity/protocols/oauth2/service-account#httprest>

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use conductor_core::{Clock, Secret, SendError, SendErrorKind, Timestamp};
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use url::form_urlencoded;

use super::account::ServiceAccount;
use crate::http::{HttpClient, Request, Response, tidy};

/// What the token is good for.
const SCOPE: &str = "https://www.googleapis.com/auth/firebase.messaging";
const GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
/// How long the signed text is good. Google takes no more than an hour.
const ASSERTION_SECONDS: i64 = 3600;
/// A token is changed so long before its end.
const EARLY: Duration = Duration::from_secs(300);
/// How long a token is good whose end is not told, and the longest that is believed.
const LIFE: Duration = Duration::from_secs(3600);
const LIFE_MAX: Duration = Duration::from_secs(24 * 3600);
/// The longest token that is taken, in bytes.
const TOKEN_MAX_BYTES: usize = 8 * 1024;

/// Fetches the token when it is needed, one fetch at a time.
pub(super) struct Access {
    account: ServiceAccount,
    http: HttpClient,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    /// How many fetches have failed.
    failures: AtomicU64,
}

#[derive(Default)]
struct State {
    granted: Option<Granted>,
    /// What the last fetch came to, where it failed.
    failed: Option<SendError>,
}

/// An access token.
#[derive(Clone)]
pub(super) struct Granted {
    token: Secret,
    until: Timestamp,
}

impl Granted {
    pub(super) fn token(&self) -> &str {
        self.token.expose()
    }
}

impl Access {
    pub(super) fn new(account: ServiceAccount, http: HttpClient, clock: Arc<dyn Clock>) -> Self {
        Self { account, http, clock, state: Mutex::default(), failures: AtomicU64::new(0) }
    }

    /// The token. Those who waited while a fetch failed share its error, instead of asking one after the other.
    pub(super) async fn granted(&self, timeout: Duration) -> Result<Granted, SendError> {
        let failures = self.failures.load(Ordering::SeqCst);
        let began = tokio::time::Instant::now();
        let Ok(mut state) = tokio::time::timeout(timeout, self.state.lock()).await else {
            let text = "the access token did not come within the time limit";
            return Err(SendError::new(SendErrorKind::Retryable { retry_after: None }, text));
        };
        if let Some(granted) = state.granted.as_ref().filter(|granted| self.clock.now() < granted.until) {
            return Ok(granted.clone());
        }
        if let Some(error) = state.failed.as_ref().filter(|_| self.failures.load(Ordering::SeqCst) != failures) {
            return Err(error.clone());
        }
        match self.fetch(timeout.saturating_sub(began.elapsed())).await {
            Ok(granted) => {
                *state = State { granted: Some(granted.clone()), failed: None };
                Ok(granted)
            }
            Err(error) => {
                *state = State { granted: None, failed: Some(error.clone()) };
                self.failures.fetch_add(1, Ordering::SeqCst);
                Err(error)
            }
        }
    }

    /// Lets go of a token that Google refused, unless it has been replaced already.
    pub(super) async fn forget(&self, refused: &Granted) {
        let mut state = self.state.lock().await;
        if state.granted.as_ref().is_some_and(|granted| granted.token == refused.token) {
            state.granted = None;
        }
    }

    async fn fetch(&self, timeout: Duration) -> Result<Granted, SendError> {
        let now = self.clock.now();
        let assertion = self.assertion(now)?;
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", GRANT)
            .append_pair("assertion", assertion.expose())
            .finish();
        let request = Request::post(self.account.token_url.clone())
            .timeout(timeout)
            .json_bytes(form)
            .header(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        let response = self.http.send(request).await.map_err(|error| unsent(error.into()))?;
        if !response.status.is_success() {
            return Err(refusal(&response, assertion.expose(), now));
        }
        granted(&response.json(), now).ok_or_else(|| {
            let text = "the service account's token_uri answered without an access token; is it Google's?";
            SendError::new(SendErrorKind::Retryable { retry_after: None }, text).with_code(response.status.as_str())
        })
    }

    fn assertion(&self, now: Timestamp) -> Result<Secret, SendError> {
        let account = &self.account;
        let claims = json!({
            "iss": account.email,
            "scope": SCOPE,
            "aud": account.token_url.as_str(),
            "iat": now.seconds(),
            "exp": now.seconds() + ASSERTION_SECONDS,
        });
        let signed = account.signer.sign(&account.key_id, &claims);
        let signed = signed.map_err(|error| unsent(SendError::new(SendErrorKind::Unknown, error.to_string())))?;
        Ok(Secret::new(signed))
    }
}

fn granted(body: &Value, now: Timestamp) -> Option<Granted> {
    let token = body.get("access_token")?.as_str()?;
    let is_token = (1..=TOKEN_MAX_BYTES).contains(&token.len()) && token.bytes().all(|byte| byte.is_ascii_graphic());
    let life = body.get("expires_in").and_then(Value::as_u64).map_or(LIFE, Duration::from_secs).min(LIFE_MAX);
    let until = now.plus(life - EARLY.min(life / 2));
    is_token.then(|| Granted { token: Secret::new(token), until })
}

/// Whatever became of the request for a token, the message has not gone out.
fn unsent(mut error: SendError) -> SendError {
    if error.kind == SendErrorKind::Unknown {
        error.kind = SendErrorKind::Retryable { retry_after: None };
    }
    error
}

/// What Google says where it gives no token. Unless it is a trouble of the moment, the account is refused.
fn refusal(response: &Response, assertion: &str, now: Timestamp) -> SendError {
    let kind = match response.classify(now) {
        Some(kind @ (SendErrorKind::Retryable { .. } | SendErrorKind::RateLimited { .. })) => kind,
        _ => SendErrorKind::Unauthorized,
    };
    let body = response.json();
    let member = |name: &str| body.get(name).and_then(Value::as_str).map(|text| tidy(text, &[assertion]));
    let mut error = response.error(kind, &[assertion]);
    if let Some(words) = member("error_description") {
        error.message = words;
    }
    if let Some(code) = member("error") {
        error.code = Some(code);
    }
    error.message = format!("no access token was given for the service account: {}", error.message);
    if kind == SendErrorKind::Unauthorized {
        error.message.push_str(" (was its key deleted, or is this server's clock wrong?)");
    }
    error
}
