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

/// `address`, `count`, `kind` (`http` or `tcp`), `host`.
pub(crate) fn run(words: &Words) -> anyhow::Result<()> {
    let address = words
        .text("address")?
        .to_socket_addrs()?
        .next()
        .context("no address")?;
    let http = words.text("kind")? == "http";
    let request = http1::request(words.text("host")?, "/");
    let mut buffer = Vec::new();
    let mut kept = Vec::new();
    for number in 0..words.number::<u32>("count")? {
        let stream = open(address, http.then_some(&*request), &mut buffer)
            .with_context(|| format!("connection {number}"))?;
        kept.push(stream);
    }
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
