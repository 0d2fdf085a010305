//! `RateLimit`, `FaultInjection` and `DirectResponse`, as written.

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};

use super::{
    route::HeaderValueSpec,
    source::{CallMatch, TargetReference},
    span::{GrpcCode, Rate, Span},
};

/// `RateLimit.spec`: how many requests a service takes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RateLimitSpec {
    /// The services that are limited, each by itself; at least one.
    pub target_refs: Vec<TargetReference>,
    /// Requests that count, any of the matches; none: all.
    #[serde(default)]
    pub matches: Vec<CallMatch>,
    /// How many.
    pub limit: LimitSpec,
    /// Each combination of these has a limit of its own; none: all requests together.
    #[serde(default)]
    pub by: Vec<LimitBySpec>,
    /// Whose requests count together.
    #[serde(default)]
    pub scope: LimitScopeSpec,
    /// Fields of answers that tell callers of the limit; none unless given.
    #[serde(default)]
    pub response_headers: Option<LimitHeadersSpec>,
}

/// Fields of answers that tell callers of a limit, by the name that they begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum LimitHeadersSpec {
    /// `RateLimit-Policy` and `RateLimit`.
    RateLimit,
    /// `X-RateLimit-Limit`, `X-RateLimit-Remaining`, `X-RateLimit-Reset`.
    #[serde(rename = "X-RateLimit")]
    XRateLimit,
}

/// `limit:`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LimitSpec {
    /// Requests in `per`, at least 1.
    pub requests: u32,
    /// The time that `requests` is for, 1 ms to 24 h.
    pub per: Span,
    /// Requests that may come at once, at least 1; `requests` unless given.
    #[serde(default)]
    pub burst: Option<u32>,
}

/// Whose requests count together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LimitScopeSpec {
    /// Those that arrive at one host.
    #[default]
    Host,
    /// Those of the whole mesh.
    Mesh,
}

/// What tells requests of a limit apart: a word, or `header: NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LimitBySpec {
    /// `source`: the caller's identity.
    Source,
    /// `sourceNamespace`.
    SourceNamespace,
    /// `sourceAddress`.
    SourceAddress,
    /// `method`.
    Method,
    /// `path`.
    Path,
    /// `header: NAME`; the name as written.
    Header(String),
}

/// The words of [`LimitBySpec`].
const BY: [&str; 6] = [
    "source",
    "sourceNamespace",
    "sourceAddress",
    "method",
    "path",
    "header",
];

struct ByVisitor;

impl<'de> Visitor<'de> for ByVisitor {
    type Value = LimitBySpec;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("one of source, sourceNamespace, sourceAddress, method, path or `header: NAME`")
    }
    fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<LimitBySpec, E> {
        Ok(match word {
            "source" => LimitBySpec::Source,
            "sourceNamespace" => LimitBySpec::SourceNamespace,
            "sourceAddress" => LimitBySpec::SourceAddress,
            "method" => LimitBySpec::Method,
            "path" => LimitBySpec::Path,
            "header" => return Err(E::custom("names no header; write `header: NAME`")),
            _ => {
                let near = crate::written::suggestion(word, &BY);
                return Err(E::custom(format!("{word:?} is not known here; {near}")));
            }
        })
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<LimitBySpec, A::Error> {
        use serde::de::Error;
        let mut header = None;
        while let Some(key) = map.next_key::<String>()? {
            if key != "header" {
                let near = crate::written::suggestion(&key, &["header"]);
                return Err(A::Error::custom(format!("{key:?} is no known key; {near}")));
            }
            header = Some(map.next_value()?);
        }
        header
            .map(LimitBySpec::Header)
            .ok_or_else(|| A::Error::custom("names no header; write `header: NAME`"))
    }
}

impl<'de> Deserialize<'de> for LimitBySpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ByVisitor)
    }
}

/// `FaultInjection.spec`: failures made on purpose. At least one of `delay`, `abort` and `bandwidth` is set.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FaultInjectionSpec {
    /// The services whose callers meet the faults; at least one.
    pub target_refs: Vec<TargetReference>,
    /// Requests that may be hit, any of the matches; none: all.
    #[serde(default)]
    pub matches: Vec<CallMatch>,
    /// Requests are held back.
    #[serde(default)]
    pub delay: Option<DelaySpec>,
    /// Requests are answered with a failure.
    #[serde(default)]
    pub abort: Option<AbortSpec>,
    /// Bodies are slowed.
    #[serde(default)]
    pub bandwidth: Option<BandwidthSpec>,
}

fn all() -> f64 {
    100.0
}

/// `delay:`.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DelaySpec {
    /// Percent of the requests, 0 to 100; all unless given.
    #[serde(default = "all")]
    pub percent: f64,
    /// How long, above 0.
    pub time: Span,
}

/// `abort:`; exactly one of `http`, `grpc` and `reset` is set.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AbortSpec {
    /// Percent of the requests, 0 to 100; all unless given.
    #[serde(default = "all")]
    pub percent: f64,
    /// An HTTP status, 200 to 599.
    #[serde(default)]
    pub http: Option<u16>,
    /// A gRPC status, 1 to 16.
    #[serde(default)]
    pub grpc: Option<GrpcCode>,
    /// The connection or stream is reset.
    #[serde(default)]
    pub reset: bool,
}

/// `bandwidth:`.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BandwidthSpec {
    /// Percent of the requests, 0 to 100; all unless given.
    #[serde(default = "all")]
    pub percent: f64,
    /// How fast, each way; above 0.
    pub rate: Rate,
}

/// `DirectResponse.spec`: an answer that routes name by `ExtensionRef`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DirectResponseSpec {
    /// Status, 200 to 599.
    pub status: u16,
    /// The body, at most 64 KiB.
    #[serde(default)]
    pub body: String,
    /// Headers.
    #[serde(default)]
    pub headers: Vec<HeaderValueSpec>,
}
