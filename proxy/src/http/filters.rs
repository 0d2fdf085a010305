//! What a rule changes: headers of both heads, host and path; redirects, answers of its own, copies.
//!
//! The meaning of each is Gateway API's (`HTTPRouteFilter`).

use mesh_model::snapshot::{
    Filter,
    decide::RequestView as _,
    rule::{DirectResponse, HeaderEdits, Mirror, PathEdit, Redirect, Rewrite},
};
use smallvec::SmallVec;

use super::{
    authority,
    fields::{Fields, Known},
    message::Request,
};

/// What follows from the filters of the request.
#[derive(Debug, PartialEq)]
pub(crate) enum Filtered<'f> {
    /// The request goes on, and copies of it go where these say.
    Go(SmallVec<[&'f Mirror; 1]>),
    /// The caller is sent elsewhere: status and `location`.
    Redirect(u16, String),
    /// The mesh answers itself.
    Direct(&'f DirectResponse),
}

/// Applies the filters that act on the request, in order.
pub(crate) fn on_request<'f>(
    filters: &mut dyn Iterator<Item = &'f Filter>,
    request: &mut Request,
    port: u16,
) -> Filtered<'f> {
    let mut mirrors = SmallVec::new();
    for filter in filters {
        match filter {
            Filter::RequestHeaders(edits) => edit_request(edits, request),
            Filter::Rewrite(rewrite) => apply(rewrite, request),
            Filter::Redirect(redirect) => {
                return Filtered::Redirect(redirect.status, location(redirect, request, port));
            }
            Filter::DirectResponse(answer) => return Filtered::Direct(answer),
            Filter::Mirror(mirror) => mirrors.push(mirror),
            // They act on the answer, and before all others.
            Filter::ResponseHeaders(_) | Filter::Cors(_) => {}
        }
    }
    Filtered::Go(mirrors)
}

/// Applies the filters that act on the answer, in order.
pub(crate) fn on_response(filters: &mut dyn Iterator<Item = &Filter>, fields: &mut Fields) {
    for filter in filters {
        if let Filter::ResponseHeaders(edits) = filter {
            edit(edits, fields);
        }
    }
}

fn edit_request(edits: &HeaderEdits, request: &mut Request) {
    edit(edits, &mut request.fields);
    if let Some((_, host)) = edits.set.iter().find(|(name, _)| **name == *"host")
        && authority::parse(host.as_bytes()).is_some()
    {
        request.set_authority(host.as_bytes());
    }
}

/// Framing and hop fields are written anew whatever stands here, so an edit cannot break a message.
fn edit(edits: &HeaderEdits, fields: &mut Fields) {
    for name in &edits.remove {
        fields.drop_where(|known, found| {
            known != Known::Host && found.eq_ignore_ascii_case(name.as_bytes())
        });
    }
    for (name, value) in &edits.set {
        fields.drop_named(name.as_bytes());
        fields.push(name.as_bytes(), value.as_bytes());
    }
    for (name, value) in &edits.add {
        fields.push(name.as_bytes(), value.as_bytes());
    }
}

fn apply(rewrite: &Rewrite, request: &mut Request) {
    if let Some(host) = &rewrite.hostname {
        request.set_authority(host.as_bytes());
    }
    if let Some(edit) = &rewrite.path {
        let path = edited(edit, request);
        // The path was free of escaped NULs, and a rule's own text is too.
        if request.set_path(&path).is_err() {
            tracing::debug!(path, "a rewritten path was left alone");
        }
    }
}

fn edited(edit: &PathEdit, request: &Request) -> String {
    match edit {
        PathEdit::Full(path) => rooted(path),
        PathEdit::Prefix {
            matched,
            replacement,
        } => {
            let path = request.path();
            let rest = path
                .strip_prefix(&**matched)
                .unwrap_or(path)
                .trim_start_matches('/');
            let head = replacement.trim_end_matches('/');
            if rest.is_empty() && !path.ends_with('/') {
                rooted(head)
            } else {
                rooted(&[head, "/", rest].concat())
            }
        }
        PathEdit::Begin {
            length,
            replacement,
        } => {
            let rest = request.path().get(*length..).unwrap_or_default();
            rooted(&[&**replacement, rest].concat())
        }
        PathEdit::Substitute(substitution) => rooted(&substitution.apply(request.path())),
    }
}

