//! Normalises paths for matching and for policies; what is sent on is what came in.
//!
//! Routes and policies see the path with unreserved escapes decoded once and dot segments removed (RFC
//! 3986 sections 6.2.2 and 5.2.4). `//`, `%2f`, `\`, `%5c` and `;` mean different things to different
//! programs: routes see them as they are, and policies are asked a second time with the path as the most
//! generous program would read it, so that no spelling slips past a refusal. `%00`, and `%` without two digits behind it,
//! are refused.

use std::borrow::Cow;

/// A path that two programs may read in two ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PathError {
    /// It has an escaped NUL.
    #[error("the path contains an escaped NUL")]
    Nul,
    /// Behind a `%` there are not two hexadecimal digits.
    #[error("the path contains a malformed escape")]
    Escape,
}

/// The path as routes and policies see it.
pub(crate) fn normal(path: &str) -> Result<Cow<'_, str>, PathError> {
    let bytes = path.as_bytes();
    let escaped = memchr::memchr(b'%', bytes).is_some();
    if !escaped && !has_dot_segment(bytes) {
        return Ok(Cow::Borrowed(path));
    }
    let decoded = decode(bytes, |byte| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
    })?;
    Ok(Cow::Owned(text(without_dots(&decoded))))
}

/// The path as the most generous program would read it; `None` when that is the normal one.
pub(crate) fn generous(path: &str) -> Option<String> {
    let odd = path.contains("//")
        || path.contains(['\\', ';'])
        || path.as_bytes().windows(3).any(|window| {
            matches!(
                window,
                [b'%', b'2', b'f' | b'F'] | [b'%', b'5', b'c' | b'C'] | [b'%', b'3', b'b' | b'B']
            )
        });
    if !odd {
        return None;
    }
    let decoded = decode(path.as_bytes(), |byte| byte > 0x20 && byte < 0x7f).ok()?;
    let mut plain = Vec::with_capacity(decoded.len());
    let mut parameter = false;
    for byte in decoded {
        let byte = if byte == b'\\' { b'/' } else { byte };
        match byte {
            b';' => parameter = true,
            b'/' => {
                parameter = false;
                if plain.last() != Some(&b'/') {
                    plain.push(byte);
                }
            }
            other if !parameter => plain.push(other),
            _ => {}
        }
    }
    Some(text(without_dots(&plain)))
}

/// The laws of paths: a normal path is its own normal path, is rooted, and has no dot segment left; the most
/// generous reading has none either, nor two slashes in a row.
#[cfg(any(test, feature = "fuzz"))]
pub(crate) fn judge(path: &str) {
    if !path.starts_with('/') {
        return;
    }
    if let Ok(once) = normal(path) {
        assert!(
            once.starts_with('/') && !has_dot_segment(once.as_bytes()),
            "{path:?} {once:?}"
        );
        let twice = normal(&once).ok();
        // An escaped percent sign may make an escape of what follows; it is decoded once only.
        assert!(
            once.contains('%') || twice.as_deref() == Some(&*once),
            "{path:?} {once:?}"
        );
    }
    if let Some(generous) = generous(path) {
        assert!(
            generous.starts_with('/') && !has_dot_segment(generous.as_bytes()),
            "{path:?} {generous:?}"
        );
        assert!(
            !generous.contains("//") && !generous.contains([';', '\\']),
            "{path:?} {generous:?}"
        );
    }
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes)
        .unwrap_or_else(|fault| String::from_utf8_lossy(fault.as_bytes()).into_owned())
}

fn has_dot_segment(path: &[u8]) -> bool {
    memchr::memchr(b'.', path).is_some()
        && path
            .split(|byte| *byte == b'/')
            .any(|segment| matches!(segment, b"." | b".."))
}

fn decode(path: &[u8], wanted: impl Fn(u8) -> bool) -> Result<Vec<u8>, PathError> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first == b'%' {
            let [high, low, after @ ..] = tail else {
                return Err(PathError::Escape);
            };
            let (Some(high), Some(low)) = (digit(high), digit(low)) else {
                return Err(PathError::Escape);
            };
            let byte = u8::try_from(high * 16 + low).unwrap_or_default();
            if byte == 0 {
                return Err(PathError::Nul);
            }
            if wanted(byte) {
                out.push(byte);
                rest = after;
                continue;
            }
        }
        out.push(*first);
    }
    Ok(out)
}

/// Removes `.` and `..` segments (RFC 3986 section 5.2.4); never leaves the root.
fn without_dots(path: &[u8]) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::with_capacity(path.len());
    let mut segments = path
        .strip_prefix(b"/")
        .unwrap_or(path)
        .split(|byte| *byte == b'/')
        .peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            b"." if last => out.push(b'/'),
            b"." => {}
            b".." => {
                let cut = memchr::memrchr(b'/', &out).unwrap_or(0);
                out.truncate(cut);
                if last {
                    out.push(b'/');
                }
            }
            other => {
                out.push(b'/');
                out.extend_from_slice(other);
            }
        }
    }
    if out.is_empty() {
        out.push(b'/');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_paths() {
        for (path, wanted) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/a/.", "/a/"),
            ("/../../x", "/x"),
            ("/%61%2d%7E", "/a-~"),
            ("/a/%2e%2e/b", "/b"),
            ("/%2561", "/%2561"),
            ("/a%2fb", "/a%2fb"),
            ("/a//b", "/a//b"),
            ("/a;x", "/a;x"),
            ("/...", "/..."),
            ("/.a", "/.a"),
        ] {
            assert_eq!(normal(path).unwrap(), wanted, "{path}");
        }
        assert_eq!(normal("/a%00b"), Err(PathError::Nul));
        for path in ["/%", "/%4", "/%zz", "/%4g", "/a/%u002e", "/%%32%65"] {
            assert_eq!(normal(path), Err(PathError::Escape), "{path}");
        }
    }

    #[test]
    fn generous_paths() {
        for (path, wanted) in [
            ("/a", None),
            ("//admin", Some("/admin")),
            ("/x/..%2fadmin", Some("/admin")),
            ("/x\\..\\admin", Some("/admin")),
            ("/admin;a=b/x", Some("/admin/x")),
            ("/admin%5cx", Some("/admin/x")),
            ("/x/..;/admin", Some("/admin")),
        ] {
            assert_eq!(generous(path).as_deref(), wanted, "{path}");
        }
    }
}
