//! Idle connections: each is opened, does one exchange, and is kept until this program is ended.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream, ToSocketAddrs},
    thread,
    time::Duration,
};

use anyhow::Context;
use serde_json::json;

use super::{Words, http1, print};

/// Threads that open connections.
const THREADS: u32 = 4;

/// `address`, `count`, `kind` (`http` or `tcp`), `host`.
pub(crate) fn run(words: &Words) -> anyhow::Result<()> {
    let address = words
        .text("address")?
        .to_socket_addrs()?
        .next()
        .context("no address")?;
    let http = words.text("kind")? == "http";
    let request = http1::request(words.text("host")?, "/");
    let count: u32 = words.number("count")?;
    let open_share = |share: u32| {
        let mut buffer = Vec::new();
        (0..count)
            .filter(|number| number % THREADS == share)
            .map(|number| {
                open(address, http.then_some(&*request), &mut buffer)
                    .with_context(|| format!("connection {number}"))
            })
            .collect::<anyhow::Result<Vec<_>>>()
    };
    let kept = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|share| {
                scope.spawn({
                    let open_share = &open_share;
                    move || open_share(share)
                })
            })
            .collect();
        let mut kept = Vec::new();
        for thread in threads {
            let opened = thread
                .join()
                .map_err(|_panic| anyhow::anyhow!("a thread broke"))?;
            kept.extend(opened?);
        }
        anyhow::Ok(kept)
    })?;
    print(&json!({ "held": kept.len() }))?;
    loop {
        thread::sleep(Duration::from_hours(1));
    }
}

fn open(
    address: SocketAddr,
    request: Option<&[u8]>,
    buffer: &mut Vec<u8>,
) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(10))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.set_nodelay(true)?;
    if let Some(request) = request {
        http1::exchange(&mut stream, request, buffer)?;
    } else {
        stream.write_all(b"p")?;
        stream.read_exact(&mut [0])?;
    }
    Ok(stream)
}
