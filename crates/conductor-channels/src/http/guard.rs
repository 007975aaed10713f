//! The egress guard: which addresses a channel may reach.
//!
//! The ranges are those of IANA's special-purpose registries, and a few addresses at which clouds keep credentials:
//! <https://www.iana.org/assignments/iana-ipv4-special-registry/>,
//! <https://www.iana.org/assignments/iana-ipv6-special-registry/>.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

/// The most addresses of one name that are tried.
const ADDRESSES_MAX: usize = 16;

/// Finds the addresses of a name. The system does it in the server; tests bring a table.
pub trait Lookup: Send + Sync + 'static {
    /// The addresses of `name`, in the order in which they are to be tried.
    fn lookup(&self, name: String) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>>;
}

/// Asks the system (`/etc/hosts`, DNS, whatever it is set up for).
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemLookup;

impl Lookup for SystemLookup {
    fn lookup(&self, name: String) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>> {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            Ok(found.map(|address| address.ip()).take(ADDRESSES_MAX).collect())
        })
    }
}

/// An address that a channel may not reach, and how to allow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// The address.
    pub address: IpAddr,
    /// What kind of address it is, with its article: "a loopback address".
    pub what: &'static str,
    /// The network that would have to be allowed.
    pub network: IpNet,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, what, network } = self;
        write!(f, "{address} is {what}, which a channel reaches only where its options allow it: ")?;
        write!(f, "\"allowNetworks\": [\"{network}\"]")
    }
}

impl std::error::Error for Refusal {}

/// Which addresses a connection may lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Public ones, and those in the channel's `allowNetworks`.
    Public,
    /// Only those in the channel's `allowNetworks`: for what goes unencrypted.
    Allowed,
}

/// Decides by address, for numbers in a URL as well as for what a name resolves to.
#[derive(Clone)]
pub(super) struct Guard {
    allowed: Arc<[IpNet]>,
    lookup: Arc<dyn Lookup>,
}

impl Guard {
    pub(super) fn new(allowed: Vec<IpNet>, lookup: Arc<dyn Lookup>) -> Self {
        Self { allowed: allowed.into(), lookup }
    }

    /// Checks a host that is written as a number: a resolver is never asked for those.
    pub(super) fn check_host(&self, url: &Url) -> Result<(), Refusal> {
        match url.host() {
            Some(Host::Ipv4(address)) => check(address.into(), &self.allowed),
            Some(Host::Ipv6(address)) => check(address.into(), &self.allowed),
            Some(Host::Domain(name)) => match name.trim_end_matches('.').parse() {
                Ok(address) => check(address, &self.allowed),
                Err(_) => Ok(()),
            },
            None => Ok(()),
        }
    }
}

/// Why a name leads nowhere.
pub(super) enum Unreachable {
    /// None of its addresses may be reached; the last of them.
    Refused(Refusal),
    /// It has none.
    Unknown(io::Error),
}

impl Guard {
    /// The addresses of a name that may be reached, in the order in which they are to be tried; at least one.
    pub(super) async fn addresses(&self, name: String, reach: Reach) -> Result<Vec<IpAddr>, Unreachable> {
        let found = self.lookup.lookup(name).await.map_err(Unreachable::Unknown)?;
        self.reachable(found, reach)
    }

    /// Those of the addresses that may be reached; at least one.
    pub(super) fn reachable(&self, found: Vec<IpAddr>, reach: Reach) -> Result<Vec<IpAddr>, Unreachable> {
        let mut good = Vec::new();
        let mut refusal = None;
        for address in found.into_iter().take(ADDRESSES_MAX) {
            let checked = check(address, &self.allowed).and_then(|()| match reach {
                Reach::Public => Ok(()),
                Reach::Allowed => check_allowed(address, &self.allowed),
            });
            match checked {
                Ok(()) => good.push(address),
                Err(refused) => refusal = Some(refused),
            }
        }
        match refusal {
            Some(refused) if good.is_empty() => Err(Unreachable::Refused(refused)),
            _ if good.is_empty() => {
                Err(Unreachable::Unknown(io::Error::new(io::ErrorKind::NotFound, "the name has no address")))
            }
            _ => Ok(good),
        }
    }
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.clone();
        Box::pin(async move {
            match guard.addresses(name.as_str().to_owned(), Reach::Public).await {
                Ok(good) => Ok(Box::new(good.into_iter().map(|address| SocketAddr::new(address, 0))) as Addrs),
                Err(Unreachable::Refused(refused)) => Err(refused.into()),
                Err(Unreachable::Unknown(error)) => Err(error.into()),
            }
        })
    }
}

