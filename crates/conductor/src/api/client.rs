//! The address that a request comes from, also where it comes through a proxy.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::ConnectInfo;
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, HeaderName, header};
use ipnet::IpNet;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// The most addresses that are read of those that proxies wrote down, from the last on.
const FORWARDED_MAX: usize = 32;

/// The address of a request's client, among the request's extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClientAddress(pub(crate) IpAddr);

impl ClientAddress {
    /// The address; none where the request did not come over a connection.
    pub(crate) fn of(parts: &Parts) -> Option<IpAddr> {
        parts.extensions.get::<Self>().map(|address| address.0)
    }
}

/// The proxies that are believed when they say whom they speak for (`TRUSTED_PROXIES`).
#[derive(Debug, Clone, Default)]
pub(crate) struct Proxies(Arc<[IpNet]>);

impl Proxies {
    pub(crate) fn new(networks: &[IpNet]) -> Self {
        Self(networks.into())
    }

    /// Finds out whose request this is.
    pub(crate) fn find(&self, extensions: &Extensions, headers: &HeaderMap) -> Option<ClientAddress> {
        let peer = extensions.get::<ConnectInfo<SocketAddr>>()?.0.ip().to_canonical();
        Some(ClientAddress(self.client(peer, headers)))
    }

    fn is_trusted(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }

    /// The last address that no trusted proxy has. Where two headers tell two stories, one of them was written by the
    /// client: then neither is believed.
    fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        if !self.is_trusted(peer) {
            return peer;
        }
        let of = |name: &HeaderName, read: fn(&str) -> Option<IpAddr>| {
            headers.contains_key(name).then(|| self.walk(peer, headers, name, read))
        };
        match (of(&X_FORWARDED_FOR, address), of(&header::FORWARDED, forwarded_for)) {
            (Some(one), Some(other)) if one != other => peer,
            (Some(one), _) | (None, Some(one)) => one,
            (None, None) => peer,
        }
    }

    fn walk(&self, peer: IpAddr, headers: &HeaderMap, name: &HeaderName, read: fn(&str) -> Option<IpAddr>) -> IpAddr {
        let values: Vec<_> = headers.get_all(name).iter().collect();
        let entries = values.into_iter().rev().flat_map(|value| value.to_str().unwrap_or_default().rsplit(','));
        let mut client = peer;
        for entry in entries.take(FORWARDED_MAX) {
            // What cannot be read was not written by a proxy that is trusted, or it hides its client.
            let Some(address) = read(entry.trim()) else { return client };
            client = address;
            if !self.is_trusted(address) {
                return client;
            }
        }
        client
    }
}

/// An address, with or without a port and the brackets of IPv6.
fn address(text: &str) -> Option<IpAddr> {
    let plain = || text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text).parse().ok();
    let address: IpAddr = plain().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))?;
    Some(address.to_canonical())
}

/// The address in `for=` of one element of `Forwarded`.
fn forwarded_for(element: &str) -> Option<IpAddr> {
    let mut pairs = element.split(';').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(name, _)| name.trim().eq_ignore_ascii_case("for"))?;
    let value = value.trim();
    address(value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, headers: &[(&'static str, &str)]) -> String {
        let networks = ["10.0.0.0/8", "fd00::/8"].map(|network| network.parse().unwrap());
        let headers = headers.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
        let mut all = HeaderMap::new();
        headers.for_each(|(name, value)| assert!(!all.append(name, value) || !all.is_empty()));
        Proxies::new(&networks).client(peer.parse().unwrap(), &all).to_string()
    }

    #[test]
    fn only_a_trusted_proxy_is_believed() {
        let said = [("x-forwarded-for", "203.0.113.7")];
        assert_eq!(client("192.0.2.1", &said), "192.0.2.1");
        assert_eq!(client("192.0.2.1", &[("forwarded", "for=203.0.113.7")]), "192.0.2.1");
        assert_eq!(client("10.0.0.1", &said), "203.0.113.7");
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn what_a_client_puts_before_the_proxies_own_words_counts_for_nothing() {
        for forged in ["1.1.1.1, 203.0.113.7", "10.9.9.9, 203.0.113.7", "x, 203.0.113.7, 10.0.0.2"] {
            assert_eq!(client("10.0.0.1", &[("x-forwarded-for", forged)]), "203.0.113.7", "{forged}");
        }
        let lines = [("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "203.0.113.7")];
        assert_eq!(client("10.0.0.1", &lines), "203.0.113.7");
        // A proxy that writes one of the headers passes the other one on as the client wrote it.
        let both = [("x-forwarded-for", "203.0.113.7"), ("forwarded", "for=1.1.1.1")];
        assert_eq!(client("10.0.0.1", &both), "10.0.0.1");
        let same = [("x-forwarded-for", "203.0.113.7"), ("forwarded", "for=203.0.113.7")];
        assert_eq!(client("10.0.0.1", &same), "203.0.113.7");
    }

    #[test]
    fn a_chain_of_trusted_proxies_is_walked_back_to_the_first_stranger() {
        assert_eq!(client("fd00::1", &[("x-forwarded-for", "203.0.113.7, 10.1.1.1,10.2.2.2")]), "203.0.113.7");
        assert_eq!(client("10.0.0.1", &[("x-forwarded-for", "10.1.1.1, 10.2.2.2")]), "10.1.1.1");
        let long = vec!["10.1.1.1"; 100].join(",");
        assert_eq!(client("10.0.0.1", &[("x-forwarded-for", &format!("203.0.113.7,{long}"))]), "10.1.1.1");
    }

    #[test]
    fn addresses_are_read_in_every_form_and_nothing_else_is() {
        for (value, read) in [
            ("203.0.113.7:4711", "203.0.113.7"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]:4711", "2001:db8::1"),
            ("::ffff:203.0.113.7", "203.0.113.7"),
            ("unknown", "10.0.0.1"),
            ("", "10.0.0.1"),
            ("203.0.113.7 x", "10.0.0.1"),
        ] {
            assert_eq!(client("10.0.0.1", &[("x-forwarded-for", value)]), read, "{value:?}");
        }
        for (value, read) in [
            ("for=203.0.113.7;proto=https;by=10.0.0.1", "203.0.113.7"),
            ("proto=https; For=\"[2001:db8::1]:4711\"", "2001:db8::1"),
            ("for=1.1.1.1, for=203.0.113.7", "203.0.113.7"),
            ("for=_hidden", "10.0.0.1"),
            ("proto=https", "10.0.0.1"),
            ("for=\"203.0.113.7", "10.0.0.1"),
        ] {
            assert_eq!(client("10.0.0.1", &[("forwarded", value)]), read, "{value:?}");
        }
    }
}
