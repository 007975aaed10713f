//! Identifiers: UUIDs with a type each, so that a tenant's id cannot be passed where a channel's belongs.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::time::Timestamp;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// Takes a UUID as this kind of id.
            pub const fn new(uuid: Uuid) -> Self {
                Self(uuid)
            }
            /// The UUID itself.
            pub const fn uuid(self) -> Uuid {
                self.0
            }
            /// The 16 bytes as they are stored, in the order in which UUIDs sort.
            pub const fn bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }
            /// Reads the 16 bytes that [`Self::bytes`] gave.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::from_str(text).map(Self)
            }
        }
    };
}

id! {
    /// A customer of this server.
    TenantId
}
id! {
    /// A tenant's configured use of a plugin.
    ChannelId
}
id! {
    /// What a caller posted: a UUIDv7, so that ids sort by the time of acceptance.
    NotificationId
}
id! {
    /// The work of getting one notification out through one channel; the same in every attempt.
    DeliveryId
}

id! {
    /// A bulk retry: a UUIDv7, made after every notification that it may take.
    ReplayId
}

id! {
    /// Where a tenant's callbacks are posted: a tenant and a URL.
    EndpointId
}

id! {
    /// One callback to one endpoint: its `webhook-id`, the same in every attempt.
    CallbackId
}

/// The name space of endpoints' ids.
const ENDPOINT_NAMESPACE: Uuid = Uuid::from_u128(0x3c0d_91f7_2b6e_5d48_8a15_c4f0_77e2_6b19);

impl EndpointId {
    /// UUIDv5 of tenant and URL, so that a restart or a reload finds what waits for it.
    pub fn derive(tenant: TenantId, url: &str) -> Self {
        Self(Uuid::new_v5(&ENDPOINT_NAMESPACE, format!("{tenant}\u{1f}{url}").as_bytes()))
    }
}

impl CallbackId {
    /// Derived from what is told to whom and when: the endpoint's callback with this number, about a notification or a
    /// channel. The time tells it from that of another store, which counts from the beginning too.
    pub fn derive(endpoint: EndpointId, number: i64, about: &[u8; 16], at: Timestamp) -> Self {
        let text = format!("{number}\u{1f}{}\u{1f}{}", Uuid::from_bytes(*about), at.millis());
        Self(Uuid::new_v5(&endpoint.0, text.as_bytes()))
    }
}

/// The name space of channel ids that are derived because the configuration gives none.
const CHANNEL_NAMESPACE: Uuid = Uuid::from_u128(0x6f0e_8d5c_3f1b_5c0a_9d2e_b7a4_51c8_e603);

impl ChannelId {
    /// The id of a channel whose entry has no `channelId`: UUIDv5 of tenant, type and name, stable over restarts.
    pub fn derive(tenant: TenantId, channel_type: &str, name: &str) -> Self {
        let text = format!("{tenant}\u{1f}{channel_type}\u{1f}{name}");
        Self(Uuid::new_v5(&CHANNEL_NAMESPACE, text.as_bytes()))
    }
}

impl NotificationId {
    /// When it was made, as a UUIDv7 says.
    pub fn made_at(self) -> Timestamp {
        Timestamp::from_millis(i64::try_from(self.0.as_u128() >> 80).unwrap_or(i64::MAX))
    }
}

impl DeliveryId {
    /// The id of a notification's delivery number `ordinal`: derived, so that it is the same after every restart and
    /// a provider that knows it already makes no second message.
    pub fn derive(notification: NotificationId, ordinal: u8) -> Self {
        Self(Uuid::new_v5(&notification.0, &[ordinal]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_derived_channel_id_depends_on_each_part() {
        let tenant = TenantId::new(Uuid::from_u128(1));
        let other = TenantId::new(Uuid::from_u128(2));
        let id = ChannelId::derive(tenant, "log", "default");
        assert_eq!(id, ChannelId::derive(tenant, "log", "default"));
        assert_ne!(id, ChannelId::derive(other, "log", "default"));
        assert_ne!(id, ChannelId::derive(tenant, "webhook", "default"));
        assert_ne!(id, ChannelId::derive(tenant, "log", "alerts"));
        assert_eq!(id.uuid().get_version_num(), 5);
    }

    #[test]
    fn an_id_of_a_callback_depends_on_all_that_it_stands_for() {
        let tenant = |number| TenantId::new(Uuid::from_u128(number));
        let endpoint = EndpointId::derive(tenant(1), "https://a.example/");
        assert_eq!(endpoint, EndpointId::derive(tenant(1), "https://a.example/"));
        let other = EndpointId::derive(tenant(2), "https://a.example/");
        assert_ne!(other, endpoint);
        assert_ne!(endpoint, EndpointId::derive(tenant(1), "https://a.example/b"));
        let (now, later) = (Timestamp::ZERO, Timestamp::from_millis(1));
        let ids = [
            CallbackId::derive(endpoint, 1, &[7; 16], now),
            CallbackId::derive(other, 1, &[7; 16], now),
            CallbackId::derive(endpoint, 2, &[7; 16], now),
            CallbackId::derive(endpoint, 1, &[8; 16], now),
            CallbackId::derive(endpoint, 1, &[7; 16], later),
        ];
        assert_eq!(ids[0], CallbackId::derive(endpoint, 1, &[7; 16], now));
        let different: std::collections::HashSet<_> = ids.iter().collect();
        assert_eq!(different.len(), ids.len());
    }

    #[test]
    fn deliveries_of_one_notification_have_different_ids() {
        let notification = NotificationId::new(Uuid::from_u128(7));
        assert_ne!(DeliveryId::derive(notification, 0), DeliveryId::derive(notification, 1));
        assert_eq!(DeliveryId::derive(notification, 1), DeliveryId::derive(notification, 1));
    }

    #[test]
    fn an_id_reads_back_what_it_prints() {
        let id = TenantId::new(Uuid::from_u128(0x0194_3c2a_7c3e_7000_8000_1234_5678_9abc));
        assert_eq!(id.to_string(), "01943c2a-7c3e-7000-8000-123456789abc");
        assert_eq!(id.to_string().parse(), Ok(id));
    }
}
