//! Counters of what policies did to requests.

use super::Counter;

/// What policies did; the metric `mesh_proxy_policy_total` by `what`.
#[derive(Debug, Default)]
pub(crate) struct Policies {
    /// Requests that a fault held back.
    pub(crate) delayed: Counter,
    /// Requests that a fault failed.
    pub(crate) aborted: Counter,
    /// Requests whose bodies a fault slowed.
    pub(crate) slowed: Counter,
    /// Requests and connections that a rate limit refused.
    pub(crate) limited: Counter,
    /// Copies that were sent.
    pub(crate) mirrored: Counter,
    /// Copies that were not sent, or not answered: too large, too many under way, nobody there.
    pub(crate) unmirrored: Counter,
    /// Second tries that ran beside a first.
    pub(crate) hedged: Counter,
    /// Of them those whose answer was used.
    pub(crate) hedges_won: Counter,
    /// Requests refused because too many were under way, here or towards their backend.
    pub(crate) shed: Counter,
    /// Answers that the mesh gave for a route: redirects, direct responses, preflights.
    pub(crate) answered: Counter,
}

impl Policies {
    /// Every counter with its word.
    pub(crate) fn each(&self) -> [(&'static str, u64); 10] {
        [
            ("fault-delayed", self.delayed.get()),
            ("fault-aborted", self.aborted.get()),
            ("fault-slowed", self.slowed.get()),
            ("rate-limited", self.limited.get()),
            ("mirrored", self.mirrored.get()),
            ("not-mirrored", self.unmirrored.get()),
            ("hedged", self.hedged.get()),
            ("hedge-won", self.hedges_won.get()),
            ("shed", self.shed.get()),
            ("answered", self.answered.get()),
        ]
    }
}
