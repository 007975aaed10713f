//! The token by which a team's key speaks to Apple.
//!
//! <https://developer.apple.com/documentation/usernotifications/establishing-a-token-based-connection-to-apns>

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use conductor_core::{Secret, Timestamp};
use http::HeaderValue;
use serde_json::json;

use crate::identity::{Identity, Kept, Shared};
use crate::jwt::{KeyError, SignError, Signer};

/// Apple wants a new token no sooner than after so long.
pub(super) const KEPT_MIN: Duration = Duration::from_secs(20 * 60);
/// A token is used for so long. Apple refuses it after an hour.
pub(super) const KEPT: Duration = Duration::from_secs(40 * 60);

/// The tokens of all channels. Those with the same key have one between them, because Apple counts how often it
/// changes.
static TOKENS: Shared<ProviderToken> = Shared::new();

/// A key with the token that it has signed last.
pub(super) struct ProviderToken {
    signer: Signer,
    key_id: String,
    team_id: String,
    issued: Mutex<Option<Issued>>,
}

/// A token, and when it was signed: by the channel's clock, and by that which nobody sets.
struct Issued {
    bearer: Bearer,
    at: Timestamp,
    instant: Instant,
}

/// A token, ready to be sent.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Bearer(Secret);

impl Bearer {
    pub(super) fn expose(&self) -> &str {
        self.0.expose()
    }

    pub(super) fn header(&self) -> HeaderValue {
        let value = HeaderValue::try_from(format!("bearer {}", self.0.expose()));
        let mut value = value.expect("base64 and dots are a header's value");
        value.set_sensitive(true);
        value
    }
}

impl Kept for ProviderToken {
    /// Apple would count a new token.
    fn is_spent(&self) -> bool {
        let issued = self.issued.lock().unwrap_or_else(PoisonError::into_inner);
        issued.as_ref().is_none_or(|issued| issued.instant.elapsed() >= KEPT_MIN)
    }
}

impl ProviderToken {
    /// The token of this key, which is shared with the other channels that have the same.
    pub(super) fn of(key: &str, key_id: &str, team_id: &str) -> Result<Arc<Self>, KeyError> {
        let signer = Signer::es256(key)?;
        let identity = Identity::of(&[team_id, key_id, key]);
        let (key_id, team_id) = (key_id.to_owned(), team_id.to_owned());
        Ok(TOKENS.of(identity, || Self { signer, key_id, team_id, issued: Mutex::default() }))
    }

    /// The token that is good now.
    pub(super) fn current(&self, now: Timestamp) -> Result<Bearer, SignError> {
        self.issued_within(KEPT, now)
    }

    /// Another token, where Apple finds `refused` too old; none where it is too young for that, so that it must be one
    /// of the two clocks that is wrong.
    pub(super) fn renewed(&self, refused: &Bearer, now: Timestamp) -> Result<Option<Bearer>, SignError> {
        let bearer = self.issued_within(KEPT_MIN, now)?;
        Ok((bearer != *refused).then_some(bearer))
    }

    fn issued_within(&self, kept: Duration, now: Timestamp) -> Result<Bearer, SignError> {
        let mut issued = self.issued.lock().unwrap_or_else(PoisonError::into_inner);
        let good = issued.as_ref().filter(|issued| issued.at <= now && now.since(issued.at) < kept);
        if let Some(Issued { bearer, .. }) = good {
            return Ok(bearer.clone());
        }
        let claims = json!({ "iss": self.team_id, "iat": now.seconds() });
        let bearer = Bearer(Secret::new(self.signer.sign(&self.key_id, &claims)?));
        *issued = Some(Issued { bearer: bearer.clone(), at: now, instant: Instant::now() });
        Ok(bearer)
    }
}
