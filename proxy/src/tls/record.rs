//! Records of TLS 1.3 on the wire (RFC 8446 section 5): where they end, and what they carry.
//!
//! Never: looks further than the record that it was given.

use super::fault::Fault;

/// Length of a record's head.
pub(super) const HEAD: usize = 5;
/// What a record of ours is longer than what it carries: the kind of its content, and the tag.
pub(super) const TAIL: usize = 1 + TAG;
/// Length of the tag that makes a record genuine.
pub(super) const TAG: usize = 16;
/// The most that one record carries.
pub(super) const FRAGMENT: usize = 1 << 14;
/// The longest record behind its head.
pub(super) const LONGEST: usize = FRAGMENT + 256;

pub(super) const ALERT: u8 = 21;
pub(super) const HANDSHAKE: u8 = 22;
pub(super) const DATA: u8 = 23;

/// The head of a protected record whose payload is so long.
pub(super) fn head(payload: usize) -> [u8; HEAD] {
    let [high, low] = u16::try_from(payload).unwrap_or(u16::MAX).to_be_bytes();
    [DATA, 3, 3, high, low]
}

/// Length of the record that `bytes` begin with, head included, once it is whole. After the handshake every record is
/// protected, so all others are faults.
pub(super) fn whole(bytes: &[u8]) -> Result<Option<usize>, Fault> {
    let Some(&[kind, major, minor, high, low]) = bytes.first_chunk::<HEAD>() else {
        // Rubbish is refused as soon as it is seen.
        return match bytes.first() {
            Some(&DATA) | None => Ok(None),
            Some(_) => Err(Fault::Unprotected),
        };
    };
    if kind != DATA {
        return Err(Fault::Unprotected);
    }
    if (major, minor) != (3, 3) {
        return Err(Fault::Version);
    }
    let payload = usize::from(u16::from_be_bytes([high, low]));
    if payload > LONGEST {
        return Err(Fault::Oversized);
    }
    if payload < TAIL {
        return Err(Fault::NotGenuine);
    }
    Ok((bytes.len() >= HEAD + payload).then_some(HEAD + payload))
}

/// Kind and length of what an opened record carries, without its padding.
pub(super) fn content(opened: &[u8]) -> Result<(u8, usize), Fault> {
    if opened.len() > FRAGMENT + 1 {
        return Err(Fault::Oversized);
    }
    let last = opened.iter().rposition(|byte| *byte != 0);
    let last = last.ok_or(Fault::Unexpected)?;
    let kind = opened.get(last).copied().ok_or(Fault::Unexpected)?;
    Ok((kind, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_records() {
        let mut bytes = head(40).to_vec();
        assert_eq!(whole(&bytes), Ok(None));
        bytes.resize(HEAD + 39, 0);
        assert_eq!(whole(&bytes), Ok(None));
        bytes.resize(HEAD + 50, 0);
        assert_eq!(whole(&bytes), Ok(Some(HEAD + 40)));
        assert_eq!(whole(&[]), Ok(None));
        assert_eq!(whole(&[DATA, 3]), Ok(None));
    }

    #[test]
    fn records_that_cannot_be() {
        assert_eq!(whole(b"H"), Err(Fault::Unprotected));
        assert_eq!(whole(&[ALERT, 3, 3, 0, 2, 2, 0]), Err(Fault::Unprotected));
        assert_eq!(whole(&[20, 3, 3, 0, 1, 1]), Err(Fault::Unprotected));
        assert_eq!(whole(&[DATA, 3, 1, 0, 40]), Err(Fault::Version));
        assert_eq!(whole(&head(LONGEST + 1)), Err(Fault::Oversized));
        assert_eq!(whole(&head(LONGEST)), Ok(None));
        assert_eq!(whole(&head(TAIL - 1)), Err(Fault::NotGenuine));
    }

    #[test]
    fn padding() {
        assert_eq!(content(&[1, 2, DATA]), Ok((DATA, 2)));
        assert_eq!(content(&[1, 0, ALERT, 0, 0, 0]), Ok((ALERT, 2)));
        assert_eq!(content(&[DATA]), Ok((DATA, 0)));
        assert_eq!(content(&[0, 0, 0]), Err(Fault::Unexpected));
        assert_eq!(content(&[]), Err(Fault::Unexpected));
        assert_eq!(content(&vec![DATA; FRAGMENT + 2]), Err(Fault::Oversized));
        assert_eq!(content(&vec![DATA; FRAGMENT + 1]), Ok((DATA, FRAGMENT)));
    }
}
