//! What a VirtualService changes of a request: filters, retries, faults; compiled.

use std::{collections::BTreeMap, sync::Arc};

use mesh_model::{
    document::virtual_service::{
        CorsPolicy, DerivePort, HeaderChange, HeaderOperations, HttpDirectResponse, HttpFault,
        HttpRedirect, HttpRetries, HttpRewrite, HttpRoute, Percentage, TextCondition, TextMatch,
    },
    snapshot::{
        Fault, Filter, Retry,
        limit::{Abort, Share},
        rule::{
            Cors, DirectResponse, HeaderEdits, Mirror, OriginMatch, PathEdit, PathMatch, Redirect,
            Regex, Rewrite, Substitution, ValueCondition,
        },
    },
};

use super::Draft;
use crate::percent;

impl Draft<'_> {
    /// All that a rule changes, in the order in which it is done.
    pub(super) fn changes(
        &mut self,
        at: &str,
        rule: &HttpRoute,
        path: &PathMatch,
    ) -> Arc<[Filter]> {
        let mut all = Vec::new();
        if let Some(policy) = &rule.cors_policy {
            all.push(Filter::Cors(Arc::new(cors(policy))));
        }
        all.extend(request_headers(rule.headers.as_ref()));
        all.extend(
            rewrite(rule.rewrite.as_ref(), rule.headers.as_ref(), path).map(Filter::Rewrite),
        );
        all.extend(self.mirrors(at, rule));
        all.extend(response_headers(rule.headers.as_ref()));
        if let Some(given) = &rule.redirect {
            all.push(Filter::Redirect(redirect(given, self.room.port)));
        }
        if let Some(given) = &rule.direct_response {
            all.push(Filter::DirectResponse(Arc::new(direct_response(given))));
        }
        Arc::from(all)
    }

    fn mirrors(&mut self, at: &str, rule: &HttpRoute) -> Vec<Filter> {
        let single = rule.mirror.as_ref().map(|destination| {
            let share = share(rule.mirror_percentage, rule.mirror_percent);
            (format!("{at}.mirror"), destination, share)
        });
        let several = rule.mirrors.iter().enumerate().map(|(number, one)| {
            let at = format!("{at}.mirrors[{number}].destination");
            (at, &one.destination, share(one.percentage, None))
        });
        let mut found = Vec::new();
        for (at, destination, share) in single.into_iter().chain(several) {
            match self.destination(destination) {
                Ok(backend) => found.push(Filter::Mirror(Mirror { backend, share })),
                Err(refusal) => self.unresolved(&at, refusal),
            }
        }
        found
    }
}

/// All unless given; the old form counts when the new one is not there.
fn share(percentage: Option<Percentage>, old: Option<u32>) -> Share {
    match (percentage, old) {
        (Some(percentage), _) => percent::share(percentage.value),
        (None, Some(percent)) => percent::fraction(percent, 100),
        (None, None) => Share::ALL,
    }
}

/// Names by which a header edit means the host.
fn is_host(name: &str) -> bool {
    name.eq_ignore_ascii_case("host") || name == ":authority"
}

fn edits(change: &HeaderChange) -> HeaderEdits {
    let lower = |name: &str| name.to_ascii_lowercase().into_boxed_str();
    let pairs = |map: &BTreeMap<String, String>| {
        map.iter()
            .filter(|(name, _)| !is_host(name))
            .map(|(name, value)| (lower(name), value.as_str().into()))
            .collect()
    };
    HeaderEdits {
        set: pairs(&change.set),
        add: pairs(&change.add),
        remove: change.remove.iter().map(|name| lower(name)).collect(),
    }
}

fn request_headers(given: Option<&HeaderOperations>) -> Option<Filter> {
    let edits = edits(given?.request.as_ref()?);
    (edits != HeaderEdits::default()).then_some(Filter::RequestHeaders(edits))
}

fn response_headers(given: Option<&HeaderOperations>) -> Option<Filter> {
    let edits = edits(given?.response.as_ref()?);
    (edits != HeaderEdits::default()).then_some(Filter::ResponseHeaders(edits))
}

/// The host that header edits set.
fn edited_host(given: Option<&HeaderOperations>) -> Option<Box<str>> {
    let change = given?.request.as_ref()?;
    let mut all = change.set.iter().filter(|(name, _)| is_host(name));
    all.next().map(|(_, value)| value.as_str().into())
}

/// What acts only when one destination is chosen.
pub(super) fn of_destination(given: Option<&HeaderOperations>) -> Arc<[Filter]> {
    let host = edited_host(given).map(|hostname| {
        Filter::Rewrite(Rewrite {
            hostname: Some(hostname),
            path: None,
        })
    });
    request_headers(given)
        .into_iter()
        .chain(host)
        .chain(response_headers(given))
        .collect()
}

