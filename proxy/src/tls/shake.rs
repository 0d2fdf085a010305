//! Handshakes: the library says what to read and write, over any number of reads.
//!
//! In: one side of a handshake, and a connection. Out: keys and what came behind the handshake. Never: keeps more of
//! a handshake than one may need. How long it may take is up to the caller.

use std::io;

use rustls::{
    Error,
    unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus},
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::{
    fault::Fault,
    keys::{Opening, Sealing},
    session::Begun,
    side::Side,
};

/// Bytes that the other end may send before the handshake is over, with long chains of certificates.
const MOST: usize = 64 << 10;
/// Room for a read.
const ROOM: usize = 4 << 10;

/// A handshake under way.
struct Shake<S> {
    side: S,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    /// Bytes that came behind the handshake.
    bytes: Vec<u8>,
    ended: bool,
}

/// What a handshake waits for.
enum Wait {
    /// Bytes of the other end.
    Read,
    /// What it says is written.
    Write,
    /// Nothing more.
    Nothing,
}

/// Shakes hands; `looked` is called after each look at what came.
pub(super) async fn shake<S, I>(
    side: S,
    io: &mut I,
    mut looked: impl FnMut(),
) -> io::Result<(S, Rest)>
where
    S: Side,
    I: AsyncRead + AsyncWrite + Unpin,
{
    let mut shake = Shake {
        side,
        incoming: Vec::new(),
        outgoing: Vec::new(),
        bytes: Vec::new(),
        ended: false,
    };
    let mut came = 0;
    loop {
        let step = shake.step();
        looked();
        match step {
            Ok(Wait::Nothing) => break,
            Ok(Wait::Write) => {
                io.write_all(&shake.outgoing).await?;
                io.flush().await?;
                shake.outgoing.clear();
            }
            Ok(Wait::Read) => {
                if came >= MOST {
                    return Err(Fault::Endless(MOST).into());
                }
                shake.incoming.reserve(ROOM);
                let count = io.read_buf(&mut shake.incoming).await?;
                if count == 0 {
                    let what = "the other end cut the connection in the handshake";
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
                }
                came += count;
            }
            Err(error) => {
                shake.last_words();
                // The fault is what counts, not whether the other end hears of it.
                drop(io.write_all(&shake.outgoing).await);
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
        }
    }
    let rest = Rest {
        bytes: shake.bytes,
        begun: shake.incoming,
        ended: shake.ended,
    };
    Ok((shake.side, rest))
}

/// What came behind a handshake.
pub(super) struct Rest {
    bytes: Vec<u8>,
    begun: Vec<u8>,
    ended: bool,
}

/// Ends a handshake: from here on the keys are ours.
pub(super) fn end(side: impl Side, rest: Rest) -> io::Result<Begun> {
    let ended = side.end().map_err(io::Error::other)?;
    let (secrets, schedule) = ended;
    let (sent, sealing) = secrets.tx;
    let (opened, opening) = secrets.rx;
    Ok(Begun {
        schedule,
        sealing: Sealing::new(sent, sealing)?,
        opening: Opening::new(opened, opening)?,
        bytes: rest.bytes,
        rest: rest.begun,
        ended: rest.ended,
    })
}

impl<S: Side> Shake<S> {
    /// Goes on as far as that is possible with what came.
    fn step(&mut self) -> Result<Wait, Error> {
        loop {
            let UnbufferedStatus { mut discard, state } = self.side.process(&mut self.incoming);
            let wait = match state? {
                ConnectionState::EncodeTlsData(record) => {
                    encode(record, &mut self.outgoing)?;
                    None
                }
                ConnectionState::TransmitTlsData(transmit) => {
                    transmit.done();
                    Some(Wait::Write)
                }
                ConnectionState::BlockedHandshake => Some(Wait::Read),
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        discard += record.discard;
                        self.bytes.extend_from_slice(record.payload);
                    }
                    None
                }
                ConnectionState::PeerClosed => {
                    self.ended = true;
                    None
                }
                ConnectionState::WriteTraffic(_) => Some(Wait::Nothing),
                _ => {
                    return Err(Error::General(
                        "a handshake took a way that is closed".into(),
                    ));
                }
            };
            self.incoming.drain(..discard.min(self.incoming.len()));
            if let Some(wait) = wait {
                return Ok(wait);
            }
        }
    }

    /// What the other end is told of a fault. The library looks at what came as soon as it has said everything, which
    /// after a fault it must not.
    fn last_words(&mut self) {
        while self.side.common().wants_write() {
            let status = self.side.process(&mut self.incoming);
            let Ok(ConnectionState::EncodeTlsData(record)) = status.state else {
                return;
            };
            if encode(record, &mut self.outgoing).is_err() {
                return;
            }
        }
    }
}

/// Adds a record of the handshake.
fn encode<D>(mut record: EncodeTlsData<'_, D>, out: &mut Vec<u8>) -> Result<(), Error> {
    let length = out.len();
    let mut size = match record.encode(&mut []) {
        Err(EncodeError::InsufficientSize(needs)) => needs.required_size,
        Ok(_) | Err(EncodeError::AlreadyEncoded) => 0,
    };
    if size > 0 {
        out.resize(length + size, 0);
        let room = out.get_mut(length..).unwrap_or_default();
        size = record
            .encode(room)
            .map_err(|error| Error::General(error.to_string()))?;
    }
    out.truncate(length + size);
    Ok(())
}
