//! Whether a document means something: what serde cannot see, with the place of each fault.
//!
//! After this no code checks a document again: durations parse, expressions compile, references are well
//! formed. Whether what they name exists is for `plan` to say.

use super::{Metadata, Spec, span::Span};
use crate::{
    duration,
    snapshot::rule::Regex,
    written::{At, choice},
};

mod cors;
mod destination_rule;
mod filter;
mod limit;
mod own;
mod policy;
mod reference;
mod route;
mod session;
mod source;
mod virtual_service;

pub(super) fn spec(spec: &Spec, at: &At<'_>, metadata: &Metadata) {
    match spec {
        Spec::Service(service) => own::service(service, at),
        Spec::HttpRoute(route) => route::http(route, at, metadata),
        Spec::GrpcRoute(route) => route::grpc(route, at, metadata),
        Spec::TcpRoute(route) => {
            reference::parents(&route.parent_refs, &at.key("parentRefs"), metadata);
            reference::default_gateways(route.use_default_gateways.as_deref(), at);
            route::tcp(&route.rules, &at.key("rules"));
        }
        Spec::TlsRoute(route) => {
            reference::parents(&route.parent_refs, &at.key("parentRefs"), metadata);
            reference::default_gateways(route.use_default_gateways.as_deref(), at);
            route::hostnames(&route.hostnames, &at.key("hostnames"));
            route::tcp(&route.rules, &at.key("rules"));
        }
        Spec::VirtualService(service) => virtual_service::check(service, at, metadata),
        Spec::DestinationRule(rule) => destination_rule::check(rule, at),
        Spec::RateLimit(limit) => limit::rate(limit, at),
        Spec::FaultInjection(fault) => limit::fault(fault, at),
        Spec::DirectResponse(response) => limit::direct(response, at),
        Spec::DelegationTable(table) => own::delegation_table(table, &at.key("dtab")),
        Spec::PeerAuthentication(policy) => {
            own::selector(policy.selector.as_ref(), &at.key("selector"));
        }
        Spec::AuthorizationPolicy(policy) => policy::authorization(policy, at),
        Spec::ServiceSource(source) => own::labels(&source.hosts, &at.key("hosts")),
        Spec::Revocation(revocation) => own::revocation(revocation, at),
    }
}

fn at_most(count: usize, most: usize, at: &At<'_>) {
    if count > most {
        at.fault(
            format!("{count} entries are too many"),
            format!("write at most {most}"),
        );
    }
}

fn one_of(word: Option<&str>, known: &[&str], at: &At<'_>) {
    if let Some(word) = word
        && !known.contains(&word)
    {
        at.fault(format!("{word:?} is not known here"), choice(word, known));
    }
}

fn port(number: Option<u16>, at: &At<'_>) {
    if number == Some(0) {
        at.fault("0 is no port", "write 1 to 65535");
    }
}

fn expression(pattern: &str, at: &At<'_>) {
    if pattern.len() > 4096 {
        at.fault("is longer than 4096 bytes", "shorten the expression");
    } else if let Err(error) = Regex::new(pattern) {
        let text = error.to_string();
        let what = text
            .lines()
            .last()
            .unwrap_or_default()
            .trim_start_matches("error: ");
        let what = match caret(&text) {
            Some(column) => format!("is no regular expression: {what} (character {column})"),
            None => format!("is no regular expression: {what}"),
        };
        at.fault(what, "write it in RE2 syntax");
    }
}

/// The character, from 1, that the mark below a wrong expression of one line points at.
fn caret(text: &str) -> Option<usize> {
    let mut lines = text.lines();
    let mark = lines.find(|line| line.contains('^') && line.trim_matches([' ', '^']).is_empty())?;
    let column = mark.find('^')?;
    // The regex crate sets the expression four characters in.
    (column >= 4).then_some(column - 3)
}

fn span(text: Option<&str>, at: &At<'_>) -> Option<std::time::Duration> {
    match duration::parse(text?) {
        Ok(found) => Some(found),
        Err(error) => {
            at.fault(error.to_string(), "write it like 10s or 500ms");
            None
        }
    }
}

/// A header or method name: a token of RFC 9110, section 5.6.2.
fn is_token(text: &str) -> bool {
    let special = "!#$%&'*+-.^_`|~";
    (1..=256).contains(&text.len())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || special.contains(c))
}

fn token(text: &str, at: &At<'_>) {
    if !is_token(text) {
        at.fault(
            format!("{text:?} is no header name"),
            "use letters, digits and - (RFC 9110 section 5.6.2)",
        );
    }
}

/// A host name: labels and dots, no port, no address.
fn host(text: &str, at: &At<'_>) {
    let labels = text.len() <= 253 && text.split('.').all(crate::name::is_label);
    if !labels || text.parse::<std::net::IpAddr>().is_ok() {
        at.fault(
            format!("{text:?} is no host name"),
            "write lower-case labels and dots, no port, no address",
        );
    }
}

/// A service by any spelling of its name; whether there is one is for the plan to say.
fn service_host(text: &str, at: &At<'_>) {
    if text.starts_with('*') {
        at.fault(
            format!("{text:?} names no single service"),
            "write a service's name",
        );
    } else {
        host(text, at);
    }
}

fn percent(value: f64, at: &At<'_>) {
    if !(0.0..=100.0).contains(&value) {
        at.fault(format!("{value} is no percentage"), "write 0 to 100");
    }
}

/// A part of the requests, where none at all is worth telling.
fn part(value: f64, at: &At<'_>) {
    percent(value, at);
    if value == 0.0 {
        at.note("never acts: 0 percent is no request");
    }
}

/// A span that must not be zero.
fn positive(given: Option<Span>, at: &At<'_>) {
    if given.is_some_and(|span| span.0.is_zero()) {
        at.fault("is no time at all", "write a span above 0, or leave it out");
    }
}

/// A status that an answer can end with.
fn final_status(status: u16, at: &At<'_>) {
    if !(200..=599).contains(&status) {
        at.fault(
            format!("{status} is no status of an answer"),
            "write 200 to 599",
        );
    }
}

/// Of several keys that exclude each other, the second one given is at fault.
fn one_only(given: &[(&str, bool)], at: &At<'_>) {
    let mut set = given.iter().filter(|(_, set)| *set).map(|(key, _)| *key);
    if let (Some(first), Some(second)) = (set.next(), set.next()) {
        at.key(second).fault(
            format!("`{first}` and `{second}` exclude each other"),
            "leave one of them",
        );
    }
}

/// Exactly one of several keys must be given.
fn exactly_one(given: &[(&str, bool)], at: &At<'_>) {
    if !given.iter().any(|(_, set)| *set) {
        let keys: Vec<_> = given.iter().map(|(key, _)| format!("`{key}`")).collect();
        at.fault("says nothing", format!("write one of {}", keys.join(", ")));
    }
    one_only(given, at);
}

/// Namespaces that a document is for.
fn export_to(given: &[String], at: &At<'_>) {
    for (index, name) in given.iter().enumerate() {
        let at = at.index(index);
        if !matches!(name.as_str(), "." | "*") && !crate::name::is_label(name) {
            at.fault(
                format!("{name:?} is no namespace"),
                "write a namespace, `.` for the document's own, or `*` for all",
            );
        } else if name != "*" && given.iter().any(|other| other == "*") {
            at.fault("`*` stands beside it", "leave one of them");
        }
    }
}
