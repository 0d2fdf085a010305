//! What machines want done: datagrams that get lost, links that break, writes that take time.

use std::time::Duration;

use bytes::Bytes;
use mesh_model::{admin::CommitAccepted, name::HostId};
use rand::RngExt;

use super::{Event, World, pair};
use crate::{Input, Output, SubmitError, table};

impl World {
    pub(super) fn linked(&mut self, from: usize, to: usize) {
        let (a, b) = (self.machines[from].host, self.machines[to].host);
        let running = self.machines[from].node.is_some() && self.machines[to].node.is_some();
        if !running || self.cut.contains(&pair(from, to)) {
            return self.input(from, Input::LinkDown(b));
        }
        if self.links.contains_key(&pair(from, to)) {
            return;
        }
        self.next += 1;
        self.links
            .insert(pair(from, to), (self.next, [self.now; 2]));
        self.machines[from].linked.insert(b, self.next);
        self.machines[to].linked.insert(a, self.next);
        self.input(from, Input::LinkUp(b));
        self.input(to, Input::LinkUp(a));
    }

    pub(super) fn cut_off(&mut self, from: usize, to: usize, link: u64) {
        let host = self.machines[from].host;
        if self.machines[to].linked.get(&host) == Some(&link) {
            self.machines[to].linked.remove(&host);
            self.input(to, Input::LinkDown(host));
        }
    }

    pub(super) fn delay(&mut self) -> Duration {
        let (least, most) = self.net.delay;
        Duration::from_millis(self.rng.random_range(least..=most))
    }

    pub(super) fn datagram(&mut self, from: usize, to: HostId, bytes: &Bytes) {
        let Some(to) = self.index_of(to) else { return };
        assert!(bytes.len() <= 1150, "datagram of {} bytes", bytes.len());
        let copies = if self.chance(self.net.duplicates) {
            2
        } else {
            1
        };
        for _copy in 0..copies {
            let lost = self.chance(self.net.loss)
                || self.cut.contains(&pair(from, to))
                || self.no_udp.contains(&(from, to));
            if !lost {
                let after = self.delay();
                let (boot, host) = (self.machines[to].boots, self.machines[from].host);
                let input = Input::Datagram {
                    from: host,
                    bytes: bytes.clone(),
                };
                self.at(
                    after,
                    Event::Input {
                        machine: to,
                        boot,
                        input,
                    },
                );
            }
        }
    }

    pub(super) fn frame(&mut self, from: usize, to: HostId, bytes: Bytes) {
        let Some(to) = self.index_of(to) else { return };
        let after = self.delay();
        let now = self.now;
        let Some((link, last)) = self.links.get_mut(&pair(from, to)) else {
            return;
        };
        self.bytes += bytes.len();
        // In order, each way.
        let slot = &mut last[usize::from(from > to)];
        *slot = (*slot).max(now + after);
        let (link, wait) = (*link, slot.saturating_sub(now));
        self.at(
            wait,
            Event::Frame {
                from,
                to,
                link,
                bytes,
            },
        );
    }

    pub(super) fn carry_out(&mut self, index: usize, outputs: Vec<Output>) {
        let boot = self.machines[index].boots;
        for output in outputs {
            match output {
                Output::Datagram { to, bytes } => self.datagram(index, to, &bytes),
                Output::Frame { to, bytes } => self.frame(index, to, bytes),
                Output::Connect(host) => {
                    let Some(to) = self.index_of(host) else {
                        continue;
                    };
                    let reachable =
                        self.machines[to].node.is_some() && !self.cut.contains(&pair(index, to));
                    let after = if reachable {
                        self.delay() * 3
                    } else {
                        Duration::from_secs(2)
                    };
                    self.at(after, Event::Linked { from: index, to });
                }
                Output::Disconnect(host) => {
                    let Some(to) = self.index_of(host) else {
                        continue;
                    };
                    if let Some((link, _)) = self.links.remove(&pair(index, to)) {
                        self.at(
                            Duration::from_millis(1),
                            Event::Cut {
                                from: index,
                                to,
                                link,
                            },
                        );
                        self.at(
                            Duration::from_millis(1),
                            Event::Cut {
                                from: to,
                                to: index,
                                link,
                            },
                        );
                    }
                }
                Output::Timer { after, token } => {
                    self.at(
                        after,
                        Event::Input {
                            machine: index,
                            boot,
                            input: Input::Timer(token),
                        },
                    );
                }
                Output::Persist {
                    rows,
                    durable,
                    ticket,
                } => {
                    self.machines[index].buffered.extend(rows);
                    if durable {
                        let after = Duration::from_millis(self.rng.random_range(2..9));
                        self.at(
                            after,
                            Event::Synced {
                                machine: index,
                                boot,
                                ticket,
                            },
                        );
                    }
                }
                Output::Answer { ticket, result } => self.answer(index, ticket, result),
                Output::CatalogChanged => self.machines[index].catalog_changed = true,
            }
        }
    }

    pub(super) fn answer(
        &mut self,
        index: usize,
        ticket: u64,
        result: Result<CommitAccepted, SubmitError>,
    ) {
        if let Ok(accepted) = &result {
            let stored = self.machines[index]
                .disk
                .contains_key(&(table::COMMIT, accepted.id.0.to_vec()));
            assert!(stored, "acknowledged before it was on disk");
            self.acknowledged.insert(accepted.id);
        }
        let before = self.answers.insert(ticket, result);
        assert!(before.is_none(), "answered twice");
    }

    pub(super) fn index_of(&self, host: HostId) -> Option<usize> {
        self.machines
            .iter()
            .position(|machine| machine.host == host)
    }
}
