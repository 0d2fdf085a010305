//! `VirtualService`, as written (Istio's `networking.istio.io/v1`, with two conditions of our own).
//!
//! A field that is read and has no equivalent here is kept as written and told by `report`.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::span::{Base64, GrpcCode, Span};
use crate::snapshot::rule::Regex;

/// `VirtualService.spec`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VirtualServiceSpec {
    /// Services by any spelling of their names; at least one.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// `mesh`, or none; anything else is reported.
    #[serde(default)]
    pub gateways: Vec<String>,
    /// The first one that matches acts.
    #[serde(default)]
    pub http: Vec<HttpRoute>,
    /// For TLS that is passed through; the first one that matches acts.
    #[serde(default)]
    pub tls: Vec<TlsRoute>,
    /// For opaque connections; the first one that matches acts.
    #[serde(default)]
    pub tcp: Vec<TcpRoute>,
    /// Namespaces whose callers it acts for: `.` its own, `*` or none all.
    #[serde(default)]
    pub export_to: Vec<String>,
}

/// An entry of `http:`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpRoute {
    /// The route's name.
    #[serde(default)]
    pub name: Option<String>,
    /// Any of them; none: every request.
    #[serde(default, rename = "match")]
    pub matches: Vec<HttpCondition>,
    /// Where requests go.
    #[serde(default)]
    pub route: Vec<HttpDestination>,
    /// Instead of `route`.
    #[serde(default)]
    pub redirect: Option<HttpRedirect>,
    /// Instead of `route`.
    #[serde(default)]
    pub direct_response: Option<HttpDirectResponse>,
    /// Another `VirtualService`: reported.
    #[serde(default)]
    pub delegate: Option<Delegate>,
    /// What changes of the request's address.
    #[serde(default)]
    pub rewrite: Option<HttpRewrite>,
    /// Of the whole request; 0 switches it off.
    #[serde(default)]
    pub timeout: Option<Span>,
    /// Retries.
    #[serde(default)]
    pub retries: Option<HttpRetries>,
    /// Failures made on purpose.
    #[serde(default)]
    pub fault: Option<HttpFault>,
    /// Copies of requests; how many says `mirror_percentage`.
    #[serde(default)]
    pub mirror: Option<Destination>,
    /// Copies of requests, each with its percentage.
    #[serde(default)]
    pub mirrors: Vec<HttpMirror>,
    /// Of the old form; `mirror_percentage` wins.
    #[serde(default)]
    pub mirror_percent: Option<u32>,
    /// All unless given.
    #[serde(default)]
    pub mirror_percentage: Option<Percentage>,
    /// Cross-origin resource sharing.
    #[serde(default)]
    pub cors_policy: Option<CorsPolicy>,
    /// Header edits.
    #[serde(default)]
    pub headers: Option<HeaderOperations>,
}

/// `delegate:`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Delegate {
    /// Name of the other document.
    #[serde(default)]
    pub name: Option<String>,
    /// Its namespace.
    #[serde(default)]
    pub namespace: Option<String>,
}

/// An entry of `match:`; all given conditions must hold.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpCondition {
    /// The match's name; kept, not used.
    #[serde(default)]
    pub name: Option<String>,
    /// The path.
    #[serde(default)]
    pub uri: Option<TextMatch>,
    /// `http` or `https`.
    #[serde(default)]
    pub scheme: Option<TextMatch>,
    /// The method.
    #[serde(default)]
    pub method: Option<TextMatch>,
    /// `Host` or `:authority`.
    #[serde(default)]
    pub authority: Option<TextMatch>,
    /// Headers; an empty condition asks that there is one.
    #[serde(default)]
    pub headers: BTreeMap<String, TextMatch>,
    /// Headers that must not be so; an empty condition asks that there is none.
    #[serde(default)]
    pub without_headers: BTreeMap<String, TextMatch>,
    /// Query parameters; an empty condition asks that there is one.
    #[serde(default)]
    pub query_params: BTreeMap<String, TextMatch>,
    /// Letters of the path in any case (not of an expression).
    #[serde(default)]
    pub ignore_uri_case: bool,
    /// The service's port.
    #[serde(default)]
    pub port: Option<u16>,
    /// Labels that the caller's workload carries.
    #[serde(default)]
    pub source_labels: BTreeMap<String, String>,
    /// The caller's namespace.
    #[serde(default)]
    pub source_namespace: Option<String>,
    /// Gateways; without `mesh` among them the match never acts here.
    #[serde(default)]
    pub gateways: Vec<String>,
    /// Reported.
    #[serde(default)]
    pub stat_prefix: Option<String>,
    /// Ours: calling services, `name` or `namespace/name`; any of them.
    #[serde(default)]
    pub source_services: Vec<String>,
    /// Ours: addresses of callers, or ranges; any of them.
    #[serde(default)]
    pub source_subnets: Vec<String>,
}

