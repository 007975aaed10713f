//! Signatures: a right one is always accepted, any other never.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use conductor_core::receipts::{ReceiptAnswer, ReceiptError, ReceiptMethod, ReceiptRequest};
use conductor_core::signature::{PRIVATE_PREFIX, SECRET_BYTES, SECRET_PREFIX, SigningKey, VerifyError};
use conductor_core::{Channel, ChannelId, ManualClock, Secret, TenantId, Timestamp};
use futures_util::FutureExt as _;
use ring::{digest, hmac};
use serde_json::{Value, json};
use url::form_urlencoded;
use uuid::Uuid;

use super::SEPARATOR;
use crate::http::HttpClients;
use crate::{ChannelContext, PLUGINS, plugin};

const TOKEN: &str = "0123456789abcdef-token-of-the-fuzzer";
const APP_SECRET: &str = "fedcba9876543210-secret-of-the-fuzzer";
const VERIFY_TOKEN: &str = "verify-token-of-the-fuzzer";
/// Where Twilio is told to post.
const ADDRESS: &str = "https://conductor.example/receipts/01943c2a-7c3e-7000-8000-0000000000c1";
/// How far the flipped bit may lie from the beginning, in bytes: enough for every signature and a short body.
const FLIP_RANGE: usize = 256;

static SMS: LazyLock<Arc<dyn Channel>> = LazyLock::new(|| {
    let account = format!("AC{}", "0123456789abcdef".repeat(2));
    channel("sms", json!({ "accountSid": account, "authToken": TOKEN, "from": "+15551234567" }))
});

static WHATSAPP: LazyLock<Arc<dyn Channel>> = LazyLock::new(|| {
    channel(
        "whatsapp",
        json!({ "accessToken": "access", "phoneNumberId": "1", "appSecret": APP_SECRET, "verifyToken": VERIFY_TOKEN }),
    )
});

fn channel(kind: &str, values: Value) -> Arc<dyn Channel> {
    let context = ChannelContext {
        tenant: TenantId::new(Uuid::from_u128(1)),
        tenant_name: "Acme".into(),
        channel: ChannelId::new(Uuid::from_u128(2)),
        channel_name: "phones".into(),
        base_url: None,
        receipts_url: None,
        rate: None,
        timeout: Duration::from_secs(1),
        allow_mentions: false,
        http: HttpClients::new().client(&[]),
        clock: Arc::new(ManualClock::at(Timestamp::from_millis(0))),
    };
    let Value::Object(values) = values else { unreachable!("settings are an object") };
    let plugin = plugin(PLUGINS, kind).expect("it stands in the table");
    let made = plugin.initialize(values, context).now_or_never();
    made.expect("it asks nobody").expect("the settings are right")
}

/// The receipts of Twilio and Meta, and Standard Webhooks. Three texts: a query, a body, a header that the fuzzer made
/// up. The first byte says which bit of a right signature is flipped.
pub fn signatures(data: &[u8]) {
    let [flip, rest @ ..] = data else { return };
    let mut texts = rest.split(|byte| *byte == SEPARATOR);
    let mut next = || texts.next().unwrap_or_default();
    let (query, body, header) = (next(), next(), next());
    let call = Call {
        query: String::from_utf8_lossy(query).into_owned(),
        body: body.to_vec(),
        header: String::from_utf8_lossy(header).into_owned(),
        flip: usize::from(*flip),
    };
    call.twilio();
    call.meta();
    call.meta_challenge();
    call.standard_webhooks();
}

struct Call {
    query: String,
    body: Vec<u8>,
    header: String,
    flip: usize,
}

impl Call {
    fn ask(
        &self,
        channel: &dyn Channel,
        method: ReceiptMethod,
        name: &str,
        value: &str,
        body: &[u8],
    ) -> Result<ReceiptAnswer, ReceiptError> {
        let url = if self.query.is_empty() { ADDRESS.to_owned() } else { format!("{ADDRESS}?{}", self.query) };
        channel.receipt(&ReceiptRequest {
            method,
            url: Some(url),
            query: self.query.clone(),
            headers: BTreeMap::from([(name.to_owned(), value.to_owned())]),
            body: body.to_vec(),
        })
    }

