//! One host of the mesh: takes inputs, gives outputs, holds what is known.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use mesh_model::{
    fact::{Record, RegistryView},
    grant::{HostGrant, Signed},
    name::HostId,
};
use rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus};

use crate::{
    agenda::{Agenda, Due, Single},
    commits::Commits,
    config::Config,
    event::{Identity, Input, Output},
    links::Links,
    member::Membership,
    rights::Rights,
    row::{Row, table},
    signing::{Signer, Verifier},
    store::{HeadError, Hosts, from_row, host_of},
    time::Time,
    view::View,
};

mod compare;
mod local;
mod query;
mod receive;
mod swim;
mod tick;

/// The one row that must not be lost: the incarnation.
const INCARNATION: &[u8] = b"incarnation";

/// What waits for the disk.
#[derive(Debug)]
enum Waiting {
    Incarnation,
    Commit {
        id: mesh_model::commit::CommitId,
        tickets: Vec<u64>,
    },
}

/// What this host says of itself.
#[expect(
    clippy::struct_excessive_bools,
    reason = "four conditions that hold or not, each by itself"
)]
#[derive(Debug, Default)]
struct Own {
    /// None until the daemon has published for the first time: an empty head would withdraw what stands.
    records: Option<BTreeMap<String, Record>>,
    over_quota: usize,
    seq: u64,
    last_head: Option<Duration>,
    incarnation_stored: bool,
    /// The wait for the peers' word on our newest head is over.
    peers_heard: bool,
    leaving: bool,
    /// A head of ours with a higher number came back to us.
    rolled_back: bool,
}

impl Own {
    /// True when own heads may leave this host.
    fn open(&self) -> bool {
        self.incarnation_stored && self.peers_heard
    }
}

/// A host of the mesh. See `ALGORITHM.md`.
pub struct Node {
    config: Config,
    identity: Identity,
    signer: Box<dyn Signer>,
    verifier: Box<dyn Verifier>,
    rng: Xoshiro256PlusPlus,
    now: Time,
    rights: Rights,
    hosts: Hosts,
    commits: Commits,
    member: Membership,
    links: Links,
    agenda: Agenda,
    own: Own,
    view: View,
    local_views: BTreeMap<String, Arc<RegistryView>>,
    /// Hosts whose grant was in force when last looked at.
    admitted: BTreeSet<HostId>,
    /// Tokens and time of the last refill, by host: how many heads are still taken.
    budgets: BTreeMap<HostId, (u32, Duration)>,
    deadlines: BTreeMap<u64, BTreeSet<mesh_model::catalog::ResourceKey>>,
    waiting: BTreeMap<u64, Waiting>,
    next_ticket: u64,
    next_token: u64,
    last_resync: Option<Duration>,
    /// Rows that were too old to be read; removed at the start.
    expired: Vec<Vec<u8>>,
    out: Vec<Output>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node")
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

/// What is on disk was checked before it was written.
struct Checked;

impl Verifier for Checked {
    fn verify(&self, _domain: &[u8], _signed: &Signed) -> bool {
        true
    }
}

impl Node {
    /// A node that knows nothing yet. `seed` is its only source of randomness.
    pub fn new(
        config: Config,
        identity: Identity,
        signer: Box<dyn Signer>,
        verifier: Box<dyn Verifier>,
        seed: u64,
    ) -> Self {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        let member = Membership::new(
            &config,
            identity.host_id,
            identity.incarnation,
            rng.random(),
        );
        Self {
            rights: Rights::new(identity.mesh_id, config.max_hosts),
            hosts: Hosts::new(identity.mesh_id, &config),
            commits: Commits::new(identity.mesh_id, config.parse),
            config,
            identity,
            signer,
            verifier,
            rng,
            now: Time::default(),
            member,
            links: Links::default(),
            agenda: Agenda::default(),
            own: Own::default(),
            view: View::default(),
            local_views: BTreeMap::new(),
            admitted: BTreeSet::new(),
            budgets: BTreeMap::new(),
            deadlines: BTreeMap::new(),
            waiting: BTreeMap::new(),
            next_ticket: 0,
            next_token: 0,
            last_resync: None,
            expired: Vec::new(),
            out: Vec::new(),
        }
    }

