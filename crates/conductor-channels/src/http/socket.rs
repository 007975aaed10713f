//! Connections for protocols other than HTTP, through the same guard and with the same authorities.

use std::net::IpAddr;

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use url::Host;

use super::guard::Unreachable;
use super::*;

impl HttpClient {
    /// Opens a connection to a host, at the first of its addresses that answers. The address that is checked is the
    /// one that it leads to.
    ///
    /// # Errors
    /// [`HttpError::Refused`] by the guard, [`HttpError::NotConnected`] where nothing answers by the deadline.
    pub async fn open(
        &self,
        host: &Host<String>,
        port: u16,
        reach: Reach,
        deadline: Instant,
    ) -> Result<TcpStream, HttpError> {
        let place = format!("{host}:{port}");
        let not_connected = |reason: String| HttpError::NotConnected { place: place.clone(), reason };
        let looked = timeout_at(deadline, self.addresses(host, reach)).await;
        let addresses = match looked.map_err(|_| not_connected("the time limit passed".into()))? {
            Ok(addresses) => addresses,
            Err(Unreachable::Refused(refusal)) => return Err(HttpError::Refused { place, refusal }),
            Err(Unreachable::Unknown(error)) => return Err(not_connected(error.to_string())),
        };
        let mut reason = String::new();
        for address in addresses {
            let until = deadline.min(Instant::now() + CONNECT_TIMEOUT);
            match timeout_at(until, TcpStream::connect((address, port))).await {
                Ok(Ok(stream)) => {
                    stream.set_nodelay(true).map_err(|error| not_connected(error.to_string()))?;
                    return Ok(stream);
                }
                Ok(Err(error)) => reason = error.to_string(),
                Err(_) => reason = "the time limit passed".into(),
            }
        }
        Err(not_connected(reason))
    }

    /// Begins TLS on a connection. The certificate must be for `host` and from an authority that this machine, or
    /// `SSL_CERT_FILE`, trusts.
    ///
    /// # Errors
    /// [`HttpError::NotConnected`] where that is not so by the deadline; [`HttpError::Tls`] where there are no
    /// authorities.
    pub async fn secure(
        &self,
        stream: TcpStream,
        host: &Host<String>,
        port: u16,
        deadline: Instant,
    ) -> Result<TlsStream<TcpStream>, HttpError> {
        let place = format!("{host}:{port}");
        let late = |_| HttpError::NotConnected { place: place.clone(), reason: "the time limit passed".into() };
        let name = match host {
            Host::Domain(name) => ServerName::try_from(name.trim_end_matches('.').to_owned()),
            Host::Ipv4(address) => Ok(IpAddr::from(*address).into()),
            Host::Ipv6(address) => Ok(IpAddr::from(*address).into()),
        };
        let name = name.map_err(|error| HttpError::not_connected(&error, place.clone()))?;
        let loaded = timeout_at(deadline, self.0.tls.get_or_try_init(load_tls)).await.map_err(late)?;
        let mut config = loaded?.clone();
        config.alpn_protocols.clear();
        let shaken = TlsConnector::from(Arc::new(config)).connect(name, stream);
        let shaken = timeout_at(deadline, shaken).await.map_err(late)?;
        shaken.map_err(|error| HttpError::not_connected(&error, place.clone()))
    }

    async fn addresses(&self, host: &Host<String>, reach: Reach) -> Result<Vec<IpAddr>, Unreachable> {
        match host {
            Host::Domain(name) => self.0.guard.addresses(name.clone(), reach).await,
            Host::Ipv4(address) => self.0.guard.reachable(vec![(*address).into()], reach),
            Host::Ipv6(address) => self.0.guard.reachable(vec![(*address).into()], reach),
        }
    }
}
