//! What comes over links: the frames, and the content that is taken from them. Nothing is believed unsigned.

use std::time::Duration;

use bytes::Bytes;
use mesh_model::{
    commit::CommitId,
    fact::HostHead,
    grant::{Signed, domain},
    name::HostId,
};
use rand::RngExt;

use super::{
    Node,
    local::{commit_row, grant_row},
};
use crate::{
    agenda::Single,
    commits::CommitError,
    delta::next_delta,
    digest,
    event::Output,
    rights::{Grant, GrantError, Taken},
    row::table,
    store::{Outcome, host_of},
    wire::{Delta, Frame, HostUpdate, SetKind, Want, decode},
};

impl Node {
    pub(super) fn link_up(&mut self, host: HostId) {
        let draw = self.rng.random();
        self.links.up(host, self.now.elapsed, draw);
        // Our own grant first: without it a peer that never heard of us listens to nothing else.
        for grant in self.rights.chain(self.identity.host_id) {
            if let Some(link) = self.links.get_mut(host) {
                link.pending.grants.insert((grant.kind(), grant.id()));
            }
        }
        self.flush();
        self.send_summary(host);
        self.greet(host);
    }

    pub(super) fn link_down(&mut self, host: HostId) {
        if self.links.down(host) {
            let soon = self.jitter(Duration::from_millis(400), 0.5);
            self.agenda
                .at_latest(Single::Overlay, self.now.elapsed + soon);
        }
    }

    pub(super) fn frame(&mut self, from: HostId, bytes: Bytes) {
        if !self.links.contains(from) || from == self.identity.host_id {
            return;
        }
        let Ok(frame) = Frame::decode(bytes) else {
            return;
        };
        let permitted = self.valid(from).is_some();
        match frame {
            Frame::Delta(delta) => self.delta(from, &delta),
            Frame::Swim(bytes) if permitted => self.swim_packet(from, &bytes, false),
            Frame::Summary(summary) if permitted => self.summary(from, &summary),
            Frame::Buckets(theirs) if permitted => {
                let kind = theirs.kind();
                for have in digest::differing(kind, &self.items(kind), &theirs.sums) {
                    self.send_frame(from, &Frame::Have(have));
                }
            }
            Frame::Have(have) if permitted => self.have(from, &have),
            Frame::Want(want) if permitted => self.want(from, &want),
            _ => {}
        }
    }

    pub(super) fn send_frame(&mut self, to: HostId, frame: &Frame) {
        if let Some(link) = self.links.get_mut(to) {
            let bytes = frame.encode();
            link.in_flight += bytes.len();
            self.out.push(Output::Frame { to, bytes });
        }
    }

    /// Sends what waits, as far as the links take it.
    pub(super) fn flush(&mut self) {
        for host in self.links.hosts() {
            while let Some(link) = self.links.get_mut(host) {
                if link.pending.is_empty() || link.in_flight >= self.config.link_budget {
                    break;
                }
                let chunk = self.config.chunk;
                let pending = &mut link.pending;
                let delta = next_delta(pending, &self.rights, &self.commits, &self.hosts, chunk);
                match delta {
                    Some(frame) => self.send_frame(host, &frame),
                    None => break,
                }
            }
        }
    }

    pub(super) fn delta(&mut self, from: HostId, delta: &Delta) {
        let mut grants: Vec<Grant> = delta
            .grants
            .iter()
            .filter_map(|bytes| Grant::decode(bytes))
            .collect();
        grants.sort_by_key(Grant::kind);
        let mut unknown = false;
        for grant in grants {
            match self.rights.accept(&grant, &*self.verifier) {
                Ok(Taken::Known) => self.has(from, |pending| {
                    pending.grants.remove(&(grant.kind(), grant.id()));
                }),
                Ok(taken) => {
                    let row = grant_row(&grant);
                    self.persist(row.table, row.key, row.value);
                    self.taken_grant(&grant, taken, Some(from));
                }
                Err(GrantError::UnknownAuthority) => unknown = true,
                Err(_) => {}
            }
        }
        if self.valid(from).is_none() {
            return;
        }
        for bytes in &delta.commits {
            if let Ok(signed) = decode::<Signed>(bytes) {
                unknown |= self.peer_commit(from, &signed);
            }
        }
        for bytes in &delta.hosts {
            if let Ok(update) = decode::<HostUpdate>(bytes) {
                self.peer_host(from, &update);
            }
        }
        if unknown {
            self.resync(from);
        }
    }

    pub(super) fn has(&mut self, host: HostId, forget: impl FnOnce(&mut crate::links::Pending)) {
        if let Some(link) = self.links.get_mut(host) {
            forget(&mut link.pending);
        }
    }

