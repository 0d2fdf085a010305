//! What comes from this host: its records, operators' edits, new grants, its goodbye.

use std::{collections::BTreeMap, time::Duration};

use mesh_model::{
    admin::CommitAccepted,
    catalog::ResourceKey,
    commit::CommitId,
    fact::{HostHead, Record},
    finding::Finding,
    grant::{Signed, domain},
    name::MeshId,
};
use prost::Message;
use rand::RngExt;

use super::{Node, Waiting};
use crate::{
    agenda::Single,
    commits::{SubmitError, Touched, graph::evaluate, submit::Edit},
    config::millis,
    event::Output,
    rights::{Grant, Taken},
    row::{Row, table},
    store::root_of,
    view::conflict,
};

impl Node {
    pub(super) fn publish(&mut self, records: Vec<Record>) {
        let mut kept = BTreeMap::new();
        let (mut bytes, mut dropped) = (0, 0);
        let mut sorted = records;
        sorted.sort_by(|a, b| a.key.cmp(&b.key));
        for record in sorted {
            bytes += record.key.len() + record.body.len() + 16;
            if kept.len() >= self.config.max_records || bytes > self.config.max_record_bytes {
                dropped += 1;
            } else {
                kept.insert(record.key.clone(), record);
            }
        }
        self.own.over_quota = dropped;
        if self.own.records.as_ref() == Some(&kept) {
            return;
        }
        self.own.records = Some(kept);
        self.head_soon();
    }

    /// Signs a new head now, or as soon as the least time between two heads is over.
    pub(super) fn head_soon(&mut self) {
        let now = self.now.elapsed;
        let at = self
            .own
            .last_head
            .map_or(now, |last| last + self.config.head_interval);
        if at <= now {
            self.sign_head();
        } else {
            self.agenda.at_latest(Single::OwnHead, at);
        }
    }

    /// Signs a head over what this host has now.
    pub(super) fn sign_head(&mut self) {
        let Some(records) = self.own.records.clone() else {
            return;
        };
        self.agenda.clear(Single::OwnHead);
        self.own.seq += 1;
        self.own.last_head = Some(self.now.elapsed);
        let head = HostHead {
            mesh_id: self.identity.mesh_id.0.to_vec(),
            host_id: self.identity.host_id.0.to_vec(),
            incarnation: self.identity.incarnation,
            seq: self.own.seq,
            root: root_of(records.values()).to_vec(),
            records: u32::try_from(records.len()).unwrap_or(u32::MAX),
            lease_until_ms: self.now.wall_ms.saturating_add(millis(self.config.lease)),
            commits: self.commits.fingerprint().to_vec(),
            commit_count: self.commits.count(),
            proto_min: 1,
            proto_max: 1,
            signed_ms: self.now.wall_ms,
            leaving: self.own.leaving,
        };
        let signed = self.signer.sign(domain::HEAD, head.encode_to_vec());
        let host = self.identity.host_id;
        self.hosts
            .put(host, head, signed, records, self.now.wall_ms);
        self.persist_host(host);
        self.view.host(host);
        self.push_host(host, None);
        self.plan(Single::Refresh, self.config.head_refresh, 0.25);
    }

    pub(super) fn submit(&mut self, ticket: u64, signed: &Signed) {
        let result = self.commits.check(signed, &self.rights, &*self.verifier);
        let now = self.now.wall_ms;
        let edit = result.map_err(SubmitError::from).and_then(|entry| {
            let (tolerance, max) = (self.config.future_tolerance, self.config.max_commits);
            self.commits.admit(entry, now, tolerance, max)
        });
        match edit {
            Err(error) => self.out.push(Output::Answer {
                ticket,
                result: Err(error),
            }),
            Ok(Edit::Again(id)) => self.answer_again(ticket, id),
            Ok(Edit::New(entry)) => {
                let id = entry.id();
                let touched = self.commits.insert(*entry);
                self.taken_commit(id, touched);
                let row = commit_row(signed, id);
                let waiting = Waiting::Commit {
                    id,
                    tickets: vec![ticket],
                };
                self.persist_durably(vec![row], Some(waiting));
            }
        }
    }

    /// The same edit came again: answered like the first, and not before it is on disk.
    fn answer_again(&mut self, ticket: u64, id: CommitId) {
        for waiting in self.waiting.values_mut() {
            if let Waiting::Commit {
                id: stored,
                tickets,
            } = waiting
                && *stored == id
            {
                tickets.push(ticket);
                return;
            }
        }
        let result = Ok(self.accepted(id));
        self.out.push(Output::Answer { ticket, result });
    }

    fn accepted(&self, id: CommitId) -> CommitAccepted {
        CommitAccepted {
            id,
            commits: self.commits.count(),
            // Sixteen bytes print like an id.
            fingerprint: MeshId(self.commits.fingerprint()).to_string(),
            findings: self.conflicts_of(id),
        }
    }

