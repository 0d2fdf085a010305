//! The route kinds of Gateway API, as written (API v1.7.0; meanings in `docs/routes.md`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Reference to the thing that a route acts on; for us a Service.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ParentReference {
    /// `""` names core kinds such as Service; left out means `gateway.networking.k8s.io`.
    #[serde(default)]
    pub group: Option<String>,
    /// `Service` for the mesh; left out means `Gateway`.
    #[serde(default)]
    pub kind: Option<String>,
    /// The route's own namespace unless set.
    #[serde(default)]
    pub namespace: Option<String>,
    /// The name.
    pub name: String,
    /// A port's name.
    #[serde(default)]
    pub section_name: Option<String>,
    /// One port of the service; all unless set.
    #[serde(default)]
    pub port: Option<u16>,
}

/// Reference to a backend, with its share.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BackendReference {
    /// `""` or left out: core kinds.
    #[serde(default)]
    pub group: Option<String>,
    /// `Service` unless set.
    #[serde(default)]
    pub kind: Option<String>,
    /// The route's own namespace unless set.
    #[serde(default)]
    pub namespace: Option<String>,
    /// The name.
    pub name: String,
    /// The service's port.
    #[serde(default)]
    pub port: Option<u16>,
    /// Share among the rule's backends, 0 to 1,000,000; 1 unless set.
    #[serde(default)]
    pub weight: Option<u32>,
    /// Act only when this backend is chosen.
    #[serde(default)]
    pub filters: Vec<HttpFilter>,
}

/// `HTTPRoute.spec`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpRouteSpec {
    /// What the route acts on.
    #[serde(default)]
    pub parent_refs: Vec<ParentReference>,
    /// `All` is reported: there are no gateways here.
    #[serde(default)]
    pub use_default_gateways: Option<String>,
    /// No effect with a Service parent.
    #[serde(default)]
    pub hostnames: Vec<String>,
    /// The rules; one that matches everything unless given.
    #[serde(default)]
    pub rules: Vec<HttpRule>,
}

/// A rule of an HTTPRoute.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpRule {
    /// The rule's name.
    #[serde(default)]
    pub name: Option<String>,
    /// Any of them; none: every request.
    #[serde(default)]
    pub matches: Vec<HttpMatch>,
    /// What to do with the request and the answer.
    #[serde(default)]
    pub filters: Vec<HttpFilter>,
    /// Where requests go.
    #[serde(default)]
    pub backend_refs: Vec<BackendReference>,
    /// Time-outs.
    #[serde(default)]
    pub timeouts: Option<HttpTimeouts>,
    /// Retries.
    #[serde(default)]
    pub retry: Option<HttpRetry>,
    /// Whose requests stay with one endpoint.
    #[serde(default)]
    pub session_persistence: Option<SessionPersistenceSpec>,
}

/// All given conditions must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpMatch {
    /// Prefix `/` unless given.
    #[serde(default)]
    pub path: Option<PathMatchSpec>,
    /// Headers; of several entries of one name only the first counts.
    #[serde(default)]
    pub headers: Vec<ValueMatchSpec>,
    /// Query parameters; of several entries of one name only the first counts.
    #[serde(default)]
    pub query_params: Vec<ValueMatchSpec>,
    /// The method.
    #[serde(default)]
    pub method: Option<String>,
}

/// `path:` of a match.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PathMatchSpec {
    /// `Exact`, `PathPrefix` (unless given) or `RegularExpression`.
    #[serde(default, rename = "type")]
    pub type_: Option<String>,
    /// `/` unless given.
    #[serde(default)]
    pub value: Option<String>,
}

/// A named value and how it is compared.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ValueMatchSpec {
    /// `Exact` (unless given) or `RegularExpression`.
    #[serde(default, rename = "type")]
    pub type_: Option<String>,
    /// Name of the header (any case) or parameter.
    pub name: String,
    /// The value.
    pub value: String,
}

