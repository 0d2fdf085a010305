//! Which bytes may stand where in a head: one table, one look-up per byte.

const TOKEN: u8 = 1;
const VALUE: u8 = 2;
const TARGET: u8 = 4;
const HOST: u8 = 8;
const LOOSE: u8 = 16;

static CLASS: [u8; 256] = classes();

#[expect(
    clippy::indexing_slicing,
    reason = "evaluated at compile time, where a miss is an error"
)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the loop runs over 0 to 255"
)]
const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut at = 0;
    while at < 256 {
        let byte = at as u8;
        let mut class = 0;
        let alphanumeric = byte.is_ascii_alphanumeric();
        if alphanumeric || in_list(byte, b"!#$%&'*+-.^_`|~") {
            class |= TOKEN;
        }
        if byte == b'\t' || (byte >= 0x20 && byte != 0x7f) {
            class |= VALUE;
        }
        if byte > 0x20 && byte != 0x7f && byte != b'#' {
            class |= TARGET;
        }
        if byte > 0x7f || in_list(byte, b"\"<>\\^`{|}") {
            class |= LOOSE;
        }
        if alphanumeric || in_list(byte, b"-._~!$&'()*+,;=") {
            class |= HOST;
        }
        table[at] = class;
        at += 1;
    }
    table
}

#[expect(
    clippy::indexing_slicing,
    reason = "evaluated at compile time, where a miss is an error"
)]
const fn in_list(byte: u8, list: &[u8]) -> bool {
    let mut at = 0;
    while at < list.len() {
        if list[at] == byte {
            return true;
        }
        at += 1;
    }
    false
}

fn all(bytes: &[u8], class: u8) -> bool {
    bytes.iter().all(|byte| {
        CLASS
            .get(usize::from(*byte))
            .is_some_and(|found| found & class != 0)
    })
}

/// How many bytes from the first on are of a class.
fn leading(bytes: &[u8], class: u8) -> usize {
    let is_other = |byte: &u8| {
        CLASS
            .get(usize::from(*byte))
            .is_none_or(|found| found & class == 0)
    };
    bytes.iter().position(is_other).unwrap_or(bytes.len())
}

/// True for a token (RFC 9110 section 5.6.2): one byte or more.
pub(crate) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && all(bytes, TOKEN)
}

/// Length of the token at the beginning; 0 for none.
pub(crate) fn token_length(bytes: &[u8]) -> usize {
    leading(bytes, TOKEN)
}

/// True for a field value (RFC 9110 section 5.5): visible, obs-text, space and tab; no control byte.
pub(crate) fn is_value(bytes: &[u8]) -> bool {
    value_length(bytes) == bytes.len()
}

/// Length of the field value at the beginning: where the first control byte stands that is no tab.
pub(crate) fn value_length(bytes: &[u8]) -> usize {
    let (words, rest) = bytes.as_chunks::<WORD>();
    for (number, word) in words.iter().enumerate() {
        // Marks tabs too, and perhaps bytes behind the first one that is marked rightly.
        if controls(u64::from_le_bytes(*word)) != 0 {
            let length = leading(word, VALUE);
            if length < WORD {
                return number * WORD + length;
            }
        }
    }
    bytes.len() - rest.len() + leading(rest, VALUE)
}

/// Bytes that are looked at together.
pub(crate) const WORD: usize = 8;
/// In each byte the lowest bit, and the highest.
const LOWEST: u64 = u64::MAX / 0xff;
const HIGHEST: u64 = LOWEST << 7;

/// Not 0 when one of eight bytes is below a space, or DEL.
fn controls(word: u64) -> u64 {
    let deleted = word ^ (LOWEST * 0x7f);
    let below = word.wrapping_sub(LOWEST * 0x20) & !word;
    (below | (deleted.wrapping_sub(LOWEST) & !deleted)) & HIGHEST
}

/// The highest bit of each of eight bytes that is `wanted`, and no other bit; the first byte is the lowest.
pub(crate) fn equal(word: u64, wanted: u8) -> u64 {
    let other = word ^ (LOWEST * u64::from(wanted));
    let rest = !HIGHEST;
    !(((other & rest) + rest) | other | rest)
}

