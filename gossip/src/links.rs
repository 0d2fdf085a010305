//! The links to neighbours: what still has to go to each, and by which way membership reaches it.
//!
//! What waits is a set of ids, never bytes: newer heads replace older ones by themselves, so a slow
//! neighbour costs memory in proportion to the state, not to the traffic.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use mesh_model::{commit::CommitId, name::HostId};

use crate::rights::GrantId;

/// For so long a word about datagrams holds when people ask.
const UDP_SHOWN: Duration = Duration::from_secs(20);

/// What waits for a neighbour.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    /// By kind first: what rests on a grant never overtakes it.
    pub(crate) grants: BTreeSet<(u32, GrantId)>,
    pub(crate) commits: BTreeSet<CommitId>,
    /// Hosts; true: whole, false: a step will do.
    pub(crate) hosts: BTreeMap<HostId, bool>,
}

impl Pending {
    pub(crate) fn is_empty(&self) -> bool {
        self.grants.is_empty() && self.commits.is_empty() && self.hosts.is_empty()
    }
}

/// A link that stands.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) pending: Pending,
    /// Bytes handed out and not yet reported as sent.
    pub(crate) in_flight: usize,
    pub(crate) since: Duration,
    /// This host asked for it.
    pub(crate) ours: bool,
    /// Random: who gets news first-hand when there are more links than that.
    pub(crate) draw: u64,
}

/// How membership packets reach a host.
#[derive(Debug, Default, Clone, Copy)]
struct Way {
    /// When a datagram came from there.
    heard: Option<Duration>,
    /// When it told us that it hears our datagrams.
    answered: Option<Duration>,
}

/// A member as `meshctl` shows its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkState {
    /// The host.
    pub host: HostId,
    /// A TCP link stands.
    pub tcp: bool,
    /// Datagrams pass both ways; none: not tried lately.
    pub udp: Option<bool>,
}

/// All links.
#[derive(Debug, Default)]
pub(crate) struct Links {
    up: BTreeMap<HostId, Link>,
    /// Hosts being dialled, and until when no second try is made.
    dialling: BTreeMap<HostId, Duration>,
    ways: BTreeMap<HostId, Way>,
}

impl Links {
    pub(crate) fn up(&mut self, host: HostId, now: Duration, draw: u64) {
        let ours = self.dialling.remove(&host).is_some();
        let link = Link {
            pending: Pending::default(),
            in_flight: 0,
            since: now,
            ours,
            draw,
        };
        self.up.insert(host, link);
    }
    pub(crate) fn down(&mut self, host: HostId) -> bool {
        self.dialling.remove(&host);
        self.up.remove(&host).is_some()
    }
    pub(crate) fn get_mut(&mut self, host: HostId) -> Option<&mut Link> {
        self.up.get_mut(&host)
    }
    pub(crate) fn contains(&self, host: HostId) -> bool {
        self.up.contains_key(&host)
    }
    pub(crate) fn len(&self) -> usize {
        self.up.len()
    }
    pub(crate) fn iter(&self) -> impl Iterator<Item = (HostId, &Link)> {
        self.up.iter().map(|(host, link)| (*host, link))
    }
    pub(crate) fn hosts(&self) -> Vec<HostId> {
        self.up.keys().copied().collect()
    }
    /// True when a dial may be asked for now; it is counted as begun.
    pub(crate) fn dial(&mut self, host: HostId, now: Duration, patience: Duration) -> bool {
        if self.contains(host) || self.dialling.get(&host).is_some_and(|until| *until > now) {
            return false;
        }
        self.dialling.insert(host, now + patience);
        true
    }
    /// The neighbours that news is pushed to: all, or `most` of them by lot. Well above the number of links
    /// that a host opens: pushing to fewer than have a link would leave out hosts that nobody draws.
    pub(crate) fn eager(&mut self, most: usize) -> Vec<(HostId, &mut Link)> {
        let mut draws: Vec<u64> = self.up.values().map(|link| link.draw).collect();
        draws.sort_unstable();
        let last = draws
            .get(most.saturating_sub(1))
            .copied()
            .unwrap_or(u64::MAX);
        let all = self.up.iter_mut().map(|(host, link)| (*host, link));
        all.filter(|(_, link)| link.draw <= last).collect()
    }

    /// A membership packet came, by `datagram` or by a frame; `hears` is the sender's word that it hears
    /// our datagrams.
    pub(crate) fn packet(&mut self, from: HostId, datagram: bool, hears: bool, now: Duration) {
        let way = self.ways.entry(from).or_default();
        if datagram {
            way.heard = Some(now);
        }
        if hears {
            way.answered = Some(now);
        }
    }
    /// What to tell a host: whether we heard a datagram of its within `window`.
    pub(crate) fn hears(&self, host: HostId, now: Duration, window: Duration) -> bool {
        let way = self.ways.get(&host).copied().unwrap_or_default();
        way.heard.is_some_and(|at| now.saturating_sub(at) <= window)
    }
    /// True when the host said within `window` that it hears our datagrams.
    pub(crate) fn heard(&self, host: HostId, now: Duration, window: Duration) -> bool {
        let way = self.ways.get(&host).copied().unwrap_or_default();
        way.answered
            .is_some_and(|at| now.saturating_sub(at) <= window)
    }
    /// The way to a host, for people.
    pub(crate) fn state(&self, host: HostId, now: Duration, udp: bool) -> LinkState {
        let way = self.ways.get(&host).copied().unwrap_or_default();
        let recent =
            |at: Option<Duration>| at.is_some_and(|at| now.saturating_sub(at) <= UDP_SHOWN);
        let tcp = self.up.get(&host);
        let waited = tcp.is_some_and(|link| now.saturating_sub(link.since) > UDP_SHOWN / 4);
        let udp = match (udp, recent(way.answered)) {
            (false, _) => Some(false),
            (true, true) => Some(true),
            (true, false) if waited => Some(false),
            (true, false) => None,
        };
        LinkState {
            host,
            tcp: tcp.is_some(),
            udp,
        }
    }
    /// Forgets hosts that are no members any more.
    pub(crate) fn retain(&mut self, keep: impl Fn(HostId) -> bool) {
        self.ways.retain(|host, _| keep(*host));
        self.dialling.retain(|host, _| keep(*host));
    }
}
