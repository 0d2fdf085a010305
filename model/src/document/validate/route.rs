//! Routes: matches, time-outs, retries.

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
    for (index, rule) in route.rules.iter().enumerate() {
        http_rule(rule, &at.key("rules").index(index));
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
    if let Some(timeouts) = &rule.timeouts {
        check_timeouts(timeouts, &at.key("timeouts"));
    }
    if let Some(retry) = &rule.retry {
        check_retry(retry, &at.key("retry"));
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
    values(&one.headers, &at.key("headers"), token);
    values(&one.query_params, &at.key("queryParams"), |name, at| {
        if name.is_empty() || name.len() > 256 {
            at.fault("is too short or too long", "write 1 to 256 characters");
        }
    });
    one_of(one.method.as_deref(), &METHODS, &at.key("method"));
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
    }
}

fn values(given: &[ValueMatchSpec], at: &At<'_>, name: impl Fn(&str, &At<'_>)) {
    at_most(given.len(), 16, at);
    for (index, one) in given.iter().enumerate() {
        let at = at.index(index);
        name(&one.name, &at.key("name"));
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

fn check_timeouts(timeouts: &HttpTimeouts, at: &At<'_>) {
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
}

fn check_retry(retry: &HttpRetry, at: &At<'_>) {
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
    span(retry.backoff.as_deref(), &at.key("backoff"));
}

pub(super) fn grpc(route: &GrpcRouteSpec, at: &At<'_>, metadata: &Metadata) {
    parents(&route.parent_refs, &at.key("parentRefs"), metadata);
    default_gateways(route.use_default_gateways.as_deref(), at);
    hostnames(&route.hostnames, &at.key("hostnames"));
    at_most(route.rules.len(), MAX_RULES, &at.key("rules"));
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
    values(&one.headers, &at.key("headers"), token);
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
        let at = at.index(index).key("backendRefs");
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
