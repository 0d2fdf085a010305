//! The kinds of documents: names, versions, and how the body of each is read.

use super::{Spec, service_source};
use crate::written::{At, Faults, Node, Value, decode::decode, nearest, suggestion};

/// A kind that is carried out.
#[derive(Debug)]
pub(super) struct Kind {
    pub(super) name: &'static str,
    aliases: &'static [&'static str],
    api_versions: &'static [&'static str],
    /// False for kinds of the whole mesh.
    pub(super) namespaced: bool,
    /// True when a document without `spec` means something.
    pub(super) spec_optional: bool,
    pub(super) decode: fn(&Node, &Faults) -> Option<Spec>,
}

const OWN: &str = "meshd.io/v1alpha1";

/// Versions of Istio's traffic kinds, and ours of the same body.
const TRAFFIC: [&str; 4] = [
    "networking.istio.io/v1",
    "networking.istio.io/v1beta1",
    "networking.istio.io/v1alpha3",
    OWN,
];

const KINDS: [Kind; 15] = [
    Kind {
        name: "Service",
        aliases: &[],
        api_versions: &["v1", OWN],
        namespaced: true,
        spec_optional: false,
        decode: |node, faults| body(node, faults, Spec::Service),
    },
    Kind {
        name: "HTTPRoute",
        aliases: &[],
        api_versions: &[
            "gateway.networking.k8s.io/v1",
            "gateway.networking.k8s.io/v1beta1",
        ],
        namespaced: true,
        spec_optional: false,
        decode: |node, faults| body(node, faults, Spec::HttpRoute),
    },
    Kind {
        name: "GRPCRoute",
        aliases: &[],
        api_versions: &["gateway.networking.k8s.io/v1"],
        namespaced: true,
        spec_optional: false,
        decode: |node, faults| body(node, faults, Spec::GrpcRoute),
    },
    Kind {
        name: "TCPRoute",
        aliases: &[],
        api_versions: &[
            "gateway.networking.k8s.io/v1",
            "gateway.networking.k8s.io/v1alpha2",
        ],
        namespaced: true,
        spec_optional: false,
        decode: |node, faults| body(node, faults, Spec::TcpRoute),
    },
    Kind {
        name: "TLSRoute",
        aliases: &[],
        api_versions: &[
            "gateway.networking.k8s.io/v1",
            "gateway.networking.k8s.io/v1alpha2",
            "gateway.networking.k8s.io/v1alpha3",
        ],
        namespaced: true,
        spec_optional: false,
        decode: |node, faults| body(node, faults, Spec::TlsRoute),
    },
    Kind {
        name: "VirtualService",
        aliases: &[],
        api_versions: &TRAFFIC,
        namespaced: true,
        spec_optional: false,
        decode: |node, faults| body(node, faults, Spec::VirtualService),
    },
    Kind {
        name: "DestinationRule",
        aliases: &[],
        api_versions: &TRAFFIC,
        namespaced: true,
        spec_optional: false,
        decode: |node, faults| body(node, faults, |spec| Spec::DestinationRule(Box::new(spec))),
    },
    Kind {
        name: "RateLimit",
        aliases: &[],
        api_versions: &[OWN],
        namespaced: true,
        spec_optional: false,
        decode: |node, faults| body(node, faults, Spec::RateLimit),
    },
    Kind {
        name: "FaultInjection",
        aliases: &[],
        api_versions: &[OWN],
        namespaced: true,
        spec_optional: false,
        decode: |node, faults| body(node, faults, Spec::FaultInjection),
    },
    Kind {
        name: "DirectResponse",
        aliases: &[],
        api_versions: &[OWN],
        namespaced: true,
        spec_optional: false,
        decode: |node, faults| body(node, faults, Spec::DirectResponse),
    },
    Kind {
        name: "DelegationTable",
        aliases: &["Dtab"],
        api_versions: &[OWN],
        namespaced: true,
        spec_optional: false,
        decode: |node, faults| body(node, faults, Spec::DelegationTable),
    },
    Kind {
        name: "PeerAuthentication",
        aliases: &[],
        api_versions: &[OWN, "security.istio.io/v1"],
        namespaced: true,
        spec_optional: true,
        decode: |node, faults| body(node, faults, Spec::PeerAuthentication),
    },
    Kind {
        name: "AuthorizationPolicy",
        aliases: &[],
        api_versions: &[OWN, "security.istio.io/v1"],
        namespaced: true,
        spec_optional: true,
        decode: |node, faults| body(node, faults, Spec::AuthorizationPolicy),
    },
    Kind {
        name: "ServiceSource",
        aliases: &[],
        api_versions: &[OWN],
        namespaced: false,
        spec_optional: false,
        decode: service_source::read,
    },
    Kind {
        name: "Revocation",
        aliases: &[],
        api_versions: &[OWN],
        namespaced: false,
        spec_optional: false,
        decode: |node, faults| body(node, faults, Spec::Revocation),
    },
];

