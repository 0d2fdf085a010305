//! One question to the servers in order: TCP, since datagrams may lack records without saying so.
//!
//! In: a name and a record type. Out: a checked answer. Never: waits longer than the deadline of an attempt.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use hickory_proto::{
    op::Message,
    rr::{Name, RecordType},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

use super::parse::{self, AnswerError};

/// An attempt over TCP, connecting included.
const STREAM: Duration = Duration::from_secs(4);
/// An attempt over UDP; there are two.
const DATAGRAM: Duration = Duration::from_millis(1_500);

/// Why no server answered.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExchangeError {
    /// The socket failed, or nothing came in time.
    #[error("{server}")]
    Io {
        /// Who was asked.
        server: SocketAddr,
        /// The cause.
        #[source]
        cause: io::Error,
    },
    /// The answer cannot be used.
    #[error("{server}")]
    Answer {
        /// Who was asked.
        server: SocketAddr,
        /// The cause.
        #[source]
        cause: AnswerError,
    },
    /// No server is known, or the name cannot be asked.
    #[error("{0}")]
    Impossible(&'static str),
}

/// The servers, and how they are asked.
#[derive(Debug, Clone)]
pub(super) struct Exchange {
    /// In order; the next one is asked when one fails.
    pub(super) servers: Vec<SocketAddr>,
    /// True: a datagram first, TCP when it was cut.
    pub(super) udp: bool,
}

/// An answer, and whether all of it is known to be there.
#[derive(Debug)]
pub(super) struct Answered {
    /// The answer.
    pub(super) message: Message,
    /// True when it came over TCP: its additional records are not cut.
    pub(super) stream: bool,
}

impl Exchange {
    /// The first usable answer. A negative one is an answer and ends the search.
    pub(super) async fn ask(
        &self,
        name: &Name,
        kind: RecordType,
    ) -> Result<Answered, ExchangeError> {
        let mut last = ExchangeError::Impossible("there is no server to ask");
        for server in &self.servers {
            match self.ask_one(*server, name, kind).await {
                Ok(answered) => return Ok(answered),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn ask_one(
        &self,
        server: SocketAddr,
        name: &Name,
        kind: RecordType,
    ) -> Result<Answered, ExchangeError> {
        if self.udp {
            let first = datagram(server, name, kind).await;
            if !matches!(
                &first,
                Err(ExchangeError::Answer {
                    cause: AnswerError::Cut,
                    ..
                })
            ) {
                return first;
            }
            return stream(server, name, kind).await;
        }
        match stream(server, name, kind).await {
            Err(ExchangeError::Io { cause, .. })
                if cause.kind() == io::ErrorKind::ConnectionRefused =>
            {
                datagram(server, name, kind).await
            }
            answered => answered,
        }
    }
}

async fn stream(
    server: SocketAddr,
    name: &Name,
    kind: RecordType,
) -> Result<Answered, ExchangeError> {
    let (id, question) = question(name, kind)?;
    let bytes = timeout(STREAM, over_tcp(server, &question))
        .await
        .unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into()))
        .map_err(|cause| ExchangeError::Io { server, cause })?;
    let message = parse::answer(&bytes, id, name, kind)
        .map_err(|cause| ExchangeError::Answer { server, cause })?;
    Ok(Answered {
        message,
        stream: true,
    })
}

async fn over_tcp(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend_from_slice(question);
    stream.write_all(&framed).await?;
    let mut bytes = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

/// Two attempts, each from a port of its own. Foreign datagrams are passed over.
async fn datagram(
    server: SocketAddr,
    name: &Name,
    kind: RecordType,
) -> Result<Answered, ExchangeError> {
    let mut result = Err(io::ErrorKind::TimedOut.into());
    for _ in 0..2 {
        let (id, question) = question(name, kind)?;
        let attempt = over_udp(server, &question, |bytes| {
            parse::answer(bytes, id, name, kind)
        });
        result = timeout(DATAGRAM, attempt)
            .await
            .unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into()));
        if result.is_ok() {
            break;
        }
    }
    let answer = result.map_err(|cause| ExchangeError::Io { server, cause })?;
    let message = answer.map_err(|cause| ExchangeError::Answer { server, cause })?;
    Ok(Answered {
        message,
        stream: false,
    })
}

async fn over_udp(
    server: SocketAddr,
    question: &[u8],
    read: impl Fn(&[u8]) -> Result<Message, AnswerError>,
) -> io::Result<Result<Message, AnswerError>> {
    let any = if server.is_ipv4() {
        SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))
    } else {
        SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut bytes = vec![0; 65_535];
    loop {
        let length = socket.recv(&mut bytes).await?;
        match read(bytes.get(..length).unwrap_or_default()) {
            Err(AnswerError::Foreign) => {}
            answer => return Ok(answer),
        }
    }
}

fn question(name: &Name, kind: RecordType) -> Result<(u16, Vec<u8>), ExchangeError> {
    let id = fastrand::u16(..);
    let bytes = parse::question(id, name, kind)
        .ok_or(ExchangeError::Impossible("the name cannot be asked"))?;
    Ok((id, bytes))
}

/// The system's servers, as `resolv.conf` writes them; the local one when it writes none (`resolv.conf(5)`).
pub(super) fn system(text: &str) -> Vec<SocketAddr> {
    let mut servers: Vec<SocketAddr> = text
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            (words.next() == Some("nameserver"))
                .then(|| words.next()?.parse().ok())
                .flatten()
        })
        .map(|ip| SocketAddr::new(ip, 53))
        .collect();
    if servers.is_empty() {
        servers.push(SocketAddr::from((Ipv4Addr::LOCALHOST, 53)));
    }
    servers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_servers() {
        let text = "# x\nsearch example.com\nnameserver 10.0.0.53\nnameserver fd00::53 \nnameserver fe80::1%eth0\noptions edns0\n";
        let wanted: Vec<SocketAddr> = ["10.0.0.53:53", "[fd00::53]:53"]
            .iter()
            .map(|text| text.parse().unwrap())
            .collect();
        assert_eq!(system(text), wanted);
        assert_eq!(system(""), ["127.0.0.1:53".parse().unwrap()]);
    }
}
