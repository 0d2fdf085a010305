//! Who answers: SWIM (crate foca) behind our own seam, a hint that deletes nothing.
//!
//! In: packets of proven senders, timers, hosts to greet. Out: packets, timers, who is alive, suspect or down.
//! Never: carries anything else than membership, or believes a packet about a host without a grant.

use std::{
    collections::BTreeMap,
    num::{NonZeroU8, NonZeroU32, NonZeroUsize},
    time::Duration,
};

use foca::{Foca, Member, NoCustomBroadcast, Notification, PeriodicParams, Runtime, State, Timer};
use mesh_model::{catalog::Liveness, name::HostId};
use rand::{SeedableRng, rngs::Xoshiro256PlusPlus};

/// Bytes of identities and packets; what a sender may say.
mod packet;

pub(crate) use packet::MemberId;
use packet::{Codec, sieve, tell, warning};

use crate::config::Config;

/// Longest packet, so that with the box around it a datagram stays below 1,200 bytes.
const MAX_PACKET: usize = 1100;

/// What the membership wants done.
#[derive(Debug)]
pub(crate) enum Act {
    Send(HostId, Vec<u8>),
    Later(Duration, Timer<MemberId>),
    /// Others hold this identity for down and it cannot be renewed: a new incarnation is needed.
    Defunct,
}

/// The members known and what is thought of them.
pub(crate) struct Membership {
    foca: Foca<MemberId, Codec, Xoshiro256PlusPlus, NoCustomBroadcast>,
    config: foca::Config,
    suspicion: Duration,
    size: u32,
    seen: BTreeMap<HostId, (Liveness, u32)>,
    suspects: BTreeMap<HostId, Member<MemberId>>,
    connected: bool,
}

impl std::fmt::Debug for Membership {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Membership")
            .field("seen", &self.seen)
            .finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Collect {
    acts: Vec<Act>,
    connected: Option<bool>,
}

impl Runtime<MemberId> for &mut Collect {
    fn notify(&mut self, notification: Notification<'_, MemberId>) {
        match notification {
            Notification::Active => self.connected = Some(true),
            Notification::Idle | Notification::Rejoin(_) => self.connected = Some(false),
            Notification::Defunct => {
                self.connected = Some(false);
                self.acts.push(Act::Defunct);
            }
            _ => {}
        }
    }
    fn send_to(&mut self, to: MemberId, data: &[u8]) {
        self.acts.push(Act::Send(to.host, data.to_vec()));
    }
    fn submit_after(&mut self, event: Timer<MemberId>, after: Duration) {
        self.acts.push(Act::Later(after, event));
    }
}

fn tuning(config: &Config, size: u32) -> foca::Config {
    let size = NonZeroU32::new(size).unwrap_or(NonZeroU32::MIN);
    let mut tuned = foca::Config::new_lan(size);
    let one = NonZeroUsize::MIN;
    tuned.probe_period = config.probe_period;
    tuned.probe_rtt = config.probe_rtt;
    tuned.suspect_to_down_after = suspicion(config.suspicion, size.get());
    tuned.max_packet_size = NonZeroUsize::new(MAX_PACKET).unwrap_or(one);
    tuned.max_transmissions = transmissions(&tuned);
    let every = |frequency, num_members| {
        Some(PeriodicParams {
            frequency,
            num_members,
        })
    };
    tuned.periodic_announce = every(Duration::from_secs(30), one);
    tuned.periodic_announce_to_down_members = every(Duration::from_secs(30), one);
    tuned
}

/// Twice as often as the LAN profile says a thing, and at least six times: a lost datagram is too few at
/// three members, and when a third of the mesh dies a third of what is said goes to the dead.
fn transmissions(lan: &foca::Config) -> NonZeroU8 {
    let doubled = lan
        .max_transmissions
        .saturating_mul(NonZeroU8::MIN.saturating_add(1));
    doubled.max(NonZeroU8::MIN.saturating_add(5))
}

/// `base × max(1, log10 size)`, as memberlist does.
fn suspicion(base: Duration, size: u32) -> Duration {
    base.mul_f64(f64::from(size.max(1)).log10().max(1.0))
}

impl Membership {
    pub(crate) fn new(config: &Config, host: HostId, incarnation: u32, seed: u64) -> Self {
        let tuned = tuning(config, 1);
        let rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        Self {
            foca: Foca::new(
                MemberId {
                    host,
                    incarnation,
                    renewal: 0,
                },
                tuned.clone(),
                rng,
                Codec,
            ),
            config: tuned,
            suspicion: config.suspicion,
            size: 1,
            seen: BTreeMap::new(),
            suspects: BTreeMap::new(),
            connected: false,
        }
    }

