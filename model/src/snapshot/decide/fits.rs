//! Whether a request or a caller fits a rule.

use super::{AuthorizationRule, RequestView};
use crate::{
    principal::SpiffeId,
    snapshot::rule::{PathMatch, RequestMatch, ValueCondition},
};

impl RequestMatch {
    /// True when every condition holds.
    pub fn fits(&self, request: &impl RequestView) -> bool {
        self.path.fits(request.path())
            && self.method.as_deref().is_none_or(|method| method == request.method())
            && self.headers.iter().all(|wanted| {
                request.header(&wanted.name).is_some_and(|value| wanted.value.fits(&value))
            })
            && self.query.iter().all(|wanted| {
                query_value(request.query(), &wanted.name)
                    .is_some_and(|value| wanted.value.fits(&value))
            })
    }
}

impl PathMatch {
    /// True when the path fits.
    pub fn fits(&self, path: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => **exact == *path,
            Self::Prefix(prefix) => path
                .strip_prefix(&**prefix)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
            Self::Regex(regex) => regex.is_match(path.as_bytes()),
        }
    }
}

impl ValueCondition {
    /// True when the value fits.
    pub fn fits(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(exact) => exact.as_bytes() == value,
            Self::Regex(regex) => regex.is_match(value),
        }
    }
}

/// The first value of a parameter, percent-decoded, `+` read as a space.
fn query_value(query: &str, name: &str) -> Option<Vec<u8>> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(key) == name.as_bytes()).then(|| decoded(value))
    })
}

fn decoded(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let rest = bytes.as_slice_pair();
                match rest {
                    Some(value) => {
                        out.push(value);
                        bytes.next();
                        bytes.next();
                    }
                    None => out.push(b'%'),
                }
            }
            other => out.push(other),
        }
    }
    out
}

trait HexPair {
    fn as_slice_pair(&self) -> Option<u8>;
}

impl HexPair for std::str::Bytes<'_> {
    fn as_slice_pair(&self) -> Option<u8> {
        let mut ahead = self.clone();
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let high = ahead.next().and_then(digit)?;
        let low = ahead.next().and_then(digit)?;
        u8::try_from(high * 16 + low).ok()
    }
}

impl AuthorizationRule {
    /// True when caller, port and request all fit.
    pub fn fits(
        &self,
        caller: Option<&SpiffeId>,
        port: u16,
        request: Option<(&str, &str)>,
    ) -> bool {
        let http = |wanted: &[Box<str>], value: Option<&str>| {
            wanted.is_empty()
                || value.is_some_and(|value| wanted.iter().any(|pattern| wildcard(pattern, value)))
        };
        self.fits_caller(caller)
            && (self.ports.is_empty() || self.ports.contains(&port))
            && http(&self.methods, request.map(|(method, _)| method))
            && http(&self.paths, request.map(|(_, path)| path))
    }

    fn fits_caller(&self, caller: Option<&SpiffeId>) -> bool {
        if self.principals.is_empty() && self.namespaces.is_empty() {
            return true;
        }
        let Some(caller) = caller else { return false };
        let id = caller.to_string();
        let id = id.strip_prefix("spiffe://").unwrap_or(&id);
        (self.principals.is_empty() || self.principals.iter().any(|pattern| wildcard(pattern, id)))
            && (self.namespaces.is_empty() || self.namespaces.contains(&caller.namespace))
    }
}

/// `*` at one end matches anything there; without one the whole value is compared.
fn wildcard(pattern: &str, value: &str) -> bool {
    if let Some(prefix) = pattern.strip_suffix('*') {
        value.starts_with(prefix)
    } else if let Some(suffix) = pattern.strip_prefix('*') {
        value.ends_with(suffix)
    } else {
        pattern == value
    }
}
