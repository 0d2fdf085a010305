//! The first bytes of a connection: read, in time, without holding a buffer while nothing comes.

use std::{io, time::Duration};

use bytes::BytesMut;
use mesh_model::service::AppProtocol;
use tokio::{
    io::{AsyncReadExt, Interest},
    time::Instant,
};

use crate::{
    detect::{self, Spoken},
    drain::Drain,
    hello::{self, Hello},
    io::Io,
};

/// What the first bytes, or their absence, say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum First {
    /// This is spoken.
    Spoken(Spoken),
    /// Nothing came in time, or an end came first.
    Silent,
    /// The connection is broken.
    Broken,
}

impl First {
    /// On a port whose protocol is HTTP: what is no HTTP/2 is read, and refused, as HTTP/1; but where HTTP/2 is
    /// configured, a preface that is neither ends the connection (RFC 9113 section 3.4).
    pub(crate) fn as_http(self, protocol: AppProtocol) -> Self {
        match (self, protocol) {
            (
                Self::Spoken(Spoken::Opaque | Spoken::Tls),
                AppProtocol::Http2 | AppProtocol::Grpc,
            ) => Self::Broken,
            (Self::Spoken(Spoken::Opaque | Spoken::Tls), _) => Self::Spoken(Spoken::Http1),
            (first, _) => first,
        }
    }
}

/// Room for the first read.
const ROOM: usize = 4096;

/// Reads once, at least one byte unless the end came (then 0). Safe to cancel: nothing is lost.
pub(crate) async fn read_some(io: &mut Io, into: &mut BytesMut) -> io::Result<usize> {
    if let Io::Tcp(stream) = io {
        loop {
            stream.ready(Interest::READABLE).await?;
            into.reserve(ROOM);
            match stream.try_read_buf(into) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
        }
    }
    into.reserve(ROOM);
    io.read_buf(into).await
}

/// Reads until the bytes tell what is spoken; `silence` is the patience for the first byte, `more` for the rest.
pub(crate) async fn bytes(
    io: &mut Io,
    into: &mut BytesMut,
    silence: Duration,
    more: Duration,
) -> First {
    told(io, into, silence, more, detect::spoken).await
}

/// How long draining waits for a caller that has connected and said nothing: who has just connected is about to speak.
const LAST: Duration = Duration::from_secs(1);

/// The same where HTTP is configured: a request line is believed from its beginning on. Of a silent caller draining
/// does not wait for more than a second.
pub(crate) async fn requests(
    io: &mut Io,
    into: &mut BytesMut,
    silence: Duration,
    more: Duration,
    drain: &Drain,
) -> First {
    if into.is_empty() {
        let by = async {
            drain.draining().await;
            tokio::time::sleep(LAST).await;
        };
        // Whatever has come is read, draining or not.
        let read = tokio::select! {
            biased;
            read = tokio::time::timeout(silence, read_some(io, into)) => read,
            () = by => return First::Silent,
        };
        match read {
            Ok(Ok(1..)) => {}
            Ok(Ok(0)) | Err(_) => return First::Silent,
            Ok(Err(_broken)) => return First::Broken,
        }
    }
    told(io, into, silence, more, detect::beginning).await
}

async fn told(
    io: &mut Io,
    into: &mut BytesMut,
    silence: Duration,
    more: Duration,
    verdict: fn(&[u8]) -> Option<Spoken>,
) -> First {
    let mut by = None;
    loop {
        if let Some(spoken) = verdict(into) {
            return First::Spoken(spoken);
        }
        let now = Instant::now();
        let by = if into.is_empty() {
            now + silence
        } else {
            // For all of it together, however slowly it drips.
            *by.get_or_insert(now + more)
        };
        match tokio::time::timeout_at(by, read_some(io, into)).await {
            Ok(Ok(1..)) => {}
            Ok(Ok(0)) | Err(_) if into.is_empty() => return First::Silent,
            Ok(Ok(0)) | Err(_) => return First::Spoken(detect::likely(into)),
            Ok(Err(_broken)) => return First::Broken,
        }
    }
}

