//! Comparing with another host: fingerprints, listings, wishes.

use std::{collections::BTreeSet, time::Duration};

use mesh_model::{commit::CommitId, name::HostId};

use super::Node;
use crate::{
    digest::{self, Answer, Items},
    rights::GrantId,
    wire::{Frame, Have, SetKind, SetState, Summary, Want},
};

const SETS: [SetKind; 3] = [SetKind::Grants, SetKind::Commits, SetKind::Hosts];

impl Node {
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

    /// The fingerprint of a set. That of commits is kept: there are many, and seldom others than before.
    fn state_of(&self, kind: SetKind) -> SetState {
        if kind != SetKind::Commits {
            return digest::state(kind, &self.items(kind));
        }
        SetState {
            kind: kind.into(),
            count: self.commits.count(),
            sum: self.commits.fingerprint().to_vec(),
        }
    }

    pub(super) fn send_summary(&mut self, to: HostId) {
        let sets = SETS.iter().map(|kind| self.state_of(*kind)).collect();
        self.send_frame(to, &Frame::Summary(Summary { sets }));
    }

    pub(super) fn summary(&mut self, from: HostId, summary: &Summary) {
        let mut seen = BTreeSet::new();
        for theirs in &summary.sets {
            let kind = theirs.kind();
            if kind == SetKind::Unspecified || !seen.insert(kind) {
                continue;
            }
            if self.state_of(kind) == *theirs {
                continue;
            }
            let items = self.items(kind);
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

    pub(super) fn have(&mut self, from: HostId, have: &Have) {
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
    pub(super) fn is_news(&self, kind: SetKind, item: &[u8]) -> bool {
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

    pub(super) fn want(&mut self, from: HostId, want: &Want) {
        let kind = want.kind();
        for key in want.keys.chunks_exact(digest::key_width(kind)) {
            self.queue(from, kind, key);
        }
    }

    /// Puts an item, by its key, among what waits for a neighbour.
    pub(super) fn queue(&mut self, to: HostId, kind: SetKind, key: &[u8]) {
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

    /// Something rests on an authority that we do not know: compare now, but not in a circle.
    pub(super) fn resync(&mut self, from: HostId) {
        let pause = Duration::from_secs(2);
        if self
            .last_resync
            .is_none_or(|last| self.now.elapsed >= last + pause)
        {
            self.last_resync = Some(self.now.elapsed);
            self.send_summary(from);
        }
    }
}
