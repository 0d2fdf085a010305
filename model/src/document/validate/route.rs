//! Routes: matches, time-outs, retries.

use std::{collections::BTreeSet, time::Duration};

use super::{
    at_most, expression,
    filter::{self, Where},
    host, is_token, one_of,
    reference::{backends, default_gateways, parents},
    session, span, token,
};
use crate::{
    document::{
        Metadata,
        route::{
            BackendReference, GrpcMatch, GrpcRouteSpec, HttpFilter, HttpMatch, HttpRetry,
            HttpRouteSpec, HttpRule, HttpTimeouts, PathMatchSpec, TcpRule, ValueMatchSpec,
        },
    },
    written::At,
};

const MAX_RULES: usize = 64;
const MAX_MATCHES: usize = 64;
const METHODS: [&str; 9] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
];

pub(super) fn http(route: &HttpRouteSpec, at: &At<'_>, metadata: &Metadata) {
    parents(&route.parent_refs, &at.key("parentRefs"), metadata);
    default_gateways(route.use_default_gateways.as_deref(), at);
    hostnames(&route.hostnames, &at.key("hostnames"));
    at_most(route.rules.len(), MAX_RULES, &at.key("rules"));
    let given: Vec<_> = route
        .rules
        .iter()
        .map(|rule| rule.name.as_deref())
        .collect();
    names(&given, at);
    for (index, rule) in route.rules.iter().enumerate() {
        http_rule(rule, &at.key("rules").index(index));
    }
}

/// Names of rules are each rule's own.
fn names(given: &[Option<&str>], at: &At<'_>) {
    let mut known = BTreeSet::new();
    for (index, name) in given.iter().enumerate() {
        if let Some(name) = name
            && !known.insert(name)
        {
            at.key("rules").index(index).key("name").fault(
                format!("{name:?} names another rule already"),
                "write each name once",
            );
        }
    }
}

pub(super) fn hostnames(given: &[String], at: &At<'_>) {
    at_most(given.len(), 16, at);
    for (index, name) in given.iter().enumerate() {
        host(name.strip_prefix("*.").unwrap_or(name), &at.index(index));
    }
}

fn http_rule(rule: &HttpRule, at: &At<'_>) {
    at_most(rule.matches.len(), MAX_MATCHES, &at.key("matches"));
    for (index, one) in rule.matches.iter().enumerate() {
        http_match(one, &at.key("matches").index(index));
    }
    let prefixes = rule.matches.iter().all(|one| is_prefix(one.path.as_ref()));
    let place = Where::Rule {
        prefixes,
        backends: !rule.backend_refs.is_empty(),
    };
    filter::filters(&rule.filters, place, &at.key("filters"));
    backends(&rule.backend_refs, &at.key("backendRefs"));
    for (index, backend) in rule.backend_refs.iter().enumerate() {
        let at = at.key("backendRefs").index(index).key("filters");
        filter::filters(&backend.filters, Where::Backend { prefixes }, &at);
    }
    let request = rule
        .timeouts
        .as_ref()
        .and_then(|timeouts| check_timeouts(timeouts, &at.key("timeouts")));
    if let Some(retry) = &rule.retry {
        check_retry(retry, request, &at.key("retry"));
    }
    if let Some(wanted) = &rule.session_persistence {
        session::persistence(wanted, &at.key("sessionPersistence"));
    }
    own_mirrors(&rule.filters, &rule.backend_refs, &at.key("filters"));
}

/// A copy to the backend that has the request already tells nobody anything.
fn own_mirrors(filters: &[HttpFilter], backends: &[BackendReference], at: &At<'_>) {
    for (index, one) in filters.iter().enumerate() {
        let Some(copy) = one
            .request_mirror
            .as_ref()
            .map(|mirror| &mirror.backend_ref)
        else {
            continue;
        };
        let same = |backend: &BackendReference| {
            (&backend.group, &backend.kind, &backend.namespace)
                == (&copy.group, &copy.kind, &copy.namespace)
                && (&backend.name, backend.port) == (&copy.name, copy.port)
        };
        if matches!(backends, [only] if same(only)) {
            at.index(index)
                .key("requestMirror")
                .key("backendRef")
                .fault(
                    "is the backend that takes the request itself",
                    "mirror to another backend",
                );
        }
    }
}

fn is_prefix(path: Option<&PathMatchSpec>) -> bool {
    path.and_then(|path| path.type_.as_deref())
        .is_none_or(|kind| kind == "PathPrefix")
}