/// Why a host in the configuration will be refused, as far as it says so by itself: an address, or `localhost`. A name
/// is judged by what it resolves to, when it is used.
pub fn refusal(host: &Host<String>, allowed: &[IpNet]) -> Option<Refusal> {
    let address = match host {
        Host::Ipv4(address) => (*address).into(),
        Host::Ipv6(address) => (*address).into(),
        Host::Domain(name) => {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            if name == "localhost" || name.ends_with(".localhost") {
                // Where either of the two is allowed, it may be the one that the name leads to.
                let both = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
                return both
                    .map(|address| check(address, allowed).err())
                    .into_iter()
                    .rev()
                    .reduce(Option::and)
                    .flatten();
            }
            name.parse().ok()?
        }
    };
    check(address, allowed).err()
}

/// Whether an address is in one of the `allowed` networks, public or not.
fn check_allowed(address: IpAddr, allowed: &[IpNet]) -> Result<(), Refusal> {
    let address = address.to_canonical();
    if allowed.iter().any(|net| net.contains(&address)) {
        return Ok(());
    }
    Err(Refusal { address, what: "a public address that would get everything unencrypted", network: address.into() })
}

/// Whether an address is public or in one of the `allowed` networks.
fn check(address: IpAddr, allowed: &[IpNet]) -> Result<(), Refusal> {
    let address = address.to_canonical();
    let Some((what, network)) = special(address) else { return Ok(()) };
    if allowed.iter().any(|net| net.contains(&address)) {
        return Ok(());
    }
    Err(Refusal { address, what, network })
}

fn special(address: IpAddr) -> Option<(&'static str, IpNet)> {
    match address {
        IpAddr::V4(address) => special_v4(address).map(|(what, net)| (what, net.into())),
        IpAddr::V6(address) => special_v6(address).map(|(what, net)| (what, net.into())),
    }
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(a: u16, b: u16, c: u16, prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0), prefix)
}

/// The narrower network stands before the wider one, so that the advice opens no more than it has to.
const SPECIAL_V4: &[(&str, Ipv4Net)] = &[
    ("a cloud's metadata address", v4(169, 254, 169, 254, 32)),
    ("a cloud's metadata address", v4(169, 254, 170, 2, 32)),
    ("a cloud's metadata address", v4(100, 100, 100, 200, 32)),
    ("a cloud's metadata address", v4(192, 0, 0, 192, 32)),
    ("a cloud's metadata address", v4(168, 63, 129, 16, 32)),
    ("an unspecified address", v4(0, 0, 0, 0, 8)),
    ("a private address", v4(10, 0, 0, 0, 8)),
    ("a carrier's shared address", v4(100, 64, 0, 0, 10)),
    ("a loopback address", v4(127, 0, 0, 0, 8)),
    ("a link-local address", v4(169, 254, 0, 0, 16)),
    ("a private address", v4(172, 16, 0, 0, 12)),
    ("an address kept for protocols", v4(192, 0, 0, 0, 24)),
    ("a documentation address", v4(192, 0, 2, 0, 24)),
    ("a 6to4 relay's address", v4(192, 88, 99, 0, 24)),
    ("a private address", v4(192, 168, 0, 0, 16)),
    ("a benchmarking address", v4(198, 18, 0, 0, 15)),
    ("a documentation address", v4(198, 51, 100, 0, 24)),
    ("a documentation address", v4(203, 0, 113, 0, 24)),
    ("a multicast address", v4(224, 0, 0, 0, 4)),
    ("the broadcast address", v4(255, 255, 255, 255, 32)),
    ("a reserved address", v4(240, 0, 0, 0, 4)),
];

