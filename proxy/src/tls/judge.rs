//! The laws of a stream of TLS over any bytes: however they come, the same is made of them, only genuine bytes come out,
//! and what is sealed is opened again as it was.

use super::{
    fault::Fault,
    keys::{Opening, Sealing, secrets},
    record::{self, ALERT, DATA, FRAGMENT, HANDSHAKE, HEAD, TAIL},
    session::{Begun, Session, Step},
    side::Schedule,
};

/// What came of a stream.
#[derive(Debug, PartialEq, Eq)]
struct Made {
    bytes: Vec<u8>,
    last: Result<Step, Fault>,
}

/// Judges the bytes as what another end seals, and as what is sealed for it; panics when a law is broken.
pub(crate) fn judge(bytes: &[u8]) {
    let Ok((wire, said)) = scripted(bytes) else {
        return;
    };
    let whole = heard(&wire, usize::MAX);
    assert!(said.starts_with(&whole.bytes), "bytes that nobody sent");
    for piece in [1, 5, 100] {
        assert!(heard(&wire, piece) == whole, "in pieces of {piece}");
    }
    there_and_back(bytes);
}

/// The records of another end: kind, length and content of each come from the script. What they carry of bytes, too.
fn scripted(mut script: &[u8]) -> Result<(Vec<u8>, Vec<u8>), Fault> {
    let (mut wire, mut said) = (Vec::new(), Vec::new());
    let mut number = 1;
    let mut sealing = Sealing::new(0, secrets(number))?;
    while let [how, length, rest @ ..] = script {
        let (content, rest) = rest.split_at(usize::from(*length).min(rest.len()));
        script = rest;
        let kind = match how % 8 {
            0..=3 => DATA,
            4 | 5 => HANDSHAKE,
            6 => ALERT,
            // As it is: no record, or none that was sealed.
            _ if how & 8 == 0 => {
                wire.extend_from_slice(content);
                continue;
            }
            _ => *how,
        };
        let mut record = vec![0; HEAD + content.len() + TAIL];
        sealing.seal(kind, content, &mut record)?;
        if how & 0x80 != 0 && how & 0x40 != 0 {
            // Changed on its way.
            if let Some(byte) = record.last_mut() {
                *byte ^= 1;
            }
        }
        wire.extend_from_slice(&record);
        if kind == DATA {
            said.extend_from_slice(content);
        }
        if kind == HANDSHAKE && matches!(content, [24, 0, 0, 1, 0 | 1]) {
            number += 1;
            sealing = Sealing::new(0, secrets(number))?;
        }
    }
    Ok((wire, said))
}

/// A stream whose other end is scripted.
fn session() -> Result<Session, Fault> {
    Ok(Session::new(Begun {
        schedule: Schedule::Counted {
            sealing: 101,
            opening: 1,
        },
        sealing: Sealing::new(0, secrets(101))?,
        opening: Opening::new(0, secrets(1))?,
        bytes: Vec::new(),
        rest: Vec::new(),
        ended: false,
    }))
}

fn heard(wire: &[u8], piece: usize) -> Made {
    let mut bytes = Vec::new();
    let mut last = Ok(Step::More);
    let Ok(mut session) = session() else {
        return Made { bytes, last };
    };
    let most = piece.min(session.room().len());
    for part in wire.chunks(most.max(1)) {
        if let Some(place) = session.room().get_mut(..part.len()) {
            place.copy_from_slice(part);
            session.came(part.len());
        }
        loop {
            last = session.step();
            if last != Ok(Step::Bytes) {
                break;
            }
            let count = session.bytes().len().min(50);
            bytes.extend_from_slice(session.bytes().get(..count).unwrap_or_default());
            session.took(count);
        }
        session.rest();
        if last.is_err() || last == Ok(Step::End) {
            break;
        }
        let renewed = session.renew();
        assert!(renewed.is_ok(), "{renewed:?}");
    }
    Made { bytes, last }
}

/// What is sealed is opened by the other end as it was, through updates of keys.
fn there_and_back(bytes: &[u8]) {
    let (Ok(mut session), Ok(mut opening)) = (session(), Opening::new(0, secrets(101))) else {
        return;
    };
    session.renew_after(3);
    let mut number = 101;
    let mut came = Vec::new();
    for part in bytes.chunks(100) {
        assert_eq!(session.seal(part), Ok(part.len()));
    }
    let mut wire = session.output().to_vec();
    let mut rest = &mut *wire;
    while let Ok(Some(length)) = record::whole(rest) {
        let (one, more) = std::mem::take(&mut rest).split_at_mut(length);
        rest = more;
        let opened = opening.open(one);
        assert!(opened.is_ok(), "{opened:?}");
        let (kind, count) = opened.unwrap_or_default();
        assert!(count <= FRAGMENT, "{count}");
        if kind == DATA {
            came.extend_from_slice(one.get(HEAD..HEAD + count).unwrap_or_default());
            continue;
        }
        assert_eq!(kind, HANDSHAKE);
        number += 1;
        let Ok(next) = Opening::new(0, secrets(number)) else {
            return;
        };
        opening = next;
    }
    assert!(rest.is_empty() && came == bytes, "not what was sealed");
}
