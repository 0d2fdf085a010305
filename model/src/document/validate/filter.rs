//! Filters of routes: those that are carried out, and a clear word on those that are not.

use super::{at_most, cors, host, one_of, port, session, token};
use crate::{
    document::route::{
        ExtensionReference, HeaderModifier, HeaderValueSpec, HttpFilter, PathModifier, RedirectSpec,
    },
    name::is_label,
    written::{At, suggestion},
};

/// Where a filter stands, which decides what it may be.
#[derive(Debug, Clone, Copy)]
pub(super) enum Where {
    /// In a rule of an HTTPRoute; whether all its matches are prefixes, and whether it has backends.
    Rule { prefixes: bool, backends: bool },
    /// At a backend of an HTTPRoute.
    Backend { prefixes: bool },
    /// In a GRPCRoute, perhaps at a backend.
    Grpc { backend: bool },
}

const NOT_YET: (&str, &str) = ("ExternalAuth", "externalAuth");
const KEYS: [&str; 7] = [
    "requestHeaderModifier",
    "responseHeaderModifier",
    "requestRedirect",
    "urlRewrite",
    "requestMirror",
    "cors",
    "extensionRef",
];
const TYPES: [&str; 7] = [
    "RequestHeaderModifier",
    "ResponseHeaderModifier",
    "RequestRedirect",
    "URLRewrite",
    "RequestMirror",
    "CORS",
    "ExtensionRef",
];

pub(super) fn filters(given: &[HttpFilter], place: Where, at: &At<'_>) {
    at_most(given.len(), 16, at);
    for (index, one) in given.iter().enumerate() {
        let here = at.index(index);
        filter(one, place, &here);
        if given
            .iter()
            .take(index)
            .any(|other| other.type_ == one.type_ && one.type_ != "RequestMirror")
        {
            here.key("type").fault(
                format!("a second {} stands in one list", one.type_),
                "write one with everything",
            );
        }
    }
    let has = |kind: &str| given.iter().position(|one| one.type_ == kind);
    if let (Some(redirect), Some(_)) = (has("RequestRedirect"), has("URLRewrite")) {
        at.index(redirect).fault(
            "a redirect and a rewrite exclude each other",
            "leave one of them",
        );
    }
    if let (Some(_), Some(answer)) = (has("RequestRedirect"), has("ExtensionRef")) {
        at.index(answer).fault(
            "a redirect and an answer of the mesh's own exclude each other",
            "leave one of them",
        );
    }
}

fn filter(one: &HttpFilter, place: Where, at: &At<'_>) {
    for key in one.other.keys() {
        let at = at.key(key);
        if NOT_YET.1 == key {
            at.fault("is not carried out by this version", "remove the filter");
        } else {
            at.fault("is no known key", suggestion(key, &KEYS));
        }
    }
    let kind = one.type_.as_str();
    let known: &[&str] = match place {
        Where::Rule { .. } => &TYPES,
        Where::Backend { .. } => &[
            "RequestHeaderModifier",
            "ResponseHeaderModifier",
            "URLRewrite",
        ],
        Where::Grpc { backend: false } => &[
            "RequestHeaderModifier",
            "ResponseHeaderModifier",
            "RequestMirror",
            "ExtensionRef",
        ],
        Where::Grpc { backend: true } => &["RequestHeaderModifier", "ResponseHeaderModifier"],
    };
    if NOT_YET.0 == kind {
        at.key("type").fault(
            format!("{kind} is not carried out by this version"),
            "remove the filter",
        );
        return;
    }
    if TYPES.contains(&kind) && !known.contains(&kind) {
        at.key("type").fault(
            format!("{kind} cannot stand here"),
            format!("use {}", known.join(", ")),
        );
        return;
    }
    one_of(Some(kind), known, &at.key("type"));
    if !known.contains(&kind) {
        return;
    }
    let set = [
        one.request_header_modifier.is_some(),
        one.response_header_modifier.is_some(),
        one.request_redirect.is_some(),
        one.url_rewrite.is_some(),
        one.request_mirror.is_some(),
        one.cors.is_some(),
        one.extension_ref.is_some(),
    ];
    for ((name, key), set) in TYPES.iter().zip(KEYS).zip(set) {
        match (*name == kind, set) {
            (true, false) => at
                .key(key)
                .fault("is missing", format!("write `{key}` for a {kind}")),
            (false, true) => at
                .key(key)
                .fault(format!("does not belong to a {kind}"), "remove it"),
            _ => {}
        }
    }
    body(one, place, at);
}

