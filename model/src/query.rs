//! Query strings of URLs.

/// A name or a value without its escapes: `+` is a space; a `%` that no two hexadecimal digits follow stands
/// for itself.
pub fn decoded(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    loop {
        rest = match rest {
            [] => return out,
            [b'%', high, low, behind @ ..] if hex(*high).is_some() && hex(*low).is_some() => {
                out.push(hex(*high).unwrap_or_default() << 4 | hex(*low).unwrap_or_default());
                behind
            }
            [b'+', behind @ ..] => {
                out.push(b' ');
                behind
            }
            [byte, behind @ ..] => {
                out.push(*byte);
                behind
            }
        };
    }
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes() {
        for (text, wanted) in [
            ("", ""),
            ("a%20b", "a b"),
            ("a+b", "a b"),
            ("%+4", "% 4"),
            ("%", "%"),
            ("%4", "%4"),
            ("%zz", "%zz"),
            ("%41%42", "AB"),
            ("a%", "a%"),
        ] {
            assert_eq!(decoded(text), wanted.as_bytes(), "{text}");
        }
    }
}
