//! POSTs notifications as JSON to a URL of the configuration, signed by Standard Webhooks.
//!
//! <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>

use std::collections::BTreeMap;

use async_trait::async_trait;
use conductor_core::signature::{SigningKey, sign_with_all};
use conductor_core::{Channel, Limits, Message, Problems, Receipt, Secret, SendError, SendErrorKind};
use http::header::USER_AGENT;
use http::{HeaderMap, HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use url::Url;

use crate::http::{HttpClient, Request, Response, check_url};
use crate::{ChannelContext, ChannelPlugin, Classic, InitError, Setting, secret_url};

#[cfg(test)]
mod tests;

/// The header that says how often a request was caused by one of this program: a call of its API that carries it is
/// refused, so that a receiver which passes headers on makes no loop.
pub const HOPS: &str = "conductor-hops";

/// The header that says where a request belongs in a trace: the caller's, or the operator's.
const TRACEPARENT: &str = "traceparent";

/// The most headers that a channel may add.
const HEADERS_MAX: usize = 20;
/// The longest value of one, in bytes.
const HEADER_MAX_BYTES: usize = 4096;
/// Names that belong to the connection, to the body or to the signature.
const RESERVED: &[&str] = &[
    HOPS,
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "webhook-id",
    "webhook-signature",
    "webhook-timestamp",
];

/// The `webhook` plugin.
pub struct Webhook {
    context: ChannelContext,
    url: Url,
    key: Option<SigningKey>,
    headers: HeaderMap,
    /// Those parts of the URL that may be credentials: an answer that repeats them is not passed on as it is.
    hidden: Vec<String>,
}

/// What a `webhook` channel can be told.
///
/// `baseUrl` puts another scheme, host and port in the place of the URL's; its path, if it has one, goes before the
/// URL's.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// The address that takes the POST, such as `https://example.com/hooks/conductor`.
    pub url: String,
    /// The signing secret: `whsec_` and base64 of 24 to 64 bytes. Without it nothing is signed, and the receiver cannot
    /// tell who sent.
    #[schemars(with = "Option<String>")]
    pub secret: Option<Secret>,
    /// Headers that every request gets, 20 at most, such as `{"X-Room": "kitchen"}`. They are no place for secrets: the
    /// file can be committed.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
}

impl ChannelPlugin for Webhook {
    const KIND: &'static str = "webhook";
    const ABOUT: &'static str = "POSTs JSON to a URL, signed by Standard Webhooks";
    const SETTINGS: &'static [Setting] = &[
        Setting {
            name: "URL",
            secret: false,
            required: true,
            about: "The address that takes the POST.",
            example: "https://example.com/hooks/conductor",
            classic: Some(Classic::Id),
        },
        Setting {
            name: "SECRET",
            secret: true,
            required: false,
            about: "The signing secret: `whsec_` and base64 of 24 to 64 bytes (`openssl rand -base64 32` makes one), or \
                    `whsk_` and base64 of an ed25519 key. Without it nothing is signed, and the receiver cannot tell \
                    who sent.",
            example: "whsec_ZXhhbXBsZS1leGFtcGxlLWV4YW1wbGUtZXhhbXBsZQ==",
            classic: Some(Classic::Secret),
        },
    ];
    const STEPS: &'static [&'static str] =
        &["Make a secret: `echo \"whsec_$(openssl rand -base64 32)\"`. Give it to the receiver."];
    const LIMITS: Limits = Limits::NONE;
    const MAX_CONCURRENCY: u32 = 8;
    /// A receiver can tell a repetition by `webhook-id`, which is the same in every attempt; whether it does is not
    /// known, so that the owner decides by `onUnknown`.
    const DEDUPES: bool = false;
    type Config = Config;

    fn validate(config: &Config, problems: &mut Problems) {
        const EXAMPLE: &str = "for example https://example.com/hooks/conductor";
        match Url::parse(&config.url).map(|url| check_url(&url)) {
            Ok(Ok(())) => {}
            Ok(Err(reason)) => problems.add_with_help("url", reason, EXAMPLE),
            Err(error) => problems.add_with_help("url", format!("is no URL ({error})"), EXAMPLE),
        }
        if let Some(Err(error)) = config.secret.as_ref().map(SigningKey::parse) {
            let help = "make one with: echo \"whsec_$(openssl rand -base64 32)\"";
            problems.add_with_help("secret", error.to_string(), help);
        }
        if let Err(faults) = headers(&config.headers) {
            faults.into_iter().for_each(|fault| problems.push(fault));
        }
    }

    async fn initialize(config: Config, context: ChannelContext) -> Result<Self, InitError> {
        let url = Url::parse(&config.url).map_err(|error| InitError(format!("url is no URL ({error})")))?;
        check_url(&url).map_err(|reason| InitError(format!("url: {reason}")))?;
        let key = config.secret.as_ref().map(SigningKey::parse).transpose();
        let key = key.map_err(|error| InitError(format!("secret {error}")))?;
        let headers = headers(&config.headers).map_err(|faults| InitError(faults.to_string()))?;
        let hidden = hidden(&url, &config.headers);
        let url = match &context.base_url {
            Some(base) => secret_url::moved(&url, base),
            None => url,
        };
        Ok(Self { context, url, key, headers, hidden })
    }
}

