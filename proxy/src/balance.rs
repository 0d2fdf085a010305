//! Which endpoint is next: pure algorithms over numbered slots.
//!
//! In: slots with weights, what may not be picked, what each has to do, random numbers, the time. Out: a slot.
//! Never: waits, knows the protocol, or asks for the time itself.

use std::net::IpAddr;

use mesh_model::snapshot::traffic::{Balance, HashKey};

/// The best of a few that are drawn.
pub(crate) mod choice;
/// What latency counts.
pub(crate) mod latency;
/// How much goes to which level of preference.
pub(crate) mod level;
/// Slots of equal preference, drawn by weight.
mod lot;
/// Maglev's table.
pub(crate) mod maglev;
/// A ring of points.
pub(crate) mod ring;
/// One after another.
pub(crate) mod robin;
/// Slow start.
pub(crate) mod warmth;

pub(crate) use lot::Lot;

/// The number of a caller's address where that is what is hashed: for connections that say nothing else.
pub(crate) fn source_hash(balance: &Balance, source: IpAddr) -> Option<u64> {
    let (Balance::RingHash { keys, .. } | Balance::Maglev { keys, .. }) = balance else {
        return None;
    };
    if !keys.contains(&HashKey::SourceAddress) {
        return None;
    }
    let octets = match source.to_canonical() {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    };
    Some(
        octets
            .iter()
            .fold(0, |hash, octet| mix(hash ^ u64::from(*octet))),
    )
}

/// Mixes the bits of a number (the finaliser of `splitmix64`); part of what hosts of different versions agree on.
pub(crate) fn mix(number: u64) -> u64 {
    let mut hash = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}
