//! A TCP backend: `U` takes bytes to their end and says how many, `D` gives bytes until the client is gone,
//! every other byte is sent back.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
};

use super::Words;

/// How much is read or written at once.
const PIECE: usize = 256 * 1024;

/// Serves on `address` until it is ended.
pub(crate) fn serve(words: &Words) -> anyhow::Result<()> {
    let listener = TcpListener::bind(words.text("address")?)?;
    for stream in listener.incoming().filter_map(Result::ok) {
        thread::Builder::new()
            .stack_size(64 * 1024)
            .spawn(move || drop(connection(stream)))?;
    }
    Ok(())
}

fn connection(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut byte = [0_u8; 1];
    loop {
        if stream.read(&mut byte)? == 0 {
            return Ok(());
        }
        match byte {
            [b'U'] => return take(stream),
            [b'D'] => return give(stream),
            _ => stream.write_all(&byte)?,
        }
    }
}

fn take(mut stream: TcpStream) -> std::io::Result<()> {
    let mut buffer = vec![0_u8; PIECE];
    let mut count = 0_u64;
    loop {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return stream.write_all(&count.to_be_bytes());
        }
        count += u64::try_from(length).unwrap_or_default();
    }
}

fn give(mut stream: TcpStream) -> std::io::Result<()> {
    let buffer = vec![b'x'; PIECE];
    loop {
        stream.write_all(&buffer)?;
    }
}