/// Kinds that the mesh will know, and does not carry out yet.
const LATER: [&str; 8] = [
    "Workload",
    "Gateway",
    "ServiceEntry",
    "RequestAuthentication",
    "Scope",
    "Sidecar",
    "Telemetry",
    "Extension",
];

/// The kind of the document at `at`, when kind and version are right.
pub(super) fn find(at: &At<'_>) -> Option<&'static Kind> {
    let word = |key: &str| {
        let at = at.key(key);
        let text = at.node().and_then(Node::text);
        if text.is_none() {
            at.fault("is missing, or no text", format!("write `{key}`"));
        }
        text
    };
    let (api_version, name) = (word("apiVersion"), word("kind"));
    let name = name?;
    let found = KINDS
        .iter()
        .find(|kind| kind.name == name || kind.aliases.contains(&name));
    let Some(kind) = found else {
        let known: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
        if name == "RouteRule" {
            at.key("kind").fault(
                "RouteRule is not kept: VirtualService took its place",
                "translate it: `meshctl import FILE`, and apply what it prints",
            );
        } else if LATER.contains(&name) {
            at.key("kind").fault(
                format!("{name} is not supported by this version"),
                format!("use one of {}", known.join(", ")),
            );
        } else {
            at.key("kind").fault(
                format!("{name:?} is no known kind"),
                suggestion(name, &known),
            );
        }
        return None;
    };
    let api_version = api_version?;
    if !kind.api_versions.contains(&api_version) {
        let near = nearest(api_version, kind.api_versions.iter().copied());
        let remedy = near.map_or_else(
            || format!("write {}", kind.api_versions.join(" or ")),
            |near| format!("write {near}"),
        );
        at.key("apiVersion")
            .fault(format!("{api_version:?} is no version of {name}"), remedy);
        return None;
    }
    Some(kind)
}

/// Keys that Kubernetes writes into Services and that mean nothing on hosts.
const IGNORED: [&str; 7] = [
    "clusterIPs",
    "externalTrafficPolicy",
    "internalTrafficPolicy",
    "ipFamilies",
    "ipFamilyPolicy",
    "publishNotReadyAddresses",
    "sessionAffinity",
];

/// Drops what Kubernetes' own `Service` says beyond ours.
pub(super) fn drop_ignored(kind: &Kind, at: &At<'_>, spec: &mut Node) {
    let version = at.key("apiVersion").node().and_then(Node::text);
    if kind.name != "Service" || version != Some("v1") {
        return;
    }
    for key in IGNORED {
        spec.remove(key);
    }
    let Value::Table(entries) = &mut spec.value else {
        return;
    };
    let ports = entries
        .iter_mut()
        .find(|(key, _)| key.text == "ports")
        .map(|(_, node)| &mut node.value);
    if let Some(Value::List(ports)) = ports {
        for port in ports {
            port.remove("nodePort");
        }
    }
}

/// Makes the typed body of a kind.
fn body<T: serde::de::DeserializeOwned>(
    node: &Node,
    faults: &Faults,
    wrap: fn(T) -> Spec,
) -> Option<Spec> {
    decode(node, "spec", faults).map(wrap)
}
