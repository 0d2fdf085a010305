//! Numbers with a prefix of some bits (RFC 7541 section 5.1).

use bytes::{BufMut as _, BytesMut};

/// The number that begins in the last `bits` bits of the first byte; takes it off `rest`. `None` when it is cut
/// off or larger than any length here can be.
pub(super) fn take(rest: &mut &[u8], bits: u8) -> Option<usize> {
    let (first, tail) = rest.split_first()?;
    *rest = tail;
    let mask = 0xffu8 >> (8 - bits);
    let mut number = usize::from(first & mask);
    if first & mask != mask {
        return Some(number);
    }
    for shift in [0u32, 7, 14, 21] {
        let (byte, tail) = rest.split_first()?;
        *rest = tail;
        number += usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// Writes a number in the last `bits` bits of a byte whose first ones are `flags`.
pub(super) fn put(out: &mut BytesMut, number: usize, bits: u8, flags: u8) {
    let mask = 0xffu8 >> (8 - bits);
    match u8::try_from(number) {
        Ok(small) if small < mask => out.put_u8(flags | small),
        _ => {
            out.put_u8(flags | mask);
            let mut left = number - usize::from(mask);
            while left >= 0x80 {
                // The last seven bits of it.
                out.put_u8(0x80 | u8::try_from(left & 0x7f).unwrap_or_default());
                left >>= 7;
            }
            out.put_u8(u8::try_from(left).unwrap_or_default());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        for bits in [4, 5, 6, 7] {
            for number in [
                0,
                1,
                14,
                15,
                30,
                31,
                62,
                63,
                126,
                127,
                128,
                254,
                255,
                1337,
                65_535,
                1 << 20,
            ] {
                let mut out = BytesMut::new();
                put(&mut out, number, bits, 0);
                let mut rest = &out[..];
                assert_eq!(take(&mut rest, bits), Some(number), "{number} in {bits}");
                assert!(rest.is_empty());
                for cut in 0..out.len() {
                    assert_eq!(take(&mut &out[..cut], bits), None);
                }
            }
        }
        // RFC 7541, C.1.2.
        let mut out = BytesMut::new();
        put(&mut out, 1337, 5, 0xe0);
        assert_eq!(&out[..], [0xff, 0x9a, 0x0a]);
        assert_eq!(
            take(&mut &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff][..], 5),
            None
        );
    }
}