    /// Takes the rows that were kept, before [`Node::start`]. Rows that do not read are left out; how many.
    pub fn load(&mut self, rows: impl IntoIterator<Item = Row>, now: Time) -> usize {
        self.now = now;
        let mut rows: Vec<Row> = rows.into_iter().collect();
        rows.sort_by_key(|row| table::ALL.iter().position(|name| *name == row.table));
        let (mut grants, mut bad) = (Vec::new(), 0);
        let mut rest = Vec::new();
        for row in rows {
            match (row.table, row.value) {
                (table::GRANT, Some(value)) => match crate::rights::Grant::decode(&value) {
                    Some(grant) => grants.push(grant),
                    None => bad += 1,
                },
                (name, Some(value)) => rest.push((name, row.key, value)),
                (_, None) => {}
            }
        }
        grants.sort_by_key(crate::rights::Grant::kind);
        bad += grants
            .iter()
            .filter(|grant| self.rights.accept(grant, &Checked).is_err())
            .count();
        bad += rest
            .into_iter()
            .filter(|(name, key, value)| !self.load_row(name, key, value))
            .count();
        self.view.hosts(self.known_hosts());
        self.view
            .resources(self.commits.resources().cloned().collect::<Vec<_>>());
        bad
    }

    fn load_row(&mut self, name: &str, key: &[u8], value: &[u8]) -> bool {
        match name {
            table::COMMIT => {
                let Ok(signed) = <Signed as prost::Message>::decode(value) else {
                    return false;
                };
                match self.commits.accept(&signed, &self.rights, &Checked) {
                    Ok(taken) => {
                        if let Some((id, _)) = taken {
                            self.note_deadline(id);
                        }
                        true
                    }
                    Err(_) => false,
                }
            }
            table::HOST => {
                let update = from_row(value);
                let Some((host, update)) = update.and_then(|u| Some((host_of(&u)?.0, u))) else {
                    return false;
                };
                let grant = self.rights.host(host).cloned();
                let now = self.now.wall_ms;
                match self.hosts.accept(&update, grant.as_deref(), &Checked, now) {
                    Err(HeadError::Retention) => {
                        self.expired.push(key.to_vec());
                        true
                    }
                    taken => taken.is_ok(),
                }
            }
            table::OWN if key == INCARNATION => {
                let stored = value.try_into().map_or(0, u32::from_le_bytes);
                let next = stored.saturating_add(1);
                self.identity.incarnation = self.identity.incarnation.max(next);
                true
            }
            _ => true,
        }
    }

    /// Begins: call once, after [`Node::load`].
    pub fn start(&mut self, now: Time) -> Vec<Output> {
        self.now = now;
        for key in std::mem::take(&mut self.expired) {
            self.persist(table::HOST, key, None);
        }
        self.store_incarnation();
        drop(self.member.rename(self.identity.incarnation));
        self.admitted = self.valid_hosts();
        let alone = self.others().is_empty();
        self.own.peers_heard = alone;
        let at = now.elapsed;
        if !alone {
            self.agenda.set(Single::Open, at + self.config.open_wait);
        }
        self.agenda.set(Single::Overlay, at);
        self.plan(Single::Redial, self.config.redial_interval, 0.5);
        self.plan(Single::Sync, self.config.sync_interval, 0.5);
        self.plan(Single::Refresh, self.config.head_refresh, 0.25);
        self.plan(Single::Housekeep, Duration::from_secs(1), 0.1);
        self.view.touch();
        self.finish()
    }

