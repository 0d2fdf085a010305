//! HTTP routes of a `VirtualService`.

use super::{
    super::{
        at_most, cors, exactly_one, expression,
        filter::{CIRCLE, edited, header_value, kept, replacement},
        final_status, host, limit, one_of, one_only, port,
    },
    MAX_MATCHES, check_weights, condition, destination, retry,
};
use crate::{
    document::{
        Metadata,
        virtual_service::{
            Destination, FaultAbort, FaultDelay, HeaderChange, HeaderOperations,
            HttpDirectResponse, HttpFault, HttpRedirect, HttpRewrite, HttpRoute, Percentage,
        },
    },
    written::At,
};

pub(super) fn route(route: &HttpRoute, at: &At<'_>, metadata: &Metadata) {
    at_most(route.matches.len(), MAX_MATCHES, &at.key("match"));
    for (index, one) in route.matches.iter().enumerate() {
        condition::http(one, &at.key("match").index(index));
    }
    actions(route, at);
    for (index, one) in route.route.iter().enumerate() {
        let at = at.key("route").index(index);
        destination(&one.destination, &at.key("destination"));
        headers(one.headers.as_ref(), &at.key("headers"));
    }
    let weights: Vec<_> = route.route.iter().map(|one| one.weight).collect();
    check_weights(&weights, &at.key("route"));
    if let Some(wanted) = &route.redirect {
        redirect(wanted, &at.key("redirect"));
    }
    if let Some(wanted) = &route.direct_response {
        direct(wanted, &at.key("directResponse"));
    }
    if let Some(wanted) = &route.rewrite {
        rewrite(wanted, &at.key("rewrite"));
    }
    retry::retries(route, at);
    if let Some(wanted) = &route.fault {
        fault(wanted, &at.key("fault"));
    }
    mirrors(route, at, metadata);
    if let Some(wanted) = &route.cors_policy {
        cors::policy(wanted, &at.key("corsPolicy"));
    }
    headers(route.headers.as_ref(), &at.key("headers"));
}

/// What a rule does with a request is one thing, and what does not go with it is told.
fn actions(route: &HttpRoute, at: &At<'_>) {
    let all = [
        ("route", !route.route.is_empty()),
        ("redirect", route.redirect.is_some()),
        ("directResponse", route.direct_response.is_some()),
        ("delegate", route.delegate.is_some()),
    ];
    if !all.iter().any(|(_, given)| *given) {
        at.fault(
            "says not where requests go",
            "write `route`, `redirect` or `directResponse`",
        );
    }
    one_only(&all, at);
    if route.delegate.is_some() {
        at.key("delegate")
            .note("VirtualServices are not joined: this rule answers 500; write the routes of the other one here");
    }
    let answered = all
        .iter()
        .find(|(key, given)| *given && matches!(*key, "redirect" | "directResponse"));
    let Some((answered, _)) = answered else {
        return;
    };
    if route.rewrite.is_some() {
        at.key("rewrite").fault(
            format!("nothing is sent on that could be rewritten beside `{answered}`"),
            format!("remove it, or `{answered}`"),
        );
    }
    for (key, given) in [
        ("timeout", route.timeout.is_some()),
        ("retries", route.retries.is_some()),
        ("mirror", route.mirror.is_some()),
        ("mirrors", !route.mirrors.is_empty()),
    ] {
        if given {
            at.key(key).note(format!(
                "never acts: beside `{answered}` nothing is sent on"
            ));
        }
    }
}

fn redirect(wanted: &HttpRedirect, at: &At<'_>) {
    if let Some(uri) = &wanted.uri {
        if uri.contains("%PREFIX()%") {
            at.key("uri")
                .note("%PREFIX()% is a variable of Envoy's: it is sent as text");
        } else {
            replacement(uri, &at.key("uri"));
        }
    }
    if let Some(authority) = &wanted.authority {
        address(authority, &at.key("authority"));
    }
    port(wanted.port, &at.key("port"));
    let elsewhere = wanted.uri.is_some()
        || wanted.authority.is_some()
        || wanted.scheme.is_some()
        || wanted.port.is_some()
        || wanted.derive_port.is_some();
    one_only(
        &[
            ("port", wanted.port.is_some()),
            ("derivePort", wanted.derive_port.is_some()),
        ],
        at,
    );
    one_of(
        wanted.scheme.as_deref(),
        &["http", "https"],
        &at.key("scheme"),
    );
    if wanted
        .redirect_code
        .is_some_and(|code| ![0, 301, 302, 303, 307, 308].contains(&code))
    {
        at.key("redirectCode")
            .fault("is no redirect", "write 301, 302, 303, 307 or 308");
    } else if !elsewhere {
        at.fault(CIRCLE.0, CIRCLE.1);
    }
}