pub(super) fn http_match(one: &HttpMatch, at: &At<'_>) {
    if let Some(path) = &one.path {
        check_path(path, &at.key("path"));
    }
    headers(&one.headers, &at.key("headers"));
    let exactly = |one: &str, other: &str| one == other;
    let at_parameters = at.key("queryParams");
    values(&one.query_params, &at_parameters, exactly, |name, at| {
        if name.is_empty() || name.len() > 256 {
            at.fault("is too short or too long", "write 1 to 256 characters");
        }
    });
    one_of(one.method.as_deref(), &METHODS, &at.key("method"));
}

fn headers(given: &[ValueMatchSpec], at: &At<'_>) {
    values(given, at, str::eq_ignore_ascii_case, token);
}

fn check_path(path: &PathMatchSpec, at: &At<'_>) {
    one_of(
        path.type_.as_deref(),
        &["Exact", "PathPrefix", "RegularExpression"],
        &at.key("type"),
    );
    let (value, at) = (path.value.as_deref().unwrap_or("/"), at.key("value"));
    if path.type_.as_deref() == Some("RegularExpression") {
        expression(value, &at);
        return;
    }
    // The rules of Gateway API's HTTPPathMatch: what a normalised path cannot hold could never match.
    let never = ["//", "/./", "/../", "%2f", "%2F", "#", "?"];
    if !value.starts_with('/') || value.len() > 1024 {
        at.fault(
            format!("{value:?} is no path"),
            "begin it with / and write at most 1024 characters",
        );
    } else if let Some(part) = never.iter().find(|part| value.contains(**part)) {
        at.fault(
            format!("{part} never stands in a path that is matched"),
            "leave it out",
        );
    } else if value.ends_with("/.") || value.ends_with("/..") {
        at.fault(
            "ends in a dot segment, which never stands in a path that is matched",
            "leave it out",
        );
    } else if let Some(odd) = odd_in_path(value) {
        at.fault(
            format!("{odd:?} never stands in a path that is matched"),
            "write it as %, two digits",
        );
    }
    plain_escapes(value, &at);
}

/// What a path cannot hold: neither a character of RFC 3986 section 3.3 nor an escape of two digits.
fn odd_in_path(value: &str) -> Option<char> {
    let mut rest = value.chars();
    while let Some(letter) = rest.next() {
        let whole = if letter == '%' {
            [rest.next(), rest.next()]
                .into_iter()
                .all(|digit| digit.is_some_and(|digit| digit.is_ascii_hexdigit()))
        } else {
            letter.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:@/".contains(letter)
        };
        if !whole {
            return Some(letter);
        }
    }
    None
}

/// Tells escapes of characters that need none: in the path that is matched they are decoded.
pub(super) fn plain_escapes(value: &str, at: &At<'_>) {
    let escaped = value.match_indices('%').find_map(|(index, _)| {
        let digits = value.get(index + 1..index + 3)?;
        let letter = char::from(u8::from_str_radix(digits, 16).ok()?);
        (letter.is_ascii_alphanumeric() || "-._~".contains(letter)).then_some((digits, letter))
    });
    if let Some((digits, letter)) = escaped {
        at.note(format!(
            "never acts: %{digits} stands as {letter} in the path that is matched"
        ));
    }
}

