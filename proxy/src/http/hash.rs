//! The number of a request's hash key: consistent hashing sends equal ones to the same endpoint.
//!
//! The same on every host and in every version: hosts agree without talking.

use std::{net::IpAddr, time::Duration};

use mesh_model::{
    query::decoded,
    snapshot::{
        decide::RequestView as _,
        traffic::{Balance, HashKey},
    },
};

use super::{cookie, message::Request};

/// What a request's keys say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Hashed {
    /// The number; none when the request has no key, or the balancing asks for none.
    pub number: Option<u64>,
    /// The cookie that the answer must set, because it was made for this request.
    pub cookie: Option<String>,
}

/// Finds the first key that the request has. `draw` gives a random number, for a cookie that is made.
pub(crate) fn of(
    balance: &Balance,
    request: &Request,
    source: Option<IpAddr>,
    draw: impl FnOnce() -> u64,
) -> Hashed {
    let (Balance::RingHash { keys, .. } | Balance::Maglev { keys, .. }) = balance else {
        return Hashed::default();
    };
    let mut draw = Some(draw);
    for key in &**keys {
        if let Some(number) = number(key, request, source) {
            return Hashed {
                number: Some(number),
                cookie: None,
            };
        }
        if let HashKey::Cookie {
            name,
            path,
            ttl: Some(ttl),
        } = key
            && let Some(draw) = draw.take()
        {
            let value = format!("{:016x}", draw());
            let lifetime = Some(*ttl).filter(|ttl| *ttl > Duration::ZERO);
            return Hashed {
                number: Some(digest(value.as_bytes())),
                cookie: Some(cookie::make(name, &value, path, lifetime)),
            };
        }
    }
    Hashed::default()
}

fn number(key: &HashKey, request: &Request, source: Option<IpAddr>) -> Option<u64> {
    match key {
        HashKey::Header(name) => request.header(name).map(|value| digest(&value)),
        HashKey::Cookie { name, .. } => cookie::find(&request.fields, name).map(digest),
        HashKey::SourceAddress => source.map(|address| match address.to_canonical() {
            IpAddr::V4(address) => digest(&address.octets()),
            IpAddr::V6(address) => digest(&address.octets()),
        }),
        HashKey::Query(name) => {
            let pairs = request.query().split('&');
            let found = pairs
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
                .find(|(found, _)| decoded(found) == name.as_bytes());
            found.map(|(_, value)| digest(&decoded(value)))
        }
    }
}

/// FNV-1a over the bytes, then mixed as in `splitmix64` so that every bit counts.
fn digest(bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for byte in bytes {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn ring(keys: Vec<HashKey>) -> Balance {
        Balance::RingHash {
            keys: Arc::from(keys),
            minimum_ring_size: 1024,
        }
    }

    fn request() -> Request {
        let mut request = Request::default();
        request.set_target(b"/?user=a%20b&x=1").unwrap();
        request.fields.push(b"X-User", b"ann");
        request.fields.push(b"cookie", b"sid=ann");
        request
    }

    #[test]
    fn the_first_key_that_there_is() {
        let request = request();
        let address: IpAddr = "10.0.0.1".parse().unwrap();
        let number = |keys| of(&ring(keys), &request, Some(address), || 7).number;
        let header = || HashKey::Header("x-user".into());
        let cookie = |name: &str| HashKey::Cookie {
            name: name.into(),
            path: "/".into(),
            ttl: None,
        };
        let ann = Some(digest(b"ann"));
        assert_eq!(number(vec![header()]), ann);
        assert_eq!(number(vec![cookie("none"), cookie("sid")]), ann);
        assert_eq!(
            number(vec![HashKey::Query("user".into())]),
            Some(digest(b"a b"))
        );
        assert_eq!(
            number(vec![HashKey::Header("none".into()), HashKey::SourceAddress]),
            Some(digest(&[10, 0, 0, 1]))
        );
        assert_eq!(number(vec![HashKey::Header("none".into())]), None);
        let none = of(&Balance::default(), &request, None, || 7);
        assert_eq!(none, Hashed::default());
    }

    #[test]
    fn a_cookie_is_made_where_one_is_asked_for() {
        let made = |ttl| HashKey::Cookie {
            name: "aff".into(),
            path: "/".into(),
            ttl: Some(ttl),
        };
        let found = of(
            &ring(vec![made(Duration::from_mins(1))]),
            &request(),
            None,
            || 7,
        );
        assert_eq!(found.number, Some(digest(b"0000000000000007")));
        assert_eq!(
            found.cookie.as_deref(),
            Some("aff=0000000000000007; Path=/; HttpOnly; SameSite=Lax; Max-Age=60")
        );
        let found = of(&ring(vec![made(Duration::ZERO)]), &request(), None, || 7);
        assert!(!found.cookie.unwrap().contains("Max-Age"));
    }

    /// The numbers are part of what hosts of different versions agree on.
    #[test]
    fn numbers_never_change() {
        assert_eq!(digest(b""), 0xf52a_15e9_a9b5_e89b);
        assert_ne!(digest(b"a"), digest(b"b"));
    }
}
