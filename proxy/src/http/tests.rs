//! Whole requests through one and two daemons on loopback: the stage of this room's tests.

#![cfg(test)]

mod answers;
mod balancing;
mod explicit;
mod failing;
mod faults;
mod hedging;
mod http1;
mod http2;
mod limits;
mod matching;
mod mirrors;
mod retries;
mod routes;
mod sessions;
mod shedding;
mod streams;
mod timeouts;

use std::{cell::Cell, future::Future, net::SocketAddr, rc::Rc, time::Duration};

use mesh_model::{
    service::AppProtocol,
    snapshot::{BackendEndpoint, InboundPort, Snapshot},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::trial::{Host, World, listener, plain};

/// One or two daemons and a listener of a program behind them.
pub(super) struct Stage {
    pub world: World,
    pub a: Host,
    pub b: Option<Host>,
    pub listener: Rc<TcpListener>,
    pub address: SocketAddr,
}

/// Whether there is one daemon, or two with a tunnel between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Path {
    Straight,
    Tunnel,
}

pub(super) const BOTH: [Path; 2] = [Path::Straight, Path::Tunnel];

impl Stage {
    pub(super) async fn new(path: Path, protocol: AppProtocol) -> Self {
        Self::with(path, protocol, |_| {}).await
    }

    /// Whose calling daemon serves only so many requests at once.
    pub(super) async fn bounded(requests: u64) -> Self {
        let mut stage = Self::new(Path::Straight, AppProtocol::Http).await;
        stage.a = stage
            .world
            .caller_host_with(|limits| limits.requests = requests);
        let endpoint = stage.endpoint(1, stage.address);
        stage
            .a
            .publish(stage.calling(AppProtocol::Http, [endpoint]));
        stage
    }

    /// With a change of the serving host's port.
    pub(super) async fn with(
        path: Path,
        protocol: AppProtocol,
        change: impl FnOnce(&mut InboundPort),
    ) -> Self {
        let world = World::new();
        let listener = Rc::new(listener().await);
        let address = listener.local_addr().unwrap();
        let a = world.caller_host();
        let b = (path == Path::Tunnel).then(|| {
            let mut port = world.port(address, protocol);
            change(&mut port);
            world.serving_host(port)
        });
        let stage = Self {
            world,
            a,
            b,
            listener,
            address,
        };
        stage
            .a
            .publish(stage.calling(protocol, [stage.endpoint(1, address)]));
        stage
    }

    pub(super) fn endpoint(&self, key: u64, address: SocketAddr) -> BackendEndpoint {
        match &self.b {
            Some(b) => self.world.meshed(key, address, b.tunnel),
            None => plain(key, address),
        }
    }

    pub(super) fn calling(
        &self,
        protocol: AppProtocol,
        endpoints: impl IntoIterator<Item = BackendEndpoint>,
    ) -> Snapshot {
        self.world.calling(protocol, endpoints)
    }

    pub(super) async fn dial(&self) -> Talk {
        Talk::new(self.world.dial(&self.a).await)
    }

    pub(super) async fn accept(&self) -> Talk {
        Talk::new(self.listener.accept().await.unwrap().0)
    }

    /// Runs the program: each connection's requests are answered by what `answer` says. How many
    /// connections were opened.
    pub(super) fn program(&self, answer: impl Fn(&Heard) -> String + 'static) -> Rc<Cell<usize>> {
        serve(Rc::clone(&self.listener), answer)
    }
}

/// A program that answers each request with whole text.
pub(super) fn serve(
    listener: Rc<TcpListener>,
    answer: impl Fn(&Heard) -> String + 'static,
) -> Rc<Cell<usize>> {
    let opened = Rc::new(Cell::new(0));
    let count = Rc::clone(&opened);
    let answer = Rc::new(answer);
    tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.set(count.get() + 1);
            let answer = Rc::clone(&answer);
            tokio::task::spawn_local(async move {
                let mut talk = Talk::new(stream);
                while let Some(heard) = talk.request().await {
                    let text = answer(&heard);
                    if text.is_empty() {
                        return;
                    }
                    talk.say(&text).await;
                }
            });
        }
    });
    opened
}

/// A whole answer with a body.
pub(super) fn ok(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A message that was heard.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Heard {
    pub first: String,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
}

impl Heard {
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        let found = self
            .fields
            .iter()
            .find(|(found, _)| found.eq_ignore_ascii_case(name));
        found.map(|(_, value)| &**value)
    }
    pub(super) fn status(&self) -> u16 {
        self.first.split(' ').nth(1).unwrap().parse().unwrap()
    }
    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
    /// Code and id of `mesh-error`.
    pub(super) fn error(&self) -> Option<(&str, &str)> {
        let value = self.field("mesh-error")?;
        let code = value.split(';').next()?;
        Some((code, value.split("id=").nth(1)?))
    }
}

