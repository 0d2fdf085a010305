//! Whether a request or a caller fits a rule.

use std::net::IpAddr;

use super::{AuthorizationRule, RequestView, Source};
use crate::{
    name::Namespace,
    principal::SpiffeId,
    query::decoded,
    snapshot::{
        TlsRule,
        rule::{PathMatch, RequestMatch, SourceMatch, ValueCondition},
    },
};

impl RequestMatch {
    /// True when every condition holds.
    pub fn fits(&self, request: &impl RequestView) -> bool {
        self.path.fits(request.path())
            && self
                .method
                .as_deref()
                .is_none_or(|method| method == request.method())
            && self
                .headers
                .iter()
                .all(|wanted| wanted.value.fits(request.header(&wanted.name).as_deref()))
            && self.query.iter().all(|wanted| {
                wanted
                    .value
                    .fits(query_value(request.query(), &wanted.name).as_deref())
            })
            && self.authority.as_ref().is_none_or(|wanted| {
                let host = request
                    .authority()
                    .map(|text| without_port(text).as_bytes());
                wanted.fits(host)
            })
            && self
                .source
                .as_ref()
                .is_none_or(|wanted| wanted.fits(&request.source()))
    }
}

/// The host of an authority; an IPv6 address keeps its brackets.
fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

impl TlsRule {
    /// True when the server name (lower case) and the caller fit. `*.` stands for one or more labels.
    pub fn fits(&self, name: Option<&str>, source: &Source<'_>) -> bool {
        let named = self.server_name.as_deref().is_none_or(|wanted| {
            name.is_some_and(|name| match wanted.strip_prefix('*') {
                Some(suffix) => name.len() > suffix.len() && name.ends_with(suffix),
                None => name == wanted,
            })
        });
        named
            && self
                .source
                .as_ref()
                .is_none_or(|wanted| wanted.fits(source))
    }
}

impl SourceMatch {
    /// True when the caller fits every list that is given.
    pub fn fits(&self, source: &Source<'_>) -> bool {
        let any = |list: bool, fits: bool| list || fits;
        any(self.services.is_empty(), self.fits_service(source))
            && any(
                self.namespaces.is_empty(),
                source.identity.is_some_and(|id| self.fits_namespace(id)),
            )
            && self.labels.iter().all(|(key, value)| {
                source
                    .labels
                    .is_some_and(|labels| labels.get(key) == Some(value))
            })
            && any(
                self.addresses.is_empty(),
                source.address.is_some_and(|address| {
                    let address = address.to_canonical();
                    self.addresses.iter().any(|range| inside(range, address))
                }),
            )
    }

    /// By the identity's namespace; a host's own programs are callers of `default`, as for consumer routes.
    fn fits_namespace(&self, id: &SpiffeId) -> bool {
        if id.as_host().is_some() {
            self.namespaces.contains(&Namespace::default())
        } else {
            self.namespaces.contains(&id.namespace)
        }
    }

    /// By the caller's own service, or the service account of its identity where only that is known.
    fn fits_service(&self, source: &Source<'_>) -> bool {
        self.services.iter().any(|wanted| {
            source.service == Some(wanted)
                || source.service.is_none()
                    && source.identity.is_some_and(|id| {
                        id.namespace == wanted.namespace
                            && id.service_account.as_str() == wanted.name.as_str()
                    })
        })
    }
}

fn inside(range: &(IpAddr, u8), address: IpAddr) -> bool {
    let (network, length) = *range;
    let high = |bits: u128, width: u32| {
        let drop = width.saturating_sub(length.into());
        if drop >= width { 0 } else { bits >> drop }
    };
    match (network, address) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            high(a.to_bits().into(), 32) == high(b.to_bits().into(), 32)
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => high(a.to_bits(), 128) == high(b.to_bits(), 128),
        _ => false,
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
            Self::Begins(start) => path.starts_with(&**start),
            Self::AnyCase { text, begins } => {
                let head = if *begins {
                    path.get(..text.len())
                } else {
                    Some(path)
                };
                head.is_some_and(|head| head.eq_ignore_ascii_case(text))
            }
            Self::Regex(regex) => regex.is_match(path.as_bytes()),
        }
    }
}

