//! What a route asks of a request, compiled; and which of two matches goes first.
//!
//! Precedence is Gateway API's, over all routes attached and not per route: exact path, expression, longest
//! prefix; then method, most headers, most query parameters, oldest route, `namespace/name`, first rule.

use std::cmp::Reverse;

use mesh_model::{
    document::route::{GrpcMatch, HttpMatch, ValueMatchSpec},
    snapshot::{
        RequestMatch,
        rule::{PathMatch, Regex, ValueCondition, ValueMatch},
    },
};

/// The rank of a match: the smaller goes first. The parts after the path's are `Reverse`d counts.
pub(crate) type Rank = (PathRank, Reverse<bool>, Reverse<usize>, Reverse<usize>);

/// Kinds of paths in order, then the longer first.
pub(crate) type PathRank = (u8, Reverse<usize>);

/// The rank of rules that act in the order in which they are written.
pub(crate) const AS_WRITTEN: Rank = ((0, Reverse(0)), Reverse(false), Reverse(0), Reverse(0));

/// The rank of a TLS rule: exact names, then the longest wildcard, then any.
pub(crate) fn rank_of_name(name: Option<&str>) -> Rank {
    let path = match name {
        Some(name) if name.starts_with("*.") => (1, Reverse(name.len())),
        Some(name) => (0, Reverse(name.len())),
        None => (2, Reverse(0)),
    };
    (path, Reverse(false), Reverse(0), Reverse(0))
}

/// The rank of a compiled match.
pub(crate) fn rank(matches: &RequestMatch) -> Rank {
    let path = match &matches.path {
        PathMatch::Exact(path) => (0, Reverse(path.len())),
        PathMatch::Regex(regex) => (1, Reverse(regex.as_str().len())),
        PathMatch::Prefix(text) | PathMatch::Begins(text) | PathMatch::AnyCase { text, .. } => {
            (2, Reverse(text.len()))
        }
        PathMatch::Any => (2, Reverse(0)),
    };
    (
        path,
        Reverse(matches.method.is_some()),
        Reverse(matches.headers.len()),
        Reverse(matches.query.len()),
    )
}

/// The match of an HTTPRoute; `None` when an expression does not compile (which no checked document has).
pub(crate) fn http(one: &HttpMatch) -> Option<RequestMatch> {
    let value = one
        .path
        .as_ref()
        .and_then(|path| path.value.as_deref())
        .unwrap_or("/");
    let kind = one
        .path
        .as_ref()
        .and_then(|path| path.type_.as_deref())
        .unwrap_or("PathPrefix");
    let path = match kind {
        "Exact" => PathMatch::Exact(value.into()),
        "RegularExpression" => PathMatch::Regex(Regex::new(value).ok()?),
        _ => prefix(value),
    };
    Some(RequestMatch {
        path,
        method: one.method.as_deref().map(Into::into),
        headers: values(&one.headers, Names::Headers)?,
        query: values(&one.query_params, Names::Parameters)?,
        ..RequestMatch::default()
    })
}

fn prefix(value: &str) -> PathMatch {
    match value.trim_end_matches('/') {
        "" => PathMatch::Any,
        prefix => PathMatch::Prefix(prefix.into()),
    }
}

/// The match of a GRPCRoute: service and method are the path `/service/method` of a POST.
pub(crate) fn grpc(one: &GrpcMatch) -> Option<RequestMatch> {
    let path = match &one.method {
        None => PathMatch::Any,
        Some(method) => {
            let regular = method.type_.as_deref() == Some("RegularExpression");
            match (method.service.as_deref(), method.method.as_deref()) {
                (Some(service), Some(name)) if !regular => {
                    PathMatch::Exact(format!("/{service}/{name}").into())
                }
                (Some(service), None) if !regular => {
                    PathMatch::Prefix(format!("/{service}").into())
                }
                (service, name) => {
                    let part = |given: Option<&str>| match given {
                        None => "[^/]+".to_owned(),
                        Some(text) if regular => format!("(?:{text})"),
                        Some(text) => text.replace('.', "\\."),
                    };
                    PathMatch::Regex(
                        Regex::new(&format!("/{}/{}", part(service), part(name))).ok()?,
                    )
                }
            }
        }
    };
    Some(RequestMatch {
        path,
        method: None,
        headers: values(&one.headers, Names::Headers)?,
        ..RequestMatch::default()
    })
}

