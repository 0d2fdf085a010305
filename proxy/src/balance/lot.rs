//! Slots of equal preference, drawn by weight.

/// Slots that may be drawn, with running sums of their weights when those differ.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Lot {
    slots: Vec<u32>,
    /// Sum of the weights up to and with each slot; empty when all weights are equal.
    sums: Vec<u64>,
}

impl Lot {
    /// A lot of slots with their weights (a weight of 0 counts as 1).
    pub(crate) fn new(slots: Vec<u32>, weight: impl Fn(u32) -> u32) -> Self {
        let weight = |slot: &u32| u64::from(weight(*slot).max(1));
        let mut weights = slots.iter().map(weight);
        let first = weights.next();
        let equal = weights.all(|weight| Some(weight) == first);
        let sums = if equal {
            Vec::new()
        } else {
            let add = |sum: &mut u64, slot| {
                *sum += weight(slot);
                Some(*sum)
            };
            slots.iter().scan(0, add).collect()
        };
        Self { slots, sums }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// The slot at an index below `len`.
    pub(crate) fn at(&self, index: usize) -> Option<u32> {
        self.slots.get(index).copied()
    }

    /// True when all weigh the same.
    pub(crate) fn is_even(&self) -> bool {
        self.sums.is_empty()
    }

    /// Mean weight; 1 when all weigh the same.
    #[expect(clippy::cast_precision_loss, reason = "a ratio")]
    pub(crate) fn mean(&self) -> f64 {
        match self.sums.last() {
            None => 1.0,
            Some(total) => *total as f64 / self.slots.len() as f64,
        }
    }

    /// An index, by weight. `draw(n)` gives a number below `n`.
    pub(crate) fn draw(&self, draw: &mut impl FnMut(u64) -> u64) -> usize {
        let index = match self.sums.last() {
            None => usize::try_from(draw(self.slots.len() as u64)).unwrap_or_default(),
            Some(total) => {
                let point = draw(*total);
                self.sums.partition_point(|sum| *sum <= point)
            }
        };
        index.min(self.slots.len().saturating_sub(1))
    }

    /// An index other than `index`, by weight or nearly so; the same when there is no other.
    pub(crate) fn draw_other(&self, index: usize, draw: &mut impl FnMut(u64) -> u64) -> usize {
        let len = self.slots.len();
        if len < 2 {
            return index;
        }
        if self.is_even() {
            let other = usize::try_from(draw(len as u64 - 1)).unwrap_or_default();
            return other + usize::from(other >= index);
        }
        for _ in 0..4 {
            let other = self.draw(draw);
            if other != index {
                return other;
            }
        }
        (index + 1) % len
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn draws_are_inside_and_others_differ(
            weights in prop::collection::vec(0u32..9, 1..40), seed: u64,
        ) {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut draw = |n| random.u64(0..n);
            let slots = (0..).take(weights.len()).map(|slot: u32| slot + 7).collect();
            let lot = Lot::new(slots, |slot| weights[slot as usize - 7]);
            for _ in 0..50 {
                let index = lot.draw(&mut draw);
                prop_assert!(lot.at(index).is_some());
                let other = lot.draw_other(index, &mut draw);
                prop_assert!(lot.at(other).is_some());
                prop_assert_eq!(other == index, weights.len() == 1);
            }
        }
    }

    #[test]
    fn even_weights_need_no_sums() {
        assert!(Lot::new(vec![0, 1, 2], |_| 5).is_even());
        assert!(Lot::new(Vec::new(), |_| 5).is_even());
        let lot = Lot::new(vec![0, 1], |slot| slot * 3);
        assert!(!lot.is_even());
        assert!((lot.mean() - 2.0).abs() < 1e-9);
    }
}
