//! Sends to phones and browsers through Firebase Cloud Messaging, its HTTP v1 API.
//!
//! <https://firebase.google.com/docs/reference/fcm/rest/v1/projects.messages/send>

use std::time::Duration;

use async_trait::async_trait;
use conductor_core::{Channel, Health, Limits, Message, Problems, Receipt, Secret, SendError, SendErrorKind};
use http::HeaderValue;
use http::header::AUTHORIZATION;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;
use url::Url;

use crate::http::{Request, Response, below};
use crate::quota::Quota;
use crate::{ChannelContext, ChannelPlugin, Classic, InitError, Setting, push};
use access::{Access, Granted};
use account::ServiceAccount;
use body::Target;

mod access;
mod account;
mod answer;
mod body;
#[cfg(test)]
mod tests;

/// Google's own address.
const BASE_URL: &str = "https://fcm.googleapis.com";
/// The most time that a health check may take.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(10);

/// The `fcm` plugin.
pub struct Fcm {
    context: ChannelContext,
    url: Url,
    access: Access,
    target: Option<Target>,
}

/// What an `fcm` channel can be told.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// The service account's key: the whole text of the JSON file from the Firebase console (Project settings, Service
    /// accounts, Generate new private key).
    #[schemars(with = "String")]
    pub service_account: Secret,
    /// What gets the messages that name no `targetId`: a device's registration token, a topic such as `/topics/news`,
    /// or a condition such as `'dogs' in topics || 'cats' in topics`.
    pub target: Option<String>,
}

impl ChannelPlugin for Fcm {
    const KIND: &'static str = "fcm";
    const ABOUT: &'static str = "Sends to phones and browsers through Firebase Cloud Messaging";
    const SETTINGS: &'static [Setting] = &[
        Setting {
            name: "SERVICE_ACCOUNT",
            secret: true,
            required: true,
            about: "The service account's key: the whole text of the JSON file from the Firebase console (Project \
                    settings, Service accounts, Generate new private key).",
            // A key that was made for this file and opens nothing.
            example: include_str!("fcm/example.json"),
            classic: Some(Classic::Secret),
        },
        Setting {
            name: "TARGET",
            secret: false,
            required: false,
            about: "What gets the messages that name no targetId: a device's registration token, a topic such as \
                    /topics/news, or a condition such as 'dogs' in topics || 'cats' in topics.",
            example: "/topics/news",
            classic: Some(Classic::Id),
        },
    ];
    const STEPS: &'static [&'static str] = &[
        "Open <https://console.firebase.google.com>, your app's project → **Project settings** → **Service \
         accounts** → **Generate new private key**. Keep the file as it is, readable for the server's user alone.",
        "**Project settings** → **Cloud Messaging**: the *Firebase Cloud Messaging API (V1)* has to be enabled. \
         For Apple devices, upload your APNs key there.",
    ];
    /// A push is one text on a screen, so a long one is shortened instead of split.
    const LIMITS: Limits = Limits::NONE;
    const MAX_CONCURRENCY: u32 = 16;
    const TARGET: Option<&'static str> = Some("TARGET");
    /// Google counts by project, far above what one server sends, and by device.
    const QUOTA: Option<Quota<Config>> = Some(Quota::by(|config: &Config| vec![config.service_account.expose()]));
    /// A repetition has the same tag and takes the first one's place on the screen, but it may ring again.
    const DEDUPES: bool = false;
    type Config = Config;

    fn validate(config: &Config, problems: &mut Problems) {
        if let Err(faults) = ServiceAccount::parse(&config.service_account) {
            faults.into_iter().for_each(|fault| problems.push(fault));
        }
        if let Some(Err(reason)) = config.target.as_deref().map(Target::parse) {
            problems.add_with_help("target", reason, "for example /topics/news");
        }
    }

    async fn initialize(config: Config, context: ChannelContext) -> Result<Self, InitError> {
        let account = ServiceAccount::parse(&config.service_account);
        let account = account.map_err(|faults| InitError(faults.to_string()))?;
        let target = config.target.as_deref().map(Target::parse).transpose();
        let target = target.map_err(|reason| InitError(format!("target {reason}")))?;
        let base = context.base_url.clone();
        let base = base.unwrap_or_else(|| Url::parse(BASE_URL).expect("the constant is a URL"));
        let url = below(&base, &format!("/v1/projects/{}/messages:send", account.project));
        let access = Access::new(account, context.http.clone(), std::sync::Arc::clone(&context.clock));
        Ok(Self { context, url, access, target })
    }
}

