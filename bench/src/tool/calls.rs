//! HTTP/2 at a constant rate (open loop): latency is counted from the time that each request was due.
//!
//! One thread keeps the time, another sends and receives; requests go round the connections.

use std::{cell::RefCell, rc::Rc, sync::Arc, thread, time::Duration};

use anyhow::{Context, ensure};
use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use http::Request;
use tokio::{net::TcpStream, sync::mpsc, task::LocalSet, time::Instant};

use super::{
    Words,
    rate::{GRACE, Seen, WARM, pace},
};

/// Requests that are due and not sent yet, at most.
const WAITING: usize = 1 << 20;

/// `address`, `host`, `path`, `rate` requests a second, `connections`, `seconds`, `grpc`: bytes of a message to
/// send, 0 for a GET.
pub(crate) fn run(words: &Words) -> anyhow::Result<()> {
    let (rate, seconds): (u64, u64) = (words.number("rate")?, words.number("seconds")?);
    drop(std::fs::write("/proc/self/timerslack_ns", "1"));
    let call = Call::read(words)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, async {
        let mut senders = Vec::new();
        for _ in 0..words.number::<usize>("connections")? {
            senders.push(open(words.text("address")?).await?);
        }
        let (give, mut take) = mpsc::channel(WAITING);
        let start = std::time::Instant::now();
        let total = WARM + Duration::from_secs(seconds);
        let clock = thread::spawn(move || {
            pace(start, rate, total, |due| {
                // A full queue is a request without an answer: it is counted as one.
                let _full = give.try_send(due);
            })
        });
        let seen = Rc::new(RefCell::new(Seen::default()));
        let mut next = 0;
        while let Some(due) = take.recv().await {
            let count = senders.len().max(1);
            let sender = senders.get_mut(next % count).context("no connection")?;
            next += 1;
            let answer = call.send(sender);
            let seen = Rc::clone(&seen);
            tokio::task::spawn_local(async move {
                let outcome = match answer {
                    Ok(answer) => finish(answer).await,
                    Err(error) => Err(error),
                };
                let mut seen = seen.borrow_mut();
                match outcome {
                    Ok(()) => seen.succeed(due, start.elapsed()),
                    Err(error) => seen.fail(format!("{error:#}")),
                }
            });
        }
        let sent = clock.join().unwrap_or_default();
        let end = Instant::now() + GRACE;
        while Instant::now() < end && seen.borrow().answered + seen.borrow().failed < sent {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        seen.borrow_mut().print(sent, seconds)
    })
}

async fn open(address: &str) -> anyhow::Result<SendRequest<Bytes>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = h2::client::Builder::new()
        .initial_window_size(1 << 20)
        .initial_connection_window_size(8 << 20)
        .handshake(stream)
        .await?;
    tokio::task::spawn_local(async move {
        drop(connection.await);
    });
    Ok(sender.ready().await?)
}

/// What is asked again and again.
struct Call {
    url: String,
    message: Option<Arc<[u8]>>,
}

impl Call {
    fn read(words: &Words) -> anyhow::Result<Self> {
        let length = words.number::<u8>("grpc")?;
        let message = (length > 0).then(|| {
            let mut message = vec![0, 0, 0, 0, length];
            message.resize(5 + usize::from(length), b'x');
            message.into()
        });
        Ok(Self {
            url: format!("http://{}{}", words.text("host")?, words.text("path")?),
            message,
        })
    }

    fn send(&self, sender: &mut SendRequest<Bytes>) -> anyhow::Result<ResponseFuture> {
        let Some(message) = &self.message else {
            let request = Request::get(&self.url).body(())?;
            return Ok(sender.send_request(request, true)?.0);
        };
        let request = Request::post(&self.url)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())?;
        let (answer, mut body) = sender.send_request(request, false)?;
        body.send_data(Bytes::copy_from_slice(message), true)?;
        Ok(answer)
    }
}

/// Reads an answer to its end.
async fn finish(answer: ResponseFuture) -> anyhow::Result<()> {
    let answer = answer.await?;
    ensure!(answer.status() == 200, "status {}", answer.status());
    let mut body = answer.into_body();
    while let Some(piece) = body.data().await {
        body.flow_control().release_capacity(piece?.len())?;
    }
    let trailers = body.trailers().await?;
    let status = trailers.as_ref().and_then(|all| all.get("grpc-status"));
    ensure!(
        status.is_none_or(|status| status == "0"),
        "gRPC status {status:?}"
    );
    Ok(())
}
