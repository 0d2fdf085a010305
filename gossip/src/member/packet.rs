//! Bytes of identities and packets; what a sender may say.
//!
//! Layout, big endian: identity = host 16, incarnation 4, renewal 2; header = source identity, SWIM
//! incarnation 2, destination identity, kind 1, then by kind a probe number 1 and an identity; member =
//! identity, SWIM incarnation 2, state 1; after the header a count of members 2 and the members.

use bytes::{Buf, BufMut};
use foca::{Header, Member, Message, State};
use mesh_model::name::HostId;

/// A member: a host, in its daemon's incarnation, renewed so often after false alarms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct MemberId {
    pub(crate) host: HostId,
    pub(crate) incarnation: u32,
    pub(crate) renewal: u16,
}

impl foca::Identity for MemberId {
    type Addr = HostId;

    fn renew(&self) -> Option<Self> {
        // Never wraps: a wrapped number loses against the one that others remember, for ever.
        Some(Self {
            renewal: self.renewal.checked_add(1)?,
            ..*self
        })
    }
    fn addr(&self) -> HostId {
        self.host
    }
    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        (self.incarnation, self.renewal) > (adversary.incarnation, adversary.renewal)
    }
}

/// Why a packet does not decode, or an answer does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PacketError {
    #[error("packet ends early")]
    Short,
    #[error("packet has no room left")]
    Full,
    #[error("unknown kind {0}")]
    Kind(u8),
}

const ID: usize = 22;
const MEMBER: usize = ID + 3;

/// The encoding described above.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Codec;

fn need(buf: &impl Buf, bytes: usize) -> Result<(), PacketError> {
    if buf.remaining() < bytes {
        Err(PacketError::Short)
    } else {
        Ok(())
    }
}

fn room(buf: &impl BufMut, bytes: usize) -> Result<(), PacketError> {
    if buf.remaining_mut() < bytes {
        Err(PacketError::Full)
    } else {
        Ok(())
    }
}

fn put_id(id: &MemberId, buf: &mut impl BufMut) {
    buf.put_slice(&id.host.0);
    buf.put_u32(id.incarnation);
    buf.put_u16(id.renewal);
}

fn take_id(buf: &mut impl Buf) -> Result<MemberId, PacketError> {
    need(buf, ID)?;
    let mut host = [0u8; 16];
    buf.copy_to_slice(&mut host);
    Ok(MemberId {
        host: HostId(host),
        incarnation: buf.get_u32(),
        renewal: buf.get_u16(),
    })
}

fn parts(message: &Message<MemberId>) -> (u8, Option<u8>, Option<&MemberId>) {
    match message {
        Message::Ping(number) => (1, Some(*number), None),
        Message::Ack(number) => (2, Some(*number), None),
        Message::PingReq {
            target,
            probe_number,
        } => (3, Some(*probe_number), Some(target)),
        Message::IndirectPing {
            origin,
            probe_number,
        } => (4, Some(*probe_number), Some(origin)),
        Message::IndirectAck {
            target,
            probe_number,
        } => (5, Some(*probe_number), Some(target)),
        Message::ForwardedAck {
            origin,
            probe_number,
        } => (6, Some(*probe_number), Some(origin)),
        Message::Announce => (7, None, None),
        Message::Feed => (8, None, None),
        Message::Gossip => (9, None, None),
        Message::Broadcast => (10, None, None),
        Message::TurnUndead => (11, None, None),
    }
}

fn take_message(buf: &mut impl Buf) -> Result<Message<MemberId>, PacketError> {
    need(buf, 1)?;
    let kind = buf.get_u8();
    let probe_number = if (1..=6).contains(&kind) {
        need(buf, 1)?;
        buf.get_u8()
    } else {
        0
    };
    Ok(match kind {
        1 => Message::Ping(probe_number),
        2 => Message::Ack(probe_number),
        3 => Message::PingReq {
            target: take_id(buf)?,
            probe_number,
        },
        4 => Message::IndirectPing {
            origin: take_id(buf)?,
            probe_number,
        },
        5 => Message::IndirectAck {
            target: take_id(buf)?,
            probe_number,
        },
        6 => Message::ForwardedAck {
            origin: take_id(buf)?,
            probe_number,
        },
        7 => Message::Announce,
        8 => Message::Feed,
        9 => Message::Gossip,
        10 => Message::Broadcast,
        11 => Message::TurnUndead,
        other => return Err(PacketError::Kind(other)),
    })
}

