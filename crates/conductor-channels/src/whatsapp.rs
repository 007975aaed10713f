//! Sends through WhatsApp's Cloud API: text, and templates that Meta has approved.
//!
//! <https://developers.facebook.com/docs/whatsapp/cloud-api/reference/messages>

use std::time::Duration;

use async_trait::async_trait;
use conductor_core::receipts::{ReceiptAnswer, ReceiptError, ReceiptRequest};
use conductor_core::{
    Channel, Format, Health, Limits, Message, Priority, Problems, Rate, Receipt, Secret, SendError, SendErrorKind,
    TextLimit, Unit,
};
use http::HeaderValue;
use http::header::AUTHORIZATION;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use std::num::NonZeroU32;
use url::Url;

use crate::http::{Request, Response, below};
use crate::markdown::{Dialect, Rendering};
use crate::quota::{Allowance, Quota};
use crate::{ChannelContext, ChannelPlugin, Classic, InitError, Setting, token};

mod answer;
mod receipts;
mod template;
#[cfg(test)]
mod tests;

/// Meta's own address.
const BASE_URL: &str = "https://graph.facebook.com";
/// The version of the Graph API that is spoken.
const VERSION: &str = "v23.0";
/// The most characters of a text.
pub const TEXT_MAX: usize = 4096;
/// The most time that a health check may take.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(10);
/// What goes before a message of high priority.
const HIGH: &str = "⚠️ *HIGH PRIORITY*\n";

const NUMBER_RULE: &str = "expected a phone number with its country code, such as +15551234567";

/// The `whatsapp` plugin.
pub struct WhatsApp {
    context: ChannelContext,
    base: Url,
    token: Secret,
    authorization: HeaderValue,
    number: String,
    to: Option<String>,
    app_secret: Option<Secret>,
    verify_token: Option<Secret>,
    preview_url: bool,
}

/// What a `whatsapp` channel can be told.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// A system user's access token with the permission `whatsapp_business_messaging`.
    #[schemars(with = "String")]
    pub access_token: Secret,
    /// The id of the number that sends (not the number itself), from the app's API Setup.
    pub phone_number_id: String,
    /// The app's secret, which signs the receipts. Without it the channel takes none.
    #[schemars(with = "Option<String>")]
    pub app_secret: Option<Secret>,
    /// A text of your choice that Meta repeats when it checks the address for receipts.
    #[schemars(with = "Option<String>")]
    pub verify_token: Option<Secret>,
    /// The number that gets the messages where a notification names none.
    pub to: Option<String>,
    /// Whether WhatsApp shows a preview of the first address in a text.
    #[serde(default)]
    pub preview_url: bool,
}

