//! Our own kinds, as written: the `spec` of each.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::config::MergeRule;

use super::{
    destination_rule::DestinationRuleSpec,
    limit::{DirectResponseSpec, FaultInjectionSpec, RateLimitSpec},
    route::{GrpcRouteSpec, HttpRouteSpec, TcpRouteSpec, TlsRouteSpec},
    service_source::ServiceSourceSpec,
    virtual_service::VirtualServiceSpec,
};

/// The body of a document, by kind.
#[derive(Debug, Clone, PartialEq)]
pub enum Spec {
    /// `v1 Service` or `meshd.io/v1alpha1 Service`.
    Service(ServiceSpec),
    /// `gateway.networking.k8s.io/v1 HTTPRoute`.
    HttpRoute(HttpRouteSpec),
    /// `gateway.networking.k8s.io/v1 GRPCRoute`.
    GrpcRoute(GrpcRouteSpec),
    /// `gateway.networking.k8s.io/v1alpha2 TCPRoute`.
    TcpRoute(TcpRouteSpec),
    /// `gateway.networking.k8s.io/v1 TLSRoute` (also v1alpha2, v1alpha3).
    TlsRoute(TlsRouteSpec),
    /// `networking.istio.io/v1 VirtualService` (also v1beta1, v1alpha3, and `meshd.io/v1alpha1`).
    VirtualService(VirtualServiceSpec),
    /// `networking.istio.io/v1 DestinationRule` (also v1beta1, v1alpha3, and `meshd.io/v1alpha1`).
    DestinationRule(Box<DestinationRuleSpec>),
    /// `meshd.io/v1alpha1 RateLimit`.
    RateLimit(RateLimitSpec),
    /// `meshd.io/v1alpha1 FaultInjection`.
    FaultInjection(FaultInjectionSpec),
    /// `meshd.io/v1alpha1 DirectResponse`: an answer that routes name by `ExtensionRef`.
    DirectResponse(DirectResponseSpec),
    /// `meshd.io/v1alpha1 DelegationTable` (alias `Dtab`).
    DelegationTable(DelegationTableSpec),
    /// `meshd.io/v1alpha1 PeerAuthentication`.
    PeerAuthentication(PeerAuthenticationSpec),
    /// `meshd.io/v1alpha1 AuthorizationPolicy`.
    AuthorizationPolicy(AuthorizationPolicySpec),
    /// `meshd.io/v1alpha1 ServiceSource`: a discovery source; a kind of the mesh (no namespace).
    ServiceSource(Box<ServiceSourceSpec>),
    /// `meshd.io/v1alpha1 Revocation`: of an operator or a host; a kind of the mesh (no namespace).
    Revocation(RevocationSpec),
}

/// A service: ports, and which workloads belong to it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceSpec {
    /// Ports; at least one.
    pub ports: Vec<ServicePortSpec>,
    /// Labels that a workload must carry; empty means: the workloads of the service's own name.
    /// `app` and `app.kubernetes.io/name` are the workload's service name unless it sets them.
    #[serde(default)]
    pub selector: BTreeMap<String, String>,
    /// True: callers are refused, not sent on directly, while their daemon is down.
    #[serde(default)]
    pub fail_closed: bool,
    /// What becomes of it where several discovery sources know it; the whole mesh's setting, behind a host's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merge: Option<MergeSpec>,
    /// Of Kubernetes: accepted; `None` makes the service headless, anything else is ignored.
    #[serde(default, rename = "clusterIP")]
    pub cluster_ip: Option<String>,
    /// Of Kubernetes: accepted and ignored.
    #[serde(default, rename = "type")]
    pub type_: Option<String>,
}

/// How the sources of a service meet.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MergeSpec {
    /// `union` (unless set), `first` or `failover`.
    #[serde(default)]
    pub policy: Option<String>,
    /// Sources that come first, in this order; the others follow by their precedence.
    #[serde(default)]
    pub sources: Vec<String>,
    /// Shares of the requests, by source, 0 to 1000.
    #[serde(default)]
    pub weights: BTreeMap<String, u32>,
}

impl MergeSpec {
    /// As a rule; a word that no checked document has counts as `union`.
    pub fn rule(&self) -> MergeRule {
        let policy = self.policy.as_deref().and_then(|word| word.parse().ok());
        MergeRule {
            service: None,
            policy: policy.unwrap_or_default(),
            sources: self.sources.clone(),
            weights: self.weights.clone(),
        }
    }
}