/// A filter; `type` names the one field that is set.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpFilter {
    /// `RequestHeaderModifier`, `ResponseHeaderModifier`, `RequestRedirect`, `URLRewrite`, …
    #[serde(rename = "type")]
    pub type_: String,
    /// For `RequestHeaderModifier`.
    #[serde(default)]
    pub request_header_modifier: Option<HeaderModifier>,
    /// For `ResponseHeaderModifier`.
    #[serde(default)]
    pub response_header_modifier: Option<HeaderModifier>,
    /// For `RequestRedirect`.
    #[serde(default)]
    pub request_redirect: Option<RedirectSpec>,
    /// For `URLRewrite`.
    #[serde(default, rename = "urlRewrite")]
    pub url_rewrite: Option<RewriteSpec>,
    /// For `RequestMirror`.
    #[serde(default)]
    pub request_mirror: Option<MirrorSpec>,
    /// For `CORS`.
    #[serde(default)]
    pub cors: Option<CorsSpec>,
    /// For `ExtensionRef`: a `DirectResponse` of the route's namespace.
    #[serde(default)]
    pub extension_ref: Option<ExtensionReference>,
    /// Everything else; the document is refused when there is any.
    #[serde(flatten)]
    pub other: BTreeMap<String, serde_json::Value>,
}

/// Headers to set, add, remove.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HeaderModifier {
    /// Replace.
    #[serde(default)]
    pub set: Vec<HeaderValueSpec>,
    /// Append.
    #[serde(default)]
    pub add: Vec<HeaderValueSpec>,
    /// Remove by name.
    #[serde(default)]
    pub remove: Vec<String>,
}

/// A header.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HeaderValueSpec {
    /// The name.
    pub name: String,
    /// The value.
    pub value: String,
}

/// `requestRedirect:`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RedirectSpec {
    /// The request's unless given.
    #[serde(default)]
    pub scheme: Option<String>,
    /// The request's unless given.
    #[serde(default)]
    pub hostname: Option<String>,
    /// The request's unless given.
    #[serde(default)]
    pub path: Option<PathModifier>,
    /// By scheme unless given.
    #[serde(default)]
    pub port: Option<u16>,
    /// 302 unless given.
    #[serde(default)]
    pub status_code: Option<u16>,
}

/// `urlRewrite:`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RewriteSpec {
    /// New host name.
    #[serde(default)]
    pub hostname: Option<String>,
    /// New path.
    #[serde(default)]
    pub path: Option<PathModifier>,
}

/// `requestMirror:`; at most one of `percent` and `fraction` is set, all requests unless one is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MirrorSpec {
    /// Where copies go.
    pub backend_ref: MirrorBackend,
    /// 0 to 100.
    #[serde(default)]
    pub percent: Option<u32>,
    /// A share in other parts than hundredths.
    #[serde(default)]
    pub fraction: Option<Fraction>,
}

/// `requestMirror.backendRef`: a backend without a share.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MirrorBackend {
    /// `""` or left out: core kinds.
    #[serde(default)]
    pub group: Option<String>,
    /// `Service` unless set.
    #[serde(default)]
    pub kind: Option<String>,
    /// The route's own namespace unless set.
    #[serde(default)]
    pub namespace: Option<String>,
    /// The name.
    pub name: String,
    /// The service's port.
    #[serde(default)]
    pub port: Option<u16>,
}

/// A share: `numerator` of `denominator`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fraction {
    /// At most `denominator`.
    pub numerator: u32,
    /// 100 unless given, at least 1.
    #[serde(default)]
    pub denominator: Option<u32>,
}

/// `cors:`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CorsSpec {
    /// `scheme://host[:port]`, the host perhaps with a `*` label in front; `*` alone: every origin.
    #[serde(default)]
    pub allow_origins: Vec<String>,
    /// Whether cookies and authorization may be sent.
    #[serde(default)]
    pub allow_credentials: Option<bool>,
    /// Methods; `*` alone: every one.
    #[serde(default)]
    pub allow_methods: Vec<String>,
    /// Headers; `*` alone: every one.
    #[serde(default)]
    pub allow_headers: Vec<String>,
    /// Headers that scripts may read.
    #[serde(default)]
    pub expose_headers: Vec<String>,
    /// Seconds that a preflight's answer counts, at least 1; 5 unless given.
    #[serde(default)]
    pub max_age: Option<u32>,
}

/// `extensionRef:`: something of the route's own namespace.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExtensionReference {
    /// `meshd.io`.
    pub group: String,
    /// `DirectResponse`.
    pub kind: String,
    /// The name.
    pub name: String,
}

/// `sessionPersistence:` (GEP-1619).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SessionPersistenceSpec {
    /// `Cookie` (unless given) or `Header`.
    #[serde(default, rename = "type")]
    pub type_: Option<String>,
    /// Name of the cookie or header; `mesh-session` unless given.
    #[serde(default)]
    pub session_name: Option<String>,
    /// After this a session ends whatever happens.
    #[serde(default)]
    pub absolute_timeout: Option<String>,
    /// Reported: sessions do not end for being idle.
    #[serde(default)]
    pub idle_timeout: Option<String>,
    /// For `Cookie`.
    #[serde(default)]
    pub cookie_config: Option<CookieConfig>,
}

