//! Many TCP bytes, half of the time to the backend and half from it, over one connection each.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    time::{Duration, Instant},
};

use serde_json::json;

use super::{Words, print};

const PIECE: usize = 256 * 1024;

/// `address`, `milliseconds` in all.
pub(crate) fn run(words: &Words) -> anyhow::Result<()> {
    let address = words.text("address")?;
    let half = Duration::from_millis(words.number::<u64>("milliseconds")? / 2);
    let started = Instant::now();
    let up = up(address, half)?;
    let up_seconds = started.elapsed().as_secs_f64();
    let started = Instant::now();
    let down = down(address, half)?;
    print(&json!({
        "up": up, "up_seconds": up_seconds,
        "down": down, "down_seconds": started.elapsed().as_secs_f64(),
    }))
}

fn up(address: &str, time: Duration) -> anyhow::Result<u64> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.write_all(b"U")?;
    let buffer = vec![b'x'; PIECE];
    let end = Instant::now() + time;
    while Instant::now() < end {
        stream.write_all(&buffer)?;
    }
    stream.shutdown(Shutdown::Write)?;
    let mut count = [0_u8; 8];
    stream.read_exact(&mut count)?;
    Ok(u64::from_be_bytes(count))
}

fn down(address: &str, time: Duration) -> anyhow::Result<u64> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.write_all(b"D")?;
    let mut buffer = vec![0_u8; PIECE];
    let end = Instant::now() + time;
    let mut count = 0;
    while Instant::now() < end {
        let length = stream.read(&mut buffer)?;
        anyhow::ensure!(length > 0, "the connection was closed");
        count += u64::try_from(length)?;
    }
    Ok(count)
}