fn values(
    given: &[ValueMatchSpec],
    at: &At<'_>,
    same: impl Fn(&str, &str) -> bool,
    name: impl Fn(&str, &At<'_>),
) {
    at_most(given.len(), 16, at);
    for (index, one) in given.iter().enumerate() {
        let at = at.index(index);
        name(&one.name, &at.key("name"));
        let before = given.get(..index).unwrap_or_default();
        if before.iter().any(|other| same(&other.name, &one.name)) {
            at.note("the first entry of this name alone counts");
        }
        one_of(
            one.type_.as_deref(),
            &["Exact", "RegularExpression"],
            &at.key("type"),
        );
        if one.value.is_empty() || one.value.len() > 4096 {
            at.key("value")
                .fault("is too short or too long", "write 1 to 4096 characters");
        } else if one.type_.as_deref() == Some("RegularExpression") {
            expression(&one.value, &at.key("value"));
        }
    }
}

/// The time-out of the whole request, when it has one.
fn check_timeouts(timeouts: &HttpTimeouts, at: &At<'_>) -> Option<Duration> {
    let request = span(timeouts.request.as_deref(), &at.key("request"));
    let each = span(
        timeouts.backend_request.as_deref(),
        &at.key("backendRequest"),
    );
    if let (Some(request), Some(each)) = (request, each)
        && !request.is_zero()
        && each > request
    {
        at.key("backendRequest").fault(
            "is longer than that of the whole request",
            "make it at most `request`",
        );
    }
    request.filter(|request| !request.is_zero())
}

/// `request`: the bound on all tries together.
fn check_retry(retry: &HttpRetry, request: Option<Duration>, at: &At<'_>) {
    for (index, code) in retry.codes.iter().enumerate() {
        let at = at.key("codes").index(index);
        if !(400..=599).contains(code) {
            at.fault(
                format!("{code} is no status to try again on"),
                "write 400 to 599",
            );
        } else if retry.codes.iter().take(index).any(|other| other == code) {
            at.fault(format!("{code} is written twice"), "leave one of them");
        }
    }
    if retry.attempts.is_some_and(|attempts| attempts > 20) {
        at.key("attempts").fault("is out of range", "write 0 to 20");
    }
    let backoff = span(retry.backoff.as_deref(), &at.key("backoff"));
    if let (Some(backoff), Some(request)) = (backoff, request)
        && backoff >= request
    {
        at.key("backoff").fault(
            "leaves no time for a second try",
            "make it shorter than `timeouts.request`",
        );
    }
    for (key, given) in [
        ("codes", !retry.codes.is_empty()),
        ("backoff", backoff.is_some()),
    ] {
        if given && retry.attempts == Some(0) {
            at.key(key)
                .note("never acts: 0 attempts switch retries off");
        }
    }
}

pub(super) fn grpc(route: &GrpcRouteSpec, at: &At<'_>, metadata: &Metadata) {
    parents(&route.parent_refs, &at.key("parentRefs"), metadata);
    default_gateways(route.use_default_gateways.as_deref(), at);
    hostnames(&route.hostnames, &at.key("hostnames"));
    at_most(route.rules.len(), MAX_RULES, &at.key("rules"));
    let given: Vec<_> = route
        .rules
        .iter()
        .map(|rule| rule.name.as_deref())
        .collect();
    names(&given, at);
    for (index, rule) in route.rules.iter().enumerate() {
        let at = at.key("rules").index(index);
        at_most(rule.matches.len(), MAX_MATCHES, &at.key("matches"));
        for (index, one) in rule.matches.iter().enumerate() {
            grpc_match(one, &at.key("matches").index(index));
        }
        let place = Where::Grpc { backend: false };
        filter::filters(&rule.filters, place, &at.key("filters"));
        backends(&rule.backend_refs, &at.key("backendRefs"));
        for (index, backend) in rule.backend_refs.iter().enumerate() {
            let at = at.key("backendRefs").index(index).key("filters");
            filter::filters(&backend.filters, Where::Grpc { backend: true }, &at);
        }
        own_mirrors(&rule.filters, &rule.backend_refs, &at.key("filters"));
        if let Some(wanted) = &rule.session_persistence {
            session::persistence(wanted, &at.key("sessionPersistence"));
        }
    }
}

fn grpc_match(one: &GrpcMatch, at: &At<'_>) {
    headers(&one.headers, &at.key("headers"));
    let Some(method) = &one.method else { return };
    let at = at.key("method");
    one_of(
        method.type_.as_deref(),
        &["Exact", "RegularExpression"],
        &at.key("type"),
    );
    if method.service.is_none() && method.method.is_none() {
        at.fault(
            "names neither service nor method",
            "write `service`, `method` or both",
        );
    }
    let regular = method.type_.as_deref() == Some("RegularExpression");
    for (key, value) in [("service", &method.service), ("method", &method.method)] {
        let Some(value) = value else { continue };
        let plain = |part: &str| {
            is_token(part) && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        };
        if regular {
            expression(value, &at.key(key));
        } else if !value.split('.').all(plain) || (key == "method" && value.contains('.')) {
            at.key(key).fault(
                format!("{value:?} is no {key} of gRPC"),
                "write it as in the .proto file",
            );
        }
    }
}

pub(super) fn tcp(rules: &[TcpRule], at: &At<'_>) {
    at_most(rules.len(), MAX_RULES, at);
    if rules.is_empty() {
        at.fault("are missing", "write at least one rule");
    }
    for (index, rule) in rules.iter().enumerate() {
        if index > 0 {
            at.index(index)
                .note("no connection comes here: the first rule takes every one");
        }
        let at = at.index(index).key("backendRefs");
        if rule.backend_refs.is_empty() {
            at.fault("are missing", "write at least one backend");
        }
        backends(&rule.backend_refs, &at);
        for (index, backend) in rule.backend_refs.iter().enumerate() {
            if !backend.filters.is_empty() {
                at.index(index)
                    .key("filters")
                    .fault("connections have no filters", "remove them");
            }
        }
    }
}
