//! Authorization policies: patterns and bounds.

use super::{at_most, is_token, own};
use crate::{
    document::spec::{AuthorizationPolicySpec, PolicyRule},
    name::is_label,
    written::At,
};

/// Combinations of `from` and `to` in one policy.
const MAX_COMBINATIONS: usize = 1000;

pub(super) fn authorization(policy: &AuthorizationPolicySpec, at: &At<'_>) {
    own::selector(policy.selector.as_ref(), &at.key("selector"));
    let at = at.key("rules");
    at_most(policy.rules.len(), 512, &at);
    let size = |rule: &PolicyRule| rule.from.len().max(1) * rule.to.len().max(1);
    let combinations: usize = policy.rules.iter().map(size).sum();
    if combinations > MAX_COMBINATIONS {
        at.fault(
            format!("{combinations} pairs of from and to are too many"),
            format!("write at most {MAX_COMBINATIONS}"),
        );
    }
    for (index, rule) in policy.rules.iter().enumerate() {
        check_rule(rule, &at.index(index));
    }
}

fn check_rule(rule: &PolicyRule, at: &At<'_>) {
    for (index, from) in rule.from.iter().enumerate() {
        let at = at.key("from").index(index).key("source");
        if from.source.principals.is_empty() && from.source.namespaces.is_empty() {
            at.fault("names nobody", "write `principals` or `namespaces`; `principals: [\"*\"]` is any authenticated caller");
        }
        each(
            &from.source.principals,
            &at.key("principals"),
            |text, at| {
                if text.starts_with("spiffe://") {
                    at.fault(
                        "principals are written without spiffe://",
                        "begin with the trust domain",
                    );
                } else {
                    pattern(text, at);
                }
            },
        );
        each(
            &from.source.namespaces,
            &at.key("namespaces"),
            |text, at| {
                if !is_label(text) {
                    at.fault(
                        format!("{text:?} is no namespace"),
                        "use 1 to 63 of a-z 0-9 -; patterns are not taken here",
                    );
                }
            },
        );
    }
    for (index, to) in rule.to.iter().enumerate() {
        let at = at.key("to").index(index).key("operation");
        let operation = &to.operation;
        if operation.ports.is_empty() && operation.methods.is_empty() && operation.paths.is_empty()
        {
            at.fault("names nothing", "write `ports`, `methods` or `paths`");
        }
        each(&operation.ports, &at.key("ports"), |text, at| {
            if !matches!(text.parse::<u16>(), Ok(1..)) {
                at.fault(format!("{text:?} is no port"), "write 1 to 65535 in quotes");
            }
        });
        each(&operation.methods, &at.key("methods"), |text, at| {
            let plain = text.trim_matches('*');
            if plain.is_empty() || is_token(plain) {
                pattern(text, at);
            } else {
                at.fault(format!("{text:?} is no method"), "write it like GET");
            }
        });
        each(&operation.paths, &at.key("paths"), |text, at| {
            if text.starts_with(['/', '*']) {
                pattern(text, at);
            } else {
                at.fault(format!("{text:?} is no path"), "begin it with / or *");
            }
        });
    }
}

fn each(given: &[String], at: &At<'_>, check: impl Fn(&str, &At<'_>)) {
    at_most(given.len(), 512, at);
    for (index, text) in given.iter().enumerate() {
        check(text, &at.index(index));
    }
}

/// `*` may stand at one end only.
fn pattern(text: &str, at: &At<'_>) {
    let stars = text.matches('*').count();
    let at_an_end = text.starts_with('*') || text.ends_with('*');
    if text.is_empty() || text.len() > 2048 || stars > 1 || (stars == 1 && !at_an_end) {
        at.fault(
            format!("{text:?} is no pattern"),
            "write * at one end, or not at all",
        );
    }
}