impl ChannelPlugin for WhatsApp {
    const KIND: &'static str = "whatsapp";
    const ABOUT: &'static str = "Sends through WhatsApp's Cloud API";
    const SETTINGS: &'static [Setting] = &[
        Setting {
            name: "ACCESS_TOKEN",
            secret: true,
            required: true,
            about: "A system user's access token with the permission `whatsapp_business_messaging`.",
            example: "example-access-token",
            classic: Some(Classic::Secret),
        },
        Setting {
            name: "PHONE_NUMBER_ID",
            secret: false,
            required: true,
            about: "The id of the number that sends (not the number itself), from the app's API Setup.",
            example: "106540352242922",
            classic: Some(Classic::Id),
        },
        Setting {
            name: "APP_SECRET",
            secret: true,
            required: false,
            about: "The app's secret, which signs the receipts. Without it the channel takes none.",
            example: "example-app-secret",
            classic: None,
        },
        Setting {
            name: "VERIFY_TOKEN",
            secret: true,
            required: false,
            about: "A text of your choice that Meta repeats when it checks the address for receipts.",
            example: "example-verify-token",
            classic: None,
        },
        Setting {
            name: "TO",
            secret: false,
            required: false,
            about: "The number that gets the messages where a notification names none.",
            example: "+15557654321",
            classic: None,
        },
    ];
    const STEPS: &'static [&'static str] = &[
        "Open <https://developers.facebook.com/apps>, create an app of the type **Business** and add **WhatsApp** \
         to it.",
        "**WhatsApp** → **API Setup** shows the **Phone number ID**. Register the number there.",
        "In Meta's **Business settings**: **System users** → **Add**, give it the app and the WhatsApp account, \
         then **Generate token** with `whatsapp_business_messaging`. The token that API Setup shows ends after a \
         day.",
        "**App settings** → **Basic** shows the **App secret**.",
    ];
    const LIMITS: Limits = Limits { text: Some(TextLimit { max: TEXT_MAX, unit: Unit::Characters }), rich: true };
    const MAX_CONCURRENCY: u32 = 8;
    /// What a number may send by default.
    /// <https://developers.facebook.com/docs/whatsapp/cloud-api/overview#throughput>
    const RATE: Option<Rate> = Some(Rate {
        limit: NonZeroU32::new(80).expect("80 is not zero"),
        per: Duration::from_secs(1),
        burst: NonZeroU32::new(80).expect("80 is not zero"),
    });
    const TARGET: Option<&'static str> = Some("TO");
    /// What a number may send by default; and to one person a message in six seconds, of which 45 may be borrowed ahead.
    /// <https://developers.facebook.com/docs/whatsapp/cloud-api/overview#throughput>
    const QUOTA: Option<Quota<Config>> = Some(
        Quota::by(|config: &Config| vec![&config.phone_number_id, config.access_token.expose()])
            .placed(without_plus)
            .with(&[
                Allowance::of_all("a phone number", 80, Duration::from_secs(1)),
                Allowance::of_each("a recipient", 45, Duration::from_secs(270)),
            ]),
    );
    /// Meta makes a message of every request.
    const DEDUPES: bool = false;
    type Config = Config;

    fn validate(config: &Config, problems: &mut Problems) {
        if let Err(reason) = token::header("Bearer", &config.access_token) {
            problems.add_with_help("accessToken", reason, "make one for a system user in Meta's Business settings");
        }
        let id = &config.phone_number_id;
        if !(1..=32).contains(&id.len()) || !id.bytes().all(|byte| byte.is_ascii_digit()) {
            let help = "copy the Phone number ID, not the number, from the app's WhatsApp → API Setup";
            problems.add_with_help("phoneNumberId", "is no id; expected digits", help);
        }
        for (place, secret) in [("appSecret", &config.app_secret), ("verifyToken", &config.verify_token)] {
            if secret.as_ref().is_some_and(|secret| secret.expose().is_empty()) {
                problems.add(place, "is empty; leave it out or give it a value");
            }
        }
        if config.to.as_deref().is_some_and(|to| number(to).is_none()) {
            problems.add_with_help("to", "is no phone number", NUMBER_RULE);
        }
    }

    async fn initialize(config: Config, context: ChannelContext) -> Result<Self, InitError> {
        let authorization = token::header("Bearer", &config.access_token);
        let authorization = authorization.map_err(|reason| InitError(format!("accessToken {reason}")))?;
        let base = context.base_url.clone();
        let base = base.unwrap_or_else(|| Url::parse(BASE_URL).expect("the constant is a URL"));
        let Config { access_token: token, phone_number_id: number, app_secret, verify_token, to, preview_url } = config;
        Ok(Self { context, base, token, authorization, number, to, app_secret, verify_token, preview_url })
    }
}

#[async_trait]
impl Channel for WhatsApp {
    async fn send(&self, message: &Message) -> Result<Receipt, SendError> {
        let body = self.body(message)?;
        let url = below(&self.base, &format!("/{VERSION}/{}/messages", self.number));
        let request = Request::post(url).timeout(self.context.request_timeout()).json(&body);
        let response = self.ask(request).await?;
        if response.status.is_success() {
            return answer::taken(&response);
        }
        let mut error = self.error(&response);
        if error.kind == SendErrorKind::Rejected && template::is_asked_for(message) {
            // A template has no markup of ours that could be left off, so there is nothing to send once more.
            error.kind = SendErrorKind::Permanent;
        }
        Err(error)
    }