    /// Takes a packet. `admits` says whether a host, in an incarnation, may be believed to exist.
    pub(crate) fn packet(
        &mut self,
        from: HostId,
        bytes: &[u8],
        admits: impl Fn(HostId, u32) -> bool,
    ) -> Vec<Act> {
        let Some(clean) = sieve(bytes, from, self.foca.identity().host, admits) else {
            return Vec::new();
        };
        let mut collect = Collect::default();
        // A packet that does not decode changes nothing; foca has no other way to say so.
        drop(self.foca.handle_data(&clean, &mut collect));
        self.told(collect)
    }

    pub(crate) fn timer(&mut self, timer: Timer<MemberId>) -> Vec<Act> {
        let mut collect = Collect::default();
        // Late timers of an earlier connection state answer with an error by design.
        drop(self.foca.handle_timer(timer, &mut collect));
        self.told(collect)
    }

    /// The acts, with each suspect told of its suspicion in whatever goes there.
    fn told(&mut self, collect: Collect) -> Vec<Act> {
        self.connected = collect.connected.unwrap_or(self.connected);
        let mut acts = collect.acts;
        for act in &mut acts {
            if let Act::Send(to, bytes) = act
                && let Some(suspicion) = self.suspects.get(to)
            {
                tell(bytes, suspicion);
            }
        }
        acts
    }

    /// Tells a host that we are here, and asks whom it knows.
    pub(crate) fn greet(&mut self, host: HostId, incarnation: u32) -> Vec<Act> {
        let mut collect = Collect::default();
        drop(self.foca.announce(
            MemberId {
                host,
                incarnation,
                renewal: 0,
            },
            &mut collect,
        ));
        self.told(collect)
    }

    /// Goes on under a new incarnation.
    pub(crate) fn rename(&mut self, incarnation: u32) -> Vec<Act> {
        let mut collect = Collect::default();
        let id = MemberId {
            host: self.foca.identity().host,
            incarnation,
            renewal: 0,
        };
        if self.foca.change_identity(id, &mut collect).is_ok() {
            self.connected = false;
        }
        self.told(collect)
    }

    /// Says goodbye.
    pub(crate) fn leave(&mut self) -> Vec<Act> {
        let mut collect = Collect::default();
        drop(self.foca.leave_cluster(&mut collect));
        let mut acts = self.told(collect);
        acts.retain(|act| !matches!(act, Act::Defunct));
        acts
    }

    /// True while members are probed. After a false alarm a member goes on under a new identity, which
    /// nobody knows and which hears nothing that is sent to the old one: then it must greet again.
    pub(crate) fn connected(&self) -> bool {
        self.connected
    }

    /// Packets that tell suspects of their suspicion, beside whatever goes there by itself.
    pub(crate) fn warnings(&self) -> Vec<(HostId, Vec<u8>)> {
        let own = *self.foca.identity();
        self.suspects
            .values()
            .map(|suspect| (suspect.id().host, warning(own, suspect)))
            .collect()
    }

    /// Reads the members anew; the hosts whose state changed.
    pub(crate) fn refresh(&mut self) -> Vec<(HostId, Liveness)> {
        let mut now = BTreeMap::new();
        self.suspects.clear();
        for member in self.foca.iter_membership_state() {
            let liveness = match member.state() {
                State::Alive => Liveness::Alive,
                State::Suspect => Liveness::Suspect,
                State::Down => Liveness::Down,
            };
            if member.state() == State::Suspect {
                self.suspects.insert(member.id().host, member.clone());
            }
            now.insert(member.id().host, (liveness, member.id().incarnation));
        }
        let size = u32::try_from(self.foca.num_members() + 1).unwrap_or(u32::MAX);
        if size != self.size {
            self.resize(size);
        }
        let changed = now
            .iter()
            .filter(|(host, state)| self.seen.get(host).map(|seen| seen.0) != Some(state.0))
            .map(|(host, state)| (*host, state.0))
            .collect();
        self.seen = now;
        changed
    }

    /// What is thought of a host.
    pub(crate) fn liveness(&self, host: HostId) -> Liveness {
        self.seen
            .get(&host)
            .map_or(Liveness::Unknown, |seen| seen.0)
    }

    fn resize(&mut self, size: u32) {
        self.size = size;
        let mut next = self.config.clone();
        next.suspect_to_down_after = suspicion(self.suspicion, size);
        let lan = foca::Config::new_lan(NonZeroU32::new(size).unwrap_or(NonZeroU32::MIN));
        next.max_transmissions = transmissions(&lan);
        // Only fields that may change were changed.
        if self.foca.set_config(next.clone()).is_ok() {
            self.config.suspect_to_down_after = next.suspect_to_down_after;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suspicion_is_short_when_few_and_grows() {
        let base = Duration::from_secs(2);
        assert_eq!(suspicion(base, 3), base);
        assert_eq!(suspicion(base, 10), base);
        assert_eq!(suspicion(base, 10_000), base * 4);
    }
}