/// Whether something that is for `gateways` acts on calls inside the mesh.
pub fn in_mesh(gateways: &[String]) -> bool {
    gateways.is_empty() || gateways.iter().any(|name| name == "mesh")
}

impl HttpCondition {
    /// Whether requests that the mesh can read, which come as `http`, may fit `scheme`.
    pub fn fits_scheme(&self) -> bool {
        self.scheme
            .as_ref()
            .is_none_or(|scheme| scheme.fits("http"))
    }
    /// False when no request inside the mesh can ever fit.
    pub fn can_act(&self) -> bool {
        in_mesh(&self.gateways) && self.fits_scheme()
    }
}

/// How a text is compared; at most one is set.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TextMatch {
    /// Exactly this.
    #[serde(default)]
    pub exact: Option<String>,
    /// It begins so.
    #[serde(default)]
    pub prefix: Option<String>,
    /// The whole text fits this expression (RE2 syntax).
    #[serde(default)]
    pub regex: Option<String>,
}

/// What a [`TextMatch`] asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextCondition<'t> {
    /// Exactly this.
    Exact(&'t str),
    /// It begins so.
    Prefix(&'t str),
    /// The whole text fits this expression.
    Regex(&'t str),
    /// There is one.
    Present,
}

impl TextMatch {
    /// Whether a text fits; an expression that is none fits nothing.
    pub fn fits(&self, text: &str) -> bool {
        match self.condition() {
            TextCondition::Exact(wanted) => text == wanted,
            TextCondition::Prefix(wanted) => text.starts_with(wanted),
            TextCondition::Regex(pattern) => {
                Regex::new(pattern).is_ok_and(|regex| regex.is_match(text.as_bytes()))
            }
            TextCondition::Present => true,
        }
    }
    /// What it asks.
    pub fn condition(&self) -> TextCondition<'_> {
        match (&self.exact, &self.prefix, &self.regex) {
            (Some(text), _, _) => TextCondition::Exact(text),
            (None, Some(text), _) => TextCondition::Prefix(text),
            (None, None, Some(text)) => TextCondition::Regex(text),
            (None, None, None) => TextCondition::Present,
        }
    }
}

/// A service, and which part of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Destination {
    /// Any spelling of the service's name.
    pub host: String,
    /// A subset that a `DestinationRule` of the host names.
    #[serde(default)]
    pub subset: Option<String>,
    /// The service's port; the port that was called unless given.
    #[serde(default)]
    pub port: Option<PortSelector>,
}

/// A port by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PortSelector {
    /// 1 to 65535.
    pub number: u16,
}

/// An entry of `http[].route`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpDestination {
    /// Where requests go.
    pub destination: Destination,
    /// Relative share; [`shares`] says what is meant when it is left out.
    #[serde(default)]
    pub weight: Option<u32>,
    /// Header edits for this destination only.
    #[serde(default)]
    pub headers: Option<HeaderOperations>,
}

/// An entry of `route` of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConnectionDestination {
    /// Where connections go.
    pub destination: Destination,
    /// Relative share; [`shares`] says what is meant when it is left out.
    #[serde(default)]
    pub weight: Option<u32>,
}

/// Shares of the entries of `route:`: a single one takes everything; of several, one without a weight gets
/// nothing.
pub fn shares(weights: &[Option<u32>]) -> Vec<u32> {
    match weights {
        [_only] => vec![1],
        several => several.iter().map(|weight| weight.unwrap_or(0)).collect(),
    }
}

