//! One machine: a node, its disk with writes that are not synced yet, its clock.

use std::collections::BTreeMap;

use mesh_model::{
    fact::Record,
    name::{HostId, MeshId},
};

use crate::{Config, Grant, Node, Output, Row, Signer, Time, Verifier, event::Identity, table};

/// A machine.
#[derive(Debug)]
pub struct Machine {
    /// Its id.
    pub host: HostId,
    /// The node, while it runs.
    pub node: Option<Node>,
    /// What is on disk.
    pub disk: BTreeMap<(&'static str, Vec<u8>), Vec<u8>>,
    /// What is written and not synced, in order.
    pub buffered: Vec<Row>,
    /// Its wall clock minus the true time, milliseconds.
    pub skew_ms: i64,
    /// How often it was started.
    pub boots: u32,
    /// What its daemon publishes after a start.
    pub records: Option<Vec<Record>>,
    /// True when its disk was copied or set back on purpose.
    pub cloned: bool,
    /// A catalog was announced and not looked at.
    pub catalog_changed: bool,
    /// Until when it stands still.
    pub(crate) stalled_until: std::time::Duration,
    pub(crate) linked: BTreeMap<HostId, u64>,
    pub(crate) commits: u64,
}

impl Machine {
    pub(crate) fn new(host: HostId, bootstrap: &[Grant]) -> Self {
        let key = |grant: &Grant| {
            let mut key = grant.kind().to_be_bytes().to_vec();
            key.extend(grant.id());
            (table::GRANT, key)
        };
        Self {
            host,
            node: None,
            disk: bootstrap
                .iter()
                .map(|grant| (key(grant), grant.encode()))
                .collect(),
            buffered: Vec::new(),
            skew_ms: 0,
            boots: 0,
            records: None,
            cloned: false,
            catalog_changed: false,
            stalled_until: std::time::Duration::ZERO,
            linked: BTreeMap::new(),
            commits: 0,
        }
    }

    pub(crate) fn boot(
        &mut self,
        config: Config,
        (mesh_id, signer, verifier): (MeshId, Box<dyn Signer>, Box<dyn Verifier>),
        seed: u64,
        time: Time,
    ) {
        self.boots += 1;
        let identity = Identity {
            mesh_id,
            host_id: self.host,
            incarnation: 1,
        };
        let mut node = Node::new(config, identity, signer, verifier, seed);
        let bad = node.load(super::rows(&self.disk), time);
        assert_eq!(bad, 0, "rows that were written do not read");
        self.commits = node.commits().count();
        self.node = Some(node);
    }

    pub(crate) fn start(&mut self, time: Time) -> (Vec<Output>, Option<Vec<Record>>) {
        let outputs = self
            .node
            .as_mut()
            .map(|node| node.start(time))
            .unwrap_or_default();
        (outputs, self.records.clone())
    }

    pub(crate) fn crash(&mut self, survive: usize) {
        self.node = None;
        self.linked.clear();
        self.buffered.truncate(survive);
        self.sync();
        // Whatever is still under way belongs to the boot that has ended.
        self.boots += 1;
    }

    pub(crate) fn sync(&mut self) {
        for row in self.buffered.drain(..) {
            match row.value {
                Some(value) => self.disk.insert((row.table, row.key), value),
                None => self.disk.remove(&(row.table, row.key)),
            };
        }
    }
}