impl foca::Codec<MemberId> for Codec {
    type Error = PacketError;

    fn encode_header(
        &mut self,
        header: &Header<MemberId>,
        mut buf: impl BufMut,
    ) -> Result<(), PacketError> {
        let (kind, number, other) = parts(&header.message);
        room(&buf, 2 * ID + 4 + if other.is_some() { ID } else { 0 })?;
        put_id(&header.src, &mut buf);
        buf.put_u16(header.src_incarnation);
        put_id(&header.dst, &mut buf);
        buf.put_u8(kind);
        if let Some(number) = number {
            buf.put_u8(number);
        }
        if let Some(id) = other {
            put_id(id, &mut buf);
        }
        Ok(())
    }

    fn decode_header(&mut self, mut buf: impl Buf) -> Result<Header<MemberId>, PacketError> {
        let src = take_id(&mut buf)?;
        need(&buf, 2)?;
        let src_incarnation = buf.get_u16();
        let dst = take_id(&mut buf)?;
        Ok(Header {
            src,
            src_incarnation,
            dst,
            message: take_message(&mut buf)?,
        })
    }

    fn encode_member(
        &mut self,
        member: &Member<MemberId>,
        mut buf: impl BufMut,
    ) -> Result<(), PacketError> {
        room(&buf, MEMBER)?;
        put_id(member.id(), &mut buf);
        buf.put_u16(member.incarnation());
        buf.put_u8(match member.state() {
            State::Alive => 1,
            State::Suspect => 2,
            State::Down => 3,
        });
        Ok(())
    }

    fn decode_member(&mut self, mut buf: impl Buf) -> Result<Member<MemberId>, PacketError> {
        need(&buf, MEMBER)?;
        let id = take_id(&mut buf)?;
        let incarnation = buf.get_u16();
        let state = match buf.get_u8() {
            1 => State::Alive,
            2 => State::Suspect,
            3 => State::Down,
            other => return Err(PacketError::Kind(other)),
        };
        Ok(Member::new(id, incarnation, state))
    }
}

/// The packet without what its sender may not say: it speaks in its own name only, and only about hosts
/// that `admits` knows. `None` when nothing is left of it.
pub(crate) fn sieve(
    bytes: &[u8],
    from: HostId,
    own: HostId,
    admits: impl Fn(HostId, u32) -> bool,
) -> Option<Vec<u8>> {
    use foca::Codec as _;
    let mut rest = bytes;
    let header = Codec.decode_header(&mut rest).ok()?;
    if header.src.host != from || from == own || header.dst.host != own {
        return None;
    }
    let head = bytes.len() - rest.len();
    let mut clean = bytes.get(..head)?.to_vec();
    if rest.len() < 2 || header.message == Message::Announce {
        return Some(clean);
    }
    let count = rest.get_u16();
    let mut members = Vec::new();
    for _each in 0..count {
        let member = Codec.decode_member(&mut rest).ok()?;
        let id = member.id();
        if id.host == own || id.host == from || admits(id.host, id.incarnation) {
            members.push(member);
        }
    }
    clean.put_u16(u16::try_from(members.len()).ok()?);
    for member in &members {
        Codec.encode_member(member, &mut clean).ok()?;
    }
    Some(clean)
}

