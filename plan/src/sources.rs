//! Who calls, as documents ask it, compiled.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use mesh_model::{
    document::source::{CallMatch, SourceSpec},
    name::{Namespace, ServiceId},
    snapshot::{RequestMatch, SourceMatch},
};

use crate::matches;

/// Conditions on the caller, as written; what is empty asks nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) services: &'a [String],
    pub(crate) namespaces: &'a [String],
    pub(crate) labels: &'a BTreeMap<String, String>,
    pub(crate) addresses: &'a [String],
}

impl Asked<'_> {
    /// The compiled condition. `None` when it asks nothing. `own` is the namespace of services without one.
    pub(crate) fn compile(&self, own: &Namespace) -> Option<Arc<SourceMatch>> {
        let service = |text: &String| match text.split_once('/') {
            None => Some(ServiceId::new(own.clone(), text.parse().ok()?)),
            Some(_) => ServiceId::parse(text).ok(),
        };
        let source = SourceMatch {
            services: self.services.iter().filter_map(service).collect(),
            namespaces: self
                .namespaces
                .iter()
                .filter_map(|name| Namespace::new(name).ok())
                .collect(),
            labels: self.labels.clone(),
            addresses: self
                .addresses
                .iter()
                .filter_map(|text| range(text))
                .collect(),
        };
        (source != SourceMatch::default()).then(|| Arc::new(source))
    }
}

/// An address, or a range such as `10.0.0.0/8`.
fn range(text: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = match text.split_once('/') {
        None => (text, None),
        Some((address, length)) => (address, Some(length.parse::<u8>().ok()?)),
    };
    let address: IpAddr = address.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    Some((address, length.unwrap_or(most).min(most)))
}

/// The condition that the caller fits `source` and is of a namespace; `None` when nobody can.
pub(crate) fn within(
    source: Option<&Arc<SourceMatch>>,
    namespace: &Namespace,
) -> Option<Arc<SourceMatch>> {
    let mut both = source
        .map(|source| SourceMatch::clone(source))
        .unwrap_or_default();
    if !both.namespaces.is_empty() && !both.namespaces.contains(namespace) {
        return None;
    }
    both.namespaces = vec![namespace.clone()];
    Some(Arc::new(both))
}

/// Requests that a limit or a fault is about; matches that no checked document has are left out.
pub(crate) fn calls(given: &[CallMatch], own: &Namespace) -> Vec<RequestMatch> {
    let one = |call: &CallMatch| {
        let source = call.source.as_ref().and_then(|source| stated(source, own));
        Some(RequestMatch {
            source,
            ..matches::http(&call.http())?
        })
    };
    given.iter().filter_map(one).collect()
}

fn stated(source: &SourceSpec, own: &Namespace) -> Option<Arc<SourceMatch>> {
    let asked = Asked {
        services: &source.services,
        namespaces: &source.namespaces,
        labels: &source.labels,
        addresses: &source.addresses,
    };
    asked.compile(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        for (text, wanted) in [
            ("10.0.0.0/8", Some(("10.0.0.0", 8))),
            ("10.1.2.3", Some(("10.1.2.3", 32))),
            ("fd00::/8", Some(("fd00::", 8))),
            ("fd00::1", Some(("fd00::1", 128))),
            ("10.0.0.0/99", Some(("10.0.0.0", 32))),
            ("10.0.0/8", None),
            ("10.0.0.0/x", None),
        ] {
            let wanted = wanted.map(|(ip, length)| (ip.parse().unwrap(), length));
            assert_eq!(range(text), wanted, "{text}");
        }
    }

    #[test]
    fn a_namespace_narrows_a_condition() {
        let shop: Namespace = "shop".parse().unwrap();
        let in_shop = within(None, &shop).unwrap();
        assert_eq!(in_shop.namespaces, std::slice::from_ref(&shop));
        assert_eq!(within(Some(&in_shop), &shop), Some(in_shop.clone()));
        assert_eq!(within(Some(&in_shop), &Namespace::default()), None);
    }
}
