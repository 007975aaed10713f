//! A receiver of webhooks that answers 200 at once, and tells when each message came.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::load::{content_length, find};

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

/// A running sink.
pub(crate) struct Sink {
    pub(crate) address: SocketAddr,
    received: Arc<AtomicU64>,
    messages: mpsc::UnboundedReceiver<(u64, Instant)>,
}

impl Sink {
    /// `tells` says whether the times of the single messages are wanted.
    pub(crate) async fn start(tells: bool) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let received = Arc::new(AtomicU64::new(0));
        let (sender, messages) = mpsc::unbounded_channel();
        let count = Arc::clone(&received);
        #[expect(clippy::disallowed_methods, reason = "it ends with the run")]
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&count), tells.then(|| sender.clone())));
            }
        });
        Ok(Self { address, received, messages })
    }

    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Waits for the next message. Gives its number and when it came.
    pub(crate) async fn next(&mut self, time: Duration) -> Option<(u64, Instant)> {
        tokio::time::timeout(time, self.messages.recv()).await.ok().flatten()
    }
}

async fn serve(mut stream: TcpStream, count: Arc<AtomicU64>, tells: Option<mpsc::UnboundedSender<(u64, Instant)>>) {
    let _ = stream.set_nodelay(true);
    let mut buffer = Vec::with_capacity(8 * 1024);
    loop {
        let request = loop {
            if let Some(head) = find(&buffer, b"\r\n\r\n") {
                let length = content_length(&buffer[..head]).unwrap_or(0);
                if buffer.len() >= head + 4 + length {
                    break head + 4 + length;
                }
            }
            match stream.read_buf(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        };
        count.fetch_add(1, Ordering::Relaxed);
        if let Some(tells) = &tells
            && let Some(number) = number(&buffer[..request])
        {
            let _ = tells.send((number, Instant::now()));
        }
        buffer.drain(..request);
        if stream.write_all(ANSWER).await.is_err() {
            return;
        }
    }
}

/// The number in a message `"number 17"`.
fn number(request: &[u8]) -> Option<u64> {
    let start = find(request, b"number ")? + b"number ".len();
    let digits: Vec<u8> = request[start..].iter().copied().take_while(u8::is_ascii_digit).collect();
    std::str::from_utf8(&digits).ok()?.parse().ok()
}
