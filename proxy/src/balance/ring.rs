//! A ring of points: a key belongs to the next point, so a change of endpoints moves only their keys.
//!
//! As ketama does, with points by weight. The same on every host and in every version.

use super::mix;

/// An endpoint that is to have a part of the keys.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seed {
    /// Stable number of the endpoint.
    pub(crate) key: u64,
    /// Its relative share; 0 counts as 1.
    pub(crate) weight: u32,
    /// Its slot.
    pub(crate) slot: u32,
}

/// Points that the lightest endpoint should have, as far as the bound on all allows.
const LIGHTEST: u64 = 40;
/// Most points that are made for evenness alone.
const EVENNESS: u64 = 1 << 17;
/// Most points at all.
const MOST: u64 = 1 << 23;

/// The ring.
#[derive(Debug)]
pub(crate) struct Ring {
    points: Box<[u64]>,
    slots: Box<[u32]>,
}

impl Ring {
    /// At least `minimum` points, and at least one for each endpoint.
    pub(crate) fn new(seeds: &[Seed], minimum: u32) -> Self {
        let shares = Shares::of(seeds, minimum);
        let mut points = Vec::new();
        for seed in seeds {
            for index in 0..shares.of_weight(seed.weight) {
                points.push((mix(mix(seed.key) ^ index), seed.slot));
            }
        }
        points.sort_unstable();
        points.dedup_by_key(|(point, _)| *point);
        Self {
            points: points.iter().map(|(point, _)| *point).collect(),
            slots: points.iter().map(|(_, slot)| *slot).collect(),
        }
    }

    /// Points of a ring of so many endpoints of equal weight: a measure of the work.
    pub(crate) fn points(endpoints: u64, minimum: u32) -> u64 {
        wanted(LIGHTEST.saturating_mul(endpoints), minimum).max(endpoints)
    }

    /// Slots for a key: its own first, then those that take over.
    pub(crate) fn walk(&self, hash: u64) -> impl Iterator<Item = u32> + '_ {
        let start = self.points.partition_point(|point| *point < hash);
        let (before, after) = self.slots.split_at(start.min(self.slots.len()));
        after.iter().chain(before).copied()
    }
}

/// Points that there should be at least.
fn wanted(even: u64, minimum: u32) -> u64 {
    even.min(EVENNESS).max(u64::from(minimum)).min(MOST)
}

/// How many points a weight gets: all in proportion, `minimum` together, more for evenness while that stays small.
///
/// The points of a weight of 1 are a power of two (or, of several weights together, one point): an endpoint more or
/// less seldom changes how many the others have, and so moves no keys of theirs.
struct Shares {
    power: i32,
}

impl Shares {
    fn of(seeds: &[Seed], minimum: u32) -> Self {
        let weights = || seeds.iter().map(|seed| u64::from(seed.weight.max(1)));
        let (total, least) = (weights().sum::<u64>().max(1), weights().min().unwrap_or(1));
        // Points when the lightest has as many as it should.
        let even = LIGHTEST.saturating_mul(total).div_ceil(least);
        let wanted = wanted(even, minimum);
        let power = (-40..24).find(|power| scaled(total, *power) >= wanted);
        Self {
            power: power.unwrap_or(0),
        }
    }

    fn of_weight(&self, weight: u32) -> u64 {
        scaled(u64::from(weight.max(1)), self.power).clamp(1, MOST)
    }
}

fn scaled(weight: u64, power: i32) -> u64 {
    let scaled = match u32::try_from(power) {
        Ok(up) => u128::from(weight) << up,
        Err(_negative) => u128::from(weight) >> power.unsigned_abs(),
    };
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seeds(keys: impl Iterator<Item = u64>) -> Vec<Seed> {
        let seed = |(slot, key)| Seed {
            key: key * 0x9e37_79b9,
            weight: 1,
            slot,
        };
        (0..).zip(keys).map(seed).collect()
    }

    fn owner(ring: &Ring, seeds: &[Seed], key: u64) -> u64 {
        let slot = ring.walk(mix(key)).next().unwrap();
        seeds.iter().find(|seed| seed.slot == slot).unwrap().key
    }

    #[test]
    fn only_the_keys_of_one_that_left_move() {
        let all = seeds(0..20);
        let left: Vec<_> = seeds((0..20).filter(|key| *key != 7));
        let (before, after) = (Ring::new(&all, 1024), Ring::new(&left, 1024));
        let gone = all[7].key;
        let mut moved = 0;
        for key in 0..20_000 {
            let (was, is) = (owner(&before, &all, key), owner(&after, &left, key));
            assert!(was == is || was == gone, "the key of another moved");
            moved += u32::from(was != is);
        }
        assert!((500..1700).contains(&moved), "{moved} of 20000, not 1/20");
    }

    #[test]
    fn shares_by_weight_and_bounds() {
        let mut some = seeds(0..4);
        some[0].weight = 5;
        let ring = Ring::new(&some, 4096);
        assert!((4096..8192).contains(&ring.points.len()));
        let mut hits = [0u32; 4];
        for key in 0..40_000 {
            hits[ring.walk(mix(key)).next().unwrap() as usize] += 1;
        }
        assert!((22_000..28_000).contains(&hits[0]), "{hits:?}");
        assert!(
            hits[1..].iter().all(|hits| (3_800..6_400).contains(hits)),
            "{hits:?}"
        );
        // Bounded however many there are, and each has a point.
        let ring = Ring::new(&seeds(0..10_000), 1024);
        assert!(
            (10_000..270_000).contains(&ring.points.len()),
            "{}",
            ring.points.len()
        );
        let mut some = seeds(0..2);
        some[0].weight = u32::MAX;
        let ring = Ring::new(&some, 1024);
        assert!(ring.slots.contains(&1) && ring.points.len() < 270_000);
        assert_eq!(Ring::new(&[], 1024).walk(5).next(), None);
    }

    #[test]
    fn who_takes_over_is_always_the_same() {
        let all = seeds(0..5);
        let ring = Ring::new(&all, 1024);
        let order = |key| {
            let mut seen = Vec::new();
            for slot in ring.walk(mix(key)) {
                if !seen.contains(&slot) {
                    seen.push(slot);
                }
            }
            seen
        };
        assert_eq!(order(3).len(), 5);
        assert_eq!(order(3), order(3));
    }
}
