//! Session persistence: the token that names an endpoint, in a cookie or a header.
//!
//! The token is the endpoint's stable key, mixed with the session's name: it says nothing of addresses,
//! and whoever makes one up can choose only among endpoints that the rule would send him to anyway.

use std::sync::Arc;

use mesh_model::snapshot::{
    Backend, EndpointKey, Filter, Target, decide::RequestView as _, rule::Persistence,
};
use smallvec::SmallVec;

use super::{cookie, fields::Fields, message::Request};

/// The endpoint that the request's token names.
pub(crate) fn held(persistence: &Persistence, request: &Request) -> Option<EndpointKey> {
    let name = &*persistence.name;
    if persistence.header {
        parse(name, &request.header(name)?)
    } else {
        parse(name, cookie::find(&request.fields, name)?)
    }
}

/// Tells the caller where its session is.
pub(crate) fn issue(persistence: &Persistence, endpoint: EndpointKey, answer: &mut Fields) {
    let name = &*persistence.name;
    let token = format!("{:016x}", endpoint.0 ^ mask(name));
    if persistence.header {
        answer.drop_named(name.as_bytes());
        answer.push(name.as_bytes(), token.as_bytes());
    } else {
        let text = cookie::make(name, &token, "/", persistence.lifetime);
        answer.push(b"set-cookie", text.as_bytes());
    }
}

fn parse(name: &str, token: &[u8]) -> Option<EndpointKey> {
    let text = std::str::from_utf8(token).ok()?;
    let digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = u64::from_str_radix(digits.then_some(text)?, 16).ok()?;
    Some(EndpointKey(number ^ mask(name)))
}

/// Keeps tokens of one session out of another.
fn mask(name: &str) -> u64 {
    name.bytes().fold(0x9e37_79b9_7f4a_7c15, |mask, byte| {
        (mask ^ u64::from(byte))
            .wrapping_mul(0x2545_f491_4f6c_dd1d)
            .rotate_left(23)
    })
}

/// A backend, and the filters of the shares that lead to it.
pub(crate) type Holding<'s> = (&'s Arc<Backend>, SmallVec<[&'s [Filter]; 2]>);

/// The backend of a target that has the endpoint, with the filters met on the way: a session goes before
/// the draw among shares, except that a weight of 0 gets nothing.
pub(crate) fn holding(target: &Target, endpoint: EndpointKey) -> Option<Holding<'_>> {
    match target {
        Target::Backend(backend) => backend
            .endpoints
            .iter()
            .any(|one| one.key == endpoint)
            .then(|| (backend, SmallVec::new())),
        Target::Weighted(shares) => {
            shares
                .iter()
                .filter(|share| share.weight > 0)
                .find_map(|share| {
                    let (backend, inner) = holding(&share.target, endpoint)?;
                    let own = Some(&*share.filters).filter(|filters| !filters.is_empty());
                    Some((backend, own.into_iter().chain(inner).collect()))
                })
        }
        Target::Failover(targets) => targets.iter().find_map(|one| holding(one, endpoint)),
        Target::Fail { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn persistence(header: bool) -> Persistence {
        Persistence {
            name: "session".into(),
            header,
            lifetime: None,
        }
    }

    #[test]
    fn tokens_come_back() {
        for header in [true, false] {
            let persistence = persistence(header);
            let mut answer = Fields::default();
            issue(&persistence, EndpointKey(42), &mut answer);
            let mut request = Request::default();
            if header {
                let token = answer.named(b"session").next().unwrap();
                request.fields.push(b"Session", token);
            } else {
                let line = answer.named(b"set-cookie").next().unwrap();
                assert!(line.ends_with(b"; Path=/; HttpOnly; SameSite=Lax"));
                let pair = line.split(|byte| *byte == b';').next().unwrap();
                request.fields.push(b"cookie", pair);
            }
            assert_eq!(held(&persistence, &request), Some(EndpointKey(42)));
        }
    }

    #[test]
    fn what_is_no_token_names_nobody() {
        for token in ["", "1", "00000000000000zz", "+0000000000000ff", "10.0.0.1"] {
            let mut request = Request::default();
            request.fields.push(b"session", token.as_bytes());
            assert_eq!(held(&persistence(true), &request), None, "{token}");
        }
    }
}
