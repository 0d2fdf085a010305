//! Session persistence and mirrors of Gateway API's routes.

use super::{is_token, one_of, one_only, part, port, reference, span};
use crate::{
    document::route::{MirrorSpec, SessionPersistenceSpec},
    written::At,
};

pub(super) fn persistence(wanted: &SessionPersistenceSpec, at: &At<'_>) {
    one_of(
        wanted.type_.as_deref(),
        &["Cookie", "Header"],
        &at.key("type"),
    );
    if let Some(name) = &wanted.session_name
        && (!is_token(name) || name.len() > 128)
    {
        at.key("sessionName").fault(
            format!("{name:?} is no name of a cookie or header"),
            "use at most 128 letters, digits and -",
        );
    }
    let absolute = span(
        wanted.absolute_timeout.as_deref(),
        &at.key("absoluteTimeout"),
    );
    if absolute.is_some_and(|span| span.is_zero()) {
        at.key("absoluteTimeout")
            .fault("is no time at all", "write a span above 0, or leave it out");
    }
    if span(wanted.idle_timeout.as_deref(), &at.key("idleTimeout")).is_some() {
        at.key("idleTimeout")
            .note("a session does not end for being idle");
    }
    let header = wanted.type_.as_deref() == Some("Header");
    let at_cookie = at.key("cookieConfig");
    let lifetime = wanted.cookie_config.as_ref().map(|cookie| {
        let word = cookie.lifetime_type.as_deref();
        one_of(
            word,
            &["Session", "Permanent"],
            &at_cookie.key("lifetimeType"),
        );
        word.unwrap_or("Session")
    });
    if header && lifetime.is_some() {
        at_cookie.fault("does not belong to type Header", "remove it");
    } else if lifetime == Some("Permanent") && wanted.absolute_timeout.is_none() {
        at.key("absoluteTimeout").fault(
            "is missing: a permanent cookie needs it",
            "write `absoluteTimeout`",
        );
    } else if lifetime != Some("Permanent") && absolute.is_some() {
        at.key("absoluteTimeout").note(
            "only a Permanent cookie carries it; this session lasts as long as its caller keeps it",
        );
    }
}

pub(super) fn mirror(mirror: &MirrorSpec, at: &At<'_>) {
    let here = at.key("backendRef");
    let backend = &mirror.backend_ref;
    let service = backend.kind.as_deref().is_none_or(|kind| kind == "Service");
    reference::named(&backend.name, backend.namespace.as_deref(), service, &here);
    port(backend.port, &here.key("port"));
    one_only(
        &[
            ("percent", mirror.percent.is_some()),
            ("fraction", mirror.fraction.is_some()),
        ],
        at,
    );
    if let Some(percent) = mirror.percent.filter(|percent| *percent > 100) {
        at.key("percent")
            .fault(format!("{percent} is no percentage"), "write 0 to 100");
    }
    if mirror.percent == Some(0) {
        part(0.0, &at.key("percent"));
    }
    if let Some(fraction) = mirror.fraction {
        let (at, whole) = (at.key("fraction"), fraction.denominator.unwrap_or(100));
        if whole == 0 {
            at.key("denominator")
                .fault("nothing is divided by 0", "write at least 1");
        } else if fraction.numerator > whole {
            at.key("numerator").fault(
                format!("{} of {whole} is more than everything", fraction.numerator),
                "make it at most `denominator`",
            );
        } else if fraction.numerator == 0 {
            part(0.0, &at.key("numerator"));
        }
    }
}