fn body(one: &HttpFilter, place: Where, at: &At<'_>) {
    if let Some(edits) = &one.request_header_modifier {
        headers(edits, &at.key("requestHeaderModifier"));
    }
    if let Some(edits) = &one.response_header_modifier {
        headers(edits, &at.key("responseHeaderModifier"));
    }
    let prefixes = match place {
        Where::Rule { prefixes, .. } | Where::Backend { prefixes } => prefixes,
        Where::Grpc { .. } => false,
    };
    if let Some(redirect) = &one.request_redirect {
        let here = at.key("requestRedirect");
        one_of(
            redirect.scheme.as_deref(),
            &["http", "https"],
            &here.key("scheme"),
        );
        if let Some(name) = &redirect.hostname {
            host(name, &here.key("hostname"));
        }
        port(redirect.port, &here.key("port"));
        if redirect
            .status_code
            .is_some_and(|code| ![301, 302, 303, 307, 308].contains(&code))
        {
            here.key("statusCode")
                .fault("is no redirect", "write 301, 302, 303, 307 or 308");
        }
        path(redirect.path.as_ref(), prefixes, &here.key("path"));
        if matches!(place, Where::Rule { backends: true, .. }) {
            here.fault(
                "a rule that redirects reaches no backend",
                "remove `backendRefs` or the redirect",
            );
        } else if *redirect
            == (RedirectSpec {
                status_code: redirect.status_code,
                ..RedirectSpec::default()
            })
        {
            here.fault(CIRCLE.0, CIRCLE.1);
        }
    }
    if let Some(rewrite) = &one.url_rewrite {
        let here = at.key("urlRewrite");
        if let Some(name) = &rewrite.hostname {
            host(name, &here.key("hostname"));
        }
        path(rewrite.path.as_ref(), prefixes, &here.key("path"));
        if rewrite.hostname.is_none() && rewrite.path.is_none() {
            here.fault("changes nothing", "write `hostname` or `path`");
        }
    }
    if let Some(mirror) = &one.request_mirror {
        session::mirror(mirror, &at.key("requestMirror"));
    }
    if let Some(cors) = &one.cors {
        cors::route(cors, &at.key("cors"));
    }
    if let Some(reference) = &one.extension_ref {
        let backends = matches!(place, Where::Rule { backends: true, .. });
        extension(reference, backends, &at.key("extensionRef"));
    }
}

/// The one extension there is: an answer of the mesh's own.
fn extension(reference: &ExtensionReference, backends: bool, at: &At<'_>) {
    if reference.group != "meshd.io" {
        at.key("group").fault(
            format!("{:?} has no extension that is known here", reference.group),
            "write meshd.io",
        );
    }
    one_of(Some(&reference.kind), &["DirectResponse"], &at.key("kind"));
    if reference.name.is_empty() || !reference.name.split('.').all(is_label) {
        at.key("name").fault(
            format!("{:?} is no name of a {}", reference.name, reference.kind),
            "use 1 to 63 of a-z 0-9 -",
        );
    }
    if backends {
        at.fault(
            "a rule that answers itself reaches no backend",
            "remove `backendRefs` or the filter",
        );
    }
}