    /// Takes an input; what is to be done now, in order.
    pub fn handle(&mut self, input: Input, now: Time) -> Vec<Output> {
        debug_assert!(now.elapsed >= self.now.elapsed, "time went back");
        self.now = Time {
            elapsed: now.elapsed.max(self.now.elapsed),
            wall_ms: now.wall_ms,
        };
        self.agenda
            .forgive(self.now.elapsed, self.config.probe_period * 2);
        match input {
            Input::Datagram { from, bytes } => self.swim_packet(from, &bytes, true),
            Input::Frame { from, bytes } => self.frame(from, bytes),
            Input::Sent { to, bytes } => {
                if let Some(link) = self.links.get_mut(to) {
                    link.in_flight = link.in_flight.saturating_sub(bytes);
                }
            }
            Input::LinkUp(host) => self.link_up(host),
            Input::LinkDown(host) => self.link_down(host),
            Input::Dial(host) => self.connect(host),
            Input::Timer(_) => self.agenda.woken(),
            Input::Publish(records) => self.publish(records),
            Input::Submit { ticket, commit } => self.submit(ticket, &commit),
            Input::Grants(grants) => self.own_grants(grants),
            Input::Leave => self.leave(),
            Input::LocalViews(views) => {
                self.local_views = views;
                self.view.touch();
            }
            Input::Stored(ticket) => self.stored(ticket),
            Input::StoreFailed(ticket) => self.store_failed(ticket),
        }
        while let Some(due) = self.agenda.pop(self.now.elapsed) {
            match due {
                Due::Single(single) => self.due(single),
                Due::Swim(timer) => {
                    let acts = self.member.timer(timer);
                    self.swim_acts(acts);
                }
            }
        }
        self.finish()
    }

    fn finish(&mut self) -> Vec<Output> {
        self.flush();
        if self.view.announce() {
            self.out.push(Output::CatalogChanged);
        }
        if let Some(after) = self.agenda.wake(self.now.elapsed) {
            self.next_token += 1;
            self.out.push(Output::Timer {
                after,
                token: self.next_token,
            });
        }
        std::mem::take(&mut self.out)
    }

    /// The grant of a host when it is in force and not revoked.
    fn valid(&self, host: HostId) -> Option<&Arc<HostGrant>> {
        let held = self.rights.held_host(host)?;
        let grant = &held.grant;
        let revoked = self.commits.revoked();
        let stands = Rights::in_force(grant.not_before_ms, grant.not_after_ms, self.now.wall_ms)
            && !revoked.host(host)
            && !revoked.authority_at(held.by, grant.not_before_ms);
        stands.then_some(grant)
    }

    fn valid_hosts(&self) -> BTreeSet<HostId> {
        let all = self.rights.hosts().map(|(host, _)| host);
        all.filter(|host| self.valid(*host).is_some()).collect()
    }

    /// Admitted hosts beside this one.
    fn others(&self) -> Vec<HostId> {
        self.admitted
            .iter()
            .copied()
            .filter(|host| *host != self.identity.host_id)
            .collect()
    }

    fn known_hosts(&self) -> Vec<HostId> {
        let granted = self.rights.hosts().map(|(host, _)| host);
        granted
            .chain(self.hosts.iter().map(|(host, _)| host))
            .collect()
    }

    fn persist(&mut self, table: &'static str, key: Vec<u8>, value: Option<Vec<u8>>) {
        let rows = vec![Row { table, key, value }];
        self.out.push(Output::Persist {
            rows,
            durable: false,
            ticket: None,
        });
    }

    fn persist_durably(&mut self, rows: Vec<Row>, waiting: Option<Waiting>) {
        let ticket = waiting.map(|waiting| {
            self.next_ticket += 1;
            self.waiting.insert(self.next_ticket, waiting);
            self.next_ticket
        });
        self.out.push(Output::Persist {
            rows,
            durable: true,
            ticket,
        });
    }

    fn store_incarnation(&mut self) {
        self.own.incarnation_stored = false;
        self.waiting
            .retain(|_, waiting| !matches!(waiting, Waiting::Incarnation));
        let value = self.identity.incarnation.to_le_bytes().to_vec();
        let row = Row {
            table: table::OWN,
            key: INCARNATION.to_vec(),
            value: Some(value),
        };
        self.persist_durably(vec![row], Some(Waiting::Incarnation));
    }

    /// A duration around `mean`, plus or minus the share `spread`.
    fn jitter(&mut self, mean: Duration, spread: f64) -> Duration {
        mean.mul_f64(1.0 + spread * (self.rng.random::<f64>() * 2.0 - 1.0))
    }

    fn plan(&mut self, single: Single, mean: Duration, spread: f64) {
        let at = self.now.elapsed + self.jitter(mean, spread);
        self.agenda.set(single, at);
    }
}
