//! Whether two versions of the configuration say the same of something. Never shown: a fingerprint is of secrets too.

use std::fmt::Debug;
use std::io;

use conductor_core::Secret;
use ring::digest::{Context, SHA256};
use url::Url;

use crate::config::{CallbackConfig, ChannelConfig, CommonOptions, TenantConfig};

/// SHA-256 of facts. Two are equal if and only if all the facts are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

/// What of a channel can change by itself.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ChannelPrints {
    /// Whom the provider takes it for: its settings, its options and the provider's address.
    pub account: Fingerprint,
    /// All that its plugin is told.
    pub connection: Fingerprint,
    /// All of it.
    pub whole: Fingerprint,
}

impl ChannelPrints {
    /// Of a channel of a tenant with this name.
    pub fn of(config: &ChannelConfig, tenant_name: &str, receipts_url: Option<&Url>) -> Self {
        let ChannelConfig { id, name, tenant, plugin, common, values } = config;
        let CommonOptions {
            base_url,
            allow_networks,
            timeout,
            max_concurrency,
            rate,
            expires_after,
            delay_note,
            ordered,
            on_unknown,
            allow_mentions,
        } = common;
        let mut facts = Facts::new();
        facts.add(plugin.kind).add(base_url);
        // What was JSON before can be JSON again, and the hash takes everything.
        serde_json::to_writer(&mut facts, &**values).expect("values with text keys can be written into a hash");
        let account = facts.print();
        facts.add(&(id, name, tenant, tenant_name, receipts_url, allow_networks, timeout, rate, allow_mentions));
        let connection = facts.print();
        facts.add(&(max_concurrency, expires_after, delay_note, ordered, on_unknown));
        Self { account, connection, whole: facts.print() }
    }
}

/// Of all that is said of a tenant, its channels excepted.
pub fn of_tenant(config: &TenantConfig) -> Fingerprint {
    let TenantConfig {
        id,
        name,
        key_variable,
        keys,
        weight,
        requests,
        queued,
        bytes,
        callbacks,
        retention,
        redact_after,
    } = config;
    let mut facts = Facts::new();
    facts.add(&(id, name, key_variable, weight, requests, queued, bytes));
    facts.add(&(retention, redact_after, callbacks.len()));
    for CallbackConfig { url, secrets, events, allow_networks } in callbacks {
        facts.add(&(url.as_str(), events, allow_networks, secrets.len()));
        for secret in secrets {
            facts.secret(secret);
        }
    }
    for key in keys {
        facts.secret(key);
    }
    facts.print()
}

/// Facts on their way into a hash. Each is told apart from the next by its length.
struct Facts(Context);

impl Facts {
    fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    /// `Debug` shows everything of what is given here, and no secret.
    fn add<T: Debug + ?Sized>(&mut self, fact: &T) -> &mut Self {
        self.bytes(format!("{fact:?}").as_bytes())
    }

    fn secret(&mut self, secret: &Secret) -> &mut Self {
        self.bytes(secret.expose().as_bytes())
    }

    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.update(&bytes.len().to_be_bytes());
        self.0.update(bytes);
        self
    }

    /// Of all that was added so far.
    fn print(&self) -> Fingerprint {
        let mut print = [0; 32];
        print.copy_from_slice(self.0.clone().finish().as_ref());
        Fingerprint(print)
    }
}

impl io::Write for Facts {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use conductor_core::callbacks::EventSet;
    use conductor_core::{ChannelId, TenantId};
    use serde_json::json;
    use std::time::Duration;
    use uuid::Uuid;

    fn channel(token: &str, change: impl FnOnce(&mut ChannelConfig)) -> ChannelPrints {
        let mut config = ChannelConfig {
            id: ChannelId::new(Uuid::from_u128(1)),
            name: "alerts".into(),
            tenant: TenantId::new(Uuid::from_u128(2)),
            plugin: *conductor_channels::plugin(conductor_channels::PLUGINS, "discord").unwrap(),
            common: CommonOptions::default(),
            values: json!({ "botToken": token, "channelId": "41" }).as_object().unwrap().clone().into(),
        };
        change(&mut config);
        ChannelPrints::of(&config, "Acme", None)
    }

    #[test]
    fn each_print_changes_with_its_own_facts_and_with_those_inside() {
        let before = channel("one", |_| ());
        let same = |after: ChannelPrints| {
            [after.account == before.account, after.connection == before.connection, after.whole == before.whole]
        };
        assert_eq!(same(channel("one", |_| ())), [true, true, true]);
        assert_eq!(same(channel("two", |_| ())), [false, false, false]);
        assert_eq!(same(channel("one", |config| config.name = "news".into())), [true, false, false]);
        assert_eq!(same(channel("one", |config| config.common.ordered = true)), [true, true, false]);
        let slow = |config: &mut ChannelConfig| config.common.timeout = Duration::from_secs(1);
        assert_eq!(same(channel("one", slow)), [true, false, false]);
    }

    #[test]
    fn facts_that_read_the_same_in_a_row_are_told_apart() {
        let print = |facts: [&str; 2]| {
            let mut all = Facts::new();
            for fact in facts {
                all.secret(&Secret::new(fact));
            }
            all.print()
        };
        assert!(print(["ab", "c"]) != print(["a", "bc"]));
        assert!(print(["ab", "c"]) == print(["ab", "c"]));
    }

    #[test]
    fn a_tenant_has_changed_when_a_key_or_a_callback_secret_has() {
        let tenant = |key: &str, secret: &str| {
            let callback = CallbackConfig {
                url: "https://acme.example/hooks".parse().unwrap(),
                secrets: vec![Secret::new(secret)],
                events: EventSet::default(),
                allow_networks: Vec::new(),
            };
            of_tenant(&TenantConfig {
                id: TenantId::new(Uuid::from_u128(2)),
                name: "Acme".into(),
                key_variable: "KEY".into(),
                keys: vec![Secret::new(key)],
                weight: 1,
                requests: None,
                queued: None,
                bytes: None,
                callbacks: vec![callback],
                retention: None,
                redact_after: None,
            })
        };
        let before = tenant("key", "secret");
        assert!(tenant("key", "secret") == before);
        assert!(tenant("other", "secret") != before && tenant("key", "other") != before);
    }
}
