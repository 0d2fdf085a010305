//! The kernel's count of changes to its rules, by anybody: while it stands still nothing was lost.
//!
//! One message to nfnetlink (`NFT_MSG_GETGEN`, linux/netfilter/nf_tables.h); nft itself would list every chain
//! to tell as much.

use rtnetlink::sys::{Socket, SocketAddr};

const NETLINK_NETFILTER: isize = 12;
/// Subsystem 10, message 16.
const GETGEN: u16 = (10 << 8) | 16;
/// Subsystem 10, message 15.
const NEWGEN: u16 = (10 << 8) | 15;
const NLM_F_REQUEST: u16 = 1;
const NFTA_GEN_ID: u16 = 1;
/// Header of netlink, and of nfnetlink.
const HEADERS: usize = 16 + 4;

/// The count now; none when the kernel does not say.
pub(crate) fn generation() -> Option<u32> {
    let socket = Socket::new(NETLINK_NETFILTER).ok()?;
    // The answer is there when `send_to` returns.
    socket.set_non_blocking(true).ok()?;
    let mut request = Vec::with_capacity(HEADERS);
    request.extend(u32::try_from(HEADERS).ok()?.to_ne_bytes());
    request.extend(GETGEN.to_ne_bytes());
    request.extend(NLM_F_REQUEST.to_ne_bytes());
    request.extend([0; 12]);
    socket.send_to(&request, &SocketAddr::new(0, 0), 0).ok()?;
    let (answer, _kernel) = socket.recv_from_full().ok()?;
    parse(&answer)
}

fn parse(answer: &[u8]) -> Option<u32> {
    let length = usize::try_from(u32::from_ne_bytes(*answer.first_chunk()?)).ok()?;
    if u16::from_ne_bytes(*answer.get(4..)?.first_chunk()?) != NEWGEN {
        return None;
    }
    let mut attributes = answer.get(HEADERS..length)?;
    loop {
        let length = usize::from(u16::from_ne_bytes(*attributes.first_chunk()?));
        let kind = u16::from_ne_bytes(*attributes.get(2..)?.first_chunk()?);
        let value = attributes.get(4..length)?;
        if kind == NFTA_GEN_ID {
            return value.first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_found_among_attributes() {
        let mut answer = Vec::new();
        answer.extend(36_u32.to_ne_bytes());
        answer.extend(NEWGEN.to_ne_bytes());
        answer.extend([0; 14]);
        answer.extend([8_u16.to_ne_bytes(), 2_u16.to_ne_bytes()].concat());
        answer.extend([0, 0, 0, 9]);
        answer.extend([8_u16.to_ne_bytes(), NFTA_GEN_ID.to_ne_bytes()].concat());
        answer.extend([0, 0, 1, 2]);
        assert_eq!(parse(&answer), Some(258));
        for cut in 0..answer.len() {
            assert_eq!(parse(answer.get(..cut).unwrap()), None, "{cut}");
        }
        let mut endless = answer.clone();
        endless[20..22].copy_from_slice(&0_u16.to_ne_bytes());
        assert_eq!(parse(&endless), None);
    }
}
