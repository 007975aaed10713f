//! Requests that were refused because of their key, until the audit log has them: counted, so that whoever tries keys
//! can fill neither the memory nor the disk.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use conductor_core::Actor;
use conductor_core::audit::{AuditEvent, AuditKind, Content, Details};
use serde_json::{Map, Value};
use tokio::sync::Notify;

/// The most addresses that are told apart until they are written; further ones are counted together.
const ADDRESSES_MAX: usize = 64;

/// Why a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It had no key.
    Missing,
    /// Its key was wrong.
    Wrong,
}

/// What was refused and is not written yet.
#[derive(Debug, Default)]
pub struct Refusals {
    counts: Mutex<Counts>,
    changed: Notify,
}

/// How often requests were refused.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    missing: u64,
    wrong: u64,
    addresses: HashMap<IpAddr, u64>,
    /// From addresses beyond those that are told apart, or from unknown ones.
    elsewhere: u64,
}

impl Refusals {
    /// Counts one.
    pub fn note(&self, refusal: Refusal, address: Option<IpAddr>) {
        let mut one = Counts::default();
        match refusal {
            Refusal::Missing => one.missing = 1,
            Refusal::Wrong => one.wrong = 1,
        }
        match address {
            Some(address) => drop(one.addresses.insert(address, 1)),
            None => one.elsewhere = 1,
        }
        self.give_back(one);
        self.changed.notify_one();
    }

    /// Waits until there may be some.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// All since the last time; none if there were none.
    pub fn take(&self) -> Option<Counts> {
        let counts = std::mem::take(&mut *self.lock());
        (counts != Counts::default()).then_some(counts)
    }

    /// Counts in what could not be written.
    pub fn give_back(&self, counts: Counts) {
        let mut all = self.lock();
        all.missing += counts.missing;
        all.wrong += counts.wrong;
        all.elsewhere += counts.elsewhere;
        for (address, count) in counts.addresses {
            if all.addresses.len() < ADDRESSES_MAX || all.addresses.contains_key(&address) {
                *all.addresses.entry(address).or_default() += count;
            } else {
                all.elsewhere += count;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    /// What the audit log says of them. Addresses are people's, so they are kept only as long as content is.
    pub fn event(&self) -> AuditEvent {
        let mut addresses: Vec<_> = self.addresses.iter().collect();
        addresses.sort_unstable_by_key(|(address, count)| (std::cmp::Reverse(**count), **address));
        let told = addresses.into_iter().map(|(address, count)| (address.to_string(), Value::from(*count)));
        let mut content = Map::from_iter([("addresses".to_owned(), Value::Object(told.collect()))]);
        if self.elsewhere > 0 {
            content.insert("elsewhere".to_owned(), self.elsewhere.into());
        }
        let details = Details::new().number("missing", self.missing).number("wrong", self.wrong);
        let event = AuditEvent::of_server(AuditKind::KeysRefused, Actor::Unknown, details);
        AuditEvent { content: Content::Here(content), ..event }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u32) -> Option<IpAddr> {
        Some(IpAddr::from(number.to_be_bytes()))
    }

    #[test]
    fn whoever_tries_many_keys_from_many_addresses_makes_one_small_entry() {
        let refusals = Refusals::default();
        assert_eq!(refusals.take(), None);
        for number in 0..10_000 {
            refusals.note(Refusal::Wrong, address(number % 1_000));
            refusals.note(Refusal::Missing, None);
        }
        let counts = refusals.take().expect("there were some");
        assert_eq!((counts.wrong, counts.missing, counts.addresses.len()), (10_000, 10_000, ADDRESSES_MAX));
        let told: u64 = counts.addresses.values().sum();
        assert_eq!(told + counts.elsewhere, 20_000, "none is left out");
        assert_eq!(refusals.take(), None);
        let event = counts.event();
        assert_eq!(event.details.as_json(), Some(r#"{"missing":10000,"wrong":10000}"#));
        let Content::Here(content) = event.content else { panic!("addresses are content") };
        assert!(Value::Object(content).to_string().len() < 4_096);
    }

    #[test]
    fn what_could_not_be_written_is_counted_in_again() {
        let refusals = Refusals::default();
        refusals.note(Refusal::Wrong, address(1));
        let taken = refusals.take().expect("there was one");
        refusals.note(Refusal::Wrong, address(1));
        refusals.give_back(taken);
        let counts = refusals.take().expect("there were two");
        assert_eq!((counts.wrong, counts.addresses.get(&address(1).expect("an address"))), (2, Some(&2)));
    }
}
