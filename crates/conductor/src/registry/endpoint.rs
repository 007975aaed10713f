//! Where a tenant hears of state changes.

use conductor_channels::http::{HttpClient, HttpClients, place};
use conductor_channels::secret_url;
use conductor_core::callbacks::{EventSet, Subscription};
use conductor_core::signature::SigningKey;
use conductor_core::{EndpointId, TenantId};
use ring::digest::{Context, SHA256};
use url::Url;

use crate::config::CallbackConfig;

/// One of a tenant's `callbacks`, ready to be posted to.
pub struct Endpoint {
    /// Derived from tenant and URL.
    pub id: EndpointId,
    /// Whose it is.
    pub tenant: TenantId,
    /// Where to post.
    pub url: Url,
    /// What it wants to hear.
    pub events: EventSet,
    /// What signs: more than one while a secret is changed.
    pub keys: Vec<SigningKey>,
    /// The way out: it keeps the callback's `allowNetworks`.
    pub http: HttpClient,
    /// The parts of the URL that may be credentials.
    pub hidden: Vec<String>,
    fingerprint: [u8; 32],
}

impl Endpoint {
    /// Makes one of its configuration.
    ///
    /// # Errors
    /// A secret is none, which a valid configuration does not have.
    pub fn new(tenant: TenantId, config: &CallbackConfig, http: &HttpClients) -> Result<Self, anyhow::Error> {
        let keys = config.secrets.iter().map(SigningKey::parse).collect::<Result<_, _>>();
        let keys = keys.map_err(|error| anyhow::anyhow!("callback to {}: its secret {error}", place(&config.url)))?;
        Ok(Self {
            id: EndpointId::derive(tenant, config.url.as_str()),
            tenant,
            url: config.url.clone(),
            events: config.events,
            keys,
            http: http.client(&config.allow_networks),
            hidden: secret_url::hidden(&config.url),
            fingerprint: fingerprint(config),
        })
    }

    /// What may be shown of its address: scheme, host and port. The rest may be a credential.
    pub fn place(&self) -> String {
        place(&self.url)
    }

    /// What it asks of the store.
    pub fn subscription(&self) -> Subscription {
        Subscription { endpoint: self.id, events: self.events, fingerprint: self.fingerprint }
    }
}

/// A hash of all that is configured for it. Secrets are random, so that nobody finds them by it.
fn fingerprint(config: &CallbackConfig) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    let mut add = |text: &str| {
        context.update(text.as_bytes());
        context.update(&[0]);
    };
    add(config.url.as_str());
    config.secrets.iter().for_each(|secret| add(secret.expose()));
    config.events.iter().for_each(|event| add(event.as_str()));
    config.allow_networks.iter().for_each(|network| add(&network.to_string()));
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}