/// A host name with or without a port.
fn address(text: &str, at: &At<'_>) {
    let (name, digits) = text
        .rsplit_once(':')
        .map_or((text, None), |(name, digits)| (name, Some(digits)));
    if digits.is_some_and(|digits| !matches!(digits.parse::<u16>(), Ok(1..))) {
        at.fault(format!("{text:?} has no port behind :"), "write 1 to 65535");
    } else if name.parse::<std::net::IpAddr>().is_err() {
        host(name, at);
    }
}

fn direct(wanted: &HttpDirectResponse, at: &At<'_>) {
    let length = wanted.body.as_ref().map_or(0, |body| {
        exactly_one(
            &[
                ("string", body.string.is_some()),
                ("bytes", body.bytes.is_some()),
            ],
            &at.key("body"),
        );
        let text = body.string.as_ref().map_or(0, String::len);
        text.max(body.bytes.as_ref().map_or(0, |bytes| bytes.0.len()))
    });
    limit::answer(wanted.status, length, at);
    if length > limit::MAX_BODY {
        limit::too_long(&at.key("body"));
    }
}

fn rewrite(wanted: &HttpRewrite, at: &At<'_>) {
    if wanted.uri.is_none() && wanted.authority.is_none() && wanted.uri_regex_rewrite.is_none() {
        at.fault(
            "changes nothing",
            "write `uri`, `authority` or `uriRegexRewrite`",
        );
    }
    one_only(
        &[
            ("uri", wanted.uri.is_some()),
            ("uriRegexRewrite", wanted.uri_regex_rewrite.is_some()),
        ],
        at,
    );
    if let Some(uri) = &wanted.uri {
        replacement(uri, &at.key("uri"));
    }
    if let Some(authority) = &wanted.authority {
        address(authority, &at.key("authority"));
    }
    let Some(by_regex) = &wanted.uri_regex_rewrite else {
        return;
    };
    let at = at.key("uriRegexRewrite");
    expression(&by_regex.pattern, &at.key("match"));
    groups(&by_regex.pattern, &by_regex.rewrite, &at.key("rewrite"));
}

/// Every `\1` in a replacement must name a group of the expression.
fn groups(pattern: &str, replacement: &str, at: &At<'_>) {
    let Ok(expression) = regex::Regex::new(pattern) else {
        return;
    };
    let mut letters = replacement.chars();
    while let Some(letter) = letters.next() {
        if letter != '\\' {
            continue;
        }
        match letters.next() {
            Some('\\') => {}
            Some(digit) if digit.is_ascii_digit() => {
                let number = digit.to_digit(10).unwrap_or_default();
                let count = expression.captures_len().saturating_sub(1);
                if usize::try_from(number).unwrap_or(usize::MAX) > count {
                    at.fault(
                        format!("\\{number} names no group: the expression has {count}"),
                        "put the part in parentheses",
                    );
                }
            }
            _ => at.fault(
                "a \\ stands alone",
                "write \\1 to \\9 for a group, and \\\\ for itself",
            ),
        }
    }
}

fn fault(wanted: &HttpFault, at: &At<'_>) {
    if wanted.delay.is_none() && wanted.abort.is_none() {
        at.fault("makes no fault", "write `delay` or `abort`");
    }
    if let Some(delay) = &wanted.delay {
        delayed(delay, &at.key("delay"));
    }
    if let Some(abort) = &wanted.abort {
        aborted(abort, &at.key("abort"));
    }
}

fn delayed(delay: &FaultDelay, at: &At<'_>) {
    exactly_one(
        &[
            ("fixedDelay", delay.fixed_delay.is_some()),
            ("exponentialDelay", delay.exponential_delay.is_some()),
        ],
        at,
    );
    if let Some(time) = delay.fixed_delay {
        limit::hold(time.0, &at.key("fixedDelay"));
    }
    if delay.exponential_delay.is_some() {
        at.key("exponentialDelay")
            .note("is not carried out: no request is held back by it");
    }
    part(delay.percentage, delay.percent, at);
}

