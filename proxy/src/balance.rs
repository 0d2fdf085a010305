//! Picks one endpoint of a group: the less loaded of two, drawn by weight.
//!
//! In: the group's slots in order of preference, what may not be picked, random numbers. Out: a slot.
//! Never: waits, allocates in the common case, or knows the protocol.

use std::ops::Range;

use smallvec::SmallVec;

/// What the balancer needs to know of one endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Load {
    /// Requests or connections that it has now.
    pub(crate) outstanding: u32,
    /// Relative share, at least 1.
    pub(crate) weight: u32,
}

impl Load {
    /// True when this one has less to do for its weight than `other`.
    fn is_less_than(self, other: Self) -> bool {
        u64::from(self.outstanding) * u64::from(other.weight)
            < u64::from(other.outstanding) * u64::from(self.weight)
    }
}

/// Slots of equal preference, with running sums of their weights when those differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tier {
    slots: Range<usize>,
    /// Sum of the weights up to and with each slot; empty when all weights are equal.
    sums: Vec<u64>,
}

impl Tier {
    /// A tier over `slots`, whose weights are `weights` in the same order.
    pub(crate) fn new(slots: Range<usize>, weights: &[u32]) -> Self {
        let equal = weights
            .windows(2)
            .all(|pair| matches!(pair, [a, b] if a == b));
        let sums = if equal {
            Vec::new()
        } else {
            let add = |sum: &mut u64, weight: &u32| {
                *sum += u64::from((*weight).max(1));
                Some(*sum)
            };
            weights.iter().scan(0, add).collect()
        };
        Self { slots, sums }
    }

    fn draw(&self, draw: &mut impl FnMut(u64) -> u64) -> usize {
        let offset = match self.sums.last() {
            None => usize::try_from(draw(self.slots.len() as u64)).unwrap_or_default(),
            Some(total) => {
                let point = draw(*total);
                self.sums.partition_point(|sum| *sum <= point)
            }
        };
        self.slots.start + offset.min(self.slots.len().saturating_sub(1))
    }
}

/// Draws made before a tier is searched one by one.
const DRAWS: usize = 4;

/// Picks a slot of the first tier that has one for which `may` holds. `draw(n)` gives a number below `n`.
pub(crate) fn pick(
    tiers: &[Tier],
    load: impl Fn(usize) -> Load,
    may: impl Fn(usize) -> bool,
    draw: &mut impl FnMut(u64) -> u64,
) -> Option<usize> {
    tiers
        .iter()
        .find_map(|tier| pick_in(tier, &load, &may, draw))
}

fn pick_in(
    tier: &Tier,
    load: &impl Fn(usize) -> Load,
    may: &impl Fn(usize) -> bool,
    draw: &mut impl FnMut(u64) -> u64,
) -> Option<usize> {
    match tier.slots.len() {
        0 => return None,
        1 => return Some(tier.slots.start).filter(|slot| may(*slot)),
        _ => {}
    }
    let mut first = None;
    for _ in 0..DRAWS {
        let slot = tier.draw(draw);
        if !may(slot) {
            continue;
        }
        match first {
            None => first = Some(slot),
            Some(other) if other != slot => return Some(less_loaded(load, other, slot)),
            Some(_) => {}
        }
    }
    search(tier, first, load, may, draw)
}

/// The draws met what may not be picked, or the same slot again: draw what is missing from all that may.
fn search(
    tier: &Tier,
    first: Option<usize>,
    load: &impl Fn(usize) -> Load,
    may: &impl Fn(usize) -> bool,
    draw: &mut impl FnMut(u64) -> u64,
) -> Option<usize> {
    let left: SmallVec<[usize; 32]> = tier.slots.clone().filter(|slot| may(*slot)).collect();
    let total: u64 = left
        .iter()
        .map(|slot| u64::from(load(*slot).weight.max(1)))
        .sum();
    let one = |without: Option<usize>, draw: &mut dyn FnMut(u64) -> u64| {
        let weight = |slot: usize| u64::from(load(slot).weight.max(1));
        let mut point = draw(total.saturating_sub(without.map_or(0, weight)).max(1));
        left.iter()
            .copied()
            .filter(|slot| Some(*slot) != without)
            .find(|slot| {
                let hit = point < weight(*slot);
                point = point.saturating_sub(weight(*slot));
                hit
            })
    };
    let first = first.or_else(|| one(None, draw))?;
    Some(one(Some(first), draw).map_or(first, |second| less_loaded(load, first, second)))
}