const SPECIAL_V6: &[(&str, Ipv6Net)] = &[
    ("a cloud's metadata address", Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), 128)),
    ("a cloud's metadata address", Ipv6Net::new_assert(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254), 128)),
    ("the unspecified address", Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 128)),
    ("a loopback address", Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128)),
    ("an IPv4-compatible address", v6(0, 0, 0, 96)),
    ("a local NAT64 address", v6(0x64, 0xff9b, 1, 48)),
    ("a Teredo address", v6(0x2001, 0, 0, 32)),
    ("a benchmarking address", v6(0x2001, 2, 0, 48)),
    ("an address kept for protocols", v6(0x2001, 0, 0, 23)),
    ("a documentation address", v6(0x2001, 0xdb8, 0, 32)),
    ("a 6to4 address", v6(0x2002, 0, 0, 16)),
    ("a documentation address", v6(0x3fff, 0, 0, 20)),
    ("a private address", v6(0xfc00, 0, 0, 7)),
    ("a link-local address", v6(0xfe80, 0, 0, 10)),
    ("a site-local address", v6(0xfec0, 0, 0, 10)),
    ("a multicast address", v6(0xff00, 0, 0, 8)),
];

/// NAT64's well-known prefix: on a network without IPv4 it is the way to public IPv4 addresses, so what counts is the
/// address in its last 32 bits.
const NAT64: Ipv6Net = v6(0x64, 0xff9b, 0, 96);

/// The only part of IPv6 that is handed out for public use.
const GLOBAL_UNICAST: Ipv6Net = v6(0x2000, 0, 0, 3);

fn special_v4(address: Ipv4Addr) -> Option<(&'static str, Ipv4Net)> {
    SPECIAL_V4.iter().find(|(_, net)| net.contains(&address)).copied()
}

fn special_v6(address: Ipv6Addr) -> Option<(&'static str, Ipv6Net)> {
    if NAT64.contains(&address) {
        let [.., a, b, c, d] = address.octets();
        special_v4(Ipv4Addr::new(a, b, c, d))?;
        return Some(("a NAT64 form of an address that is not public", host(address)));
    }
    // The interface part of ISATAP is 0:5efe (or 200:5efe) and an IPv4 address, in any network.
    let segments = address.segments();
    if segments[5] == 0x5efe && segments[4] & !0x0200 == 0 {
        return Some(("an ISATAP address", host(address)));
    }
    let found = SPECIAL_V6.iter().find(|(_, net)| net.contains(&address)).copied();
    found.or_else(|| (!GLOBAL_UNICAST.contains(&address)).then(|| ("a reserved address", host(address))))
}

