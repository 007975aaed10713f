//! The running server, or the place where one would run.

use std::net::IpAddr;
use std::time::Duration;

use serde_json::Value;
use url::{Host, Url};

use super::super::client::{Answer, Server};
use super::super::serve::{listen, listen_for_metrics};
use super::super::{Failure, one_line};
use super::Finding;
use crate::config::settings::Settings;

/// The time that each request may take.
const TIMEOUT: Duration = Duration::from_secs(5);
const VERSION: &str = env!("CARGO_PKG_VERSION");

pub(super) async fn look(settings: &Settings, is_owned: bool, is_online: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    let answer = if settings.port == 0 { None } else { Some(ask(None, settings, "/").await) };
    let is_running = matches!(&answer, Some(Ok(answer)) if is_conductor(answer));
    match answer {
        None => findings.push(Finding::odd(
            "PORT is 0, so that the server takes any free port: it cannot be found here",
            "give this command the PORT that the server tells when it starts",
        )),
        Some(Ok(answer)) => findings.extend(running(&answer, settings, is_owned).await),
        Some(Err(_)) => findings.push(not_running(settings, is_owned)),
    }
    if let Some(address) = settings.metrics_addr {
        findings.push(metrics(address, settings, is_running).await);
    }
    if let Some(url) = &settings.public_url {
        findings.extend(public_url(url, settings, is_running && is_online).await);
    }
    findings
}

async fn ask(url: Option<&str>, settings: &Settings, path: &str) -> Result<Answer, Failure> {
    Server::new(url, settings, TIMEOUT)?.get(path).await
}

fn is_conductor(answer: &Answer) -> bool {
    answer.status == 200 && answer.body.get("name").and_then(Value::as_str) == Some("conductor")
}

async fn running(answer: &Answer, settings: &Settings, is_owned: bool) -> Vec<Finding> {
    let url = settings.loopback_url();
    if !is_conductor(answer) {
        return vec![Finding::bad(
            format!("another program answers on {url}"),
            "stop it, or choose another port with PORT",
        )];
    }
    let version = answer.body.get("version").and_then(Value::as_str).map(one_line).unwrap_or_default();
    let mut findings = vec![match version == VERSION {
        true => Finding::good(format!("Conductor {version} answers on {url}")),
        false => Finding::odd(
            format!("Conductor {version} answers on {url}, but this program is {VERSION}"),
            "start the server again, so that it is this one",
        ),
    }];
    findings.push(match ask(None, settings, "/readyz").await {
        Ok(Answer { status: 200, .. }) => Finding::good("it takes notifications"),
        Ok(Answer { status, .. }) => Finding::bad(
            format!("it takes no notifications now (/readyz answered {status})"),
            "its log says why: mostly a full disk or a damaged store",
        ),
        Err(error) => Finding::bad(format!("/readyz: {error}"), "look at its log"),
    });
    if !is_owned {
        findings.push(Finding::odd(
            format!("it uses another data folder than {}", settings.data_dir.display()),
            "give this command the DATA_DIR of the server",
        ));
    }
    findings
}

fn not_running(settings: &Settings, is_owned: bool) -> Finding {
    let Settings { host, port, .. } = settings;
    match listen(host, *port) {
        // It was only tried, and is given back at once.
        Ok(_) if is_owned => Finding::bad(
            format!("a process uses the store, but nothing listens on {host}:{port}"),
            "give this command the PORT and HOST of the server; if it has just been started, wait",
        ),
        Ok(_) => Finding::good(format!("no server runs; {host}:{port} is free for one")),
        Err(_) if is_owned => Finding::bad(
            format!("something listens on {host}:{port}, but it does not answer as Conductor does"),
            "look at the server's log; if it does not go on, start it again",
        ),
        Err(error) => {
            let text = error.to_string();
            let (what, help) = text.split_once("\n  help: ").unwrap_or((&text, "choose another port with PORT"));
            Finding::bad(what, help)
        }
    }
}

async fn metrics(address: std::net::SocketAddr, settings: &Settings, is_running: bool) -> Finding {
    let url = format!("http://{address}");
    match ask(Some(&url), settings, "/metrics").await {
        Ok(Answer { status: 200, .. }) => Finding::good(format!("metrics are on {url}/metrics")),
        Err(_) if !is_running && listen_for_metrics(address).is_ok() => {
            Finding::good(format!("{address}, the address of METRICS_ADDR, is free"))
        }
        Ok(_) | Err(_) => Finding::bad(
            format!("{url}/metrics does not answer with metrics"),
            "METRICS_ADDR has to be the server's, and no other program may listen there",
        ),
    }
}

/// Looks whether providers can reach this server for receipts.
async fn public_url(url: &Url, settings: &Settings, is_asked: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    if is_private(url) {
        findings.push(Finding::odd(
            format!("PUBLIC_URL is {url}, which nobody outside can reach"),
            "set it to the address that providers see: that of the proxy or the tunnel before this server",
        ));
    } else if url.scheme() == "http" {
        findings.push(Finding::odd(
            format!("PUBLIC_URL is {url}: receipts with people's numbers would come unencrypted"),
            "put a proxy with TLS before the server, and write https://",
        ));
    }
    if !is_asked {
        return findings;
    }
    findings.push(match ask(Some(url.as_str()), settings, "/").await {
        Ok(answer) if is_conductor(&answer) => Finding::good(format!("{url} leads to a Conductor")),
        Ok(Answer { status, .. }) => Finding::odd(
            format!("{url} leads elsewhere: it answers {status}"),
            "let the proxy pass everything, or at least /receipts/, on to this server",
        ),
        Err(_) => Finding::odd(
            format!("{url} cannot be reached from here"),
            "try it from outside: providers post receipts to /receipts/ below it",
        ),
    });
    findings
}

fn is_private(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => {
            let name = name.trim_end_matches('.');
            name == "localhost" || [".localhost", ".local", ".lan", ".internal"].iter().any(|end| name.ends_with(end))
        }
        Some(Host::Ipv4(address)) => is_private_address(IpAddr::V4(address)),
        Some(Host::Ipv6(address)) => is_private_address(IpAddr::V6(address)),
        None => true,
    }
}

fn is_private_address(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || v4.is_link_local() || v4.is_unspecified(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local() || v6.is_unspecified(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_only_this_network_knows_is_no_public_one() {
        let is_private = |text: &str| is_private(&text.parse().expect("a URL"));
        for url in
            ["http://localhost:3333", "http://127.0.0.1", "https://10.0.0.1", "http://nas.local", "http://[fd00::1]"]
        {
            assert!(is_private(url), "{url}");
        }
        for url in
            ["https://conductor.example", "https://203.0.113.7", "https://[2001:db8::1]", "https://locale.example"]
        {
            assert!(!is_private(url), "{url}");
        }
    }
}
