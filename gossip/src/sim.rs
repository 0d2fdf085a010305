//! Many nodes under one seeded clock, with loss, delay, duplication, partition, restart and skewed clocks.
//!
//! In: a seed and a scenario. Out: the same run for the same seed, every time.
//! Never: waits, or uses anything of the machine that it runs on.
#![expect(
    clippy::indexing_slicing,
    reason = "a simulator of fixed machines; a broken law must stop it loudly"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use mesh_model::{
    admin::CommitAccepted,
    commit::CommitId,
    fact::Record,
    grant::Signed,
    name::{HostId, MeshId},
};
use rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus};

use crate::{Config, Grant, Input, Row, SubmitError, Time};

mod check;
/// Fake keys, and the grants of a small mesh.
pub mod keys;
/// One machine: a node, its disk, its clock.
pub mod machine;
mod network;
/// Operators who make edits.
pub mod operator;

#[cfg(test)]
mod tests;

use keys::Keys;
use machine::Machine;

/// How the network behaves.
#[derive(Debug, Clone, Copy)]
pub struct Net {
    /// Share of datagrams that are lost, percent.
    pub loss: u32,
    /// Share of datagrams that come twice, percent.
    pub duplicates: u32,
    /// Shortest and longest delay, milliseconds.
    pub delay: (u64, u64),
}

impl Default for Net {
    fn default() -> Self {
        Self {
            loss: 0,
            duplicates: 0,
            delay: (1, 5),
        }
    }
}

#[derive(Debug)]
enum Event {
    Input {
        machine: usize,
        boot: u32,
        input: Input,
    },
    /// A frame of a link, which is lost with it.
    Frame {
        from: usize,
        to: usize,
        link: u64,
        bytes: Bytes,
    },
    Linked {
        from: usize,
        to: usize,
    },
    Cut {
        from: usize,
        to: usize,
        link: u64,
    },
    Synced {
        machine: usize,
        boot: u32,
        ticket: Option<u64>,
    },
    Flush {
        machine: usize,
        boot: u32,
    },
}

impl Event {
    /// To whom it happens, unless it is the disk's matter.
    fn machine(&self) -> Option<usize> {
        match self {
            Self::Input { machine, .. } | Self::Synced { machine, .. } => Some(*machine),
            Self::Frame { to, .. } | Self::Cut { to, .. } | Self::Linked { to, .. } => Some(*to),
            Self::Flush { .. } => None,
        }
    }
}

/// The world.
#[derive(Debug)]
pub struct World {
    /// The machines; their index is their name.
    pub machines: Vec<Machine>,
    /// Keys and grants.
    pub keys: Keys,
    /// How datagrams fare.
    pub net: Net,
    /// Answers to edits, by ticket.
    pub answers: BTreeMap<u64, Result<CommitAccepted, SubmitError>>,
    /// Commits that were acknowledged to somebody.
    pub acknowledged: BTreeSet<CommitId>,
    /// Steps made.
    pub steps: u64,
    /// Bytes sent in frames.
    pub bytes: usize,
    now: Duration,
    queue: BTreeMap<(Duration, u64), Event>,
    next: u64,
    rng: Xoshiro256PlusPlus,
    config: Config,
    links: BTreeMap<(usize, usize), (u64, [Duration; 2])>,
    cut: BTreeSet<(usize, usize)>,
    no_udp: BTreeSet<(usize, usize)>,
    /// Every head ever seen of an honest host, by number: no number stands for two heads.
    heads: BTreeMap<(HostId, u32, u64), [u8; 16]>,
    tickets: u64,
}

fn pair(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}

/// The wall clock at the start of every world.
pub const EPOCH_MS: u64 = 1_800_000_000_000;

impl World {
    /// `count` machines that are not running yet; the first is the authority.
    pub fn new(seed: u64, count: usize) -> Self {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        let keys = Keys::new(&mut rng, count);
        let machines = (0..count)
            .map(|index| Machine::new(keys.host_id(index), &keys.bootstrap(index)))
            .collect();
        Self {
            machines,
            keys,
            net: Net::default(),
            answers: BTreeMap::new(),
            acknowledged: BTreeSet::new(),
            steps: 0,
            bytes: 0,
            now: Duration::ZERO,
            queue: BTreeMap::new(),
            next: 0,
            rng,
            config: Config {
                parse: operator::parse,
                ..Config::default()
            },
            links: BTreeMap::new(),
            cut: BTreeSet::new(),
            no_udp: BTreeSet::new(),
            heads: BTreeMap::new(),
            tickets: 0,
        }
    }

