//! The part of the called host: which program, and whether its policies let the caller in.

use std::sync::Arc;

use mesh_model::{
    admin::Explanation,
    snapshot::{
        InboundPort, Snapshot,
        decide::{Verdict, authorize},
    },
};

use super::{Question, State, Steps};

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
    let verdict = authorize(
        &port.authorization,
        Some(&question.caller),
        port.target.port(),
        request,
    );
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