/// Headers that frame or address a message, so that no route may touch them.
const FRAMING: [&str; 9] = [
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What is said of a redirect that changes nothing of the address.
pub(super) const CIRCLE: (&str, &str) = (
    "leads back to where the request was sent",
    "write what is different there: another scheme, host, port or path",
);

fn headers(edits: &HeaderModifier, at: &At<'_>) {
    for (key, list) in [("set", &edits.set), ("add", &edits.add)] {
        header_list(list, &at.key(key));
    }
    at_most(edits.remove.len(), 16, &at.key("remove"));
    for (index, name) in edits.remove.iter().enumerate() {
        edited(
            name,
            "use a URLRewrite with `hostname`",
            &at.key("remove").index(index),
        );
        let all = edits.set.iter().chain(&edits.add);
        kept(
            name,
            all.map(|header| &*header.name),
            &at.key("remove").index(index),
        );
    }
}

/// A header that is removed is not set or added as well.
pub(super) fn kept(name: &str, mut written: impl Iterator<Item = impl AsRef<str>>, at: &At<'_>) {
    if written.any(|other| other.as_ref().eq_ignore_ascii_case(name)) {
        at.fault(
            format!("{} is set or added here too", name.to_ascii_lowercase()),
            "leave one of them: what is set needs no removal before",
        );
    }
}

/// Headers with their values, each once.
pub(super) fn header_list(list: &[HeaderValueSpec], at: &At<'_>) {
    at_most(list.len(), 16, at);
    for (index, header) in list.iter().enumerate() {
        let at = at.index(index);
        edited(
            &header.name,
            "use a URLRewrite with `hostname`",
            &at.key("name"),
        );
        header_value(&header.value, &at.key("value"));
        let lower = header.name.to_ascii_lowercase();
        if list
            .iter()
            .take(index)
            .any(|other| other.name.to_ascii_lowercase() == lower)
        {
            at.key("name")
                .fault(format!("{lower} stands here twice"), "leave one of them");
        }
    }
}

/// A header that a route may change; `host` says how to change the host instead.
pub(super) fn edited(name: &str, host: &str, at: &At<'_>) {
    token(name, at);
    let lower = name.to_ascii_lowercase();
    if lower == "host" {
        at.fault("a route cannot change Host this way", host);
    } else if FRAMING.contains(&lower.as_str()) || lower.starts_with("mesh-") {
        at.fault(format!("a route cannot change {lower}"), "remove it");
    }
}

pub(super) fn header_value(value: &str, at: &At<'_>) {
    let clean = |c: char| !c.is_control() || c == '\t';
    if value.len() > 4096 || value.trim() != value || !value.chars().all(clean) {
        at.fault(
            "is no value of a header",
            "leave out line ends and blanks at the ends",
        );
    }
}

fn path(given: Option<&PathModifier>, prefixes: bool, at: &At<'_>) {
    let Some(given) = given else { return };
    one_of(
        Some(&given.type_),
        &["ReplaceFullPath", "ReplacePrefixMatch"],
        &at.key("type"),
    );
    let pairs = [
        (
            "ReplaceFullPath",
            "replaceFullPath",
            &given.replace_full_path,
        ),
        (
            "ReplacePrefixMatch",
            "replacePrefixMatch",
            &given.replace_prefix_match,
        ),
    ];
    for (kind, key, value) in pairs {
        match (given.type_ == kind, value) {
            (true, None) => at.key(key).fault("is missing", format!("write `{key}`")),
            (false, Some(_)) => at
                .key(key)
                .fault(format!("does not belong to {}", given.type_), "remove it"),
            (_, Some(value)) => replacement(value, &at.key(key)),
            (false, None) => {}
        }
    }
    if given.type_ == "ReplacePrefixMatch" && !prefixes {
        at.fault(
            "replaces a prefix, and a match of this rule is none",
            "use PathPrefix in every match of the rule",
        );
    }
}

pub(super) fn replacement(value: &str, at: &At<'_>) {
    let clean = value
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#'));
    if value.len() > 1024 || !clean || (!value.is_empty() && !value.starts_with('/')) {
        at.fault(
            format!("{value:?} is no path"),
            "begin it with /, without blanks, ? and #",
        );
    }
}
