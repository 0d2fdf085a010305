//! HTTP/1.1 requests and answers on a blocking socket: GET, answers with Content-Length.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use anyhow::{Context, bail};

/// A GET as bytes.
pub(crate) fn request(host: &str, path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: mesh-bench\r\n\r\n").into_bytes()
}

/// Sends the bytes and reads the answer; fails unless it is 200.
pub(crate) fn exchange(
    stream: &mut TcpStream,
    request: &[u8],
    buffer: &mut Vec<u8>,
) -> anyhow::Result<()> {
    stream.write_all(request)?;
    match answer(stream, buffer)? {
        200 => Ok(()),
        status => bail!("status {status}"),
    }
}

/// Reads one whole answer and returns its status; the buffer is scratch space.
pub(crate) fn answer(stream: &mut impl Read, buffer: &mut Vec<u8>) -> anyhow::Result<u16> {
    buffer.clear();
    let mut piece = [0_u8; 4096];
    loop {
        let length = stream.read(&mut piece)?;
        if length == 0 {
            bail!("the connection was closed");
        }
        buffer.extend_from_slice(piece.get(..length).unwrap_or_default());
        if let Some((status, whole)) = head(buffer)?
            && buffer.len() >= whole
        {
            return Ok(status);
        }
    }
}

/// Status, and length of head and body, once the head is whole.
fn head(bytes: &[u8]) -> anyhow::Result<Option<(u16, usize)>> {
    let Some(end) = bytes.windows(4).position(|part| part == b"\r\n\r\n") else {
        return Ok(None);
    };
    let text = std::str::from_utf8(bytes.get(..end).unwrap_or_default())?;
    let status = text
        .get(9..12)
        .and_then(|code| code.parse().ok())
        .context("no status")?;
    let body: usize = text
        .lines()
        .find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.trim().parse().ok())?
        })
        .context("no content-length")?;
    Ok(Some((status, end + 4 + body)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_answer_is_read_to_its_end() {
        let text = b"HTTP/1.1 503 No\r\nA: b\r\ncontent-LENGTH: 3\r\n\r\nabc";
        assert_eq!(answer(&mut &text[..], &mut Vec::new()).unwrap(), 503);
        assert!(answer(&mut &text[..text.len() - 1], &mut Vec::new()).is_err());
        assert!(answer(&mut &b"HTTP/1.1 200 OK\r\n\r\n"[..], &mut Vec::new()).is_err());
    }
}