    /// The mesh.
    pub fn mesh(&self) -> MeshId {
        self.keys.mesh
    }

    /// Simulated time since the beginning.
    pub fn now(&self) -> Duration {
        self.now
    }

    /// The wall clock of a machine, milliseconds since the epoch.
    pub fn wall_ms(&self, machine: usize) -> u64 {
        let true_ms = EPOCH_MS + crate::config::millis(self.now);
        true_ms.saturating_add_signed(self.machines[machine].skew_ms)
    }

    /// A number below `below`, from the world's seed.
    pub fn draw(&mut self, below: usize) -> usize {
        self.rng.random_range(0..below.max(1))
    }

    /// True in so many of a hundred cases.
    pub fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    /// Starts a machine from its disk.
    pub fn boot(&mut self, index: usize) {
        let seed = self.rng.random();
        let time = self.time(index);
        let identity = (
            self.keys.mesh,
            self.keys.signer(index),
            self.keys.verifier(),
        );
        let machine = &mut self.machines[index];
        assert!(machine.node.is_none(), "machine {index} runs already");
        machine.boot(self.config.clone(), identity, seed, time);
        let boot = machine.boots;
        let (outputs, records) = machine.start(time);
        self.at(
            Duration::from_secs(1),
            Event::Flush {
                machine: index,
                boot,
            },
        );
        self.carry_out(index, outputs);
        if let Some(records) = records {
            self.input(index, Input::Publish(records));
        }
    }

    /// Stops a machine without notice: what was not synced is lost, but perhaps a beginning of it.
    pub fn crash(&mut self, index: usize) {
        let survive = {
            let waiting = self.machines[index].buffered.len();
            self.draw(waiting + 1)
        };
        self.machines[index].crash(survive);
        let ends: Vec<(usize, usize)> = self
            .links
            .keys()
            .copied()
            .filter(|(a, b)| *a == index || *b == index)
            .collect();
        for (a, b) in ends {
            // Killed: the kernel resets at once. Without power: the peer finds out by itself.
            let quick = self.chance(50);
            let after = Duration::from_millis(if quick { 5 } else { 4000 });
            let other = if a == index { b } else { a };
            if let Some((link, _)) = self.links.remove(&(a, b)) {
                self.at(
                    after,
                    Event::Cut {
                        from: index,
                        to: other,
                        link,
                    },
                );
            }
        }
    }

    /// Cuts every connection between `left` and the others.
    pub fn partition(&mut self, left: &[usize]) {
        let count = self.machines.len();
        for a in (0..count).filter(|a| left.contains(a)) {
            for b in (0..count).filter(|b| !left.contains(b)) {
                self.cut.insert(pair(a, b));
                if let Some((link, _)) = self.links.remove(&pair(a, b)) {
                    let after = Duration::from_secs(4);
                    self.at(
                        after,
                        Event::Cut {
                            from: a,
                            to: b,
                            link,
                        },
                    );
                    self.at(
                        after,
                        Event::Cut {
                            from: b,
                            to: a,
                            link,
                        },
                    );
                }
            }
        }
    }

    /// Joins everything again.
    pub fn heal(&mut self) {
        self.cut.clear();
    }

    /// Datagrams from `a` to `b` are dropped; frames pass.
    pub fn block_udp(&mut self, a: usize, b: usize) {
        self.no_udp.insert((a, b));
    }

    /// A machine stands still: what happens to it meanwhile waits.
    pub fn stall(&mut self, index: usize, duration: Duration) {
        self.machines[index].stalled_until = self.now + duration;
    }
    /// Starts every machine that does not run.
    pub fn boot_all(&mut self) {
        for index in 0..self.machines.len() {
            if self.machines[index].node.is_none() {
                self.boot(index);
            }
        }
    }

    /// Publishes records on a machine, now and after every restart.
    pub fn publish(&mut self, index: usize, records: Vec<Record>) {
        self.machines[index].records = Some(records.clone());
        self.input(index, Input::Publish(records));
    }