/// True for what may stand in a request target: no space, no control byte, no fragment.
pub(crate) fn is_target(bytes: &[u8]) -> bool {
    !bytes.is_empty() && all(bytes, TARGET)
}

/// True for a byte that some senders leave as it is in a target, though it should be escaped (RFC 3986).
pub(crate) fn is_loose(byte: u8) -> bool {
    CLASS
        .get(usize::from(byte))
        .is_some_and(|found| found & LOOSE != 0)
}

/// True for a registered name or IPv4 address (RFC 3986 section 3.2.2).
pub(crate) fn is_host_name(bytes: &[u8]) -> bool {
    !bytes.is_empty() && all(bytes, HOST)
}

/// The bytes without spaces and tabs at both ends.
pub(crate) fn trim(bytes: &[u8]) -> &[u8] {
    let mut rest = bytes;
    while let [b' ' | b'\t', tail @ ..] = rest {
        rest = tail;
    }
    while let [head @ .., b' ' | b'\t'] = rest {
        rest = head;
    }
    rest
}

/// The elements of a comma-separated list, trimmed, empty ones left out.
pub(crate) fn list(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes
        .split(|byte| *byte == b',')
        .map(trim)
        .filter(|element| !element.is_empty())
}

/// A number of at most 19 digits, digits only.
pub(crate) fn number(bytes: &[u8]) -> Option<u64> {
    if bytes.is_empty() || bytes.len() > 20 {
        return None;
    }
    bytes.iter().try_fold(0u64, |sum, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_of_bytes() {
        assert!(
            is_token(b"content-length") && !is_token(b"a b") && !is_token(b"") && !is_token(b"a:")
        );
        assert!(
            is_value(b"a \t\xff") && !is_value(b"a\rb") && !is_value(b"\0") && !is_value(b"\x7f")
        );
        assert!(
            is_target(b"/a?b")
                && !is_target(b"/a#b")
                && !is_target(b"/ ")
                && is_target("/ä".as_bytes())
        );
        assert!(is_host_name(b"a_b.c") && !is_host_name(b"u@h") && !is_host_name(b"[::1]"));
        assert_eq!(trim(b" \ta b\t "), b"a b");
        assert_eq!(list(b"a, ,b ,").collect::<Vec<_>>(), [b"a", b"b"]);
    }

    /// What is looked at in steps gives the same answer as what is looked at byte by byte.
    #[test]
    fn values_end_at_the_first_control_byte() {
        for length in 0..70 {
            let plain = vec![b'a'; length];
            assert_eq!(value_length(&plain), length);
            for place in 0..length {
                for byte in 0..=255 {
                    let mut bytes = plain.clone();
                    bytes[place] = byte;
                    let wanted = if all(&[byte], VALUE) { length } else { place };
                    assert_eq!(
                        value_length(&bytes),
                        wanted,
                        "{byte} at {place} of {length}"
                    );
                    assert_eq!(is_value(&bytes), wanted == length);
                }
            }
        }
        for place in 0..WORD {
            for byte in 0..=255 {
                let mut word = *b"\n\x0b\x09\x8a\x00\xff\x0a\x0b";
                word[place] = byte;
                let found = equal(u64::from_le_bytes(word), b'\n').to_le_bytes();
                let wanted = word.map(|byte| if byte == b'\n' { 0x80 } else { 0 });
                assert_eq!(found, wanted);
            }
        }
        assert_eq!(token_length(b"a-b: c"), 3);
        assert_eq!((token_length(b" a"), token_length(b"ab")), (0, 2));
    }

    #[test]
    fn numbers() {
        for (text, wanted) in [
            ("0", Some(0)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("+1", None),
            ("-1", None),
            ("0x1", None),
            ("1 ", None),
            ("", None),
            ("00000000000000000000000000000001", None),
        ] {
            assert_eq!(number(text.as_bytes()), wanted, "{text}");
        }
    }
}
