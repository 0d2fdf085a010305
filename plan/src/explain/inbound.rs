//! The part of the called host: which program, whether its policies let the caller in, and how often.

use std::{borrow::Cow, sync::Arc};

use mesh_model::{
    admin::Explanation,
    duration,
    snapshot::{
        InboundPort, RateLimit, Snapshot,
        decide::{RequestView, Source, Verdict, authorize},
        limit::{LimitBy, LimitScope},
    },
};

use super::{Question, State, Steps, header};

pub(super) fn explain(snapshot: &Snapshot, question: &Question) -> Explanation {
    let mut steps = Steps::of(snapshot);
    let Some(port) = find(snapshot, question) else {
        steps.add(
            "far-target",
            State::Refused,
            format!(
                "no program of this host listens on {}: protocol-error",
                question.address
            ),
            "services.d of this host",
        );
        return Explanation { steps: steps.steps };
    };
    let request =
        (!question.method.is_empty()).then_some((question.method.as_str(), question.path.as_str()));
    // Nobody can say what a connection that is no readable request asks for: a DENY rule that some request of
    // its caller would fit refuses it, as the proxy does.
    let unread = port.authorization.deny.iter().find(|rule| {
        request.is_none() && rule.fits_some_request(Some(&question.caller), port.target.port())
    });
    let verdict = match unread {
        Some(rule) => Verdict::Deny(Some(&rule.policy)),
        None => authorize(
            &port.authorization,
            Some(&question.caller),
            port.target.port(),
            request,
        ),
    };
    let (state, what, because) = match verdict {
        Verdict::Allow(Some(policy)) => (
            State::Ok,
            "allowed".to_owned(),
            format!("AuthorizationPolicy {policy}"),
        ),
        Verdict::Allow(None) => (
            State::Ok,
            "allowed".to_owned(),
            "no policy forbids it".to_owned(),
        ),
        Verdict::Deny(Some(policy)) => (
            State::Refused,
            "denied: 403".to_owned(),
            format!("AuthorizationPolicy {policy}"),
        ),
        Verdict::Deny(None) => (
            State::Refused,
            "denied: 403".to_owned(),
            "no ALLOW policy matches, and only what one matches may pass".to_owned(),
        ),
    };
    steps.add(
        "far-policy",
        state,
        format!("{} {what}", question.caller),
        because,
    );
    if state == State::Ok {
        for limit in port.limits.iter().filter(|limit| counts(limit, question)) {
            let because = format!("RateLimit {}", limit.name);
            steps.add("far-limit", State::Ok, told(limit), because);
        }
        steps.add(
            "far-target",
            State::Ok,
            format!("{} as {}", port.target, port.principal),
            format!("service {} of this host", port.service),
        );
    }
    Explanation { steps: steps.steps }
}

fn find<'a>(snapshot: &'a Snapshot, question: &Question) -> Option<&'a Arc<InboundPort>> {
    let inbound = &snapshot.inbound;
    let by_name = inbound.by_server_name.get(question.server_name.as_str());
    by_name
        .and_then(|ports| ports.get(&question.address.port()))
        .or_else(|| inbound.by_address.get(&question.address))
}

/// Whether a request counts against a limit. Opaque connections have no requests.
fn counts(limit: &RateLimit, question: &Question) -> bool {
    let all = limit.matches.is_empty();
    !question.method.is_empty() && (all || limit.matches.iter().any(|one| one.fits(question)))
}

fn told(limit: &RateLimit) -> String {
    let one = |by: &LimitBy| match by {
        LimitBy::Source => "caller".to_owned(),
        LimitBy::SourceNamespace => "namespace of callers".to_owned(),
        LimitBy::SourceAddress => "address of callers".to_owned(),
        LimitBy::Header(name) => format!("value of {name}"),
        LimitBy::Method => "method".to_owned(),
        LimitBy::Path => "path".to_owned(),
    };
    let by: Vec<String> = limit.by.iter().map(one).collect();
    let each = match by.as_slice() {
        [] => "all together".to_owned(),
        by => format!("for each {}", by.join(" and ")),
    };
    let scope = match limit.scope {
        LimitScope::Host => "counted on this host",
        LimitScope::Mesh => "counted in the whole mesh",
    };
    format!(
        "at most {} requests in {}, {} at once, {each}, {scope}: else 429 rate-limited",
        limit.requests,
        duration::print(limit.per),
        limit.burst
    )
}

impl RequestView for Question {
    fn method(&self) -> &str {
        &self.method
    }
    fn path(&self) -> &str {
        &self.path
    }
    fn query(&self) -> &str {
        &self.query
    }
    fn header(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        header(&self.headers, name)
    }
    fn source(&self) -> Source<'_> {
        Source {
            identity: Some(&self.caller),
            ..Source::default()
        }
    }
}
