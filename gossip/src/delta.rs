//! What a neighbour lacks, within a byte budget: grants first, then commits, then heads.

use prost::Message;

use crate::{
    commits::Commits,
    links::Pending,
    rights::Rights,
    store::Hosts,
    wire::{Delta, Frame},
};

/// Most entries of one delta.
const MAX_ENTRIES: usize = 4096;

/// Takes from `pending` until about `budget` bytes are together; at least one item if there is any.
pub(crate) fn next_delta(
    pending: &mut Pending,
    rights: &Rights,
    commits: &Commits,
    hosts: &Hosts,
    budget: usize,
) -> Option<Frame> {
    let mut delta = Delta::default();
    let (mut bytes, mut entries) = (0, 0);
    let mut more = |added: usize| {
        bytes += added;
        entries += 1;
        bytes < budget && entries < MAX_ENTRIES
    };
    let mut room = true;
    while room && let Some((_, id)) = pending.grants.pop_first() {
        if let Some(grant) = rights.get(&id) {
            let encoded = grant.encode();
            room = more(encoded.len());
            delta.grants.push(encoded);
        }
    }
    while room && let Some(id) = pending.commits.pop_first() {
        if let Some(signed) = commits.signed(&id) {
            let encoded = signed.encode_to_vec();
            room = more(encoded.len());
            delta.commits.push(encoded);
        }
    }
    while room && let Some((host, whole)) = pending.hosts.pop_first() {
        if let Some(entry) = hosts.get(host) {
            let encoded = entry.update(whole).encode_to_vec();
            room = more(encoded.len());
            delta.hosts.push(encoded);
        }
    }
    let empty = delta.grants.is_empty() && delta.commits.is_empty() && delta.hosts.is_empty();
    (!empty).then_some(Frame::Delta(delta))
}