#[async_trait]
impl Channel for Webhook {
    async fn send(&self, message: &Message) -> Result<Receipt, SendError> {
        let response = self.http().send(self.request(message)).await?;
        match self.kind(&response) {
            None => Ok(Receipt::default()),
            Some(kind) => Err(self.error(kind, &response)),
        }
    }
}

impl Webhook {
    const fn http(&self) -> &HttpClient {
        &self.context.http
    }

    fn request(&self, message: &Message) -> Request {
        let body = serde_json::to_vec(&self.body(message)).expect("a JSON value can always be written");
        let id = message.part_id().to_string();
        let seconds = self.context.clock.now().seconds();
        let mut request = Request::post(self.url.clone()).timeout(self.context.request_timeout());
        request.headers.extend(self.headers.clone());
        if let Some(trace) = message.trace {
            let trace = HeaderValue::try_from(trace.to_string()).expect("hexadecimal digits are a header's value");
            request = request.header(HeaderName::from_static(TRACEPARENT), trace);
        }
        signed(request, self.key.as_slice(), &id, seconds, body)
    }

    fn body(&self, message: &Message) -> serde_json::Value {
        json!({
            "type": "notification",
            "timestamp": message.accepted_at,
            "data": {
                "id": message.notification,
                "deliveryId": message.delivery,
                "attempt": message.attempt,
                "tenantId": self.context.tenant,
                "channelId": self.context.channel,
                "channel": self.context.channel_name,
                "targetId": message.target,
                "title": message.title,
                "message": message.body,
                "format": message.format,
                "priority": message.priority,
                "data": message.data,
                "metadata": message.metadata,
                "key": message.key,
                "expiresAt": message.expires_at,
            },
        })
    }

    /// What the receiver's status means; none is success. A receiver has no credentials of the channel to refuse but
    /// the URL itself, so a 401, 403 or 404 is about this request, and only 410 Gone stops the channel.
    fn kind(&self, response: &Response) -> Option<SendErrorKind> {
        match response.status.as_u16() {
            410 => Some(SendErrorKind::Unauthorized),
            401 | 403 | 404 => Some(SendErrorKind::Rejected),
            _ => response.classify(self.context.clock.now()),
        }
    }

    fn error(&self, kind: SendErrorKind, response: &Response) -> SendError {
        if response.status.as_u16() == 410 {
            let message = "the receiver answered 410 Gone: it wants no more; change the channel's URL or remove it";
            return SendError::new(kind, message).with_code("410");
        }
        let hidden: Vec<&str> = self.hidden.iter().map(String::as_str).collect();
        response.error(kind, &hidden)
    }
}

/// Adds a body and the headers of Standard Webhooks, signed with each of these keys. `id` is a UUID, `seconds` the time
/// since the Unix epoch.
pub fn signed(request: Request, keys: &[SigningKey], id: &str, seconds: i64, body: Vec<u8>) -> Request {
    let agent = HeaderValue::from_static(concat!("Conductor/", env!("CARGO_PKG_VERSION")));
    let signature = (!keys.is_empty()).then(|| sign_with_all(keys, id, seconds, &body));
    let id = HeaderValue::try_from(id).expect("a UUID is a header's value");
    let request = request
        .json_bytes(body)
        .header(USER_AGENT, agent)
        .header(HeaderName::from_static(HOPS), HeaderValue::from(1))
        .header(HeaderName::from_static("webhook-id"), id)
        .header(HeaderName::from_static("webhook-timestamp"), HeaderValue::from(seconds));
    match signature {
        Some(signature) => {
            let value = HeaderValue::try_from(signature).expect("base64 is a header's value");
            request.header(HeaderName::from_static("webhook-signature"), value)
        }
        None => request,
    }
}

/// The configured headers, or every fault that they have.
fn headers(configured: &BTreeMap<String, String>) -> Result<HeaderMap, Problems> {
    let mut problems = Problems::new();
    let mut headers = HeaderMap::new();
    if configured.len() > HEADERS_MAX {
        problems.add("headers", format!("has {} entries; {HEADERS_MAX} are allowed", configured.len()));
    }
    for (name, value) in configured.iter().take(HEADERS_MAX) {
        let place = format!("headers.{name}");
        if RESERVED.contains(&name.to_ascii_lowercase().as_str()) {
            problems.add_with_help(place, "is set by Conductor itself", "remove it");
            continue;
        }
        match (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            (Ok(name), Ok(mut value)) if value.len() <= HEADER_MAX_BYTES => {
                value.set_sensitive(true);
                if headers.insert(name, value).is_some() {
                    problems.add(place, "stands there twice, in different letter case");
                }
            }
            (Err(_), _) => problems.add(place, "is no header's name; expected letters, digits and hyphens"),
            (_, Err(_)) => problems.add(place, "has a value that no header can carry, such as a line break"),
            _ => problems.add(place, format!("has a value of more than {HEADER_MAX_BYTES} bytes")),
        }
    }
    if problems.is_empty() { Ok(headers) } else { Err(problems) }
}

/// The texts that an answer must not bring into an error: what may be a credential in the URL, and the headers' values.
fn hidden(url: &Url, headers: &BTreeMap<String, String>) -> Vec<String> {
    const VALUE_MIN: usize = 4;
    let mut hidden = secret_url::parts(url);
    hidden.extend(headers.values().filter(|value| value.len() >= VALUE_MIN).cloned());
    secret_url::sorted(hidden)
}
