//! Cookies: found in a request, made for an answer (RFC 6265).

use std::{fmt::Write as _, time::Duration};

use super::fields::{Fields, Known};

/// The value of the first cookie with this name; quotes around it are taken off.
pub(crate) fn find<'f>(fields: &'f Fields, name: &str) -> Option<&'f [u8]> {
    let pairs = fields
        .of(Known::Cookie)
        .flat_map(|line| line.split(|byte| *byte == b';'));
    for pair in pairs {
        let pair = pair.trim_ascii();
        let Some(cut) = memchr::memchr(b'=', pair) else {
            continue;
        };
        let (found, value) = pair.split_at(cut);
        if found.trim_ascii_end() == name.as_bytes() {
            let value = value.get(1..).unwrap_or_default().trim_ascii();
            let bare = value
                .strip_prefix(b"\"")
                .and_then(|v| v.strip_suffix(b"\""));
            return Some(bare.unwrap_or(value));
        }
    }
    None
}

/// The value of a `set-cookie`: for this host only, not for scripts, sent along when a link leads here.
pub(crate) fn make(name: &str, value: &str, path: &str, lifetime: Option<Duration>) -> String {
    let path = if path.is_empty() { "/" } else { path };
    let mut text = format!("{name}={value}; Path={path}; HttpOnly; SameSite=Lax");
    if let Some(lifetime) = lifetime {
        // Writing to a string does not fail.
        let written = write!(text, "; Max-Age={}", lifetime.as_secs());
        debug_assert!(written.is_ok());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finding() {
        let mut fields = Fields::default();
        fields.push(b"Cookie", b"a=1; bb = \"2\" ;c; d=");
        fields.push(b"cookie", b"e=5=6;a=7");
        for (name, wanted) in [
            ("a", Some("1")),
            ("bb", Some("2")),
            ("c", None),
            ("d", Some("")),
            ("e", Some("5=6")),
            ("b", None),
        ] {
            assert_eq!(find(&fields, name), wanted.map(str::as_bytes), "{name}");
        }
    }

    #[test]
    fn making() {
        assert_eq!(
            make("s", "x", "", None),
            "s=x; Path=/; HttpOnly; SameSite=Lax"
        );
        assert_eq!(
            make("s", "x", "/a", Some(Duration::from_mins(1))),
            "s=x; Path=/a; HttpOnly; SameSite=Lax; Max-Age=60"
        );
    }
}