    pub(super) fn taken_grant(&mut self, grant: &Grant, taken: Taken, from: Option<HostId>) {
        let key = (grant.kind(), grant.id());
        for (host, link) in self.links.eager(self.config.max_links * 2) {
            if Some(host) != from {
                link.pending.grants.insert(key);
            }
        }
        if let Taken::Host(host) = taken {
            self.view.host(host);
        }
        self.view.touch();
        self.check_admitted();
    }

    /// True when the commit rests on an authority that is not known here.
    pub(super) fn peer_commit(&mut self, from: HostId, signed: &Signed) -> bool {
        match self.commits.accept(signed, &self.rights, &*self.verifier) {
            Ok(Some((id, touched))) => {
                let row = commit_row(signed, id);
                self.persist(row.table, row.key, row.value);
                self.taken_commit(id, touched);
                self.push_commit(id, Some(from));
                false
            }
            Ok(None) => {
                let id = CommitId(*blake3::hash(&signed.payload).as_bytes());
                self.has(from, |pending| {
                    pending.commits.remove(&id);
                });
                false
            }
            Err(CommitError::Grant(GrantError::UnknownAuthority)) => true,
            Err(_) => false,
        }
    }

    pub(super) fn push_commit(&mut self, id: CommitId, from: Option<HostId>) {
        for (host, link) in self.links.eager(self.config.max_links * 2) {
            if Some(host) != from {
                link.pending.commits.insert(id);
            }
        }
    }

    pub(super) fn peer_host(&mut self, from: HostId, update: &HostUpdate) {
        let Some((host, head)) = host_of(update) else {
            return;
        };
        if host == self.identity.host_id {
            return self.own_head_came_back(&head, update);
        }
        let newer = self
            .hosts
            .get(host)
            .is_none_or(|entry| entry.version() <= (head.incarnation, head.seq));
        if newer && !self.spend(host) {
            return;
        }
        let grant = self.valid(host).cloned();
        let now = self.now.wall_ms;
        match self
            .hosts
            .accept(update, grant.as_deref(), &*self.verifier, now)
        {
            Ok(Outcome::Applied | Outcome::AppliedEquivocation) => {
                self.persist_host(host);
                self.view.host(host);
                self.push_host(host, Some(from));
            }
            Ok(Outcome::NeedFull) => {
                let want = Want {
                    kind: SetKind::Hosts.into(),
                    keys: host.0.to_vec(),
                };
                self.send_frame(from, &Frame::Want(want));
            }
            Ok(Outcome::Equivocation) => self.view.touch(),
            Ok(Outcome::Known) | Err(_) => {}
        }
    }

    /// A head with our own signature: after a restored disk it may be newer than ours.
    pub(super) fn own_head_came_back(&mut self, head: &HostHead, update: &HostUpdate) {
        let Some(signed) = &update.head else { return };
        let own = self.rights.host(self.identity.host_id);
        if own.is_none_or(|own| own.ed25519 != signed.signer)
            || head.mesh_id != self.identity.mesh_id.0
            || !self.verifier.verify(domain::HEAD, signed)
        {
            return;
        }
        let theirs = (head.incarnation, head.seq);
        let ours = (self.identity.incarnation, self.own.seq);
        let same = self
            .hosts
            .get(self.identity.host_id)
            .is_some_and(|entry| entry.signed == *signed);
        self.own.peers_heard = true;
        if theirs >= ours && !same {
            self.own.rolled_back = true;
            self.next_incarnation(head.incarnation);
        }
        self.opened();
    }

    /// Takes one of a host's tokens: two a second, so that one host cannot keep all others busy.
    pub(super) fn spend(&mut self, host: HostId) -> bool {
        let (now, burst) = (self.now.elapsed, self.config.head_burst);
        let (tokens, since) = self.budgets.entry(host).or_insert((burst, now));
        let refill = now.saturating_sub(*since).as_millis() / 500;
        let refill = u32::try_from(refill).unwrap_or(u32::MAX);
        if refill > 0 {
            *tokens = tokens.saturating_add(refill).min(burst);
            *since = now;
        }
        let rich = *tokens > 0;
        *tokens = tokens.saturating_sub(1);
        rich
    }

    pub(super) fn push_host(&mut self, host: HostId, from: Option<HostId>) {
        if host == self.identity.host_id && !self.own.open() {
            return;
        }
        for (peer, link) in self.links.eager(self.config.max_links * 2) {
            if Some(peer) != from && peer != host {
                link.pending.hosts.entry(host).or_insert(false);
            }
        }
    }

    pub(super) fn persist_host(&mut self, host: HostId) {
        let row = self.hosts.get(host).map(crate::store::Entry::row);
        self.persist(table::HOST, host.0.to_vec(), row);
    }
}