    fn length(&self, message: &Message) -> usize {
        // A template's text stands at Meta, so that it is never split.
        if template::is_asked_for(message) { 0 } else { Unit::Characters.count(&text(message)) }
    }

    async fn health_check(&self) -> Health {
        let timeout = self.context.request_timeout().min(HEALTH_TIMEOUT);
        let mut url = below(&self.base, &format!("/{VERSION}/{}", self.number));
        url.set_query(Some("fields=quality_rating,status"));
        let error = match self.ask(Request::get(url).timeout(timeout)).await {
            Ok(response) if response.status.is_success() => return Health::Up,
            Ok(response) => self.error(&response),
            Err(error) => error,
        };
        error.health()
    }

    fn receipt(&self, request: &ReceiptRequest) -> Result<ReceiptAnswer, ReceiptError> {
        receipts::read(request, self.app_secret.as_ref(), self.verify_token.as_ref())
    }
}

impl WhatsApp {
    fn body(&self, message: &Message) -> Result<Value, SendError> {
        let mut body = json!({
            "messaging_product": "whatsapp",
            "recipient_type": "individual",
            "to": self.target(message)?,
        });
        match template::of(message)? {
            Some(template) => {
                body["type"] = "template".into();
                body["template"] = template;
            }
            None => {
                let text = text(message);
                let length = Unit::Characters.count(&text);
                if length > TEXT_MAX {
                    return Err(SendError::new(SendErrorKind::Rejected, too_long(length)));
                }
                body["type"] = "text".into();
                body["text"] = json!({ "body": text, "preview_url": self.preview_url });
            }
        }
        if self.app_secret.is_some() {
            body["biz_opaque_callback_data"] = message.part_key().to_string().into();
        }
        Ok(body)
    }

    fn target(&self, message: &Message) -> Result<String, SendError> {
        let permanent = |text: String| SendError::new(SendErrorKind::Permanent, text);
        let target = message.target.as_deref().or(self.to.as_deref());
        let target = target.ok_or_else(|| {
            permanent(format!(
                "nobody to send to: the notification has no targetId and the channel no TO; {NUMBER_RULE}"
            ))
        })?;
        number(target).ok_or_else(|| permanent(format!("the targetId is no phone number; {NUMBER_RULE}")))
    }

    async fn ask(&self, request: Request) -> Result<Response, SendError> {
        Ok(self.context.http.send(request.header(AUTHORIZATION, self.authorization.clone())).await?)
    }

    fn error(&self, response: &Response) -> SendError {
        answer::error(response, self.token.expose(), self.context.clock.now())
    }
}

/// The same number whether it was written with its plus or not.
fn without_plus(target: &str) -> &str {
    target.strip_prefix('+').unwrap_or(target)
}

/// A number as Meta takes it: with a plus, which may be left out here.
fn number(text: &str) -> Option<String> {
    let digits = without_plus(text);
    let fits = (7..=15).contains(&digits.len()) && !digits.starts_with('0');
    (fits && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| format!("+{digits}"))
}

/// The whole text of a message: priority, title, body. Of a text in parts the first one alone has priority and title.
fn text(message: &Message) -> String {
    // WhatsApp has no mentions in what the Cloud API sends.
    let rendering = Rendering { dialect: Dialect::WhatsApp, allow_mentions: true };
    let mut text = String::with_capacity(message.body.len() + 64);
    let is_first = message.part == 0;
    if is_first && message.priority == Priority::High {
        text.push_str(HIGH);
    }
    if let Some(title) = message.title.as_deref().filter(|title| is_first && !title.trim().is_empty()) {
        let title = title.split_whitespace().collect::<Vec<_>>().join(" ");
        text.push_str(&format!("*{}*\n", rendering.escape(&title)));
    }
    text.push_str(&match message.format {
        Format::Text => rendering.escape(&message.body),
        Format::Markdown => rendering.render(&message.body),
    });
    text
}

fn too_long(length: usize) -> String {
    format!("the message is {length} characters long with its title and its marks; {TEXT_MAX} are allowed")
}
