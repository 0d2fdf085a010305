//! Keys and values of etcd to endpoints, by layout: pure.
//!
//! In: a key and its value as they stand there. Out: which service a key belongs to, and what its value
//! says. Never: panics; a value that cannot be understood is a `Fault` with its reason.

use std::sync::Arc;

use mesh_model::{
    config::EtcdLayout,
    endpoint::ServiceKey,
    name::{Namespace, ServiceName},
};

use crate::{place::label, sink::ServiceSet};

/// Values to endpoints.
mod value;
/// Instances to keys and values.
mod written;

pub(crate) use value::Fault;

/// Where services begin, and how they are written there.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    kind: EtcdLayout,
    /// Ends with `/`; empty: the whole of etcd.
    prefix: String,
}

/// What a key names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// The service as a mesh names it.
    pub(crate) service: ServiceKey,
    /// The service as etcd names it: two of those never become one.
    pub(crate) written: Box<str>,
    /// Unique inside the service.
    pub(crate) id: Box<str>,
}

impl Layout {
    /// `prefix` with or without `/` at its end.
    pub(crate) fn new(kind: EtcdLayout, prefix: &str) -> Self {
        let bare = prefix.trim_end_matches('/');
        let prefix = if bare.is_empty() && kind == EtcdLayout::Grpc {
            String::new()
        } else {
            format!("{bare}/")
        };
        Self { kind, prefix }
    }

    /// What every key of it begins with; empty: every key is.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// What the key names; `None` when it names no service that a mesh can name.
    pub(crate) fn place(&self, key: &[u8]) -> Option<Place> {
        let rest = std::str::from_utf8(key).ok()?.strip_prefix(&*self.prefix)?;
        match self.kind {
            EtcdLayout::Meshd => strict(rest),
            EtcdLayout::Skydns => domain(rest),
            EtcdLayout::Registrator | EtcdLayout::GoMicro => {
                let (service, id) = rest.split_once('/')?;
                placed(Namespace::default(), service, service, None, id)
            }
            EtcdLayout::Grpc => {
                let (target, id) = rest.rsplit_once('/')?;
                let service = target.rsplit('/').next()?;
                placed(Namespace::default(), service, target, None, id)
            }
        }
    }

    /// What the value under `id` says; without endpoints when it is of something else, such as a text record.
    pub(crate) fn read(&self, id: &str, value: &[u8]) -> Result<ServiceSet, Fault> {
        value::read(self.kind, id, value)
    }
}

/// `<namespace>/<service>/<id>`, as it is written.
fn strict(rest: &str) -> Option<Place> {
    let (namespace, rest) = rest.split_once('/')?;
    let (service, id) = rest.split_once('/')?;
    let (namespace, name) = (
        Namespace::new(namespace).ok()?,
        ServiceName::new(service).ok()?,
    );
    let service = ServiceKey {
        namespace: Some(namespace),
        name,
        port_name: None,
    };
    let plain = !id.is_empty() && !id.contains('/');
    plain.then(|| Place {
        service,
        written: Box::default(),
        id: Box::from(id),
    })
}

/// A reversed domain: of `com/example/web/x1` the service is `web` in `example`; `_http` names its port.
fn domain(rest: &str) -> Option<Place> {
    let (ports, labels): (Vec<&str>, Vec<&str>) = rest
        .split('/')
        .filter(|label| !label.is_empty())
        .partition(|label| label.starts_with('_'));
    let mut back = labels.iter().rev();
    let last = back.next()?;
    let service = back.next().unwrap_or(last);
    let namespace = back.next().and_then(|name| Namespace::new(name).ok());
    let port = ports
        .iter()
        .map(|name| name.trim_start_matches('_'))
        .find(|name| !matches!(*name, "tcp" | "udp" | ""));
    let written = match labels.split_last() {
        Some((_, [])) | None => (*last).to_owned(),
        Some((_, before)) => before.join("/"),
    };
    placed(
        namespace.unwrap_or_default(),
        service,
        &written,
        port.map(Arc::from),
        rest,
    )
}

fn placed(
    namespace: Namespace,
    service: &str,
    written: &str,
    port_name: Option<Arc<str>>,
    id: &str,
) -> Option<Place> {
    if id.is_empty() {
        return None;
    }
    let service = ServiceKey {
        namespace: Some(namespace),
        name: ServiceName::new(&label(service)).ok()?,
        port_name,
    };
    Some(Place {
        service,
        written: Box::from(written),
        id: Box::from(id),
    })
}

#[cfg(test)]
mod tests;
