//! Who is calling: trust domains and SPIFFE ids.
//!
//! Ids have exactly the form `spiffe://<trust-domain>/ns/<namespace>/sa/<service-account>` (the form of
//! Istio's workloads) and are compared whole. Source: SPIFFE-ID specification, sections 2.1 and 2.2.

use std::{fmt, str::FromStr, sync::Arc};

use crate::name::{HostId, Namespace, ServiceAccount};

/// Why a text is no trust domain or SPIFFE id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PrincipalError {
    /// Not a trust domain.
    #[error(
        "{0:?} is not a trust domain: use lower-case letters, digits, '.', '-' and '_', at most 255"
    )]
    TrustDomain(String),
    /// Not of the five-part form.
    #[error("{0:?} is not of the form spiffe://<trust-domain>/ns/<namespace>/sa/<service-account>")]
    Form(String),
}

/// A trust domain: the authority part of SPIFFE ids, chosen at `meshctl init`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// Parses a trust domain (SPIFFE-ID section 2.1).
    pub fn new(text: &str) -> Result<Self, PrincipalError> {
        let fits = (1..=255).contains(&text.len())
            && text.bytes().all(|b| {
                b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_')
            });
        if fits {
            Ok(Self(Arc::from(text)))
        } else {
            Err(PrincipalError::TrustDomain(
                text.chars().take(300).collect(),
            ))
        }
    }
    /// The trust domain as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}
impl serde::Serialize for TrustDomain {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0)
    }
}
impl<'de> serde::Deserialize<'de> for TrustDomain {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'_, str>>::deserialize(d)?;
        Self::new(&text).map_err(serde::de::Error::custom)
    }
}

/// A workload's or host's identity.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    /// The trust domain whose roots vouch for it.
    pub trust_domain: TrustDomain,
    /// The namespace part.
    pub namespace: Namespace,
    /// The account part: the service's name unless configured, or the host id for hosts.
    pub service_account: ServiceAccount,
}

impl SpiffeId {
    /// The identity of a workload.
    pub fn workload(
        trust_domain: TrustDomain,
        namespace: Namespace,
        service_account: ServiceAccount,
    ) -> Self {
        Self {
            trust_domain,
            namespace,
            service_account,
        }
    }
    /// The identity of a host: `…/ns/meshd-system/sa/<host-id>`.
    pub fn host(trust_domain: TrustDomain, host: HostId) -> Self {
        #[expect(
            clippy::expect_used,
            reason = "32 hexadecimal digits are always a label"
        )]
        let service_account = ServiceAccount::new(&host.to_string()).expect("hex is a label");
        Self {
            trust_domain,
            namespace: Namespace::system(),
            service_account,
        }
    }
    /// The host that this id names, when it is a host's.
    pub fn as_host(&self) -> Option<HostId> {
        (self.namespace == Namespace::system())
            .then(|| self.service_account.as_str().parse().ok())
            .flatten()
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "spiffe://{}/ns/{}/sa/{}",
            self.trust_domain, self.namespace, self.service_account
        )
    }
}

impl FromStr for SpiffeId {
    type Err = PrincipalError;
    fn from_str(text: &str) -> Result<Self, PrincipalError> {
        let bad = || PrincipalError::Form(text.chars().take(300).collect());
        let rest = text.strip_prefix("spiffe://").ok_or_else(bad)?;
        let mut parts = rest.split('/');
        let mut next = || parts.next().ok_or_else(bad);
        let trust_domain = TrustDomain::new(next()?)?;
        if next()? != "ns" {
            return Err(bad());
        }
        let namespace = Namespace::new(next()?).map_err(|_name| bad())?;
        if next()? != "sa" {
            return Err(bad());
        }
        let service_account = ServiceAccount::new(next()?).map_err(|_name| bad())?;
        if parts.next().is_some() {
            return Err(bad());
        }
        Ok(Self {
            trust_domain,
            namespace,
            service_account,
        })
    }
}

impl serde::Serialize for SpiffeId {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}
impl<'de> serde::Deserialize<'de> for SpiffeId {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'_, str>>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids() {
        let text = "spiffe://corp.example/ns/default/sa/words";
        let id: SpiffeId = text.parse().unwrap();
        assert_eq!(id.to_string(), text);
        assert_eq!(id.as_host(), None);
        for bad in [
            "http://corp.example/ns/default/sa/words",
            "spiffe://corp.example/ns/default/sa/words/x",
            "spiffe://corp.example/sa/words",
            "spiffe://Corp/ns/default/sa/words",
            "spiffe:///ns/default/sa/words",
            "spiffe://corp.example/ns/default/sa/words?x",
        ] {
            assert!(bad.parse::<SpiffeId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn hosts() {
        let host = HostId([9; 16]);
        let id = SpiffeId::host(TrustDomain::new("m.internal").unwrap(), host);
        assert_eq!(id.as_host(), Some(host));
    }
}
