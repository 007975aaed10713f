//! Channels that take receipts, and providers that sign them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use serde_json::json;

use super::provider::Answer;
use super::server::{TENANT_A, TestServer, World, http};

/// Where providers reach the server, as they are told. They come through a proxy, so to say.
pub(crate) const PUBLIC_URL: &str = "https://conductor.example";
pub(crate) const SMS_CHANNEL: &str = "01943c2a-7c3e-7000-8000-0000000000c5";
pub(crate) const WHATSAPP_CHANNEL: &str = "01943c2a-7c3e-7000-8000-0000000000c6";
pub(crate) const SECRET: &str = "the-secret-that-signs-receipts";

impl World {
    /// Adds a `sms` and a `whatsapp` channel of tenant A, both to this provider.
    pub(crate) fn with_receipts(mut self, provider: &str) -> Self {
        self.public_url = Some(PUBLIC_URL);
        let options = json!({ "allowNetworks": ["127.0.0.0/8"], "baseUrl": provider });
        for (id, kind) in [(SMS_CHANNEL, "sms"), (WHATSAPP_CHANNEL, "whatsapp")] {
            let entry = json!({ "channelId": id, "tenantId": TENANT_A, "channelType": kind, "options": options });
            self.channels.push(entry);
        }
        for (name, value) in [
            ("SMS_ACCOUNT_SID", "AC0123456789abcdef0123456789abcdef"),
            ("SMS_AUTH_TOKEN", SECRET),
            ("SMS_FROM", "+15551234567"),
            ("SMS_TO", "+15557654321"),
            ("WHATSAPP_ACCESS_TOKEN", "an-access-token"),
            ("WHATSAPP_PHONE_NUMBER_ID", "106540352242922"),
            ("WHATSAPP_APP_SECRET", SECRET),
            ("WHATSAPP_VERIFY_TOKEN", "the-verify-token"),
            ("WHATSAPP_TO", "+15557654321"),
        ] {
            self.variables.push((format!("TENANT_{}_{name}", TENANT_A.replace('-', "_")), value.to_owned()));
        }
        self
    }
}

/// Twilio has taken the message.
pub(crate) fn sms_taken() -> Answer {
    Answer { body: r#"{"sid":"SM0123456789abcdef0123456789abcdef","status":"queued"}"#, ..Answer::status(201) }
}

/// Meta has taken the message.
pub(crate) fn whatsapp_taken() -> Answer {
    Answer { body: r#"{"messages":[{"id":"wamid.HBgL"}]}"#, ..Answer::status(200) }
}

/// A callback as Twilio would sign and send it. `query` is what the message's `StatusCallback` had.
pub(crate) fn sms_receipt(server: &TestServer, query: &str, fields: &[(&str, &str)]) -> reqwest::RequestBuilder {
    let path = format!("/receipts/{SMS_CHANNEL}?{query}");
    let mut sorted = fields.to_vec();
    sorted.sort_unstable();
    let content: String = sorted.iter().flat_map(|(name, value)| [*name, *value]).collect();
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, SECRET.as_bytes());
    let signature = STANDARD.encode(hmac::sign(&key, format!("{PUBLIC_URL}{path}{content}").as_bytes()));
    form(server, &path, fields).header("x-twilio-signature", signature)
}

/// A form that nobody has signed.
pub(crate) fn form(server: &TestServer, path: &str, fields: &[(&str, &str)]) -> reqwest::RequestBuilder {
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    let request = http().post(server.url(path)).body(body);
    request.header("content-type", "application/x-www-form-urlencoded")
}

/// A webhook as Meta would sign and send it.
pub(crate) fn whatsapp_receipt(server: &TestServer, body: &str) -> reqwest::RequestBuilder {
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let tag = hmac::sign(&key, body.as_bytes());
    let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let request = http().post(server.url(&format!("/receipts/{WHATSAPP_CHANNEL}"))).body(body.to_owned());
    request.header("content-type", "application/json").header("x-hub-signature-256", format!("sha256={hex}"))
}

/// What Meta tells of one message.
pub(crate) fn whatsapp_status(token: &str, status: &str) -> String {
    let mut told = json!({ "id": "wamid.HBgL", "status": status, "timestamp": "1749416383", "recipient_id": "1",
        "biz_opaque_callback_data": token });
    if status == "failed" {
        told["errors"] = json!([{ "code": 131_026, "title": "Message undeliverable" }]);
    }
    let value = json!({ "messaging_product": "whatsapp", "statuses": [told] });
    json!({ "object": "whatsapp_business_account", "entry": [{ "changes": [{ "value": value }] }] }).to_string()
}
