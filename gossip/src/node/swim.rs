//! Membership packets, by datagram and by link, and what they mean for this host's own identity.

use std::time::Duration;

use bytes::Bytes;
use mesh_model::{catalog::Liveness, name::HostId};

use super::Node;
use crate::{event::Output, member::Act, wire::Frame};

/// Bit of a membership packet's first byte: the sender hears the receiver's datagrams.
const HEARS: u8 = 1;

impl Node {
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
    pub(super) fn next_incarnation(&mut self, seen: u32) {
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

    pub(super) fn send_swim(&mut self, to: HostId, packet: &[u8]) {
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
}
