//! Cells by key, in bounded memory: 65,536 keys of all limits together, 1 MiB, made when first needed.
//!
//! A key lives in one of eight places. A cell that is paid up is worth nothing, so its place is taken by the
//! next key; when all eight are in use the one that is nearest to being paid up goes, and its key begins
//! anew. Never: grows, or remembers what a key was.

use std::{
    sync::{Mutex, OnceLock, PoisonError},
    time::Duration,
};

use super::gcra::Rate;

/// Places that one key may have.
const WAYS: usize = 8;
/// Sets of places behind one lock.
const SETS: usize = 128;
/// Locks.
const SHARDS: usize = 64;
/// Keys in all.
#[cfg(test)]
const CAPACITY: usize = WAYS * SETS * SHARDS;

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    key: u64,
    paid: u64,
}

type Set = [Slot; WAYS];
type Shard = Mutex<Box<[Set]>>;

/// The table.
#[derive(Debug, Default)]
pub(crate) struct Table(OnceLock<Box<[Shard]>>);

impl Table {
    /// Takes one request of a key in at `now`, or says how long it is too early. Keys must be well mixed.
    /// What its cell is then.
    pub(crate) fn take(&self, key: u64, rate: Rate, now: u64) -> Result<u64, Duration> {
        let taken = self.with(key, |set| {
            let slot = place(set, key);
            slot.paid = rate.next(slot.paid, now)?;
            Ok(slot.paid)
        });
        taken.unwrap_or(Ok(now))
    }

    /// Gives one request of a key back.
    pub(crate) fn give_back(&self, key: u64, rate: Rate) {
        self.with(key, |set| {
            if let Some(slot) = set.iter_mut().find(|slot| slot.key == key) {
                slot.paid = rate.before(slot.paid);
            }
        });
    }

    fn with<T>(&self, key: u64, act: impl FnOnce(&mut Set) -> T) -> Option<T> {
        let shards = self.0.get_or_init(|| {
            let shard = || Mutex::new(vec![Set::default(); SETS].into_boxed_slice());
            (0..SHARDS).map(|_| shard()).collect()
        });
        let (shard, set) = (index(key, SHARDS), index(key >> 16, SETS));
        let shard = shards.get(shard)?;
        let mut sets = shard.lock().unwrap_or_else(PoisonError::into_inner);
        sets.get_mut(set).map(act)
    }
}

fn index(key: u64, count: usize) -> usize {
    usize::try_from(key % count as u64).unwrap_or_default()
}

/// The key's place: its own, or the one that is worth least.
fn place(set: &mut Set, key: u64) -> &mut Slot {
    let own = set.iter().position(|slot| slot.key == key);
    let least = || {
        let all = set.iter().enumerate();
        all.min_by_key(|(_, slot)| slot.paid).map(|(at, _)| at)
    };
    let at = own.or_else(least).unwrap_or_default();
    let [first, rest @ ..] = set;
    let slot = match at.checked_sub(1) {
        Some(at) => rest.get_mut(at).unwrap_or(first),
        None => first,
    };
    if slot.key != key {
        *slot = Slot { key, paid: 0 };
    }
    slot
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rate(requests: u32, burst: u32) -> Rate {
        Rate::new(requests, Duration::from_secs(1), burst, 1.0).unwrap()
    }

    fn mixed(number: u64) -> u64 {
        let mixed = (number ^ (number >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) | 1
    }

    #[test]
    fn keys_are_apart() {
        let table = Table::default();
        let rate = rate(1, 2);
        for key in (1..=1000).map(mixed) {
            assert!(table.take(key, rate, 0).is_ok() && table.take(key, rate, 0).is_ok());
            assert_eq!(table.take(key, rate, 0), Err(Duration::from_secs(1)));
            table.give_back(key, rate);
            assert!(table.take(key, rate, 0).is_ok());
        }
    }

    /// A flood of keys takes no memory, and pushes out what is nearest to being worth nothing.
    #[test]
    fn a_flood_of_keys_is_bounded() {
        let table = Table::default();
        let (slow, quick) = (rate(1, 1), rate(1_000_000, 1));
        let known: Vec<u64> = (1..=500).map(mixed).collect();
        for key in &known {
            table.take(*key, slow, 0).unwrap();
        }
        for key in (1000..1000 + 4 * CAPACITY as u64).map(mixed) {
            table.take(key, quick, 0).unwrap();
        }
        let held = known
            .iter()
            .filter(|key| table.take(**key, slow, 0).is_err());
        assert_eq!(held.count(), known.len());
    }

    proptest! {
        /// While there is room, a key is treated as if it had a cell of its own.
        #[test]
        fn as_if_alone(steps in prop::collection::vec((1u64..20, 0u64..50_000_000), 1..400)) {
            let table = Table::default();
            let rate = rate(20, 3);
            let mut alone = std::collections::HashMap::new();
            let mut now = 0;
            for (key, gap) in steps {
                now += gap;
                let cell = alone.entry(key).or_insert(0u64);
                let wanted = rate.next(*cell, now);
                *cell = wanted.unwrap_or(*cell);
                prop_assert_eq!(table.take(mixed(key), rate, now), wanted);
            }
        }
    }
}
