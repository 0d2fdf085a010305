//! New TCP connections one after the other, each with one byte there and back, on a few threads.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream, ToSocketAddrs},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use serde_json::json;

use super::{Words, print};

/// `address`, `threads`, `seconds`.
pub(crate) fn run(words: &Words) -> anyhow::Result<()> {
    let address = words
        .text("address")?
        .to_socket_addrs()?
        .next()
        .context("no address")?;
    let started = Instant::now();
    let end = started + Duration::from_secs(words.number("seconds")?);
    let threads: Vec<_> = (0..words.number("threads")?)
        .map(|_| thread::spawn(move || work(address, end)))
        .collect();
    let mut sum = (0_u64, 0_u64);
    for thread in threads {
        let (done, failed) = thread.join().unwrap_or_default();
        sum = (sum.0 + done, sum.1 + failed);
    }
    print(&json!({
        "connections": sum.0, "failed": sum.1, "seconds": started.elapsed().as_secs_f64(),
    }))
}

fn work(address: SocketAddr, end: Instant) -> (u64, u64) {
    let mut counts = (0, 0);
    while Instant::now() < end {
        match once(address) {
            Ok(()) => counts.0 += 1,
            Err(_) => counts.1 += 1,
        }
    }
    counts
}

fn once(address: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"p")?;
    stream.read_exact(&mut [0])
}
