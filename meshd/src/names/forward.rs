//! Asks an upstream: the client's own bytes under another id, over the way the client came.
//!
//! An answer that was cut by the upstream goes back as it is: the client then asks again over TCP, and so do
//! we. Never: believes an answer with another id or another question.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

use super::answer::Transport;

/// Time for one upstream.
const LIMIT: Duration = Duration::from_secs(2);
/// How often the upstreams are gone through.
const ROUNDS: usize = 2;
/// Header and the smallest question.
const SMALLEST: usize = 17;

/// The first good answer of the upstreams, under the client's id; none when there is none in time.
pub(super) async fn ask(
    query: &[u8],
    transport: Transport,
    upstreams: &[SocketAddr],
) -> Option<Vec<u8>> {
    if query.len() < SMALLEST {
        return None;
    }
    for &upstream in std::iter::repeat_n(upstreams, ROUNDS).flatten() {
        let id = fastrand::u16(..);
        let asked = with_id(query, id)?;
        let answer = match transport {
            Transport::Udp => timeout(LIMIT, by_datagram(&asked, upstream)).await,
            Transport::Tcp => timeout(LIMIT, by_stream(&asked, upstream)).await,
        };
        match answer {
            Ok(Ok(answer)) => return with_id(&answer, id_of(query)?),
            Ok(Err(error)) => tracing::debug!(%upstream, %error, "an upstream does not answer"),
            Err(_elapsed) => tracing::debug!(%upstream, "an upstream is slow"),
        }
    }
    None
}

async fn by_datagram(query: &[u8], upstream: SocketAddr) -> io::Result<Vec<u8>> {
    let any = match upstream {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    // A fresh port for each question: an answer cannot be guessed.
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(upstream).await?;
    socket.send(query).await?;
    let mut buffer = vec![0_u8; usize::from(u16::MAX)];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if let Some(answer) = buffer.get(..length)
            && fits(query, answer)
        {
            return Ok(answer.to_vec());
        }
    }
}

async fn by_stream(query: &[u8], upstream: SocketAddr) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(upstream).await?;
    stream.write_all(&framed(query)?).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0_u8; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    if fits(query, &answer) {
        return Ok(answer);
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidData,
        "the answer is to another question",
    ))
}

/// A message with its length before it (RFC 1035 section 4.2.2).
pub(super) fn framed(message: &[u8]) -> io::Result<Vec<u8>> {
    let length = u16::try_from(message.len())
        .map_err(|_too_long| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut bytes = Vec::with_capacity(message.len() + 2);
    bytes.extend(length.to_be_bytes());
    bytes.extend(message);
    Ok(bytes)
}

/// Same id, an answer, and the question that was asked, in whatever case.
fn fits(query: &[u8], answer: &[u8]) -> bool {
    let is_answer = answer.get(2).is_some_and(|flags| flags & 0x80 != 0);
    if !is_answer || id_of(query) != id_of(answer) {
        return false;
    }
    let Some(asked) = question(query) else {
        return false;
    };
    match question(answer) {
        Some(told) => asked.eq_ignore_ascii_case(told),
        // Upstreams that did not understand may leave the question out.
        None => {
            answer.get(4..6) == Some(&[0, 0]) && answer.get(3).is_some_and(|code| code & 0xf != 0)
        }
    }
}

/// The one question's bytes: name, type, class.
fn question(message: &[u8]) -> Option<&[u8]> {
    if message.get(4..6)? != [0, 1] {
        return None;
    }
    let mut at = 12;
    loop {
        match *message.get(at)? {
            0 => return message.get(12..at + 5),
            // No compression: nothing stands before it that could be pointed to.
            length if length < 64 => at += usize::from(length) + 1,
            _ => return None,
        }
    }
}

fn id_of(message: &[u8]) -> Option<u16> {
    message
        .first_chunk()
        .map(|bytes| u16::from_be_bytes(*bytes))
}

fn with_id(message: &[u8], id: u16) -> Option<Vec<u8>> {
    let mut bytes = message.to_vec();
    *bytes.first_chunk_mut()? = id.to_be_bytes();
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(id: u16, flags: u8, name: &str) -> Vec<u8> {
        let mut bytes = id.to_be_bytes().to_vec();
        bytes.extend([flags, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        for label in name.split('.') {
            bytes.push(u8::try_from(label.len()).unwrap());
            bytes.extend(label.as_bytes());
        }
        bytes.extend([0, 0, 1, 0, 1]);
        bytes
    }

    #[test]
    fn only_the_answer_to_the_question_fits() {
        let query = message(7, 1, "example.com");
        for (answer, expected) in [
            (message(7, 0x81, "example.com"), true),
            (message(7, 0x81, "EXAMPLE.com"), true),
            (message(8, 0x81, "example.com"), false),
            (message(7, 0x01, "example.com"), false),
            (message(7, 0x81, "example.org"), false),
            (message(7, 0x81, "example.com")[..14].to_vec(), false),
            (vec![0, 7, 0x81, 1, 0, 0, 0, 0, 0, 0, 0, 0], true),
            (vec![0, 7, 0x81, 0, 0, 0, 0, 0, 0, 0, 0, 0], false),
            (Vec::new(), false),
        ] {
            assert_eq!(fits(&query, &answer), expected, "{answer:?}");
        }
    }
}