/// One end of a connection that speaks HTTP/1 word by word.
pub(super) struct Talk {
    pub stream: TcpStream,
    buffer: Vec<u8>,
}

impl Talk {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
        }
    }

    pub(super) async fn say(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    async fn more(&mut self) -> bool {
        let read = self.stream.read_buf(&mut self.buffer).await;
        read.is_ok_and(|count| count > 0)
    }

    /// The next head, without a body.
    pub(super) async fn head(&mut self) -> Option<Heard> {
        let end = loop {
            if let Some(end) = self
                .buffer
                .windows(4)
                .position(|window| window == b"\r\n\r\n")
            {
                break end;
            }
            if !self.more().await {
                return None;
            }
        };
        let head: Vec<u8> = self.buffer.drain(..end + 4).collect();
        let text = String::from_utf8(head).unwrap();
        let mut lines = text.trim_end().split("\r\n");
        let first = lines.next().unwrap().to_owned();
        Some(Heard {
            first,
            fields: lines.map(field).collect(),
            ..Heard::default()
        })
    }

    /// The next request with its body.
    pub(super) async fn request(&mut self) -> Option<Heard> {
        let mut heard = self.head().await?;
        if heard.field("expect").is_some() {
            self.say("HTTP/1.1 100 Continue\r\n\r\n").await;
        }
        self.body(&mut heard, false).await.then_some(heard)
    }

    /// The next final answer with its body; `None` when it is cut.
    pub(super) async fn answer(&mut self) -> Option<Heard> {
        loop {
            let mut heard = self.head().await?;
            if heard.status() < 200 && heard.status() != 101 {
                continue;
            }
            return self.body(&mut heard, true).await.then_some(heard);
        }
    }

    /// Asks and waits for the answer.
    pub(super) async fn ask(&mut self, request: &str) -> Heard {
        self.say(request).await;
        self.answer().await.expect("an answer")
    }

    /// GET with further header lines.
    pub(super) async fn get(&mut self, path: &str, lines: &str) -> Heard {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: web\r\n{lines}\r\n"))
            .await
    }

    async fn take(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < count {
            if !self.more().await {
                return None;
            }
        }
        Some(self.buffer.drain(..count).collect())
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|window| window == b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..end + 2).collect();
                return Some(String::from_utf8(line).unwrap().trim_end().to_owned());
            }
            if !self.more().await {
                return None;
            }
        }
    }

    async fn body(&mut self, heard: &mut Heard, answer: bool) -> bool {
        if heard.field("transfer-encoding").is_some() {
            assert_eq!(heard.field("transfer-encoding"), Some("chunked"));
            assert_eq!(heard.field("content-length"), None);
            return self.chunks(heard).await.is_some();
        }
        let length = heard
            .field("content-length")
            .map(|length| length.parse().unwrap());
        let bodiless = answer && matches!(heard.status(), 101 | 204 | 304);
        match length {
            _ if bodiless => {}
            Some(length) => match self.take(length).await {
                Some(body) => heard.body = body,
                None => return false,
            },
            None if answer => {
                while self.more().await {}
                heard.body = std::mem::take(&mut self.buffer);
            }
            None => {}
        }
        true
    }

    async fn chunks(&mut self, heard: &mut Heard) -> Option<()> {
        loop {
            let size = usize::from_str_radix(&self.line().await?, 16).unwrap();
            if size == 0 {
                break;
            }
            heard.body.extend(self.take(size).await?);
            assert_eq!(self.line().await?, "");
        }
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                return Some(());
            }
            heard.trailers.push(field(&line));
        }
    }

    /// Reads bytes as they are.
    pub(super) async fn raw(&mut self, count: usize) -> Vec<u8> {
        self.take(count).await.expect("more bytes")
    }

    /// True when the other end ends cleanly and says nothing more.
    pub(super) async fn ends(&mut self) -> bool {
        self.buffer.is_empty() && matches!(self.stream.read_buf(&mut self.buffer).await, Ok(0))
    }
}

fn field(line: &str) -> (String, String) {
    let (name, value) = line.split_once(':').unwrap();
    (name.to_ascii_lowercase(), value.trim().to_owned())
}

/// Fails the test when something takes longer than a few seconds.
pub(super) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), future)
        .await
        .expect("in time")
}