fn host(address: Ipv6Addr) -> Ipv6Net {
    Ipv6Net::new_assert(address, 128)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(address: &str, allowed: &[&str]) -> Option<Refusal> {
        let allowed: Vec<IpNet> = allowed.iter().map(|net| net.parse().unwrap()).collect();
        check(address.parse().unwrap(), &allowed).err()
    }

    #[test]
    fn addresses_that_are_not_public_are_refused() {
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "100.100.100.200",
            "127.0.0.1",
            "127.255.255.254",
            "168.63.129.16",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.0.192",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.1",
            "239.255.255.250",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.1.2.3",
            "::127.0.0.1",
            "::8.8.8.8",
            "::ffff:0:127.0.0.1",
            "64:ff9b::127.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:0:4136:e378:8000:63bf:3fff:fdd2",
            "2001:2::1",
            "2001:10::1",
            "2001:20::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2002:c0a8:101::1",
            "2a00:1450::5efe:7f00:1",
            "2a00:1450::200:5efe:a00:1",
            "3fff::1",
            "4000::1",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fd12:3456::1",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(refused(address, &[]).is_some(), "{address} passed");
        }
    }

    #[test]
    fn public_addresses_pass() {
        for address in [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.255.255",
            "100.128.0.1",
            "172.15.255.255",
            "172.32.0.1",
            "192.0.1.1",
            "192.169.0.1",
            "198.17.255.255",
            "198.20.0.1",
            "223.255.255.255",
            "::ffff:8.8.8.8",
            "64:ff9b::8.8.8.8",
            "2001:4860:4860::8888",
            "2001:200::1",
            "2606:4700::1111",
            "2a00:1450:4001::200e",
        ] {
            assert_eq!(refused(address, &[]), None, "{address}");
        }
    }

    #[test]
    fn an_allowed_network_opens_itself_and_nothing_else() {
        assert_eq!(refused("192.168.1.7", &["192.168.0.0/16"]), None);
        assert_eq!(refused("::ffff:192.168.1.7", &["192.168.0.0/16"]), None);
        assert_eq!(refused("fd12::7", &["fd00::/8"]), None);
        assert!(refused("192.169.1.7", &[]).is_none());
        assert!(refused("10.0.0.1", &["192.168.0.0/16"]).is_some());
        assert!(refused("127.0.0.1", &["192.168.0.0/16", "::/0"]).is_some());
        assert!(refused("64:ff9b::127.0.0.1", &["127.0.0.0/8"]).is_some());
    }

    #[test]
    fn what_goes_unencrypted_reaches_allowed_networks_only() {
        let allowed: Vec<IpNet> = ["10.0.0.0/8", "203.0.114.7/32"].map(|net| net.parse().unwrap()).into();
        let guard = Guard::new(allowed, Arc::new(SystemLookup));
        let reached = |addresses: &[&str]| {
            let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
            match guard.reachable(addresses, Reach::Allowed) {
                Ok(good) => good.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
                Err(Unreachable::Refused(refusal)) => refusal.to_string(),
                Err(Unreachable::Unknown(error)) => error.to_string(),
            }
        };
        assert_eq!(reached(&["10.1.2.3", "8.8.8.8", "203.0.114.7", "192.168.0.1"]), "10.1.2.3 203.0.114.7");
        let refusal = reached(&["8.8.8.8"]);
        assert!(refusal.contains("unencrypted") && refusal.ends_with("[\"8.8.8.8/32\"]"), "{refusal}");
        assert!(reached(&["192.168.0.1"]).contains("a private address"));
        assert_eq!(reached(&[]), "the name has no address");
    }

    #[test]
    fn a_host_of_the_configuration_is_judged_without_a_network() {
        let says = |host: &str, allowed: &[&str]| {
            let allowed: Vec<IpNet> = allowed.iter().map(|net| net.parse().unwrap()).collect();
            refusal(&Host::parse(host).unwrap(), &allowed).map(|refusal| refusal.network.to_string())
        };
        for host in ["127.0.0.1", "0x7f.1", "localhost", "localhost.", "api.LOCALHOST"] {
            assert_eq!(says(host, &[]).as_deref(), Some("127.0.0.0/8"), "{host}");
            assert_eq!(says(host, &["127.0.0.0/8"]), None, "{host}");
        }
        assert_eq!(says("localhost", &["::1/128"]), None);
        assert_eq!(says("[fe80::1]", &["127.0.0.0/8"]).as_deref(), Some("fe80::/10"));
        for host in ["8.8.8.8", "[2606:4700::1111]", "example.com", "localhost.example.com"] {
            assert_eq!(says(host, &[]), None, "{host}");
        }
    }

    #[test]
    fn a_refusal_says_how_to_allow_the_address() {
        let says = |address| refused(address, &[]).unwrap().to_string();
        let loopback = says("127.0.0.1");
        assert!(loopback.contains("a loopback address"), "{loopback}");
        assert!(loopback.ends_with("\"allowNetworks\": [\"127.0.0.0/8\"]"), "{loopback}");
        assert!(says("169.254.169.254").ends_with("[\"169.254.169.254/32\"]"));
        assert!(says("5f00::1").ends_with("[\"5f00::1/128\"]"));
    }

    #[test]
    fn following_the_advice_lifts_the_refusal() {
        for (_, net) in SPECIAL_V4 {
            let address = IpAddr::from(net.network());
            let advice = check(address, &[]).unwrap_err().network;
            assert_eq!(check(address, &[advice]), Ok(()), "{net}");
        }
        for (_, net) in SPECIAL_V6 {
            let address = IpAddr::from(net.network());
            let advice = check(address, &[]).unwrap_err().network;
            assert_eq!(check(address, &[advice]), Ok(()), "{net}");
        }
    }
}