impl ValueCondition {
    /// True when the value, or its absence, fits.
    pub fn fits(&self, value: Option<&[u8]>) -> bool {
        match self {
            Self::Exact(exact) => value.is_some_and(|value| exact.as_bytes() == value),
            Self::Prefix(start) => value.is_some_and(|value| value.starts_with(start.as_bytes())),
            Self::Regex(regex) => value.is_some_and(|value| regex.is_match(value)),
            Self::Present => value.is_some(),
            Self::Not(condition) => !condition.fits(value),
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
        self.fits_some_request(caller, port)
            && http(&self.methods, request.map(|(method, _)| method))
            && http(&self.paths, request.map(|(_, path)| path))
    }

    /// True when caller and port fit, so that some request may.
    pub fn fits_some_request(&self, caller: Option<&SpiffeId>, port: u16) -> bool {
        self.fits_caller(caller) && (self.ports.is_empty() || self.ports.contains(&port))
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

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::snapshot::rule::{Regex, ValueMatch};

    struct Request(
        &'static str,
        &'static str,
        &'static str,
        &'static [(&'static str, &'static str)],
    );

    impl RequestView for Request {
        fn method(&self) -> &str {
            self.0
        }
        fn path(&self) -> &str {
            self.1
        }
        fn query(&self) -> &str {
            self.2
        }
        fn header(&self, name: &str) -> Option<Cow<'_, [u8]>> {
            self.3
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value.as_bytes().into())
        }
    }

    #[test]
    fn paths() {
        let regex = || PathMatch::Regex(Regex::new("/v[0-9]+/x").unwrap());
        for (rule, path, fits) in [
            (PathMatch::Any, "/", true),
            (PathMatch::Exact("/v2".into()), "/v2", true),
            (PathMatch::Exact("/v2".into()), "/v2/", false),
            (PathMatch::Prefix("/v2".into()), "/v2", true),
            (PathMatch::Prefix("/v2".into()), "/v2/", true),
            (PathMatch::Prefix("/v2".into()), "/v2/x", true),
            (PathMatch::Prefix("/v2".into()), "/v2example", false),
            (PathMatch::Prefix("".into()), "/anything", true),
            (regex(), "/v12/x", true),
            (regex(), "/v12/xy", false),
            (regex(), "/a/v12/x", false),
        ] {
            assert_eq!(rule.fits(path), fits, "{rule:?} {path}");
        }
    }

    #[test]
    fn all_conditions_must_hold() {
        let value = |name: &str, value: &str| ValueMatch {
            name: name.into(),
            value: ValueCondition::Exact(value.into()),
        };
        let rule = RequestMatch {
            path: PathMatch::Any,
            method: Some("GET".into()),
            headers: vec![value("x-version", "two")],
            query: vec![value("animal", "a b%")],
            ..RequestMatch::default()
        };
        let headers: &[_] = &[("x-version", "two")];
        assert!(rule.fits(&Request("GET", "/", "x=1&animal=a+b%25", headers)));
        assert!(rule.fits(&Request("GET", "/", "anima%6c=a%20b%", headers)));
        assert!(!rule.fits(&Request("GET", "/", "animal=no&animal=a+b%25", headers)));
        assert!(!rule.fits(&Request("GET", "/", "", headers)));
        assert!(!rule.fits(&Request("POST", "/", "animal=a+b%25", headers)));
        assert!(!rule.fits(&Request("GET", "/", "animal=a+b%25", &[])));
        assert!(!rule.fits(&Request(
            "GET",
            "/",
            "animal=a+b%25",
            &[("x-version", "twofold")]
        )));
        let regex = ValueCondition::Regex(Regex::new("t.o|three").unwrap());
        assert!(
            regex.fits(Some(b"two"))
                && regex.fits(Some(b"three"))
                && !regex.fits(Some(b"threefold"))
        );
    }

    #[test]
    fn callers() {
        let caller: SpiffeId = "spiffe://m.internal/ns/shop/sa/web".parse().unwrap();
        let principal = |pattern: &str| AuthorizationRule {
            principals: vec![pattern.into()],
            ..AuthorizationRule::default()
        };
        for (pattern, fits) in [
            ("*", true),
            ("m.internal/ns/shop/sa/web", true),
            ("m.internal/ns/shop/*", true),
            ("*/sa/web", true),
            ("m.internal/ns/shop/sa/we", false),
            ("other/ns/shop/sa/web", false),
        ] {
            assert_eq!(
                principal(pattern).fits(Some(&caller), 80, None),
                fits,
                "{pattern}"
            );
        }
        assert!(
            !principal("*").fits(None, 80, None),
            "an unknown caller is nobody"
        );
        assert!(AuthorizationRule::default().fits(None, 80, None));
        let http = AuthorizationRule {
            methods: vec!["GET".into()],
            paths: vec!["/public/*".into()],
            ports: vec![8080],
            namespaces: vec!["shop".parse().unwrap()],
            ..AuthorizationRule::default()
        };
        assert!(http.fits(Some(&caller), 8080, Some(("GET", "/public/x"))));
        assert!(!http.fits(Some(&caller), 8081, Some(("GET", "/public/x"))));
        assert!(!http.fits(Some(&caller), 8080, Some(("POST", "/public/x"))));
        assert!(!http.fits(Some(&caller), 8080, Some(("GET", "/x"))));
        assert!(
            !http.fits(Some(&caller), 8080, None),
            "an opaque connection has no path"
        );
    }
}