    /// Gives grants to a machine.
    pub fn grant(&mut self, index: usize, grants: Vec<Grant>) {
        self.input(index, Input::Grants(grants));
    }

    /// Sends an edit to a machine; its ticket.
    pub fn submit(&mut self, index: usize, commit: Signed) -> u64 {
        self.tickets += 1;
        let ticket = self.tickets;
        self.input(index, Input::Submit { ticket, commit });
        ticket
    }

    /// Gives an input to a machine now, if it runs.
    pub fn input(&mut self, index: usize, input: Input) {
        let time = self.time(index);
        let Some(node) = &mut self.machines[index].node else {
            return;
        };
        let outputs = node.handle(input, time);
        self.steps += 1;
        self.carry_out(index, outputs);
        self.check_invariants(index);
    }

    /// Runs until nothing is left to do within `duration`.
    pub fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.step(end) {}
        self.now = end;
    }

    /// Runs until `done`, at most for `limit`; how long it took.
    pub fn run_until(
        &mut self,
        limit: Duration,
        mut done: impl FnMut(&mut Self) -> bool,
    ) -> Option<Duration> {
        let start = self.now;
        while self.now < start + limit {
            if done(self) {
                return Some(self.now.saturating_sub(start));
            }
            self.run(Duration::from_millis(50));
        }
        done(self).then(|| self.now.saturating_sub(start))
    }

    fn step(&mut self, end: Duration) -> bool {
        let Some(((at, _), _)) = self.queue.first_key_value() else {
            return false;
        };
        if *at > end {
            return false;
        }
        let Some(((at, _), event)) = self.queue.pop_first() else {
            return false;
        };
        self.now = at;
        let wakes = event
            .machine()
            .map(|index| self.machines[index].stalled_until);
        if let Some(wakes) = wakes.filter(|wakes| *wakes > at) {
            // The nasty order: it sees first what is overdue, then what came meanwhile.
            let timer = matches!(
                event,
                Event::Input {
                    input: Input::Timer(_),
                    ..
                }
            );
            let wakes = wakes + Duration::from_millis(if timer { 0 } else { 30 });
            self.at(wakes.saturating_sub(at), event);
            return true;
        }
        match event {
            Event::Input {
                machine,
                boot,
                input,
            } => {
                if self.machines[machine].boots == boot {
                    self.input(machine, input);
                }
            }
            Event::Frame {
                from,
                to,
                link,
                bytes,
            } => {
                if self
                    .links
                    .get(&pair(from, to))
                    .is_some_and(|(current, _)| *current == link)
                {
                    let length = bytes.len();
                    let (sender, receiver) = (self.machines[from].host, self.machines[to].host);
                    self.input(
                        to,
                        Input::Frame {
                            from: sender,
                            bytes,
                        },
                    );
                    self.input(
                        from,
                        Input::Sent {
                            to: receiver,
                            bytes: length,
                        },
                    );
                }
            }
            Event::Linked { from, to } => self.linked(from, to),
            Event::Cut { from, to, link } => self.cut_off(from, to, link),
            Event::Synced {
                machine,
                boot,
                ticket,
            } => {
                if self.machines[machine].boots == boot {
                    self.machines[machine].sync();
                    if let Some(ticket) = ticket {
                        self.input(machine, Input::Stored(ticket));
                    }
                }
            }
            Event::Flush { machine, boot } => {
                if self.machines[machine].boots == boot && self.machines[machine].node.is_some() {
                    self.machines[machine].sync();
                    self.at(Duration::from_secs(1), Event::Flush { machine, boot });
                }
            }
        }
        true
    }

    fn time(&self, index: usize) -> Time {
        Time {
            elapsed: self.now,
            wall_ms: self.wall_ms(index),
        }
    }

    fn at(&mut self, after: Duration, event: Event) {
        self.next += 1;
        self.queue.insert((self.now + after, self.next), event);
    }
}

/// Rows as a machine's disk gives them back.
pub(crate) fn rows(disk: &BTreeMap<(&'static str, Vec<u8>), Vec<u8>>) -> Vec<Row> {
    disk.iter()
        .map(|((table, key), value)| Row {
            table,
            key: key.clone(),
            value: Some(value.clone()),
        })
        .collect()
}