/// Reads until the server name of a ClientHello is known, for at most `patience`.
pub(crate) async fn hello(io: &mut Io, into: &mut BytesMut, patience: Duration) -> Hello {
    let read = async {
        loop {
            match hello::server_name(into) {
                Hello::More(needed) => {
                    while into.len() < needed {
                        if !matches!(read_some(io, into).await, Ok(1..)) {
                            return Hello::Other;
                        }
                    }
                }
                told => return told,
            }
        }
    };
    let told = tokio::time::timeout(patience, read).await;
    told.unwrap_or(Hello::Other)
}

/// Who speaks first, after a silent caller was dialled on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speaker {
    /// The caller, and this is spoken.
    Caller(Spoken),
    /// The server.
    Server,
    /// One of both ended.
    Nobody,
    /// Neither did anything for too long.
    Idle,
}

/// Waits for whoever speaks first, at most `idle`.
pub(crate) async fn race(
    down: &mut Io,
    down_first: &mut BytesMut,
    up: &mut Io,
    up_first: &mut BytesMut,
    more: Duration,
    idle: Duration,
) -> Speaker {
    let caller = tokio::select! {
        () = tokio::time::sleep(idle) => return Speaker::Idle,
        read = read_some(up, up_first) => match read {
            Ok(1..) => return Speaker::Server,
            Ok(0) | Err(_) => return Speaker::Nobody,
        },
        read = read_some(down, down_first) => read,
    };
    match caller {
        Ok(1..) => match bytes(down, down_first, more, more).await {
            First::Spoken(spoken) => Speaker::Caller(spoken),
            First::Silent | First::Broken => Speaker::Nobody,
        },
        Ok(0) | Err(_) => Speaker::Nobody,
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::trial::pair;

    const SILENCE: Duration = Duration::from_mins(1);
    const MORE: Duration = Duration::from_secs(20);

    /// Runs a test on a clock that jumps to whatever is waited for next.
    fn run(test: impl Future<Output = ()>) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().start_paused(true).build();
        runtime.unwrap().block_on(test);
    }

    #[test]
    fn draining_waits_a_second_for_who_says_nothing() {
        run(async {
            let drain = Drain::below(&CancellationToken::new());
            for (draining, waited) in [(false, SILENCE), (true, LAST)] {
                if draining {
                    drain.begin();
                }
                let (_caller, captured) = pair().await;
                let mut io = Io::Tcp(captured);
                let begun = Instant::now();
                let first = requests(&mut io, &mut BytesMut::new(), SILENCE, MORE, &drain).await;
                assert_eq!(first, First::Silent);
                let took = begun.elapsed();
                assert!(took >= waited && took < waited + LAST, "{took:?}");
            }
        });
    }

    #[test]
    fn who_has_spoken_is_heard_while_draining() {
        run(async {
            let drain = Drain::below(&CancellationToken::new());
            drain.begin();
            let (mut caller, captured) = pair().await;
            caller.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
            captured.readable().await.unwrap();
            let mut io = Io::Tcp(captured);
            let first = requests(&mut io, &mut BytesMut::new(), SILENCE, MORE, &drain).await;
            assert_eq!(first, First::Spoken(Spoken::Http1));
        });
    }

    #[test]
    fn a_race_that_nobody_wins_ends() {
        run(async {
            let ((_caller, captured), (dialled, _program)) = (pair().await, pair().await);
            let (mut down, mut up) = (Io::Tcp(captured), Io::Tcp(dialled));
            let (mut asked, mut said) = (BytesMut::new(), BytesMut::new());
            let begun = Instant::now();
            let idle = Duration::from_hours(1);
            let speaker = race(&mut down, &mut asked, &mut up, &mut said, MORE, idle).await;
            assert_eq!(speaker, Speaker::Idle);
            assert!(begun.elapsed() >= idle);
        });
    }
}