/// `cookieConfig:`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CookieConfig {
    /// `Session` (unless given): until the caller's session ends; `Permanent`: for `absoluteTimeout`.
    #[serde(default)]
    pub lifetime_type: Option<String>,
}

/// How a path changes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PathModifier {
    /// `ReplaceFullPath` or `ReplacePrefixMatch`.
    #[serde(rename = "type")]
    pub type_: String,
    /// For `ReplaceFullPath`.
    #[serde(default)]
    pub replace_full_path: Option<String>,
    /// For `ReplacePrefixMatch`.
    #[serde(default)]
    pub replace_prefix_match: Option<String>,
}

/// `timeouts:`; Gateway API durations (GEP-2257), such as `10s` or `500ms`; `0s` switches off.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpTimeouts {
    /// Of the whole request, all tries together.
    #[serde(default)]
    pub request: Option<String>,
    /// Of each try.
    #[serde(default)]
    pub backend_request: Option<String>,
}

/// `retry:`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpRetry {
    /// Status codes that are tried again.
    #[serde(default)]
    pub codes: Vec<u16>,
    /// Tries beside the first; 0 switches off.
    #[serde(default)]
    pub attempts: Option<u32>,
    /// Least time between tries.
    #[serde(default)]
    pub backoff: Option<String>,
}

/// `GRPCRoute.spec`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrpcRouteSpec {
    /// What the route acts on.
    #[serde(default)]
    pub parent_refs: Vec<ParentReference>,
    /// `All` is reported: there are no gateways here.
    #[serde(default)]
    pub use_default_gateways: Option<String>,
    /// No effect with a Service parent.
    #[serde(default)]
    pub hostnames: Vec<String>,
    /// The rules.
    #[serde(default)]
    pub rules: Vec<GrpcRule>,
}

/// A rule of a GRPCRoute.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrpcRule {
    /// The rule's name.
    #[serde(default)]
    pub name: Option<String>,
    /// Any of them; none: every call.
    #[serde(default)]
    pub matches: Vec<GrpcMatch>,
    /// What to do with the call.
    #[serde(default)]
    pub filters: Vec<HttpFilter>,
    /// Where calls go.
    #[serde(default)]
    pub backend_refs: Vec<BackendReference>,
    /// Whose calls stay with one endpoint.
    #[serde(default)]
    pub session_persistence: Option<SessionPersistenceSpec>,
}

/// All given conditions must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrpcMatch {
    /// Service and method.
    #[serde(default)]
    pub method: Option<GrpcMethodMatch>,
    /// Metadata.
    #[serde(default)]
    pub headers: Vec<ValueMatchSpec>,
}

/// Service and method of a gRPC call; at least one is given.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrpcMethodMatch {
    /// `Exact` (unless given) or `RegularExpression`.
    #[serde(default, rename = "type")]
    pub type_: Option<String>,
    /// Full service name.
    #[serde(default)]
    pub service: Option<String>,
    /// Method name.
    #[serde(default)]
    pub method: Option<String>,
}

/// `TCPRoute.spec`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TcpRouteSpec {
    /// What the route acts on.
    #[serde(default)]
    pub parent_refs: Vec<ParentReference>,
    /// `All` is reported: there are no gateways here.
    #[serde(default)]
    pub use_default_gateways: Option<String>,
    /// The rules; the first one acts.
    #[serde(default)]
    pub rules: Vec<TcpRule>,
}

/// A rule of a TCPRoute or TLSRoute.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TcpRule {
    /// The rule's name.
    #[serde(default)]
    pub name: Option<String>,
    /// Where connections go.
    #[serde(default)]
    pub backend_refs: Vec<BackendReference>,
}

/// `TLSRoute.spec`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TlsRouteSpec {
    /// What the route acts on.
    #[serde(default)]
    pub parent_refs: Vec<ParentReference>,
    /// `All` is reported: there are no gateways here.
    #[serde(default)]
    pub use_default_gateways: Option<String>,
    /// Server names (SNI).
    #[serde(default)]
    pub hostnames: Vec<String>,
    /// The rules; the first one acts.
    #[serde(default)]
    pub rules: Vec<TcpRule>,
}
