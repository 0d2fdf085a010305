//! Text in Huffman's code (RFC 7541 section 5.2): read, never written. The code is canonical: the lengths say all.

/// The length of each byte's code, in bits (RFC 7541 appendix B).
const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, //
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28, //
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, //
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, //
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, //
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, //
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, //
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, //
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, //
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, //
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, //
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, //
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, //
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, //
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, //
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, //
];
/// The longest code.
const LONGEST: usize = 30;

struct Code {
    /// The first code of each length, how many there are, and where their bytes begin in `order`.
    first: [u32; LONGEST + 1],
    count: [u32; LONGEST + 1],
    begin: [usize; LONGEST + 1],
    /// All bytes by the length of their codes, then by value.
    order: [u8; 256],
}

static CODE: Code = code();

#[expect(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "evaluated at compile time, where a miss is an error; bytes are counted from 0 to 255"
)]
const fn code() -> Code {
    let mut made = Code {
        first: [0; LONGEST + 1],
        count: [0; LONGEST + 1],
        begin: [0; LONGEST + 1],
        order: [0; 256],
    };
    let (mut next, mut placed, mut length) = (0u32, 0usize, 1usize);
    while length <= LONGEST {
        next <<= 1;
        made.first[length] = next;
        made.begin[length] = placed;
        let mut byte = 0;
        while byte < 256 {
            if LENGTHS[byte] as usize == length {
                made.order[placed] = byte as u8;
                placed += 1;
                made.count[length] += 1;
                next += 1;
            }
            byte += 1;
        }
        length += 1;
    }
    made
}

/// Appends the text; false when it is malformed.
pub(super) fn read(bytes: &[u8], out: &mut Vec<u8>) -> bool {
    let (mut code, mut length) = (0u32, 0usize);
    for byte in bytes {
        for shift in (0..8).rev() {
            code = (code << 1) | u32::from((byte >> shift) & 1);
            length += 1;
            let (Some(first), Some(count)) = (CODE.first.get(length), CODE.count.get(length))
            else {
                return false;
            };
            let place = code.wrapping_sub(*first);
            if place < *count {
                let begin = CODE.begin.get(length).copied().unwrap_or_default();
                let Some(found) = CODE.order.get(begin + place as usize) else {
                    return false;
                };
                out.push(*found);
                (code, length) = (0, 0);
            }
        }
    }
    // What is left is the beginning of the code that ends everything: fewer than eight ones.
    length < 8 && code == (1 << length) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &[u8]) -> Option<String> {
        let mut out = Vec::new();
        read(bytes, &mut out).then(|| String::from_utf8(out).unwrap())
    }

    #[test]
    fn texts_of_the_standard() {
        // RFC 7541, C.4 and C.6.
        let example = [
            0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff,
        ];
        assert_eq!(text(&example).unwrap(), "www.example.com");
        assert_eq!(
            text(&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf]).unwrap(),
            "no-cache"
        );
        assert_eq!(text(&[0x64, 0x02]).unwrap(), "302");
        assert_eq!(text(&[]).unwrap(), "");
    }

    #[test]
    fn wrong_ends() {
        // "0" and then zeros, eight ones and more, and the code of the end itself.
        assert_eq!(text(&[0x00, 0x00]).as_deref(), None);
        assert_eq!(text(&[0xff]), None);
        assert_eq!(text(&[0xff, 0xff, 0xff, 0xff]), None);
        assert_eq!(text(&[0x07]).as_deref(), Some("0"));
    }
}