/// The first unless the second has less to do: with equal loads the weights decide.
fn less_loaded(load: &impl Fn(usize) -> Load, first: usize, second: usize) -> usize {
    if load(second).is_less_than(load(first)) {
        second
    } else {
        first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(weights: &[u32], may: impl Fn(usize) -> bool + Copy, rounds: u32) -> Vec<u32> {
        let mut random = fastrand::Rng::with_seed(7);
        let tiers = [Tier::new(0..weights.len(), weights)];
        let mut hits = vec![0; weights.len()];
        for _ in 0..rounds {
            let load = |slot: usize| Load {
                outstanding: 0,
                weight: weights[slot],
            };
            hits[pick(&tiers, load, may, &mut |n| random.u64(0..n)).unwrap()] += 1;
        }
        hits
    }

    /// Idle endpoints get their shares: 5 standard deviations around the weights.
    #[test]
    fn idle_endpoints_share_by_weight() {
        for weights in [&[1, 1, 1][..], &[1, 3], &[5, 1, 1, 1], &[1; 40]] {
            let rounds = 40_000;
            let total: u32 = weights.iter().sum();
            for (hits, weight) in shares(weights, |_| true, rounds).iter().zip(weights) {
                let share = f64::from(*weight) / f64::from(total);
                let expected = share * f64::from(rounds);
                let slack = 5.0 * (expected * (1.0 - share)).sqrt();
                assert!(
                    (f64::from(*hits) - expected).abs() < slack,
                    "{weights:?}: {hits} of {expected}"
                );
            }
        }
    }

    #[test]
    fn what_may_not_be_picked_is_not() {
        let hits = shares(&[1, 1, 1, 1, 1, 1, 1, 1], |slot| slot == 3, 1000);
        assert_eq!(hits.iter().sum::<u32>(), hits[3]);
        let hits = shares(&[1, 1, 1, 1], |slot| slot != 2, 30_000);
        assert_eq!(hits[2], 0);
        for slot in [0, 1, 3] {
            assert!((f64::from(hits[slot]) - 10_000.0).abs() < 500.0, "{hits:?}");
        }
    }

    /// The busiest of many stays close to the mean, far closer than by chance alone.
    #[test]
    fn two_choices_level_the_load() {
        let mut random = fastrand::Rng::with_seed(1);
        let count = 100;
        let tiers = [Tier::new(0..count, &vec![1; count])];
        let mut outstanding = vec![0u32; count];
        for _ in 0..count * 100 {
            let load = |slot: usize| Load {
                outstanding: outstanding[slot],
                weight: 1,
            };
            let slot = pick(&tiers, load, |_| true, &mut |n| random.u64(0..n)).unwrap();
            outstanding[slot] += 1;
        }
        assert!(*outstanding.iter().max().unwrap() <= 105, "{outstanding:?}");
    }

    #[test]
    fn better_tiers_first() {
        let tiers = [Tier::new(0..2, &[1, 1]), Tier::new(2..4, &[1, 1])];
        let load = |_| Load {
            outstanding: 0,
            weight: 1,
        };
        let mut zero = |_| 0;
        assert!(pick(&tiers, load, |_| true, &mut zero).unwrap() < 2);
        assert_eq!(pick(&tiers, load, |slot| slot == 3, &mut zero), Some(3));
        assert_eq!(pick(&tiers, load, |_| false, &mut zero), None);
        assert_eq!(pick(&[], load, |_| true, &mut zero), None);
    }
}
