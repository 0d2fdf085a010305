//! Maglev (Eisenbud et al., NSDI 2016, section 3.4): a table of a prime size that every endpoint fills in its
//! own order. Weights as Envoy does it: who is lighter sits out turns.

use super::{mix, ring::Seed};

/// Sizes that are too small for the endpoints are raised to this many entries for each.
const PER_ENDPOINT: u64 = 2;
/// Largest table.
const MOST: u64 = 5_000_011;

/// The table.
#[derive(Debug)]
pub(crate) struct Maglev(Box<[u32]>);

impl Maglev {
    /// A table of `size` entries or, when that is no prime or too small, of the next prime that will do.
    pub(crate) fn new(seeds: &[Seed], size: u32) -> Self {
        let size = Self::size(seeds, size);
        let mut table = vec![u32::MAX; usize::try_from(size).unwrap_or_default()];
        let most = seeds.iter().map(|seed| seed.weight.max(1)).max();
        let Some(most) = most.map(u64::from) else {
            return Self(Box::default());
        };
        let mut turns: Vec<Turn> = seeds.iter().map(|seed| Turn::new(seed, size)).collect();
        let mut left = table.len();
        for round in 1u64.. {
            for turn in &mut turns {
                if round.saturating_mul(turn.weight) < turn.target {
                    continue;
                }
                turn.target += most;
                if left == 0 {
                    return Self(table.into_boxed_slice());
                }
                turn.fill(&mut table, size);
                left -= 1;
            }
        }
        Self(table.into_boxed_slice())
    }

    /// Entries that the table will have.
    pub(crate) fn size(seeds: &[Seed], wanted: u32) -> u64 {
        let least = (seeds.len() as u64).saturating_mul(PER_ENDPOINT);
        prime_from(u64::from(wanted).max(least).clamp(3, MOST))
    }

    /// Slots for a key: its own first, then others in an order that is always the same.
    pub(crate) fn walk(&self, hash: u64) -> impl Iterator<Item = u32> + '_ {
        let size = self.0.len() as u64;
        let mut at = hash;
        std::iter::from_fn(move || {
            let index = usize::try_from(at.checked_rem(size)?).ok()?;
            at = mix(at);
            self.0.get(index).copied()
        })
    }
}

/// The order in which an endpoint fills the table.
struct Turn {
    slot: u32,
    next: u64,
    skip: u64,
    weight: u64,
    target: u64,
}

impl Turn {
    fn new(seed: &Seed, size: u64) -> Self {
        let hash = mix(seed.key);
        Self {
            slot: seed.slot,
            next: hash % size,
            skip: mix(hash) % (size - 1) + 1,
            weight: u64::from(seed.weight.max(1)),
            target: 0,
        }
    }

    fn fill(&mut self, table: &mut [u32], size: u64) {
        loop {
            let index = usize::try_from(self.next).unwrap_or_default();
            self.next = (self.next + self.skip) % size;
            if let Some(entry) = table.get_mut(index)
                && *entry == u32::MAX
            {
                *entry = self.slot;
                return;
            }
        }
    }
}

/// The least prime that is not less.
fn prime_from(least: u64) -> u64 {
    let is_prime = |number: u64| {
        number == 2
            || (number > 2
                && !number.is_multiple_of(2)
                && (3..)
                    .step_by(2)
                    .take_while(|divisor| divisor * divisor <= number)
                    .all(|divisor| !number.is_multiple_of(divisor)))
    };
    // Between a number and its double there always is one.
    (least..=least * 2)
        .find(|number| is_prime(*number))
        .unwrap_or(3)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seeds(keys: impl Iterator<Item = u64>) -> Vec<Seed> {
        let seed = |(slot, key)| Seed {
            key: key * 0x9e37_79b9,
            weight: 1,
            slot,
        };
        (0..).zip(keys).map(seed).collect()
    }

    #[test]
    fn few_keys_move_when_one_leaves() {
        let all = seeds(0..20);
        let left = seeds((0..20).filter(|key| *key != 7));
        let (before, after) = (Maglev::new(&all, 65_537), Maglev::new(&left, 65_537));
        let key = |seeds: &[Seed], slot: u32| seeds[slot as usize].key;
        let (mut moved, mut lost) = (0u32, 0u32);
        for (was, is) in before.0.iter().zip(&after.0) {
            let (was, is) = (key(&all, *was), key(&left, *is));
            lost += u32::from(was == all[7].key);
            moved += u32::from(was != is);
        }
        assert!((3_200..3_350).contains(&lost), "{lost} of 65537, not 1/20");
        // The paper allows a few more than those that must.
        assert!(moved < lost + 65_537 / 25, "{moved} moved, {lost} had to");
    }

    #[test]
    fn shares_by_weight() {
        let mut some = seeds(0..3);
        some[1].weight = 2;
        some[2].weight = 7;
        let table = Maglev::new(&some, 10_007);
        let hits = |slot| table.0.iter().filter(|entry| **entry == slot).count();
        assert!((990..=1012).contains(&hits(0)), "{}", hits(0));
        assert!((1980..=2022).contains(&hits(1)), "{}", hits(1));
        assert_eq!(hits(0) + hits(1) + hits(2), 10_007);
    }

    #[test]
    fn sizes() {
        assert_eq!(Maglev::size(&[], 65_537), 65_537);
        assert_eq!(Maglev::size(&seeds(0..3), 100), 101);
        assert_eq!(Maglev::size(&seeds(0..1000), 101), 2003);
        assert_eq!(Maglev::new(&[], 65_537).walk(1).next(), None);
    }

    proptest! {
        #[test]
        fn every_entry_is_filled(weights in prop::collection::vec(0u32..50, 1..60), hash: u64) {
            let mut some = seeds(0..weights.len() as u64);
            for (seed, weight) in some.iter_mut().zip(&weights) {
                seed.weight = *weight;
            }
            let table = Maglev::new(&some, 1009);
            prop_assert!(table.0.iter().all(|slot| (*slot as usize) < weights.len()));
            prop_assert!(table.walk(hash).take(9).eq(table.walk(hash).take(9)));
        }
    }
}
