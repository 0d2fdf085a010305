//! Elections in a real `ZooKeeper`: each write replaces the leader by another one.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Mutex, PoisonError},
};

use mesh_model::config::{Access, SourceKind};
use mesh_registry::contract::server::{
    Started,
    zookeeper::client::{Change, Client, Owner},
};

use super::{Kind, Standing, named};

/// Where elections are, and who leads each.
struct Elections {
    client: Client,
    leaders: BTreeMap<String, String>,
}

/// Writes leaders.
pub(super) struct Writer {
    path: String,
    elections: Mutex<Elections>,
}

impl Writer {
    /// The leader goes and the next member, whose number is higher, comes in its place, in one change.
    pub(super) fn write(
        &self,
        service: &str,
        turn: u16,
        address: SocketAddr,
    ) -> anyhow::Result<()> {
        let mut elections = self
            .elections
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let directory = format!("{}/{service}", self.path);
        let member = format!("{directory}/member_{turn:010}");
        let create = |path: &str, data: &str| {
            Change::Create(path.to_owned(), data.as_bytes().to_vec(), Owner::World)
        };
        let before = elections.leaders.insert(service.to_owned(), member.clone());
        let first = before.map_or_else(|| create(&directory, ""), Change::Delete);
        let next = create(&member, &address.to_string());
        Ok(elections.client.change(&[first, next])?)
    }
}

/// A registry of elections below a path.
pub(super) fn start(server: Started, access: Access, path: String) -> anyhow::Result<Standing> {
    let mut client = Client::open(server.admin, &[])?;
    client.change(&[Change::Create(path.clone(), Vec::new(), Owner::World)])?;
    let source = SourceKind::Leader {
        access,
        path: path.clone(),
    };
    Ok(Standing {
        config: named(Kind::Leader, source),
        admin: server.admin,
        writer: super::Writer::Leader(Writer {
            path,
            elections: Mutex::new(Elections {
                client,
                leaders: BTreeMap::new(),
            }),
        }),
        services: Kind::Leader.services(),
        _servers: vec![server.server],
        _folder: None,
    })
}