#[async_trait]
impl Channel for Fcm {
    async fn send(&self, message: &Message) -> Result<Receipt, SendError> {
        let target = self.target(message)?;
        let screen = body::Screen::of(message, self.context.tenant, self.context.clock.now());
        let request = json!({ "message": body::message(message, &target, &screen)? });
        let (response, granted) = self.ask(&request, self.context.request_timeout()).await?;
        if response.status.is_success() {
            return taken(&response);
        }
        Err(answer::error(&response, &target, granted.token(), self.context.clock.now()))
    }

    /// Asks for a message that Google checks and sends to nobody.
    async fn health_check(&self) -> Health {
        let target = Target::Topic("conductor-health-check".into());
        let mut message = json!({ "notification": { "body": "health" } });
        target.write(&mut message);
        let request = json!({ "message": message, "validateOnly": true });
        let timeout = self.context.request_timeout().min(HEALTH_TIMEOUT);
        let error = match self.ask(&request, timeout).await {
            Ok((response, _)) if response.status.is_success() => return Health::Up,
            Ok((response, granted)) => answer::error(&response, &target, granted.token(), self.context.clock.now()),
            Err(error) => error,
        };
        error.health()
    }
}

impl Fcm {
    fn target(&self, message: &Message) -> Result<Target, SendError> {
        let permanent = |text: String| SendError::new(SendErrorKind::Permanent, text);
        match (&message.target, &self.target) {
            (Some(target), _) => Target::parse(target).map_err(|reason| permanent(format!("the targetId {reason}"))),
            (None, Some(target)) => Ok(target.clone()),
            (None, None) => {
                let text = "there is nobody to send to: give the notification a targetId, or the channel a target";
                Err(permanent(text.into()))
            }
        }
    }

    /// Asks with the access token, and once more with a new one where Google does not know it any more.
    async fn ask(&self, body: &Value, timeout: Duration) -> Result<(Response, Granted), SendError> {
        let began = Instant::now();
        let left = || timeout.saturating_sub(began.elapsed());
        let granted = self.access.granted(left()).await?;
        let response = self.ask_as(body, &granted, left()).await?;
        if !answer::is_stale_token(&response) {
            return Ok((response, granted));
        }
        self.access.forget(&granted).await;
        let granted = self.access.granted(left()).await?;
        let response = self.ask_as(body, &granted, left()).await?;
        Ok((response, granted))
    }

    async fn ask_as(&self, body: &Value, granted: &Granted, timeout: Duration) -> Result<Response, SendError> {
        let mut bearer = HeaderValue::try_from(format!("Bearer {}", granted.token()))
            .expect("what cannot stand in a header was not taken for a token");
        bearer.set_sensitive(true);
        let request = Request::post(self.url.clone()).timeout(timeout).json(body).header(AUTHORIZATION, bearer);
        Ok(self.context.http.send(request).await?)
    }
}

fn taken(response: &Response) -> Result<Receipt, SendError> {
    if push::is_foreign(response) {
        return Err(SendError::new(SendErrorKind::Unknown, push::FOREIGN).with_code(response.status.as_str()));
    }
    let body = response.json();
    Ok(Receipt { provider_id: body.get("name").and_then(Value::as_str).and_then(push::provider_id) })
}
