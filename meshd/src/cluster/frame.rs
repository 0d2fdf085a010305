//! What goes over a link: length-prefixed frames of the control state, calls and their answers.
//!
//! A frame is a length (4 bytes, big-endian, of what follows), a kind (1 byte) and a payload; at most
//! 8 MiB. Calls carry an id of 8 bytes; the answer repeats it.

use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Longest frame.
pub(super) const LIMIT: usize = 8 << 20;
/// Longest question or answer: room for what goes before it.
pub(super) const BODY: usize = LIMIT - 1024;

/// A frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame {
    /// Of the control state.
    Gossip(Bytes),
    /// A question to the other host.
    Call {
        /// Repeated by the answer.
        id: u64,
        /// What is asked.
        kind: String,
        /// The question.
        body: Bytes,
    },
    /// The answer to a call.
    Answer {
        /// As asked.
        id: u64,
        /// What was answered, or why not.
        result: Result<Bytes, String>,
    },
}

/// Why a frame cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    /// The connection ended or broke.
    #[error("the link broke")]
    Io(#[from] std::io::Error),
    /// Longer than [`LIMIT`].
    #[error("a frame of {0} bytes is longer than {LIMIT}")]
    Long(usize),
    /// The kind or its payload is unknown.
    #[error("a frame is malformed")]
    Malformed,
}

impl Frame {
    /// The bytes that go over the link.
    pub(super) fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u32(0);
        match self {
            Self::Gossip(bytes) => {
                out.put_u8(0);
                out.put_slice(bytes);
            }
            Self::Call { id, kind, body } => {
                out.put_u8(1);
                out.put_u64(*id);
                out.put_u8(u8::try_from(kind.len()).unwrap_or(u8::MAX));
                out.put_slice(kind.as_bytes());
                out.put_slice(body);
            }
            Self::Answer { id, result } => {
                out.put_u8(if result.is_ok() { 2 } else { 3 });
                out.put_u64(*id);
                match result {
                    Ok(body) => out.put_slice(body),
                    Err(text) => out.put_slice(text.as_bytes()),
                }
            }
        }
        let length = u32::try_from(out.len() - 4).unwrap_or(u32::MAX);
        if let Some(slot) = out.first_chunk_mut::<4>() {
            *slot = length.to_be_bytes();
        }
        out.freeze()
    }

    fn decode(mut payload: Bytes) -> Option<Self> {
        let kind = *payload.first()?;
        drop(payload.split_to(1));
        if kind == 0 {
            return Some(Self::Gossip(payload));
        }
        let id = u64::from_be_bytes(*payload.first_chunk::<8>()?);
        drop(payload.split_to(8));
        match kind {
            1 => {
                let length = usize::from(*payload.first()?);
                drop(payload.split_to(1));
                if payload.len() < length {
                    return None;
                }
                let kind = String::from_utf8(payload.split_to(length).to_vec()).ok()?;
                Some(Self::Call {
                    id,
                    kind,
                    body: payload,
                })
            }
            2 => Some(Self::Answer {
                id,
                result: Ok(payload),
            }),
            3 => Some(Self::Answer {
                id,
                result: Err(String::from_utf8_lossy(&payload).into_owned()),
            }),
            _ => None,
        }
    }
}

/// Reads the next frame.
pub(super) async fn read(from: &mut (impl AsyncRead + Unpin)) -> Result<Frame, FrameError> {
    let length = usize::try_from(from.read_u32().await?).unwrap_or(usize::MAX);
    if length > LIMIT {
        return Err(FrameError::Long(length));
    }
    // Read in steps, so that a length alone does not take memory.
    let mut payload = BytesMut::new();
    while payload.len() < length {
        let step = (length - payload.len()).min(64 << 10);
        payload.reserve(step);
        let mut limited = (&mut *from).take(u64::try_from(step).unwrap_or(u64::MAX));
        if limited.read_buf(&mut payload).await? == 0 {
            return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
        }
    }
    Frame::decode(payload.freeze()).ok_or(FrameError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_round_trip() {
        let frames = [
            Frame::Gossip(Bytes::from_static(b"x")),
            Frame::Call {
                id: 7,
                kind: "why".to_owned(),
                body: Bytes::from_static(b"q"),
            },
            Frame::Answer {
                id: 7,
                result: Ok(Bytes::from_static(b"a")),
            },
            Frame::Answer {
                id: 8,
                result: Err("no".to_owned()),
            },
        ];
        let bytes: Vec<u8> = frames
            .iter()
            .flat_map(|frame| frame.encode().to_vec())
            .collect();
        let mut from = bytes.as_slice();
        for frame in &frames {
            assert_eq!(&read(&mut from).await.unwrap(), frame);
        }
        assert!(matches!(read(&mut from).await, Err(FrameError::Io(_))));
    }

    #[tokio::test]
    async fn bad_frames_are_errors() {
        let long = [0xff_u8; 8];
        assert!(matches!(
            read(&mut &long[..]).await,
            Err(FrameError::Long(_))
        ));
        for bad in [
            &[0_u8, 0, 0, 0][..],
            &[0, 0, 0, 1, 9],
            &[0, 0, 0, 2, 1, 0],
            &[0, 0, 0, 10, 1, 0, 0, 0, 0, 0, 0, 0, 0, 5],
        ] {
            assert!(
                matches!(read(&mut &*bad).await, Err(FrameError::Malformed)),
                "{bad:?}"
            );
        }
    }
}