    fn conflicts_of(&self, id: CommitId) -> Vec<Finding> {
        let Some(entry) = self.commits.get(&id) else {
            return Vec::new();
        };
        let keys = entry.steps.iter().map(|step| &*step.key);
        let values = keys.map(|key| (evaluate(&self.commits, key, self.now.wall_ms), key));
        values
            .filter(|(value, _)| value.in_conflict())
            .map(|(value, key)| conflict(key, &value))
            .collect()
    }

    /// Notes what a new commit changes, whoever brought it.
    pub(super) fn taken_commit(&mut self, id: CommitId, touched: Touched) {
        self.note_deadline(id);
        if touched.revocations {
            let all: Vec<_> = self.commits.resources().cloned().collect();
            self.view.resources(all);
            self.view.hosts(self.known_hosts());
            self.check_admitted();
        }
        self.view.resources(touched.resources);
        self.view.touch();
        self.own_commits_changed();
    }

    /// A tentative commit changes its resources by itself at its time.
    pub(super) fn note_deadline(&mut self, id: CommitId) {
        let Some(entry) = self.commits.get(&id) else {
            return;
        };
        let until = entry.confirm_by_ms;
        if until != 0 {
            let keys = entry.steps.iter().map(|step| ResourceKey::clone(&step.key));
            self.deadlines.entry(until).or_default().extend(keys);
            self.plan_values();
        }
    }

    pub(super) fn plan_values(&mut self) {
        if let Some((first, _)) = self.deadlines.first_key_value() {
            let wait = Duration::from_millis(first.saturating_sub(self.now.wall_ms));
            self.agenda.set(Single::Values, self.now.elapsed + wait);
        }
    }

    /// Peers read from our head which commits we have; many hosts answer one commit, so not all at once.
    fn own_commits_changed(&mut self) {
        if self.own.records.is_none() {
            return;
        }
        let hosts = u32::try_from(self.admitted.len()).unwrap_or(u32::MAX);
        let spread = Duration::from_millis(5)
            .saturating_mul(hosts)
            .min(Duration::from_mins(1));
        let wait = Duration::from_millis(10) + spread.mul_f64(self.rng.random::<f64>());
        self.agenda
            .at_latest(Single::OwnHead, self.now.elapsed + wait);
    }

    pub(super) fn stored(&mut self, ticket: u64) {
        match self.waiting.remove(&ticket) {
            None => {}
            Some(Waiting::Incarnation) => {
                self.own.incarnation_stored = true;
                self.opened();
            }
            Some(Waiting::Commit { id, tickets }) => {
                self.push_commit(id, None);
                for ticket in tickets {
                    let result = Ok(self.accepted(id));
                    self.out.push(Output::Answer { ticket, result });
                }
            }
        }
    }

    pub(super) fn store_failed(&mut self, ticket: u64) {
        match self.waiting.remove(&ticket) {
            None => {}
            // Without it no head may leave; the next second tries again.
            Some(Waiting::Incarnation) => self.own.incarnation_stored = false,
            Some(Waiting::Commit { tickets, .. }) => {
                for ticket in tickets {
                    self.out.push(Output::Answer {
                        ticket,
                        result: Err(SubmitError::NotStored),
                    });
                }
            }
        }
    }

    /// Own heads may leave from now on, if both conditions hold.
    pub(super) fn opened(&mut self) {
        if self.own.open() {
            self.agenda.clear(Single::Open);
            self.push_host(self.identity.host_id, None);
        }
    }

    pub(super) fn own_grants(&mut self, grants: Vec<Grant>) {
        let mut grants = grants;
        grants.sort_by_key(Grant::kind);
        let mut rows = Vec::new();
        for grant in grants {
            if let Ok(taken @ (Taken::New | Taken::Host(_))) =
                self.rights.accept(&grant, &*self.verifier)
            {
                rows.push(grant_row(&grant));
                self.taken_grant(&grant, taken, None);
            }
        }
        if !rows.is_empty() {
            self.persist_durably(rows, None);
        }
    }

    pub(super) fn leave(&mut self) {
        self.own.leaving = true;
        self.sign_head();
        let acts = self.member.leave();
        self.swim_acts(acts);
    }
}

/// The row of a commit.
pub(super) fn commit_row(signed: &Signed, id: CommitId) -> Row {
    Row {
        table: table::COMMIT,
        key: id.0.to_vec(),
        value: Some(signed.encode_to_vec()),
    }
}

/// The row of a grant.
pub(super) fn grant_row(grant: &Grant) -> Row {
    let mut key = grant.kind().to_be_bytes().to_vec();
    key.extend(grant.id());
    Row {
        table: table::GRANT,
        key,
        value: Some(grant.encode()),
    }
}