fn aborted(abort: &FaultAbort, at: &At<'_>) {
    exactly_one(
        &[
            ("httpStatus", abort.http_status.is_some()),
            ("grpcStatus", abort.grpc_status.is_some()),
            ("http2Error", abort.http2_error.is_some()),
        ],
        at,
    );
    if let Some(status) = abort.http_status {
        final_status(status, &at.key("httpStatus"));
    }
    if let Some(code) = abort.grpc_status {
        limit::failure(code, &at.key("grpcStatus"));
    }
    if abort.http2_error.is_some() {
        at.key("http2Error")
            .note("is not carried out; `abort: {reset: true}` of a FaultInjection resets streams");
    }
    part(abort.percentage, abort.percent, at);
}

/// A percentage in its new or its old form.
fn part(new: Option<Percentage>, old: Option<u32>, at: &At<'_>) {
    if let Some(new) = new {
        super::super::part(new.value, &at.key("percentage").key("value"));
    }
    if let Some(old) = old {
        super::super::part(f64::from(old), &at.key("percent"));
    }
}

fn mirrors(route: &HttpRoute, at: &At<'_>, metadata: &Metadata) {
    one_only(
        &[
            ("mirror", route.mirror.is_some()),
            ("mirrors", !route.mirrors.is_empty()),
        ],
        at,
    );
    for (key, given) in [
        ("mirrorPercent", route.mirror_percent.is_some()),
        ("mirrorPercentage", route.mirror_percentage.is_some()),
    ] {
        if given && route.mirror.is_none() {
            at.key(key)
                .fault("has nothing to act on", "write `mirror`, or remove it");
        }
    }
    if let Some(old) = route.mirror_percent {
        super::super::part(f64::from(old), &at.key("mirrorPercent"));
    }
    if let Some(new) = route.mirror_percentage {
        super::super::part(new.value, &at.key("mirrorPercentage").key("value"));
    }
    if let Some(copy) = &route.mirror {
        mirror(copy, route, &at.key("mirror"), metadata);
    }
    at_most(route.mirrors.len(), 8, &at.key("mirrors"));
    for (index, one) in route.mirrors.iter().enumerate() {
        let at = at.key("mirrors").index(index);
        mirror(&one.destination, route, &at.key("destination"), metadata);
        part(one.percentage, None, &at);
    }
}

fn mirror(copy: &Destination, route: &HttpRoute, at: &At<'_>, metadata: &Metadata) {
    destination(copy, at);
    let place = |one: &Destination| {
        let mut labels = one.host.split('.').map(str::to_owned);
        let name = labels.next();
        let namespace = labels.next().unwrap_or_else(|| metadata.namespace.clone());
        (name, namespace, one.subset.clone(), one.port)
    };
    if let [only] = route.route.as_slice()
        && place(&only.destination) == place(copy)
    {
        at.fault(
            "is the destination that takes the request itself",
            "mirror to another host, subset or port",
        );
    }
}

fn headers(given: Option<&HeaderOperations>, at: &At<'_>) {
    let Some(given) = given else { return };
    if let Some(change) = &given.request {
        header_change(change, true, &at.key("request"));
    }
    if let Some(change) = &given.response {
        header_change(change, false, &at.key("response"));
    }
}

/// `request` may set the host, as Istio's may: it is rewritten then.
fn header_change(change: &HeaderChange, request: bool, at: &At<'_>) {
    let remedy = "use `rewrite` with `authority`";
    for (key, map) in [("set", &change.set), ("add", &change.add)] {
        let at = at.key(key);
        at_most(map.len(), 32, &at);
        for (name, value) in map {
            let at = at.key(name);
            let is_host = name.eq_ignore_ascii_case("host") || name == ":authority";
            if is_host && request && key == "set" {
                address(value, &at);
                continue;
            }
            if name == ":authority" {
                at.fault("a route cannot change :authority this way", remedy);
                continue;
            }
            edited(name, remedy, &at);
            header_value(value, &at);
            if value.starts_with('%') && value.ends_with('%') && value.len() > 2 {
                at.note(format!(
                    "{value} is a variable of Envoy's: it is sent as text"
                ));
            }
        }
    }
    at_most(change.remove.len(), 32, &at.key("remove"));
    for (index, name) in change.remove.iter().enumerate() {
        edited(name, remedy, &at.key("remove").index(index));
        let all = change.set.keys().chain(change.add.keys());
        kept(
            name,
            all.map(String::as_str),
            &at.key("remove").index(index),
        );
    }
}
