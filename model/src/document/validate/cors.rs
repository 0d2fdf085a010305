//! Cross-origin resource sharing, as routes and as `VirtualService`s write it.

use super::{at_most, expression, is_token, one_only};
use crate::{
    document::{
        route::CorsSpec,
        virtual_service::{CorsPolicy, TextMatch, UnmatchedPreflights},
    },
    written::At,
};

pub(super) fn route(cors: &CorsSpec, at: &At<'_>) {
    let here = at.key("allowOrigins");
    alone(&cors.allow_origins, 64, &here);
    for (index, text) in cors.allow_origins.iter().enumerate() {
        origin(text, &here.index(index));
    }
    lists(
        [
            &cors.allow_methods,
            &cors.allow_headers,
            &cors.expose_headers,
        ],
        at,
    );
    if cors.max_age == Some(0) {
        at.key("maxAge")
            .fault("0 is no age", "write at least 1 second, or leave it out");
    }
}

pub(super) fn policy(cors: &CorsPolicy, at: &At<'_>) {
    let credentials = cors.allow_credentials == Some(true);
    let any = |at: &At<'_>| {
        at.fault(
            "every origin may not send credentials (Fetch standard, section 3.2.5)",
            "name the origins, or remove `allowCredentials`",
        );
    };
    one_only(
        &[
            ("allowOrigin", !cors.allow_origin.is_empty()),
            ("allowOrigins", !cors.allow_origins.is_empty()),
        ],
        at,
    );
    for (index, text) in cors.allow_origin.iter().enumerate() {
        let at = at.key("allowOrigin").index(index);
        schemed(text, &at);
        if text == "*" && credentials {
            any(&at);
        }
    }
    for (index, one) in cors.allow_origins.iter().enumerate() {
        let at = at.key("allowOrigins").index(index);
        origin_match(one, &at);
        if one.exact.as_deref() == Some("*") && credentials {
            any(&at);
        }
    }
    lists(
        [
            &cors.allow_methods,
            &cors.allow_headers,
            &cors.expose_headers,
        ],
        at,
    );
    if cors.unmatched_preflights == Some(UnmatchedPreflights::Forward) {
        at.key("unmatchedPreflights")
            .note("the mesh answers every preflight of a route with a policy itself");
    }
}

fn origin_match(one: &TextMatch, at: &At<'_>) {
    match (&one.exact, &one.prefix, &one.regex) {
        (Some(text), None, None) => schemed(text, &at.key("exact")),
        (None, Some(text), None) if !text.is_empty() => {}
        (None, None, Some(pattern)) => expression(pattern, &at.key("regex")),
        (None, None, None) => at.fault("says nothing", "write `exact`, `prefix` or `regex`"),
        (None, Some(_), None) => at
            .key("prefix")
            .fault("is empty", "write how the origin begins"),
        _ => at.fault(
            "`exact`, `prefix` and `regex` exclude each other",
            "leave one of them",
        ),
    }
}

/// As [`origin`]; a host alone, as old documents have it, is told and harms nobody.
fn schemed(text: &str, at: &At<'_>) {
    if text != "*" && !text.contains("://") {
        at.note("fits no request: an origin begins with its scheme, as https://shop.example");
    } else {
        origin(text, at);
    }
}

/// `*`, or scheme, host and perhaps port of an origin.
fn origin(text: &str, at: &At<'_>) {
    if text == "*" {
        return;
    }
    let remedy = "write it like https://shop.example, without a path";
    let Some((scheme, rest)) = text.split_once("://") else {
        at.fault(
            format!("{text:?} is no origin: the scheme is missing"),
            remedy,
        );
        return;
    };
    let good =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']' | '*' | '_');
    let stars = rest.matches('*').count();
    let star_in_front = stars == 0
        || (stars == 1 && (rest.starts_with("*.") || rest.starts_with("*:") || rest == "*"));
    if !is_token(scheme) || rest.is_empty() || !rest.chars().all(good) || !star_in_front {
        at.fault(format!("{text:?} is no origin"), remedy);
    }
}

fn lists(given: [&Vec<String>; 3], at: &At<'_>) {
    let keys = ["allowMethods", "allowHeaders", "exposeHeaders"];
    for (key, list) in keys.into_iter().zip(given) {
        let at = at.key(key);
        alone(list, 64, &at);
        for (index, word) in list.iter().enumerate() {
            if !is_token(word) {
                let what = if key == "allowMethods" {
                    "method"
                } else {
                    "header name"
                };
                at.index(index).fault(
                    format!("{word:?} is no {what}"),
                    "use letters, digits and - (RFC 9110 section 5.6.2)",
                );
            }
        }
    }
}

/// `*` stands alone or not at all.
fn alone(list: &[String], most: usize, at: &At<'_>) {
    at_most(list.len(), most, at);
    let star = list.iter().position(|word| word == "*");
    if let (Some(star), true) = (star, list.len() > 1) {
        at.index(star).fault(
            "`*` says everything already",
            "write it alone, or remove it",
        );
    }
}