    /// The bytes with one bit flipped; nothing where there are none.
    fn flipped(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut bytes = bytes.to_vec();
        let at = self.flip % bytes.len().clamp(1, FLIP_RANGE);
        *bytes.get_mut(at)? ^= 1 << (self.flip % 8);
        Some(bytes)
    }

    fn twilio(&self) {
        let ask = |value: &str, body: &[u8]| self.ask(&**SMS, ReceiptMethod::Post, "x-twilio-signature", value, body);
        let key = |token: &str| hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, token.as_bytes());
        let query = if self.query.is_empty() { String::new() } else { format!("?{}", self.query) };
        let told = form_urlencoded::parse(self.query.as_bytes()).find(|(name, _)| name == "bodySHA256");
        let signed = |body: &[u8]| match &told {
            Some((_, told)) => {
                let sum = digest::digest(&digest::SHA256, body);
                let hex: String = sum.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
                hex.eq_ignore_ascii_case(told).then(|| format!("{ADDRESS}{query}"))
            }
            None => {
                let mut fields: Vec<(String, String)> = form_urlencoded::parse(body).into_owned().collect();
                fields.sort();
                fields.dedup();
                let fields: String = fields.iter().flat_map(|(name, value)| [name.as_str(), value]).collect();
                Some(format!("{ADDRESS}{query}{fields}"))
            }
        };
        let Some(text) = signed(&self.body) else {
            let tag = hmac::sign(&key(TOKEN), format!("{ADDRESS}{query}").as_bytes());
            let other_body = ask(&STANDARD.encode(tag), &self.body);
            assert_eq!(other_body, Err(ReceiptError::WrongSignature), "the body's sum does not fit");
            return;
        };
        let tag = hmac::sign(&key(TOKEN), text.as_bytes());
        let right = STANDARD.encode(tag);
        assert!(ask(&right, &self.body).is_ok(), "a right signature");
        let other_key = hmac::sign(&key(&format!("{TOKEN}x")), text.as_bytes());
        let wrong = [
            self.flipped(tag.as_ref()).map(|tag| STANDARD.encode(tag)).unwrap_or_default(),
            STANDARD.encode(other_key),
            STANDARD.encode(&tag.as_ref()[..tag.as_ref().len() - 1]),
        ];
        for wrong in wrong {
            assert_eq!(ask(&wrong, &self.body), Err(ReceiptError::WrongSignature), "{wrong}");
        }
        assert!(self.header == right || ask(&self.header, &self.body).is_err(), "a header that was made up");
        // Twilio signs the fields one behind the other: some bodies that differ are signed alike.
        if let Some(other) = self.flipped(&self.body) {
            assert_eq!(ask(&right, &other).is_ok(), signed(&other).as_ref() == Some(&text), "another body");
        }
    }

    fn meta(&self) {
        let ask =
            |value: &str, body: &[u8]| self.ask(&**WHATSAPP, ReceiptMethod::Post, "x-hub-signature-256", value, body);
        let sign = |secret: &str| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), &self.body);
        let header = |tag: &[u8]| {
            let hex: String = tag.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("sha256={hex}")
        };
        let tag = sign(APP_SECRET);
        let right = header(tag.as_ref());
        let is_json = serde_json::from_slice::<Value>(&self.body).is_ok();
        let expected = if is_json { Ok(()) } else { Err(ReceiptError::Malformed("it is not JSON")) };
        assert_eq!(ask(&right, &self.body).map(drop), expected, "a right signature");
        let wrong = [
            self.flipped(tag.as_ref()).map(|tag| header(&tag)).unwrap_or_default(),
            header(sign(&format!("{APP_SECRET}x")).as_ref()),
            header(&tag.as_ref()[1..]),
            right.trim_start_matches("sha256=").to_owned(),
        ];
        for wrong in wrong {
            assert_eq!(ask(&wrong, &self.body), Err(ReceiptError::WrongSignature), "{wrong}");
        }
        if !self.header.eq_ignore_ascii_case(&right) {
            assert_eq!(ask(&self.header, &self.body), Err(ReceiptError::WrongSignature), "a header that was made up");
        }
        if let Some(other) = self.flipped(&self.body) {
            assert_eq!(ask(&right, &other), Err(ReceiptError::WrongSignature), "another body");
        }
    }

    /// Whoever does not know the word gets no answer, and the answer is never more than the short word that was asked.
    fn meta_challenge(&self) {
        let answer = self.ask(&**WHATSAPP, ReceiptMethod::Get, "x", "", &[]);
        let value = |name: &str| form_urlencoded::parse(self.query.as_bytes()).find(|(found, _)| found == name);
        let is_known = value("hub.verify_token").is_some_and(|(_, token)| token == VERIFY_TOKEN);
        match answer {
            Ok(ReceiptAnswer { reply, reports }) => {
                assert!(is_known && reports.is_empty(), "{reply:?}");
                assert_eq!(value("hub.challenge").map(|(_, asked)| asked).unwrap_or_default(), reply);
                assert!(reply.bytes().all(|byte| byte.is_ascii_graphic()), "{reply:?}");
            }
            Err(ReceiptError::WrongSignature) => assert!(!is_known),
            Err(ReceiptError::NotTaken | ReceiptError::Malformed(_)) => {}
        }
    }

    fn standard_webhooks(&self) {
        self.signed_by(SECRET_PREFIX, "v1,");
        self.signed_by(PRIVATE_PREFIX, "v1a,");
        // A secret that somebody wrote: whatever it is, it is read or refused.
        if SigningKey::parse(&Secret::new(self.header.as_str())).is_ok() {
            let bytes = |prefix| self.header.strip_prefix(prefix).and_then(|text| STANDARD.decode(text).ok());
            let is_shared = bytes(SECRET_PREFIX).is_some_and(|bytes| SECRET_BYTES.contains(&bytes.len()));
            let is_private = bytes(PRIVATE_PREFIX).is_some_and(|bytes| matches!(bytes.len(), 32 | 64));
            assert!(is_shared || is_private, "{:?}", self.header);
        }
    }

    fn signed_by(&self, prefix: &str, version: &str) {
        let key = |bytes: &[u8]| {
            let secret = Secret::new(format!("{prefix}{}", STANDARD.encode(bytes)));
            SigningKey::parse(&secret).expect("as many bytes as a key has")
        };
        let (id, timestamp) = (self.query.as_str(), i64::try_from(self.flip).expect("a byte"));
        let bytes = [0x17; 32];
        let ours = key(&bytes);
        let right = ours.sign(id, timestamp, &self.body);
        let verify = |body: &[u8], header: &str| ours.verify(id, &timestamp.to_string(), body, header, 0);
        assert_eq!(verify(&self.body, &right), Ok(()), "a right signature");
        assert_eq!(verify(&self.body, &format!("{version}AAAA {right}")), Ok(()), "the second of a list");
        let tag = right.strip_prefix(version).and_then(|tag| STANDARD.decode(tag).ok()).expect("a signature");
        let flipped = self.flipped(&tag).map(|tag| format!("{version}{}", STANDARD.encode(tag))).unwrap_or_default();
        let mut other = bytes;
        other[self.flip % other.len()] ^= 1;
        let others = [key(&other).sign(id, timestamp, &self.body), ours.sign(id, timestamp + 1, &self.body)];
        for wrong in others.into_iter().chain([flipped]) {
            assert_eq!(verify(&self.body, &wrong), Err(VerifyError::Mismatch), "{wrong}");
        }
        let made_up = verify(&self.body, &self.header);
        assert!(made_up.is_err() || self.header.split(' ').any(|entry| entry == right), "a header that was made up");
        let other_body = self.flipped(&self.body);
        assert!(other_body.is_none_or(|body| verify(&body, &right).is_err()), "another body");
    }
}
