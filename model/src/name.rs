//! Validated names: services, namespaces, service accounts, hosts, meshes.
//!
//! A name is a DNS label (RFC 1123 section 2.1, at most 63 bytes, lower case), so that every name can
//! stand in a host name, a SPIFFE path and a metric label without quoting.

use std::{fmt, str::FromStr, sync::Arc};

/// Why a text is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Empty, or longer than 63 bytes.
    #[error("{0:?} is not a name: it must have 1 to 63 characters")]
    Length(String),
    /// A character outside `a-z`, `0-9` and `-`, or `-` at an end.
    #[error("{0:?} is not a name: use a-z, 0-9 and '-', with a letter or digit at both ends")]
    Character(String),
    /// Not the fixed number of hexadecimal digits.
    #[error("{0:?} is not an id: it must have 32 hexadecimal digits")]
    Id(String),
    /// Not of the form `name` or `namespace/name`.
    #[error("{0:?} is not a service: write name or namespace/name")]
    Service(String),
}

/// True for a DNS label: 1 to 63 of `a-z 0-9 -`, a letter or digit at both ends.
pub fn is_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let plain = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    (1..=63).contains(&bytes.len())
        && bytes.iter().all(|b| plain(b) || *b == b'-')
        && bytes.first().is_some_and(plain)
        && bytes.last().is_some_and(plain)
}

fn label(text: &str) -> Result<Arc<str>, NameError> {
    if text.is_empty() || text.len() > 63 {
        return Err(NameError::Length(text.chars().take(80).collect()));
    }
    if !is_label(text) {
        return Err(NameError::Character(text.to_owned()));
    }
    Ok(Arc::from(text))
}

macro_rules! named {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Parses a DNS label.
            pub fn new(text: &str) -> Result<Self, NameError> {
                label(text).map(Self)
            }
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }
        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(&self.0)
            }
        }
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'_, str>>::deserialize(d)?;
                Self::new(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

named!(
    /// The name of a service inside its namespace, such as `words`.
    ServiceName
);
named!(
    /// A namespace: the scope of service names, routes and policies. `default` unless set.
    Namespace
);
named!(
    /// The account that a workload's identity names; the service's name unless set.
    ServiceAccount
);

impl Namespace {
    /// The namespace of everything that names none: `default`.
    pub fn default_namespace() -> Self {
        Self(Arc::from("default"))
    }
    /// The namespace of hosts and of the mesh's own resources: `meshd-system`.
    pub fn system() -> Self {
        Self(Arc::from("meshd-system"))
    }
}

impl Default for Namespace {
    fn default() -> Self {
        Self::default_namespace()
    }
}

/// A service: namespace and name. Written `namespace/name`.
#[derive(
    Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub struct ServiceId {
    /// The namespace.
    pub namespace: Namespace,
    /// The name inside the namespace.
    pub name: ServiceName,
}

impl ServiceId {
    /// Joins a namespace and a name.
    pub fn new(namespace: Namespace, name: ServiceName) -> Self {
        Self { namespace, name }
    }
    /// Parses `name` (in the namespace `default`) or `namespace/name`.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        match text.split_once('/') {
            None => Ok(Self::new(
                Namespace::default_namespace(),
                ServiceName::new(text)?,
            )),
            Some((namespace, name)) if !name.contains('/') => Ok(Self::new(
                Namespace::new(namespace)?,
                ServiceName::new(name)?,
            )),
            Some(_) => Err(NameError::Service(text.to_owned())),
        }
    }
}

impl fmt::Display for ServiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

macro_rules! id16 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub [u8; 16]);

        impl $name {
            /// From exactly 16 bytes.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }
            /// The first eight hexadecimal digits, for tables.
            pub fn short(&self) -> String {
                self.to_string().chars().take(8).collect()
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                let bad = || NameError::Id(text.chars().take(80).collect());
                if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
                    return Err(bad());
                }
                let mut out = [0u8; 16];
                for (slot, pair) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
                    let digits = std::str::from_utf8(pair).map_err(|_invalid| bad())?;
                    *slot = u8::from_str_radix(digits, 16).map_err(|_invalid| bad())?;
                }
                Ok(Self(out))
            }
        }
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'_, str>>::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id16!(
    /// A host of the mesh: the first 16 bytes of BLAKE3 of its Ed25519 public key, so the key owns the name.
    HostId
);
id16!(
    /// A mesh: the first 16 bytes of BLAKE3 of its genesis, so two meshes never merge by address reuse.
    MeshId
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels() {
        for good in ["a", "words", "words-v1", "0", &"x".repeat(63)] {
            assert!(is_label(good), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", "ä", &"x".repeat(64)] {
            assert!(!is_label(bad), "{bad}");
        }
    }

    #[test]
    fn services() {
        assert_eq!(ServiceId::parse("web").unwrap().to_string(), "default/web");
        assert_eq!(
            ServiceId::parse("shop/web").unwrap().to_string(),
            "shop/web"
        );
        assert!(ServiceId::parse("a/b/c").is_err());
    }

    #[test]
    fn ids_round_trip() {
        let id = HostId([7; 16]);
        assert_eq!(id.to_string().parse::<HostId>().unwrap(), id);
        assert!("xyz".parse::<HostId>().is_err());
        assert!("+f".repeat(16).parse::<HostId>().is_err());
    }
}
