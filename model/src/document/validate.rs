//! Whether a document means something: what serde cannot see, with the place of each fault.
//!
//! After this no code checks a document again: durations parse, expressions compile, references are well
//! formed. Whether what they name exists is for `plan` to say.

use super::{Metadata, Spec};
use crate::{
    duration,
    snapshot::rule::Regex,
    written::{At, choice},
};

mod filter;
mod own;
mod policy;
mod reference;
mod route;

pub(super) fn spec(spec: &Spec, at: &At<'_>, metadata: &Metadata) {
    match spec {
        Spec::Service(service) => own::service(service, at),
        Spec::HttpRoute(route) => route::http(route, at, metadata),
        Spec::GrpcRoute(route) => route::grpc(route, at, metadata),
        Spec::TcpRoute(route) => {
            reference::parents(&route.parent_refs, &at.key("parentRefs"), metadata);
            route::tcp(&route.rules, &at.key("rules"));
        }
        Spec::TlsRoute(route) => {
            reference::parents(&route.parent_refs, &at.key("parentRefs"), metadata);
            route::hostnames(&route.hostnames, &at.key("hostnames"));
            route::tcp(&route.rules, &at.key("rules"));
        }
        Spec::VirtualService(_)
        | Spec::DestinationRule(_)
        | Spec::RateLimit(_)
        | Spec::FaultInjection(_)
        | Spec::DirectResponse(_) => {}
        Spec::DelegationTable(table) => own::delegation_table(table, &at.key("dtab")),
        Spec::PeerAuthentication(policy) => {
            own::selector(policy.selector.as_ref(), &at.key("selector"));
        }
        Spec::AuthorizationPolicy(policy) => policy::authorization(policy, at),
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
        at.fault(
            format!("is no regular expression: {what}"),
            "write it in RE2 syntax",
        );
    }
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
