//! Rate limits and faults, as the proxy obeys them.

use std::{sync::Arc, time::Duration};

use super::RequestMatch;

/// A share of requests in parts per million.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(pub u32);

impl Share {
    /// Every request.
    pub const ALL: Self = Self(1_000_000);
}

/// Stable key of a limit's live state: survives a new snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LimitKey(pub u64);

/// A rate limit (`RateLimit`), enforced where requests arrive at the service's host.
#[derive(Debug, Clone, PartialEq)]
pub struct RateLimit {
    /// Key of its live state.
    pub key: LimitKey,
    /// `namespace/name` of the resource, for answers, log and explain.
    pub name: Arc<str>,
    /// Requests that count; empty: all.
    pub matches: Vec<RequestMatch>,
    /// Each combination of these has a rate of its own; empty: all requests together.
    pub by: Arc<[LimitBy]>,
    /// Requests that are allowed in `per`.
    pub requests: u32,
    /// The time that `requests` is for.
    pub per: Duration,
    /// Requests that may come at once, at least 1.
    pub burst: u32,
    /// Whose requests count together.
    pub scope: LimitScope,
    /// What answers tell of it.
    pub fields: LimitFields,
}

/// Fields of answers that tell callers of a limit: what it allows, what is left, when it is whole again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LimitFields {
    /// None but `retry-after` on what is refused.
    #[default]
    None,
    /// `ratelimit-policy` and `ratelimit` (draft-ietf-httpapi-ratelimit-headers-09).
    RateLimit,
    /// `x-ratelimit-limit`, `-remaining` and `-reset`, as Envoy writes them (version 03 of that draft).
    XRateLimit,
}

/// Whose requests count together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitScope {
    /// Those that arrive at this host.
    Host,
    /// Those of the whole mesh: hosts tell each other what they let through (`docs/rate-limits.md` states the error).
    Mesh,
}

/// What tells requests of a limit apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LimitBy {
    /// The caller's identity (its service account); unauthenticated callers count together.
    Source,
    /// The caller's namespace.
    SourceNamespace,
    /// The caller's address.
    SourceAddress,
    /// A header, name in lower case.
    Header(Box<str>),
    /// The method.
    Method,
    /// The path.
    Path,
}

/// Injected faults (`FaultInjection`, or `fault:` of a VirtualService).
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    /// `namespace/name` of the resource.
    pub name: Arc<str>,
    /// Requests that may be hit; empty: all.
    pub matches: Vec<RequestMatch>,
    /// Held back.
    pub delay: Option<(Share, Duration)>,
    /// Answered with a failure.
    pub abort: Option<(Share, Abort)>,
    /// Bodies, both ways, slowed to bytes per second.
    pub bandwidth: Option<(Share, u64)>,
}

/// How an injected failure looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Abort {
    /// An HTTP status, 200 to 599.
    Http(u16),
    /// A gRPC status, 1 to 16.
    Grpc(u8),
    /// The connection or stream is reset.
    Reset,
}