/// A port of a service.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServicePortSpec {
    /// Unique in the service; may be left out of a single port.
    #[serde(default)]
    pub name: String,
    /// What callers dial, 1 to 65535.
    pub port: u16,
    /// Port number or port name of the workload; the same as `port` unless set.
    #[serde(default)]
    pub target_port: Option<PortOrName>,
    /// `detect`, `http`, `http2`, `grpc`, `tcp` or a Kubernetes `appProtocol`.
    #[serde(default)]
    pub app_protocol: Option<String>,
    /// `TCP`; anything else is refused.
    #[serde(default)]
    pub protocol: Option<String>,
}

/// A port by number or by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum PortOrName {
    /// A number.
    Port(u16),
    /// A port's name.
    Name(String),
}

impl<'de> Deserialize<'de> for PortOrName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PortVisitor)
    }
}

struct PortVisitor;

impl serde::de::Visitor<'_> for PortVisitor {
    type Value = PortOrName;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a port from 1 to 65535, or a port's name")
    }
    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<PortOrName, E> {
        u16::try_from(number)
            .map(PortOrName::Port)
            .map_err(|_range| E::invalid_value(serde::de::Unexpected::Signed(number), &self))
    }
    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<PortOrName, E> {
        u16::try_from(number)
            .map(PortOrName::Port)
            .map_err(|_range| E::invalid_value(serde::de::Unexpected::Unsigned(number), &self))
    }
    fn visit_str<E>(self, name: &str) -> Result<PortOrName, E> {
        Ok(PortOrName::Name(name.to_owned()))
    }
}

/// A delegation table (dtab).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DelegationTableSpec {
    /// The table as text: `/svc/words => 9 * /svc/words-v1 & 1 * /svc/words-v2;`.
    pub dtab: String,
}

/// How strictly a service asks for mTLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum MtlsMode {
    /// Of the level above (namespace, mesh, genesis).
    #[default]
    Unset,
    /// Plaintext from unmeshed callers is accepted.
    Permissive,
    /// Plaintext is refused.
    Strict,
}

/// mTLS mode of the mesh, a namespace or selected workloads.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PeerAuthenticationSpec {
    /// Which workloads; none: the whole namespace (`meshd-system`: the whole mesh).
    #[serde(default)]
    pub selector: Option<LabelSelector>,
    /// The mode.
    #[serde(default)]
    pub mtls: MtlsSpec,
}

/// `mtls:` of [`PeerAuthenticationSpec`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MtlsSpec {
    /// The mode.
    #[serde(default)]
    pub mode: MtlsMode,
}

/// Labels that must all match.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LabelSelector {
    /// The labels.
    #[serde(default)]
    pub match_labels: BTreeMap<String, String>,
}

/// What a policy does with what it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum PolicyAction {
    /// Allow; anything that no ALLOW policy matches is then refused.
    #[default]
    Allow,
    /// Refuse, before any ALLOW is asked.
    Deny,
}

/// Who may call what.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuthorizationPolicySpec {
    /// Which workloads; none: the whole namespace (`meshd-system`: the whole mesh).
    #[serde(default)]
    pub selector: Option<LabelSelector>,
    /// What it does.
    #[serde(default)]
    pub action: PolicyAction,
    /// It matches when one of the rules does; an empty ALLOW list refuses everything.
    #[serde(default)]
    pub rules: Vec<PolicyRule>,
}

/// A rule: somebody from `from` doing something of `to`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicyRule {
    /// Any of them; empty: everybody.
    #[serde(default)]
    pub from: Vec<PolicyFrom>,
    /// Any of them; empty: everything.
    #[serde(default)]
    pub to: Vec<PolicyTo>,
}

/// `from:` of a rule.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicyFrom {
    /// The caller.
    pub source: PolicySource,
}

/// Who calls; all given lists must match, one entry of each is enough.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicySource {
    /// `trust-domain/ns/namespace/sa/account`, with `*` at one end allowed; `*` alone: any authenticated caller.
    #[serde(default)]
    pub principals: Vec<String>,
    /// Namespaces of the caller's identity.
    #[serde(default)]
    pub namespaces: Vec<String>,
}

/// `to:` of a rule.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicyTo {
    /// The call.
    pub operation: PolicyOperation,
}

/// What is called; all given lists must match, one entry of each is enough.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicyOperation {
    /// Target ports of the workload, as text.
    #[serde(default)]
    pub ports: Vec<String>,
    /// Methods.
    #[serde(default)]
    pub methods: Vec<String>,
    /// Paths, `*` at one end allowed.
    #[serde(default)]
    pub paths: Vec<String>,
}

/// A right taken back. Exactly one of the two is set.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RevocationSpec {
    /// Ed25519 key of an operator, hexadecimal: its commits made after this one are void.
    #[serde(default)]
    pub operator_key: Option<String>,
    /// A host id: its grant is void.
    #[serde(default)]
    pub host: Option<String>,
}
