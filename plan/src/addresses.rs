//! Virtual addresses: preferred by a hash of the name, so that hosts mostly agree, and kept once given.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, Ipv6Addr},
};

use mesh_model::name::ServiceId;

use crate::{Allocations, CompileError, Input, key::Stable, services::Services};

/// Gives every service its addresses; those of services that are gone are kept while there is room.
pub(crate) fn allocate(
    services: &Services,
    input: &Input<'_>,
) -> Result<Allocations, CompileError> {
    let wanted: Vec<&ServiceId> = services
        .by_id
        .iter()
        .filter(|(_, service)| !service.headless)
        .map(|(id, _)| id)
        .collect();
    let ranges = Ranges::of(input);
    if wanted.len() > ranges.room() {
        return Err(CompileError::AddressesExhausted {
            services: wanted.len(),
            room: ranges.room(),
        });
    }
    let mut all = kept(&ranges, input.allocations);
    if all.0.len() + wanted.len() > ranges.room() / 2 {
        all.0.retain(|id, _| services.by_id.contains_key(id));
    }
    let mut used_v4: BTreeSet<Ipv4Addr> = all.0.values().map(|(v4, _)| *v4).collect();
    let mut used_v6: BTreeSet<Ipv6Addr> = all.0.values().map(|(_, v6)| *v6).collect();
    for id in wanted {
        if !all.0.contains_key(id) {
            let pair = (ranges.free_v4(id, &used_v4), ranges.free_v6(id, &used_v6));
            used_v4.insert(pair.0);
            used_v6.insert(pair.1);
            all.0.insert(id.clone(), pair);
        }
    }
    Ok(all)
}

/// What was given before and still lies in the ranges, each address once.
fn kept(ranges: &Ranges, before: &Allocations) -> Allocations {
    let mut seen = (BTreeSet::new(), BTreeSet::new());
    let fits = |(v4, v6): (Ipv4Addr, Ipv6Addr)| {
        ranges.has(v4, v6) && seen.0.insert(v4) && seen.1.insert(v6)
    };
    let mut fits = fits;
    Allocations(
        before
            .0
            .iter()
            .filter(|(_, pair)| fits(**pair))
            .map(|(id, pair)| (id.clone(), *pair))
            .collect(),
    )
}

struct Ranges {
    v4: u32,
    v4_size: u32,
    v6: u128,
    v6_mask: u128,
}

impl Ranges {
    fn of(input: &Input<'_>) -> Self {
        let (v4, bits4) = input.boot.virtual_v4;
        let (v6, bits6) = input.boot.virtual_v6;
        Self {
            v4: v4.to_bits(),
            v4_size: 1 << (32 - u32::from(bits4.clamp(8, 24))),
            v6: v6.to_bits(),
            v6_mask: u128::MAX >> u32::from(bits6.clamp(32, 112)),
        }
    }
    /// Addresses that can be given: neither the first nor the last of the IPv4 range.
    fn room(&self) -> usize {
        usize::try_from(self.v4_size - 2).unwrap_or(usize::MAX)
    }
    fn has(&self, v4: Ipv4Addr, v6: Ipv6Addr) -> bool {
        let offset = v4.to_bits().wrapping_sub(self.v4);
        let prefix = v6.to_bits() & !self.v6_mask;
        (1..self.v4_size - 1).contains(&offset) && prefix == self.v6 && v6.to_bits() != self.v6
    }
    fn free_v4(&self, id: &ServiceId, used: &BTreeSet<Ipv4Addr>) -> Ipv4Addr {
        let room = self.v4_size - 2;
        let start = u32::try_from(hash(id) % u64::from(room)).unwrap_or_default();
        let at = |step: u32| Ipv4Addr::from_bits(self.v4 + 1 + (start + step) % room);
        (0..room)
            .map(at)
            .find(|address| !used.contains(address))
            .unwrap_or_else(|| at(0))
    }
    fn free_v6(&self, id: &ServiceId, used: &BTreeSet<Ipv6Addr>) -> Ipv6Addr {
        let start = u128::from(hash(id)) & self.v6_mask;
        let at = |step: u128| {
            let offset = (start.wrapping_add(step) & self.v6_mask).max(1);
            Ipv6Addr::from_bits(self.v6 | offset)
        };
        let most = u128::try_from(used.len()).unwrap_or_default() + 2;
        (0..most)
            .map(at)
            .find(|address| !used.contains(address))
            .unwrap_or_else(|| at(0))
    }
}

fn hash(id: &ServiceId) -> u64 {
    let mut hash = Stable::new();
    hash.text("virtual")
        .text(id.namespace.as_str())
        .text(id.name.as_str());
    hash.finish()
}