/// `redirect:`; what is not given stays the request's.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpRedirect {
    /// The whole path; `%PREFIX()%` is reported.
    #[serde(default)]
    pub uri: Option<String>,
    /// Host name.
    #[serde(default)]
    pub authority: Option<String>,
    /// Port.
    #[serde(default)]
    pub port: Option<u16>,
    /// `FROM_PROTOCOL_DEFAULT` or `FROM_REQUEST_PORT`.
    #[serde(default)]
    pub derive_port: Option<DerivePort>,
    /// `http` or `https`.
    #[serde(default)]
    pub scheme: Option<String>,
    /// 301 unless given.
    #[serde(default)]
    pub redirect_code: Option<u16>,
}

/// Where a redirect's port comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum DerivePort {
    /// 80 for http, 443 for https.
    #[default]
    FromProtocolDefault,
    /// The request's.
    FromRequestPort,
}

/// `directResponse:`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpDirectResponse {
    /// Status, 200 to 599.
    pub status: u16,
    /// The body; none unless given.
    #[serde(default)]
    pub body: Option<HttpBody>,
}

/// A body; exactly one is set.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpBody {
    /// As text.
    #[serde(default)]
    pub string: Option<String>,
    /// As base64.
    #[serde(default)]
    pub bytes: Option<Base64>,
}

/// `rewrite:`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpRewrite {
    /// Replaces the prefix that matched, or the whole path when it did not match by prefix.
    #[serde(default)]
    pub uri: Option<String>,
    /// New host name.
    #[serde(default)]
    pub authority: Option<String>,
    /// Replaces by expression; not beside `uri`.
    #[serde(default)]
    pub uri_regex_rewrite: Option<RegexRewrite>,
}

/// `uriRegexRewrite:`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RegexRewrite {
    /// What is replaced in the path, everywhere that it fits.
    #[serde(rename = "match")]
    pub pattern: String,
    /// With `\1` for the first group.
    pub rewrite: String,
}

/// `retries:`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpRetries {
    /// Tries beside the first; 0 switches off; 2 unless given.
    #[serde(default)]
    pub attempts: Option<u32>,
    /// Bound on each try; that of the request unless given.
    #[serde(default)]
    pub per_try_timeout: Option<Span>,
    /// Conditions and statuses, comma separated; [`RETRY_ON`] has the words.
    #[serde(default)]
    pub retry_on: Option<String>,
    /// Reported: retries go wherever balancing sends them.
    #[serde(default)]
    pub retry_remote_localities: Option<bool>,
    /// Reported when false: an endpoint already tried is never taken while another is left.
    #[serde(default)]
    pub retry_ignore_previous_hosts: Option<bool>,
    /// Least time between tries.
    #[serde(default)]
    pub backoff: Option<Span>,
}

/// The words of `retryOn`; statuses from 400 to 599 stand beside them.
pub const RETRY_ON: [&str; 16] = [
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "envoy-ratelimited",
    "retriable-4xx",
    "refused-stream",
    "retriable-status-codes",
    "retriable-headers",
    "http3-post-connect-failure",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
];

/// `fault:`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpFault {
    /// Requests are held back.
    #[serde(default)]
    pub delay: Option<FaultDelay>,
    /// Requests are answered with a failure.
    #[serde(default)]
    pub abort: Option<FaultAbort>,
}

/// `fault.delay`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FaultDelay {
    /// How long.
    #[serde(default)]
    pub fixed_delay: Option<Span>,
    /// Reported.
    #[serde(default)]
    pub exponential_delay: Option<Span>,
    /// All unless given.
    #[serde(default)]
    pub percentage: Option<Percentage>,
    /// Of the old form; `percentage` wins.
    #[serde(default)]
    pub percent: Option<u32>,
}

/// `fault.abort`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FaultAbort {
    /// An HTTP status, 200 to 599.
    #[serde(default)]
    pub http_status: Option<u16>,
    /// A gRPC status.
    #[serde(default)]
    pub grpc_status: Option<GrpcCode>,
    /// Reported.
    #[serde(default)]
    pub http2_error: Option<String>,
    /// All unless given.
    #[serde(default)]
    pub percentage: Option<Percentage>,
    /// Of the old form; `percentage` wins.
    #[serde(default)]
    pub percent: Option<u32>,
}

/// A percentage.
#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Percentage {
    /// 0 to 100.
    #[serde(default)]
    pub value: f64,
}

/// An entry of `mirrors:`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpMirror {
    /// Where the copies go.
    pub destination: Destination,
    /// All unless given.
    #[serde(default)]
    pub percentage: Option<Percentage>,
}

