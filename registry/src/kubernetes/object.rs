//! Objects of a cluster, as far as a mesh needs them.

use std::{collections::BTreeMap, sync::Arc};

use mesh_model::{
    endpoint::{Health, Locality},
    name::Namespace,
    service::AppProtocol,
};

/// What is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// `v1` Services.
    Services,
    /// `discovery.k8s.io/v1` `EndpointSlices`.
    Slices,
    /// `v1` Pods, of which only the metadata is asked for.
    Pods,
}

/// Where an object is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) namespace: Namespace,
    pub(crate) name: Arc<str>,
}

/// What tells one state of an object from another.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Stamp {
    /// Unique over time: an object of the same name that was made again has another one.
    pub(crate) uid: Box<str>,
    /// Its resource version; 0 when it is no number.
    pub(crate) version: u64,
}

/// An object.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Object {
    pub(crate) key: Key,
    pub(crate) stamp: Stamp,
    pub(crate) content: Content,
}

/// What an object says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Content {
    Service(Service),
    Slice(Slice),
    /// The labels of a pod.
    Pod(Arc<BTreeMap<String, String>>),
    /// It is there, and makes no sense: what is known of it stays.
    Unreadable,
}

/// A Service, as far as it is needed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Service {
    /// Its TCP ports.
    pub(crate) ports: Vec<ServicePort>,
}

/// A port of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServicePort {
    /// Empty when it has none.
    pub(crate) name: Arc<str>,
    /// What callers dial.
    pub(crate) port: u16,
    /// Where the program listens, when that is a number.
    pub(crate) target: Option<u16>,
    /// `None`: the Service does not say.
    pub(crate) protocol: Option<AppProtocol>,
}

/// An `EndpointSlice`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Slice {
    /// The Service that it belongs to.
    pub(crate) service: Arc<str>,
    /// Its TCP ports.
    pub(crate) ports: Vec<SlicePort>,
    pub(crate) members: Vec<Member>,
    /// Members that nothing can be made of.
    pub(crate) skipped: usize,
}

/// A port of an `EndpointSlice`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SlicePort {
    /// Empty when it has none.
    pub(crate) name: Arc<str>,
    /// `None`: it does not say.
    pub(crate) port: Option<u16>,
    pub(crate) protocol: Option<AppProtocol>,
}

/// One endpoint of an `EndpointSlice`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Member {
    /// An address, or a host name in a slice of names.
    pub(crate) host: Box<str>,
    pub(crate) health: Health,
    pub(crate) locality: Option<Arc<Locality>>,
    pub(crate) metadata: Arc<BTreeMap<String, String>>,
}
