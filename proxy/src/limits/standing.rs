//! What an answer tells its caller of the limits that counted the request.
//!
//! In: a limit, what is left of it. Out: fields in the words of draft-ietf-httpapi-ratelimit-headers-09, or those
//! of its version 03 as Envoy writes them. Pure.

use std::{sync::Arc, time::Duration};

use mesh_model::snapshot::{RateLimit, limit::LimitFields};

/// Where a caller stands with a limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Standing {
    name: Arc<str>,
    requests: u32,
    per: Duration,
    /// Requests that may come at once.
    left: u64,
    /// Until as many may come at once as ever.
    whole: Duration,
    fields: LimitFields,
}

impl Standing {
    /// With a limit of which so much is left.
    pub(super) fn new(limit: &RateLimit, left: u64, whole: Duration) -> Self {
        Self {
            name: Arc::clone(&limit.name),
            requests: limit.requests,
            per: limit.per,
            left,
            whole,
            fields: limit.fields,
        }
    }

    /// What it allows, in the words of the draft: a span that is no whole number of seconds cannot be said.
    fn policy(&self) -> String {
        let (name, quota) = (&self.name, self.requests);
        let window = match (self.per.as_secs(), self.per.subsec_nanos()) {
            (seconds, 0) => format!(";w={seconds}"),
            _ => String::new(),
        };
        format!("\"{name}\";q={quota}{window}")
    }

    /// What is left.
    fn state(&self) -> String {
        let (name, left) = (&self.name, self.left);
        format!("\"{name}\";r={left};t={}", seconds(self.whole))
    }

    /// What it allows, in the words of version 03.
    fn quota(&self) -> String {
        let window = seconds(self.per);
        format!("{};w={window};name=\"{}\"", self.requests, self.name)
    }
}

/// Whole seconds, and never so few that it is too early.
fn seconds(span: Duration) -> u64 {
    span.as_secs() + u64::from(span.subsec_nanos() > 0)
}

/// The fields that tell of all of them.
pub(crate) fn lines(standings: &[Standing]) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    let told = |fields| standings.iter().filter(move |one| one.fields == fields);
    let joined = |fields, text: fn(&Standing) -> String| {
        let all: Vec<String> = told(fields).map(text).collect();
        all.join(", ")
    };
    if told(LimitFields::RateLimit).next().is_some() {
        let policies = joined(LimitFields::RateLimit, Standing::policy);
        lines.push(("ratelimit-policy", policies));
        let states = joined(LimitFields::RateLimit, Standing::state);
        lines.push(("ratelimit", states));
    }
    // The one that is nearest to refusing speaks for all.
    if let Some(least) = told(LimitFields::XRateLimit).min_by_key(|one| one.left) {
        let quotas = joined(LimitFields::XRateLimit, Standing::quota);
        let limit = format!("{}, {quotas}", least.requests);
        lines.push(("x-ratelimit-limit", limit));
        lines.push(("x-ratelimit-remaining", least.left.to_string()));
        lines.push(("x-ratelimit-reset", seconds(least.whole).to_string()));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(name: &str, fields: LimitFields, left: u64, per_ms: u64) -> Standing {
        Standing {
            name: name.into(),
            requests: 100,
            per: Duration::from_millis(per_ms),
            left,
            whole: Duration::from_millis(4_200),
            fields,
        }
    }

    #[test]
    fn in_the_words_of_the_draft() {
        let all = [
            standing("shop/a", LimitFields::RateLimit, 7, 60_000),
            standing("shop/b", LimitFields::RateLimit, 0, 1_500),
        ];
        assert_eq!(
            lines(&all),
            [
                (
                    "ratelimit-policy",
                    r#""shop/a";q=100;w=60, "shop/b";q=100"#.to_owned()
                ),
                (
                    "ratelimit",
                    r#""shop/a";r=7;t=5, "shop/b";r=0;t=5"#.to_owned()
                ),
            ]
        );
        assert_eq!(lines(&[]), []);
    }

    #[test]
    fn in_the_words_of_envoy() {
        let all = [
            standing("shop/a", LimitFields::XRateLimit, 7, 60_000),
            standing("shop/b", LimitFields::XRateLimit, 3, 1_500),
        ];
        let told = lines(&all);
        assert_eq!(
            told[0].1,
            r#"100, 100;w=60;name="shop/a", 100;w=2;name="shop/b""#
        );
        let told: Vec<_> = told.iter().skip(1).map(|(_, value)| &**value).collect();
        assert_eq!(told, ["3", "5"]);
    }
}
