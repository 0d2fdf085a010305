//! Thousands of slow clients: `head` sends a request's head byte by byte and never ends it, `read` asks for
//! a large answer and takes a few bytes a second of it.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream, ToSocketAddrs},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use serde_json::json;
use socket2::{Domain, Socket, Type};

use super::{Words, print};

/// `address`, `host`, `count`, `kind` (`head` or `read`), `seconds`.
pub(crate) fn run(words: &Words) -> anyhow::Result<()> {
    let address = words
        .text("address")?
        .to_socket_addrs()?
        .next()
        .context("no address")?;
    let (host, head) = (words.text("host")?, words.text("kind")? == "head");
    let first = if head {
        format!("GET / HTTP/1.1\r\nHost: {host}\r\nX-Slow: ")
    } else {
        format!("GET /big HTTP/1.1\r\nHost: {host}\r\n\r\n")
    };
    let mut streams = Vec::new();
    for number in 0..words.number::<u32>("count")? {
        let mut stream = open(address).with_context(|| format!("client {number}"))?;
        stream.write_all(first.as_bytes())?;
        stream.set_nonblocking(true)?;
        streams.push(stream);
    }
    print(&json!({ "open": streams.len() }))?;
    let end = Instant::now() + Duration::from_secs(words.number("seconds")?);
    let mut buffer = [0_u8; 64];
    while Instant::now() < end {
        let turn = Instant::now();
        for stream in &mut streams {
            // A proxy may well close on such a client: that is its right, and no failure here.
            if head {
                drop(stream.write(b"x"));
            } else {
                drop(stream.read(&mut buffer));
            }
        }
        thread::sleep(Duration::from_secs(1).saturating_sub(turn.elapsed()));
    }
    print(&json!({ "done": true }))
}

/// A connection with a receive buffer as small as the kernel allows.
fn open(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_recv_buffer_size(4096)?;
    socket.connect_timeout(&address.into(), Duration::from_secs(10))?;
    Ok(socket.into())
}