/// `corsPolicy:`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CorsPolicy {
    /// Of the old form: exact origins.
    #[serde(default)]
    pub allow_origin: Vec<String>,
    /// Origins that may call.
    #[serde(default)]
    pub allow_origins: Vec<TextMatch>,
    /// Methods.
    #[serde(default)]
    pub allow_methods: Vec<String>,
    /// Headers.
    #[serde(default)]
    pub allow_headers: Vec<String>,
    /// Headers that scripts may read.
    #[serde(default)]
    pub expose_headers: Vec<String>,
    /// How long a preflight's answer counts.
    #[serde(default)]
    pub max_age: Option<Span>,
    /// Whether cookies and authorization may be sent.
    #[serde(default)]
    pub allow_credentials: Option<bool>,
    /// Reported when `FORWARD`.
    #[serde(default)]
    pub unmatched_preflights: Option<UnmatchedPreflights>,
}

/// What becomes of a preflight from an origin that may not call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum UnmatchedPreflights {
    /// As the mesh does it.
    #[default]
    Unspecified,
    /// It goes on to the service.
    Forward,
    /// It is answered without leave.
    Ignore,
}

/// `headers:`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HeaderOperations {
    /// Of the request.
    #[serde(default)]
    pub request: Option<HeaderChange>,
    /// Of the answer.
    #[serde(default)]
    pub response: Option<HeaderChange>,
}

/// Headers to set, add, remove.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HeaderChange {
    /// Replace.
    #[serde(default)]
    pub set: BTreeMap<String, String>,
    /// Append.
    #[serde(default)]
    pub add: BTreeMap<String, String>,
    /// Remove by name.
    #[serde(default)]
    pub remove: Vec<String>,
}

/// An entry of `tls:`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TlsRoute {
    /// Any of them; at least one.
    #[serde(default, rename = "match")]
    pub matches: Vec<TlsCondition>,
    /// Where connections go.
    #[serde(default)]
    pub route: Vec<ConnectionDestination>,
}

/// An entry of a TLS route's `match:`; all given conditions must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TlsCondition {
    /// Server names, exact or `*.` domains; at least one.
    #[serde(default)]
    pub sni_hosts: Vec<String>,
    /// Reported.
    #[serde(default)]
    pub destination_subnets: Vec<String>,
    /// The service's port.
    #[serde(default)]
    pub port: Option<u16>,
    /// Labels that the caller's workload carries.
    #[serde(default)]
    pub source_labels: BTreeMap<String, String>,
    /// Gateways; without `mesh` among them the match never acts here.
    #[serde(default)]
    pub gateways: Vec<String>,
    /// The caller's namespace.
    #[serde(default)]
    pub source_namespace: Option<String>,
    /// Ours: calling services, `name` or `namespace/name`; any of them.
    #[serde(default)]
    pub source_services: Vec<String>,
    /// Ours: addresses of callers, or ranges; any of them.
    #[serde(default)]
    pub source_subnets: Vec<String>,
}

/// An entry of `tcp:`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TcpRoute {
    /// Any of them; none: every connection.
    #[serde(default, rename = "match")]
    pub matches: Vec<TcpCondition>,
    /// Where connections go.
    #[serde(default)]
    pub route: Vec<ConnectionDestination>,
}

/// An entry of a TCP route's `match:`; all given conditions must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TcpCondition {
    /// Reported.
    #[serde(default)]
    pub destination_subnets: Vec<String>,
    /// The service's port.
    #[serde(default)]
    pub port: Option<u16>,
    /// Of the old form: one range of callers' addresses.
    #[serde(default)]
    pub source_subnet: Option<String>,
    /// Labels that the caller's workload carries.
    #[serde(default)]
    pub source_labels: BTreeMap<String, String>,
    /// Gateways; without `mesh` among them the match never acts here.
    #[serde(default)]
    pub gateways: Vec<String>,
    /// The caller's namespace.
    #[serde(default)]
    pub source_namespace: Option<String>,
    /// Ours: calling services, `name` or `namespace/name`; any of them.
    #[serde(default)]
    pub source_services: Vec<String>,
    /// Ours: addresses of callers, or ranges; any of them.
    #[serde(default)]
    pub source_subnets: Vec<String>,
}
