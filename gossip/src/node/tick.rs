//! What is due by time: links, comparisons, leases, reverts.

use std::time::Duration;

use mesh_model::{catalog::Liveness, name::HostId};
use rand::RngExt;

use super::Node;
use crate::{agenda::Single, event::Output, row::table};

impl Node {
    pub(super) fn due(&mut self, single: Single) {
        match single {
            Single::OwnHead | Single::Refresh => self.sign_head(),
            Single::Open => {
                self.own.peers_heard = true;
                self.opened();
            }
            Single::Overlay => self.overlay(),
            Single::Redial => self.redial(),
            Single::Sync => self.sync(),
            Single::Housekeep => self.housekeep(),
            Single::Values => self.values(),
        }
    }

    fn any(&mut self, hosts: &[HostId]) -> Option<HostId> {
        if hosts.is_empty() {
            return None;
        }
        let index = self.rng.random_range(0..hosts.len());
        hosts.get(index).copied()
    }

    /// Keeps as many links as news needs; gives up what is too much.
    fn overlay(&mut self) {
        let others = self.others();
        let wanted = self.config.active_links.min(others.len());
        let mut candidates: Vec<HostId> = others
            .into_iter()
            .filter(|host| !self.links.contains(*host))
            .filter(|host| self.member.liveness(*host) != Liveness::Down)
            .collect();
        let mut missing = wanted.saturating_sub(self.links.len());
        while missing > 0
            && let Some(host) = self.any(&candidates)
        {
            candidates.retain(|candidate| *candidate != host);
            self.connect(host);
            missing -= 1;
        }
        if self.links.len() > self.config.max_links {
            let rested = Duration::from_secs(30);
            let now = self.now.elapsed;
            let ours: Vec<HostId> = self
                .links
                .iter()
                .filter(|(_, link)| link.ours && now.saturating_sub(link.since) > rested)
                .map(|(host, _)| host)
                .collect();
            if let Some(host) = self.any(&ours) {
                self.out.push(Output::Disconnect(host));
            }
        }
        self.plan(Single::Overlay, Duration::from_secs(2), 0.5);
    }

    /// Tries a host that is down or was never reached, for as long as its grant stands: a healed partition is found
    /// although nobody probes across it any more.
    fn redial(&mut self) {
        let lost: Vec<HostId> = self
            .others()
            .into_iter()
            .filter(|host| !self.links.contains(*host))
            .filter(|host| {
                matches!(
                    self.member.liveness(*host),
                    Liveness::Down | Liveness::Unknown
                )
            })
            .collect();
        if let Some(host) = self.any(&lost) {
            self.connect(host);
        }
        self.plan(Single::Redial, self.config.redial_interval, 0.5);
    }

    fn sync(&mut self) {
        let linked = self.links.hosts();
        if let Some(host) = self.any(&linked) {
            self.send_summary(host);
        }
        // In a large mesh also with somebody from outside the overlay, so that it cannot fall apart unseen.
        let far: Vec<HostId> = self
            .others()
            .into_iter()
            .filter(|host| !self.links.contains(*host))
            .filter(|host| self.member.liveness(*host) == Liveness::Alive)
            .collect();
        if !far.is_empty()
            && self.rng.random_range(0..3) == 0
            && let Some(host) = self.any(&far)
        {
            self.connect(host);
        }
        self.plan(Single::Sync, self.config.sync_interval, 0.5);
    }

    fn housekeep(&mut self) {
        self.read_members();
        self.warn_suspects();
        self.greet_neighbours();
        self.check_admitted();
        for host in self.hosts.expire(self.identity.host_id, self.now.wall_ms) {
            self.persist(table::HOST, host.0.to_vec(), None);
            self.view.host(host);
        }
        if !self.own.incarnation_stored && self.waiting.is_empty() {
            self.store_incarnation();
        }
        // The wall clock may have jumped since the last plan.
        self.plan_values();
        self.plan(Single::Housekeep, Duration::from_secs(1), 0.1);
    }

    /// Greets neighbours that membership holds for down, or all of them when nobody is probed.
    fn greet_neighbours(&mut self) {
        if self.own.leaving {
            return;
        }
        let connected = self.member.connected();
        for host in self.links.hosts() {
            let lost = matches!(
                self.member.liveness(host),
                Liveness::Down | Liveness::Unknown
            );
            if lost || !connected {
                self.greet(host);
            }
        }
    }

    /// Grants begin and end by time and by revocation.
    pub(super) fn check_admitted(&mut self) {
        let admitted = self.valid_hosts();
        if admitted == self.admitted {
            return;
        }
        let changed: Vec<HostId> = self
            .admitted
            .symmetric_difference(&admitted)
            .copied()
            .collect();
        for host in &changed {
            if !admitted.contains(host) && self.links.contains(*host) {
                self.out.push(Output::Disconnect(*host));
            }
        }
        self.links.retain(|host| admitted.contains(&host));
        self.budgets.retain(|host, _| admitted.contains(host));
        self.admitted = admitted;
        self.view.hosts(changed);
        self.agenda.at_latest(
            Single::Overlay,
            self.now.elapsed + Duration::from_millis(50),
        );
    }

    fn values(&mut self) {
        while let Some(first) = self.deadlines.first_entry()
            && *first.key() <= self.now.wall_ms
        {
            let keys = first.remove();
            self.view.resources(keys);
        }
        self.plan_values();
    }
}
