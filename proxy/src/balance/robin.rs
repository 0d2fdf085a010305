//! One after another, by weight: the slot whose turn is due first (earliest deadline first).

use std::{cmp::Reverse, collections::BinaryHeap};

use super::{Lot, choice::Fit};

/// Length of the turn of a weight of 1.
const TURN: u64 = 1 << 32;
/// Slots that are passed over in one pick.
const SKIPS: usize = 8;

/// Whose turn it is. Good for one lot; made anew for another.
#[derive(Debug, Default)]
pub(crate) struct Robin {
    len: usize,
    next: usize,
    /// When each slot's turn is due, with its index; empty while all weights are equal.
    due: BinaryHeap<Reverse<(u64, usize)>>,
}

impl Robin {
    /// Begins somewhere, so that workers and hosts do not keep step.
    pub(crate) fn new(
        lot: &Lot,
        weight: impl Fn(u32) -> u32,
        draw: &mut impl FnMut(u64) -> u64,
    ) -> Self {
        let mut due = BinaryHeap::new();
        if !lot.is_even() {
            due.reserve(lot.len());
            for (index, slot) in (0..lot.len()).filter_map(|index| Some((index, lot.at(index)?))) {
                due.push(Reverse((draw(turn(weight(slot))), index)));
            }
        }
        Self {
            len: lot.len(),
            next: lot.draw(draw),
            due,
        }
    }

    /// True when it was made for a lot of this size and kind.
    pub(crate) fn is_for(&self, lot: &Lot) -> bool {
        self.len == lot.len()
    }

    /// The next slot that may be picked. `None`: none of the next few may.
    pub(crate) fn pick(
        &mut self,
        lot: &Lot,
        weight: impl Fn(u32) -> u32,
        fit: impl Fn(u32) -> Fit,
    ) -> Option<u32> {
        let mut spare = None;
        for _ in 0..SKIPS.min(lot.len() * 2) {
            let slot = self.step(lot, &weight)?;
            match fit(slot) {
                Fit::Yes => return Some(slot),
                Fit::Cold => spare = Some(slot),
                Fit::No => {}
            }
        }
        spare
    }

    fn step(&mut self, lot: &Lot, weight: &impl Fn(u32) -> u32) -> Option<u32> {
        if let Some(mut top) = self.due.peek_mut() {
            let Reverse((due, index)) = *top;
            let slot = lot.at(index)?;
            *top = Reverse((due + turn(weight(slot)), index));
            return Some(slot);
        }
        let slot = lot.at(self.next % lot.len().max(1));
        self.next = (self.next + 1) % lot.len().max(1);
        slot
    }
}

fn turn(weight: u32) -> u64 {
    TURN / u64::from(weight.max(1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn picks(weights: &[u32], seed: u64, count: usize, fit: impl Fn(u32) -> Fit) -> Vec<u32> {
        let mut random = fastrand::Rng::with_seed(seed);
        let lot = Lot::new((0..).take(weights.len()).collect(), |slot| {
            weights[slot as usize]
        });
        let weight = |slot: u32| weights[slot as usize];
        let mut robin = Robin::new(&lot, weight, &mut |n| random.u64(0..n));
        (0..count)
            .filter_map(|_| robin.pick(&lot, weight, &fit))
            .collect()
    }

    #[test]
    fn equal_ones_take_turns() {
        let found = picks(&[1, 1, 1], 9, 6, |_| Fit::Yes);
        assert_eq!(found[..3], found[3..]);
        let found = picks(&[1, 1, 1], 9, 60, |slot| {
            if slot == 1 { Fit::No } else { Fit::Yes }
        });
        assert_eq!(found.iter().filter(|slot| **slot == 0).count(), 30);
    }

    proptest! {
        /// At any time each slot has had its share, give or take one turn.
        #[test]
        fn shares_are_kept(weights in prop::collection::vec(1u32..20, 2..12), seed: u64, rounds in 1usize..20) {
            let total: u32 = weights.iter().sum();
            let count = total as usize * rounds + rounds;
            let mut hits = vec![0i64; weights.len()];
            for slot in picks(&weights, seed, count, |_| Fit::Yes) {
                hits[slot as usize] += 1;
            }
            for (hits, weight) in hits.iter().zip(&weights) {
                let wanted = i64::try_from(count).unwrap() * i64::from(*weight) / i64::from(total);
                prop_assert!((hits - wanted).abs() <= 2, "{hits} not {wanted} of {weights:?}");
            }
        }
    }
}