#[derive(Clone, Copy, PartialEq)]
enum Names {
    /// In any case.
    Headers,
    /// As written.
    Parameters,
}

/// Of several entries with one name only the first counts.
fn values(given: &[ValueMatchSpec], names: Names) -> Option<Vec<ValueMatch>> {
    let mut found: Vec<ValueMatch> = Vec::new();
    for one in given {
        let name = match names {
            Names::Headers => one.name.to_ascii_lowercase(),
            Names::Parameters => one.name.clone(),
        };
        if found.iter().any(|other| *other.name == *name) {
            continue;
        }
        let value = match one.type_.as_deref() {
            Some("RegularExpression") => ValueCondition::Regex(Regex::new(&one.value).ok()?),
            _ => ValueCondition::Exact(one.value.as_str().into()),
        };
        found.push(ValueMatch {
            name: name.into(),
            value,
        });
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_model::document::route::{GrpcMethodMatch, PathMatchSpec};

    fn path(kind: &str, value: &str) -> HttpMatch {
        let path = PathMatchSpec {
            type_: Some(kind.to_owned()),
            value: Some(value.to_owned()),
        };
        HttpMatch {
            path: Some(path),
            ..HttpMatch::default()
        }
    }
    fn header(mut one: HttpMatch, names: &[&str]) -> HttpMatch {
        one.headers = names
            .iter()
            .map(|name| ValueMatchSpec {
                type_: None,
                name: (*name).to_owned(),
                value: "v".to_owned(),
            })
            .collect();
        one
    }

    #[test]
    fn precedence() {
        let get = |mut one: HttpMatch| {
            one.method = Some("GET".to_owned());
            one
        };
        let in_order = [
            path("Exact", "/a"),
            path("RegularExpression", "/a.*"),
            get(header(path("PathPrefix", "/a/b"), &["x", "y"])),
            get(path("PathPrefix", "/a/b")),
            header(path("PathPrefix", "/a/b"), &["x", "y"]),
            header(path("PathPrefix", "/a/b/"), &["x", "X"]),
            path("PathPrefix", "/a/b"),
            path("PathPrefix", "/a"),
            HttpMatch::default(),
        ];
        let ranks: Vec<Rank> = in_order
            .iter()
            .map(|one| rank(&http(one).unwrap()))
            .collect();
        assert!(ranks.is_sorted(), "{ranks:?}");
        assert!(ranks.windows(2).all(|pair| pair[0] != pair[1]), "{ranks:?}");
    }

    #[test]
    fn grpc_methods_are_paths() {
        let one = |type_: Option<&str>, service: Option<&str>, method: Option<&str>| {
            let text = |text: Option<&str>| text.map(str::to_owned);
            let method = GrpcMethodMatch {
                type_: text(type_),
                service: text(service),
                method: text(method),
            };
            grpc(&GrpcMatch {
                method: Some(method),
                headers: Vec::new(),
            })
            .unwrap()
            .path
        };
        for (path, fits, not) in [
            (one(None, Some("p.S"), Some("M")), "/p.S/M", "/p.S/Mx"),
            (one(None, Some("p.S"), None), "/p.S/M", "/p.Sx/M"),
            (one(None, None, Some("M")), "/any/M", "/any/Mx"),
            (
                one(Some("RegularExpression"), Some("p\\.(S|T)"), None),
                "/p.T/M",
                "/p.U/M",
            ),
        ] {
            assert!(path.fits(fits) && !path.fits(not), "{path:?}");
        }
        assert!(grpc(&GrpcMatch::default()).unwrap().path.fits("/x/y"));
    }
}
