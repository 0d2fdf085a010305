//! Services as a VirtualService or a DestinationRule spells them.
//!
//! In: `words`, `words.shop`, `words.shop.svc`, `words.shop.svc.cluster.local`, `words.shop.<domain>` and
//! `words.<domain>`, in any case. A bare name is a service of the document's own namespace.

use mesh_model::name::{Namespace, ServiceId, ServiceName};

/// The domain that Kubernetes gives to services; documents are written with it.
const CLUSTER: &str = "svc.cluster.local";

/// The service that a host names; `None` when it is no name of the mesh's services.
pub(crate) fn service(text: &str, own: &Namespace, domain: &str) -> Option<ServiceId> {
    let text = text.trim_end_matches('.').to_ascii_lowercase();
    let below = |domain: &str| text.strip_suffix(domain)?.strip_suffix('.');
    if let Some(name) = below(&domain.to_ascii_lowercase()) {
        return named(name, &Namespace::default());
    }
    match below(CLUSTER).or_else(|| below("svc")) {
        // Below Kubernetes' domain the namespace is always written.
        Some(name) if !name.contains('.') => None,
        Some(name) => named(name, own),
        None => named(&text, own),
    }
}

fn named(text: &str, own: &Namespace) -> Option<ServiceId> {
    let (name, namespace) = match text.split_once('.') {
        None => (text, own.clone()),
        Some((name, namespace)) => (name, Namespace::new(namespace).ok()?),
    };
    Some(ServiceId::new(namespace, ServiceName::new(name).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings() {
        let own: Namespace = "shop".parse().unwrap();
        for (text, wanted) in [
            ("words", Some("shop/words")),
            ("Words.", Some("shop/words")),
            ("words.default", Some("default/words")),
            ("words.default.svc", Some("default/words")),
            ("words.default.svc.cluster.local", Some("default/words")),
            ("words.shop.mesh.internal", Some("shop/words")),
            ("words.mesh.internal", Some("default/words")),
            ("words.svc.cluster.local", None),
            ("www.example.com", None),
            ("*.shop", None),
            ("*", None),
            ("", None),
        ] {
            let found = service(text, &own, "mesh.internal").map(|id| id.to_string());
            assert_eq!(found.as_deref(), wanted, "{text}");
        }
    }
}
