//! Clients that say what no HTTP library lets one say.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// How long an answer is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A raw connection.
pub(crate) struct Wire(pub(crate) TcpStream);

impl Wire {
    pub(crate) async fn open(address: &str) -> Self {
        Self(TcpStream::connect(address).await.expect("it takes connections"))
    }

    /// Writes; false if the other side has gone.
    pub(crate) async fn say(&mut self, bytes: &[u8]) -> bool {
        self.0.write_all(bytes).await.is_ok()
    }

    /// Reads until the other side closes. Gives what came, and whether it closed in time.
    pub(crate) async fn hear(&mut self) -> (Vec<u8>, bool) {
        let mut heard = Vec::new();
        let closed = tokio::time::timeout(PATIENCE, async {
            // A reset is an end too.
            while let Ok(1..) = self.0.read_buf(&mut heard).await {}
        });
        let closed = closed.await.is_ok();
        (heard, closed)
    }

    /// Reads until this text has come so often, or the other side closes.
    pub(crate) async fn hear_until(&mut self, text: &str, times: usize) -> String {
        let mut heard = Vec::new();
        let enough = tokio::time::timeout(PATIENCE, async {
            while String::from_utf8_lossy(&heard).matches(text).count() < times {
                if !matches!(self.0.read_buf(&mut heard).await, Ok(1..)) {
                    return;
                }
            }
        });
        let _ = enough.await;
        String::from_utf8_lossy(&heard).into_owned()
    }
}

/// The statuses of all answers in what was heard.
pub(crate) fn statuses(heard: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(heard);
    let heads = text.match_indices("HTTP/1.").map(|(at, _)| &text[at..]);
    heads.filter_map(|head| head.split(' ').nth(1)?.get(..3)?.parse().ok()).collect()
}
