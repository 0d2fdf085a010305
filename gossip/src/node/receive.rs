//! What comes from peers: membership packets, comparisons, content. Nothing in it is believed unsigned.

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use mesh_model::{
    catalog::Liveness,
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
    digest::{self, Answer, Items},
    event::Output,
    member::Act,
    rights::{Grant, GrantError, GrantId, Taken},
    row::table,
    store::{Outcome, host_of},
    wire::{Delta, Frame, Have, HostUpdate, SetKind, Summary, Want, decode},
};

const SETS: [SetKind; 3] = [SetKind::Grants, SetKind::Commits, SetKind::Hosts];

/// Bit of a membership packet's first byte: the sender hears the receiver's datagrams.
const HEARS: u8 = 1;

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

    pub(super) fn swim_packet(&mut self, from: HostId, bytes: &[u8], datagram: bool) {
        if self.valid(from).is_none() || from == self.identity.host_id {
            return;
        }
        let Some((flags, packet)) = bytes.split_first() else {
            return;
        };
        self.links
            .packet(from, datagram, flags & HEARS != 0, self.now.elapsed);
        // A third party may speak of a host only up to the incarnation that the host itself has signed.
        let (admitted, hosts) = (&self.admitted, &self.hosts);
        let admits = |host: HostId, incarnation: u32| {
            admitted.contains(&host)
                && hosts
                    .get(host)
                    .is_some_and(|entry| incarnation <= entry.head.incarnation)
        };
        let acts = self.member.packet(from, packet, admits);
        self.swim_acts(acts);
    }

    pub(super) fn swim_acts(&mut self, acts: Vec<Act>) {
        let mut defunct = false;
        for act in acts {
            match act {
                Act::Send(to, bytes) => self.send_swim(to, &bytes),
                Act::Later(after, timer) => self.agenda.swim(self.now.elapsed + after, timer),
                Act::Defunct => defunct = true,
            }
        }
        if defunct && !self.own.leaving {
            self.next_incarnation(self.identity.incarnation);
        }
        // Reading the members costs their number; when they are many the housekeeping does it.
        if self.admitted.len() <= 64 {
            self.read_members();
        }
    }

    /// Goes on above `seen`: on disk first, then in the head and in the membership.
    fn next_incarnation(&mut self, seen: u32) {
        self.identity.incarnation = seen.max(self.identity.incarnation).saturating_add(1);
        self.own.seq = 0;
        self.store_incarnation();
        self.sign_head();
        let acts = self.member.rename(self.identity.incarnation);
        self.swim_acts(acts);
    }

    pub(super) fn read_members(&mut self) {
        let mut suspects = false;
        for (host, liveness) in self.member.refresh() {
            self.view.host(host);
            suspects |= liveness == Liveness::Suspect;
        }
        if suspects {
            self.warn_suspects();
        }
    }

    /// Before a suspect is given up it is told, by every way there is.
    pub(super) fn warn_suspects(&mut self) {
        for (host, packet) in self.member.warnings().into_iter().take(16) {
            self.send_swim(host, &packet);
            self.connect(host);
        }
    }

    /// Greets a host, so that it knows our present identity.
    pub(super) fn greet(&mut self, host: HostId) {
        let incarnation = self
            .hosts
            .get(host)
            .map_or(0, |entry| entry.head.incarnation);
        let acts = self.member.greet(host, incarnation);
        self.swim_acts(acts);
    }

    fn send_swim(&mut self, to: HostId, packet: &[u8]) {
        if !self.admitted.contains(&to) {
            return;
        }
        let now = self.now.elapsed;
        let window = self.config.probe_period * 2;
        let mut bytes = Vec::with_capacity(packet.len() + 1);
        bytes.push(if self.links.hears(to, now, window) {
            HEARS
        } else {
            0
        });
        bytes.extend_from_slice(packet);
        let bytes = Bytes::from(bytes);
        let doubted = self.member.liveness(to) == Liveness::Suspect;
        let heard = self.config.udp && !doubted && self.links.heard(to, now, window);
        if self.config.udp {
            self.out.push(Output::Datagram {
                to,
                bytes: bytes.clone(),
            });
        }
        // Until it is known that datagrams arrive, the link carries them as well.
        if !heard && self.links.contains(to) {
            self.send_frame(to, &Frame::Swim(bytes));
        } else if !self.config.udp {
            self.connect(to);
        }
    }

    pub(super) fn connect(&mut self, host: HostId) {
        let patience = Duration::from_secs(10);
        if host != self.identity.host_id && self.links.dial(host, self.now.elapsed, patience) {
            self.out.push(Output::Connect(host));
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

    pub(super) fn items(&self, kind: SetKind) -> Items {
        let hidden = (!self.own.open()).then_some(self.identity.host_id);
        match kind {
            SetKind::Unspecified => Items::new(),
            SetKind::Grants => self.rights.ids().map(|id| id.to_vec()).collect(),
            SetKind::Commits => self.commits.ids().map(|id| id.0.to_vec()).collect(),
            SetKind::Hosts => {
                let shown = self.hosts.iter().filter(|(host, _)| Some(*host) != hidden);
                shown.map(|(host, entry)| entry.item(host)).collect()
            }
        }
    }

    pub(super) fn send_summary(&mut self, to: HostId) {
        let sets = SETS
            .iter()
            .map(|kind| digest::state(*kind, &self.items(*kind)))
            .collect();
        self.send_frame(to, &Frame::Summary(Summary { sets }));
    }

    fn summary(&mut self, from: HostId, summary: &Summary) {
        let mut seen = BTreeSet::new();
        for theirs in &summary.sets {
            let kind = theirs.kind();
            if kind == SetKind::Unspecified || !seen.insert(kind) {
                continue;
            }
            let items = self.items(kind);
            if digest::state(kind, &items) == *theirs {
                continue;
            }
            match digest::answer(kind, &items) {
                Answer::Buckets(buckets) => self.send_frame(from, &Frame::Buckets(buckets)),
                Answer::Have(listings) => {
                    for have in listings {
                        self.send_frame(from, &Frame::Have(have));
                    }
                }
            }
        }
    }

    fn have(&mut self, from: HostId, have: &Have) {
        let kind = have.kind();
        let (they_lack, we_lack) = digest::compare(kind, &self.items(kind), have);
        for item in &they_lack {
            self.queue(from, kind, item);
        }
        let mut keys = Vec::new();
        for item in we_lack.iter().filter(|item| self.is_news(kind, item)) {
            keys.extend(item.iter().take(digest::key_width(kind)));
        }
        if !keys.is_empty() {
            self.send_frame(
                from,
                &Frame::Want(Want {
                    kind: kind.into(),
                    keys,
                }),
            );
        } else if kind == SetKind::Hosts && !self.own.peers_heard {
            // Nobody knows a newer head of ours than we do.
            self.own.peers_heard = true;
            self.opened();
        }
    }

    /// True when an item that we do not have is worth asking for.
    fn is_news(&self, kind: SetKind, item: &[u8]) -> bool {
        let Some(host) = item.get(..16).and_then(HostId::from_slice) else {
            return false;
        };
        if kind != SetKind::Hosts {
            return true;
        }
        let Some(ours) = self.hosts.get(host) else {
            return true;
        };
        ours.item(host).get(16..) < item.get(16..)
    }

    fn want(&mut self, from: HostId, want: &Want) {
        let kind = want.kind();
        for key in want.keys.chunks_exact(digest::key_width(kind)) {
            self.queue(from, kind, key);
        }
    }

    /// Puts an item, by its key, among what waits for a neighbour.
    fn queue(&mut self, to: HostId, kind: SetKind, key: &[u8]) {
        let hidden = !self.own.open();
        let own = self.identity.host_id;
        let grant = GrantId::try_from(key)
            .ok()
            .and_then(|id| self.rights.get(&id));
        let grant = grant.map(|grant| (grant.kind(), grant.id()));
        let Some(link) = self.links.get_mut(to) else {
            return;
        };
        match kind {
            SetKind::Unspecified => {}
            SetKind::Grants => link.pending.grants.extend(grant),
            SetKind::Commits => link.pending.commits.extend(CommitId::from_slice(key)),
            SetKind::Hosts => {
                let host = key.get(..16).and_then(HostId::from_slice);
                if let Some(host) = host.filter(|host| !hidden || *host != own) {
                    link.pending.hosts.insert(host, true);
                }
            }
        }
    }

    fn delta(&mut self, from: HostId, delta: &Delta) {
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

    /// Something rests on an authority that we do not know: compare now, but not in a circle.
    fn resync(&mut self, from: HostId) {
        let pause = Duration::from_secs(2);
        if self
            .last_resync
            .is_none_or(|last| self.now.elapsed >= last + pause)
        {
            self.last_resync = Some(self.now.elapsed);
            self.send_summary(from);
        }
    }

    fn has(&mut self, host: HostId, forget: impl FnOnce(&mut crate::links::Pending)) {
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
    fn peer_commit(&mut self, from: HostId, signed: &Signed) -> bool {
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

    fn peer_host(&mut self, from: HostId, update: &HostUpdate) {
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
    fn own_head_came_back(&mut self, head: &HostHead, update: &HostUpdate) {
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
    fn spend(&mut self, host: HostId) -> bool {
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
