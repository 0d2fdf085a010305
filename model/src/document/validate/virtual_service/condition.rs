//! Matches of a `VirtualService`'s HTTP routes, and who calls.

use std::collections::BTreeMap;

use super::super::{expression, is_token, own, port, route, source, token};
use crate::{
    document::virtual_service::{HttpCondition, TextMatch, in_mesh},
    written::At,
};

/// The part of a match that says who calls.
pub(super) struct Caller<'c> {
    pub(super) gateways: &'c [String],
    pub(super) labels: &'c BTreeMap<String, String>,
    pub(super) namespace: Option<&'c str>,
    pub(super) services: &'c [String],
    pub(super) subnets: &'c [String],
}

pub(super) fn caller(given: &Caller<'_>, at: &At<'_>) {
    if !in_mesh(given.gateways) {
        at.key("gateways")
            .note("this match never acts: it is for gateways, and not for the mesh");
    }
    own::labels(given.labels, &at.key("sourceLabels"));
    if let Some(name) = given.namespace {
        source::namespace(name, &at.key("sourceNamespace"));
    }
    source::services(given.services, &at.key("sourceServices"));
    source::subnets(given.subnets, &at.key("sourceSubnets"));
}

pub(super) fn http(one: &HttpCondition, at: &At<'_>) {
    if let Some(text) = &one.uri {
        uri(text, one.ignore_uri_case, &at.key("uri"));
    } else if one.ignore_uri_case {
        at.key("ignoreUriCase")
            .note("has no effect: this match asks for no `uri`");
    }
    if let Some(text) = &one.scheme {
        let at = at.key("scheme");
        required(text, &at);
        if !one.fits_scheme() {
            at.note("this match never acts: requests that the mesh can read come as http");
        }
    }
    if let Some(text) = &one.method {
        let at = at.key("method");
        required(text, &at);
        if let Some(word) = text.exact.as_deref()
            && !is_token(word)
        {
            at.key("exact")
                .fault(format!("{word:?} is no method"), "write it like GET");
        }
    }
    if let Some(text) = &one.authority {
        required(text, &at.key("authority"));
    }
    for (key, map) in [
        ("headers", &one.headers),
        ("withoutHeaders", &one.without_headers),
    ] {
        let at = at.key(key);
        named(map, &at);
        for name in map.keys() {
            token(name, &at.key(name));
        }
    }
    contradicted(one, &at.key("withoutHeaders"));
    named(&one.query_params, &at.key("queryParams"));
    port(one.port, &at.key("port"));
    if one.stat_prefix.is_some() {
        at.key("statPrefix")
            .note("metrics carry the route's name instead");
    }
    caller(
        &Caller {
            gateways: &one.gateways,
            labels: &one.source_labels,
            namespace: one.source_namespace.as_deref(),
            services: &one.source_services,
            subnets: &one.source_subnets,
        },
        at,
    );
}

/// A header that is asked for and must not be there, or not as it is asked for: no request can fit.
fn contradicted(one: &HttpCondition, at: &At<'_>) {
    for (name, unwanted) in &one.without_headers {
        let mut same = one
            .headers
            .iter()
            .filter(|(other, _)| other.eq_ignore_ascii_case(name));
        if same.any(|(_, wanted)| *unwanted == TextMatch::default() || unwanted == wanted) {
            at.key(name).fault(
                "is what `headers` asks for: no request fits both",
                "leave one of them",
            );
        }
    }
}

fn uri(text: &TextMatch, any_case: bool, at: &At<'_>) {
    required(text, at);
    for (key, value) in [("exact", &text.exact), ("prefix", &text.prefix)] {
        let Some(value) = value else { continue };
        let clean = value
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#'));
        let whole = value == "*" && key == "exact";
        if !value.starts_with('/') && !whole || !clean || value.len() > 1024 {
            at.key(key).fault(
                format!("{value:?} is no path"),
                "begin it with /, without blanks, ? and #; for the query write `queryParams`",
            );
        }
        let dots = value
            .split('/')
            .any(|segment| matches!(segment, "." | ".."));
        // The last segment of a prefix may go on in another way.
        if dots && (key == "exact" || value.contains("/./") || value.contains("/../")) {
            at.key(key)
                .note("never acts: dot segments never stand in a path that is matched");
        }
        route::plain_escapes(value, &at.key(key));
    }
    if any_case && text.regex.is_some() {
        at.key("regex")
            .note("`ignoreUriCase` is for exact and prefix; an expression begins with (?i)");
    }
}

fn named(map: &BTreeMap<String, TextMatch>, at: &At<'_>) {
    super::super::at_most(map.len(), 32, at);
    for (name, text) in map {
        let at = at.key(name);
        if name.is_empty() || name.len() > 256 {
            at.fault(
                "the name is too short or too long",
                "write 1 to 256 characters",
            );
        }
        compared(text, &at);
    }
}

/// A condition that asks something.
fn required(text: &TextMatch, at: &At<'_>) {
    if *text == TextMatch::default() {
        at.fault("says nothing", "write `exact`, `prefix` or `regex`");
    }
    compared(text, at);
}

fn compared(text: &TextMatch, at: &At<'_>) {
    super::super::one_only(
        &[
            ("exact", text.exact.is_some()),
            ("prefix", text.prefix.is_some()),
            ("regex", text.regex.is_some()),
        ],
        at,
    );
    for (key, value) in [("exact", &text.exact), ("prefix", &text.prefix)] {
        if value.as_ref().is_some_and(|value| value.len() > 4096) {
            at.key(key)
                .fault("is too long", "write at most 4096 characters");
        }
    }
    if let Some(pattern) = &text.regex {
        expression(pattern, &at.key("regex"));
    }
}