fn rooted(path: &str) -> String {
    if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/{path}")
    }
}

fn location(redirect: &Redirect, request: &Request, listener: u16) -> String {
    let scheme = redirect.scheme.as_deref().unwrap_or("http");
    let own = request
        .authority()
        .and_then(|text| authority::parse(text.as_bytes()));
    let host = redirect
        .hostname
        .as_deref()
        .or_else(|| own.map(|own| own.host))
        .unwrap_or_default();
    let usual = match scheme {
        "https" => Some(443),
        "http" => Some(80),
        _ => None,
    };
    let port = redirect.port.or(match &redirect.scheme {
        Some(_) => usual,
        None => Some(listener),
    });
    let path = redirect.path.as_ref().map_or_else(
        || request.raw_path().to_owned(),
        |edit| edited(edit, request),
    );
    let host = if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    };
    let port = port
        .filter(|port| Some(*port) != usual)
        .map(|port| format!(":{port}"));
    let query = request.raw_query().map(|query| format!("?{query}"));
    [
        scheme,
        "://",
        &host,
        &port.unwrap_or_default(),
        &path,
        &query.unwrap_or_default(),
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(target: &str) -> Request {
        let mut request = Request::default();
        request.set_method(b"GET");
        request.set_authority(b"words:8080");
        request.set_target(target.as_bytes()).unwrap();
        request.fields.push(b"X-Old", b"1");
        request
    }

    #[test]
    fn edits() {
        let edits = HeaderEdits {
            set: vec![
                ("x-old".into(), "2".into()),
                ("host".into(), "other".into()),
            ],
            add: vec![("x-old".into(), "3".into())],
            remove: vec!["x-none".into()],
        };
        let mut one = request("/");
        assert_eq!(
            on_request(
                &mut [&Filter::RequestHeaders(edits)].into_iter(),
                &mut one,
                80
            ),
            Filtered::Go(SmallVec::new())
        );
        assert_eq!(one.fields.named(b"x-old").collect::<Vec<_>>(), [b"2", b"3"]);
        assert_eq!(one.authority(), Some("other"));
    }

    #[test]
    fn rewrites() {
        for (target, matched, replacement, wanted) in [
            ("/a/b", "/a", "/x", "/x/b"),
            ("/a/", "/a", "/x", "/x/"),
            ("/a", "/a", "/x", "/x"),
            ("/a", "/a", "", "/"),
            ("/a/b", "/a", "/", "/b"),
            ("/a/b", "/a", "/x/", "/x/b"),
            ("/a/b?q", "", "/x", "/x/a/b"),
        ] {
            let path = PathEdit::Prefix {
                matched: matched.into(),
                replacement: replacement.into(),
            };
            let mut one = request(target);
            on_request(
                &mut [&Filter::Rewrite(Rewrite {
                    hostname: None,
                    path: Some(path),
                })]
                .into_iter(),
                &mut one,
                80,
            );
            assert_eq!(one.raw_path(), wanted, "{target} {matched} {replacement}");
        }
    }

    #[test]
    fn redirects() {
        let plain = Redirect {
            scheme: None,
            hostname: None,
            port: None,
            path: None,
            status: 302,
        };
        for (redirect, listener, wanted) in [
            (plain.clone(), 80, "http://words/a?b"),
            (plain.clone(), 8080, "http://words:8080/a?b"),
            (
                Redirect {
                    scheme: Some("https".into()),
                    ..plain.clone()
                },
                8080,
                "https://words/a?b",
            ),
            (
                Redirect {
                    hostname: Some("w.example".into()),
                    port: Some(81),
                    ..plain.clone()
                },
                80,
                "http://w.example:81/a?b",
            ),
            (
                Redirect {
                    path: Some(PathEdit::Full("/x".into())),
                    ..plain
                },
                80,
                "http://words/x?b",
            ),
        ] {
            let mut one = request("/a?b");
            let filter = Filter::Redirect(redirect);
            let found = on_request(&mut [&filter].into_iter(), &mut one, listener);
            assert_eq!(found, Filtered::Redirect(302, wanted.to_owned()));
        }
    }
}