fn rewrite(
    given: Option<&HttpRewrite>,
    headers: Option<&HeaderOperations>,
    path: &PathMatch,
) -> Option<Rewrite> {
    let authority = given.and_then(|given| given.authority.as_deref());
    let hostname = authority.map(Into::into).or_else(|| edited_host(headers));
    let path = given.and_then(|given| new_path(given, path));
    (hostname.is_some() || path.is_some()).then_some(Rewrite { hostname, path })
}

fn new_path(given: &HttpRewrite, path: &PathMatch) -> Option<PathEdit> {
    if let Some(regex) = &given.uri_regex_rewrite {
        let substitution = Substitution::new(&regex.pattern, &regex.rewrite).ok()?;
        return Some(PathEdit::Substitute(substitution));
    }
    let uri = given.uri.as_deref()?;
    Some(match path {
        PathMatch::Any => PathEdit::Prefix {
            matched: "".into(),
            replacement: uri.into(),
        },
        PathMatch::Begins(text) | PathMatch::AnyCase { text, begins: true } => begun(text, uri),
        PathMatch::Exact(_)
        | PathMatch::AnyCase { .. }
        | PathMatch::Prefix(_)
        | PathMatch::Regex(_) => PathEdit::Full(uri.into()),
    })
}

/// Where a slash stands at the end of either, whole segments are meant: then one slash stands at the seam.
fn begun(matched: &str, uri: &str) -> PathEdit {
    if matched.ends_with('/') || uri.ends_with('/') {
        PathEdit::Prefix {
            matched: matched.trim_end_matches('/').into(),
            replacement: uri.into(),
        }
    } else {
        PathEdit::Begin {
            length: matched.len(),
            replacement: uri.into(),
        }
    }
}

fn redirect(given: &HttpRedirect, dialled: u16) -> Redirect {
    let usual = match given.scheme.as_deref() {
        Some("https") => 443,
        _ => 80,
    };
    let derived = match (given.derive_port, &given.authority, &given.scheme) {
        (Some(DerivePort::FromRequestPort), _, _) => Some(dialled),
        (Some(DerivePort::FromProtocolDefault), _, _) | (None, Some(_), _) => Some(usual),
        (None, None, _) => None,
    };
    Redirect {
        scheme: given.scheme.as_deref().map(Into::into),
        hostname: given.authority.as_deref().map(Into::into),
        port: given.port.or(derived),
        path: given.uri.as_deref().map(|uri| PathEdit::Full(uri.into())),
        status: given.redirect_code.unwrap_or(301),
    }
}

fn direct_response(given: &HttpDirectResponse) -> DirectResponse {
    let body = given.body.as_ref();
    let text = body.and_then(|body| body.string.as_ref());
    let bytes = body.and_then(|body| body.bytes.as_ref());
    let mut headers = Vec::new();
    if text.is_some() {
        headers.push(("content-type".into(), "text/plain".into()));
    }
    DirectResponse {
        status: given.status,
        body: match (text, bytes) {
            (Some(text), _) => text.as_bytes().into(),
            (None, Some(bytes)) => bytes.0.as_slice().into(),
            (None, None) => Box::default(),
        },
        headers,
    }
}

fn cors(given: &CorsPolicy) -> Cors {
    let boxed = |list: &[String]| list.iter().map(|text| text.as_str().into()).collect();
    let exact = |text: &str| match text {
        "*" => OriginMatch::Any,
        text => OriginMatch::Exact(text.to_ascii_lowercase().into()),
    };
    let origin = |one: &TextMatch| {
        Some(match one.condition() {
            TextCondition::Exact(text) => exact(text),
            TextCondition::Prefix(text) => OriginMatch::Value(ValueCondition::Prefix(text.into())),
            TextCondition::Regex(text) => {
                OriginMatch::Value(ValueCondition::Regex(Regex::new(text).ok()?))
            }
            TextCondition::Present => OriginMatch::Value(ValueCondition::Present),
        })
    };
    let old = given.allow_origin.iter().map(|text| exact(text));
    Cors {
        allow_origins: given
            .allow_origins
            .iter()
            .filter_map(origin)
            .chain(old)
            .collect(),
        allow_credentials: given.allow_credentials == Some(true),
        allow_methods: boxed(&given.allow_methods),
        allow_headers: boxed(&given.allow_headers),
        expose_headers: boxed(&given.expose_headers),
        max_age: given.max_age.map(|span| span.0),
    }
}

