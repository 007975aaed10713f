//! Posts into Microsoft Teams through the webhook of a workflow.
//!
//! <https://learn.microsoft.com/microsoftteams/platform/webhooks-and-connectors/how-to/connectors-using>

use std::num::NonZeroU32;
use std::time::Duration;

use async_trait::async_trait;
use conductor_core::{
    Channel, Format, Limits, Message, Problems, Rate, Receipt, Secret, SendError, SendErrorKind, TextLimit, Unit,
};
use http::{HeaderName, HeaderValue, StatusCode};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::http::{Request, Response, classify, retry_after};
use crate::markdown::{Dialect, Rendering, escape};
use crate::quota::{Allowance, Quota};
use crate::secret_url::SecretUrl;
use crate::{ChannelContext, ChannelPlugin, Classic, InitError, Setting, head};

#[cfg(test)]
mod tests;

/// The largest message, in bytes of JSON: Teams says 28 KB.
/// <https://learn.microsoft.com/microsoftteams/limits-specifications-teams>
pub const MESSAGE_MAX: usize = 28_000;

/// What Power Automate shows in the history of its runs.
/// <https://learn.microsoft.com/azure/logic-apps/logic-apps-limits-and-config>
const TRACKING: HeaderName = HeaderName::from_static("x-ms-client-tracking-id");

const WEBHOOK_HELP: &str = "copy it from the workflow \"Send webhook alerts to a channel\": https://….api.powerplatform.com\
                            /…/triggers/manual/paths/invoke?…&sig=…";

/// The `teams` plugin.
pub struct Teams {
    context: ChannelContext,
    url: SecretUrl,
}

/// What a `teams` channel can be told.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// The address of the workflow's webhook.
    #[schemars(with = "String")]
    pub webhook_url: Secret,
}

impl ChannelPlugin for Teams {
    const KIND: &'static str = "teams";
    const ABOUT: &'static str = "Posts into Microsoft Teams through the webhook of a workflow";
    const SETTINGS: &'static [Setting] = &[Setting {
        name: "WEBHOOK_URL",
        secret: true,
        required: true,
        about: "The address of the workflow's webhook, from the channel's Workflows.",
        example: "https://example.api.powerplatform.com/powerautomate/automations/direct/workflows/example/triggers/\
                  manual/paths/invoke?api-version=1&sig=example",
        classic: Some(Classic::Secret),
    }];
    const STEPS: &'static [&'static str] = &[
        "In Teams, right-click the channel or chat → **Workflows** → **Send webhook alerts to a channel** (or \
         **to a chat**). Give it a name, **Next**, **Add workflow**.",
        "Copy the address that it shows. The workflow belongs to the person who made it, and stops when that \
         person leaves: add a second owner.",
    ];
    const LIMITS: Limits = Limits { text: Some(TextLimit { max: MESSAGE_MAX, unit: Unit::Bytes }), rich: true };
    const MAX_CONCURRENCY: u32 = 2;
    /// <https://learn.microsoft.com/microsoftteams/platform/webhooks-and-connectors/how-to/connectors-using>
    const RATE: Option<Rate> = Some(Rate {
        limit: NonZeroU32::new(4).expect("4 is not zero"),
        per: Duration::from_secs(1),
        burst: NonZeroU32::new(4).expect("4 is not zero"),
    });
    /// <https://learn.microsoft.com/microsoftteams/platform/webhooks-and-connectors/how-to/connectors-using>
    const QUOTA: Option<Quota<Config>> =
        Some(Quota::by(|config: &Config| vec![config.webhook_url.expose()]).with(&[Allowance::of_all(
            "a workflow",
            4,
            Duration::from_secs(1),
        )]));
    /// A workflow runs once for every request.
    const DEDUPES: bool = false;
    type Config = Config;

    fn validate(config: &Config, problems: &mut Problems) {
        if let Err(reason) = SecretUrl::parse(&config.webhook_url) {
            problems.add_with_help("webhookUrl", reason, WEBHOOK_HELP);
        }
    }

    async fn initialize(config: Config, context: ChannelContext) -> Result<Self, InitError> {
        let url = SecretUrl::parse(&config.webhook_url);
        let url = url.map_err(|reason| InitError(format!("webhookUrl {reason}")))?.at(context.base_url.as_ref());
        Ok(Self { context, url })
    }
}