/// A packet that says nothing but that its receiver is suspected.
pub(crate) fn warning(own: MemberId, suspicion: &Member<MemberId>) -> Vec<u8> {
    use foca::Codec as _;
    let header = Header {
        src: own,
        // The lowest: says no more of us than that we are there.
        src_incarnation: 0,
        dst: *suspicion.id(),
        message: Message::Gossip,
    };
    let mut packet = Vec::new();
    if Codec.encode_header(&header, &mut packet).is_ok() {
        packet.put_u16(0);
        tell(&mut packet, suspicion);
    }
    packet
}

/// Adds to a packet what its receiver must hear of itself: that it is suspected, so that it can refute.
/// The ordinary spreading says each thing only a few times, and those may be lost.
pub(crate) fn tell(packet: &mut Vec<u8>, suspicion: &Member<MemberId>) {
    use foca::Codec as _;
    let mut rest = packet.as_slice();
    let Ok(header) = Codec.decode_header(&mut rest) else {
        return;
    };
    let silent = matches!(
        header.message,
        Message::Announce | Message::TurnUndead | Message::Broadcast | Message::Feed
    );
    let at = packet.len() - rest.len();
    if silent || rest.len() < 2 || packet.len() + MEMBER > super::MAX_PACKET {
        return;
    }
    let count = rest.get_u16().saturating_add(1);
    if Codec.encode_member(suspicion, &mut *packet).is_ok()
        && let Some(slot) = packet.get_mut(at..at + 2)
    {
        slot.copy_from_slice(&count.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use foca::Codec as _;

    use super::*;

    fn id(byte: u8) -> MemberId {
        MemberId {
            host: HostId([byte; 16]),
            incarnation: 1,
            renewal: 0,
        }
    }

    fn packet(src: u8, members: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let header = Header {
            src: id(src),
            src_incarnation: 7,
            dst: id(9),
            message: Message::Ping(3),
        };
        Codec.encode_header(&header, &mut out).unwrap();
        out.put_u16(u16::try_from(members.len()).unwrap());
        for member in members {
            Codec
                .encode_member(&Member::down(id(*member)), &mut out)
                .unwrap();
        }
        out
    }

    #[test]
    fn every_message_round_trips() {
        let messages = [
            Message::Ping(1),
            Message::Ack(2),
            Message::PingReq {
                target: id(4),
                probe_number: 3,
            },
            Message::IndirectPing {
                origin: id(4),
                probe_number: 3,
            },
            Message::IndirectAck {
                target: id(4),
                probe_number: 3,
            },
            Message::ForwardedAck {
                origin: id(4),
                probe_number: 3,
            },
            Message::Announce,
            Message::Feed,
            Message::Gossip,
            Message::Broadcast,
            Message::TurnUndead,
        ];
        for message in messages {
            let header = Header {
                src: id(1),
                src_incarnation: 9,
                dst: id(2),
                message,
            };
            let mut bytes = Vec::new();
            Codec.encode_header(&header, &mut bytes).unwrap();
            assert_eq!(Codec.decode_header(&bytes[..]).unwrap(), header);
            for cut in 0..bytes.len() {
                assert!(Codec.decode_header(&bytes[..cut]).is_err());
            }
        }
    }

    #[test]
    fn a_suspect_is_told() {
        let mut bytes = packet(1, &[2]);
        tell(&mut bytes, &Member::down(id(9)));
        assert_eq!(bytes, packet(1, &[2, 9]));
    }

    #[test]
    fn a_sender_speaks_for_itself_only() {
        let own = HostId([9; 16]);
        let bytes = packet(1, &[2, 3]);
        assert!(sieve(&bytes, HostId([2; 16]), own, |_, _| true).is_none());
        let all = sieve(&bytes, HostId([1; 16]), own, |_, _| true).unwrap();
        assert_eq!(all, bytes);
        let some = sieve(&bytes, HostId([1; 16]), own, |host, _| {
            host == HostId([3; 16])
        })
        .unwrap();
        assert_eq!(some, packet(1, &[3]));
        assert!(sieve(&bytes[..bytes.len() - 1], HostId([1; 16]), own, |_, _| true).is_none());
    }
}