/// Faults of one rule.
pub(super) fn faults(given: Option<&HttpFault>, name: &Arc<str>) -> Arc<[Fault]> {
    let Some(given) = given else {
        return Arc::from([]);
    };
    let delay = given.delay.as_ref().and_then(|delay| {
        let span = delay.fixed_delay?.0;
        Some((share(delay.percentage, delay.percent), span))
    });
    let abort = given.abort.as_ref().and_then(|abort| {
        let http = abort.http_status.map(Abort::Http);
        let grpc = abort.grpc_status.filter(|code| code.0 != 0);
        let kind = http.or_else(|| grpc.map(|code| Abort::Grpc(code.0)))?;
        Some((share(abort.percentage, abort.percent), kind))
    });
    if delay.is_none() && abort.is_none() {
        return Arc::from([]);
    }
    Arc::from([Fault {
        name: Arc::clone(name),
        matches: Vec::new(),
        delay,
        abort,
        bandwidth: None,
    }])
}

/// Retries; without `retryOn` under the mesh's own default conditions.
pub(super) fn retry(given: Option<&HttpRetries>) -> Retry {
    let default = Retry::default();
    let Some(given) = given else { return default };
    let base = Retry {
        attempts: given.attempts.unwrap_or(default.attempts),
        backoff: given.backoff.map_or(default.backoff, |span| span.0),
        ..default
    };
    let on = given.retry_on.as_deref().unwrap_or_default();
    let words: Vec<&str> = on
        .split(',')
        .map(str::trim)
        .filter(|word| !word.is_empty())
        .collect();
    if words.is_empty() {
        return base;
    }
    let mut retry = Retry {
        codes: Vec::new(),
        idempotent_only: false,
        ..base
    };
    for word in words {
        condition(word, &mut retry);
    }
    retry.codes.sort_unstable();
    retry.codes.dedup();
    retry.grpc_codes.sort_unstable();
    retry.grpc_codes.dedup();
    retry
}

/// One word of `retryOn`. A failed connection and a refused stream are tried again in any case.
fn condition(word: &str, retry: &mut Retry) {
    match word {
        "5xx" => {
            retry.codes.extend(500..=599);
            retry.on.reset = true;
            retry.on.timeout = true;
        }
        "gateway-error" => {
            retry.codes.extend([502, 503, 504]);
            retry.on.timeout = true;
        }
        "reset" => {
            retry.on.reset = true;
            retry.on.timeout = true;
        }
        "retriable-4xx" => retry.on.conflict = true,
        "cancelled" => retry.grpc_codes.push(1),
        "deadline-exceeded" => retry.grpc_codes.push(4),
        "resource-exhausted" => retry.grpc_codes.push(8),
        "internal" => retry.grpc_codes.push(13),
        "unavailable" => retry.grpc_codes.push(14),
        word => retry.codes.extend(word.parse::<u16>().ok()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_retry_on() {
        let of = |on: &str| {
            retry(Some(&HttpRetries {
                retry_on: Some(on.to_owned()),
                ..HttpRetries::default()
            }))
        };
        let found = of("gateway-error, reset,retriable-4xx , unavailable,cancelled,503,418");
        assert_eq!(found.codes, [418, 502, 503, 504]);
        assert_eq!(found.grpc_codes, [1, 14]);
        assert!(found.on.reset && found.on.timeout && found.on.conflict && !found.idempotent_only);
        assert_eq!(of("5xx").codes.len(), 100);
        let quiet = of("connect-failure,refused-stream");
        assert!(quiet.codes.is_empty() && !quiet.on.reset && !quiet.on.timeout);
        assert_eq!(of(""), Retry::default());
        assert_eq!(retry(None), Retry::default());
    }

    #[test]
    fn new_paths() {
        let to = |path: PathMatch, uri: &str| {
            let given = HttpRewrite {
                uri: Some(uri.to_owned()),
                ..HttpRewrite::default()
            };
            format!("{:?}", new_path(&given, &path).unwrap())
        };
        let begins = |text: &str| PathMatch::Begins(text.into());
        assert_eq!(to(PathMatch::Exact("/a".into()), "/b"), "Full(\"/b\")");
        assert_eq!(
            to(begins("/a"), "/b"),
            "Begin { length: 2, replacement: \"/b\" }"
        );
        let seam = "Prefix { matched: \"/a\", replacement: \"/\" }";
        assert_eq!(to(begins("/a/"), "/"), seam);
        assert_eq!(to(begins("/a"), "/"), seam);
        let all = "Prefix { matched: \"\", replacement: \"/v1\" }";
        assert_eq!(to(PathMatch::Any, "/v1"), all);
    }
}