#[async_trait]
impl Channel for Teams {
    async fn send(&self, message: &Message) -> Result<Receipt, SendError> {
        if message.target.is_some() {
            let text =
                "a workflow of Teams posts to one place only; leave targetId out, or add a channel for the other";
            return Err(SendError::new(SendErrorKind::Permanent, text));
        }
        let tracking = HeaderValue::try_from(message.part_id().to_string()).expect("a UUID is a header's value");
        let request = Request::post(self.url.url().clone()).timeout(self.context.request_timeout());
        let request = request.json(&self.body(message)).header(TRACKING, tracking);
        self.read(&self.context.http.send(request).await?)
    }

    fn length(&self, message: &Message) -> usize {
        self.body(message).to_string().len()
    }
}

impl Teams {
    /// The whole card. Of a text in parts the first one alone has priority and title.
    fn body(&self, message: &Message) -> Value {
        let mut blocks = Vec::new();
        if head::is_marked(message) {
            let mark = format!("{}{}", head::HIGH.0, head::HIGH.1);
            blocks.push(json!({
                "type": "TextBlock", "text": mark, "wrap": true, "weight": "Bolder", "color": "Attention",
            }));
        }
        if let Some(title) = head::title(message) {
            let title = escape(&title, Dialect::TeamsCard);
            blocks.push(json!({
                "type": "TextBlock", "text": title, "wrap": true, "weight": "Bolder", "size": "Medium",
            }));
        }
        let rendering = Rendering { dialect: Dialect::TeamsCard, allow_mentions: self.context.allow_mentions };
        let text = match message.format {
            Format::Text => rendering.escape(&message.body),
            Format::Markdown => rendering.render(&message.body),
        };
        blocks.push(json!({ "type": "TextBlock", "text": text, "wrap": true }));
        json!({
            "type": "message",
            "attachments": [{
                "contentType": "application/vnd.microsoft.card.adaptive",
                "contentUrl": null,
                "content": {
                    "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
                    "type": "AdaptiveCard",
                    "version": "1.4",
                    "body": blocks,
                },
            }],
        })
    }

    fn read(&self, response: &Response) -> Result<Receipt, SendError> {
        let now = self.context.clock.now();
        let kind = match connector_failure(response) {
            Some(Some(status)) => match classify(status, &response.headers, now) {
                Some(SendErrorKind::RateLimited { scope, .. }) => {
                    SendErrorKind::RateLimited { retry_after: retry_after(&response.headers, now), scope }
                }
                kind => kind.unwrap_or(SendErrorKind::Unknown),
            },
            Some(None) => SendErrorKind::Unknown,
            None => match response.classify_in_doubt(now) {
                Some(kind) => kind,
                None => return Ok(Receipt::default()),
            },
        };
        let mut error = response.error(kind, &self.url.hidden());
        let body = response.json();
        if let Some(words) = body.pointer("/error/message").and_then(Value::as_str) {
            error.message = crate::http::tidy(words, &self.url.hidden());
        }
        if let Some(code) = body.pointer("/error/code").and_then(Value::as_str).filter(|code| is_code(code)) {
            error.code = Some(code.to_owned());
        }
        error.message.push_str(match (response.status.as_u16(), kind) {
            (_, SendErrorKind::Unauthorized) => {
                " (the address is wrong or the workflow is off: look into the workflow, and copy its address once more)"
            }
            (404, _) => " (the workflow was deleted: make a new one)",
            _ => "",
        });
        Err(error)
    }
}

/// What an old connector says in the text of a 200: that Teams refused the message, and with which status. It has no
/// other way to say so.
fn connector_failure(response: &Response) -> Option<Option<StatusCode>> {
    let text = std::str::from_utf8(&response.body).ok().filter(|_| response.status == StatusCode::OK)?;
    let words = text.trim_start().strip_prefix("Webhook message delivery failed")?;
    let digits = words.split("HTTP error ").nth(1).and_then(|rest| rest.get(..3));
    Some(digits.and_then(|digits| digits.parse::<u16>().ok()).and_then(|status| StatusCode::from_u16(status).ok()))
}

fn is_code(text: &str) -> bool {
    (1..=80).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}
