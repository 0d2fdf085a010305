//! The best of a few that are drawn by weight.

use super::Lot;

/// Whether a slot may be picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fit {
    /// No.
    No,
    /// Only when nothing better is drawn: it is warming up, and this is not its turn.
    Cold,
    /// Yes.
    Yes,
}

/// Draws for the first candidate.
const DRAWS: usize = 6;

/// Draws `choices` slots by weight and gives the one that no other of them is better than; the first of equals,
/// so that weights decide. `better(a, b)`: a is better than b. `None`: no draw met one that may be picked.
pub(crate) fn best(
    lot: &Lot,
    choices: u8,
    fit: impl Fn(u32) -> Fit,
    better: impl Fn(u32, u32) -> bool,
    draw: &mut impl FnMut(u64) -> u64,
) -> Option<u32> {
    if lot.len() <= 1 {
        return lot.at(0).filter(|slot| fit(*slot) != Fit::No);
    }
    let (mut index, mut best) = first(lot, &fit, draw)?;
    for _ in 1..choices.max(1) {
        let other = lot.draw_other(index, draw);
        let Some(slot) = lot.at(other) else { continue };
        if slot != best && fit(slot) == Fit::Yes && better(slot, best) {
            (index, best) = (other, slot);
        }
    }
    Some(best)
}

fn first(
    lot: &Lot,
    fit: &impl Fn(u32) -> Fit,
    draw: &mut impl FnMut(u64) -> u64,
) -> Option<(usize, u32)> {
    let mut spare = None;
    for _ in 0..DRAWS {
        let index = lot.draw(draw);
        let slot = lot.at(index)?;
        match fit(slot) {
            Fit::Yes => return Some((index, slot)),
            Fit::Cold => spare = Some((index, slot)),
            Fit::No => {}
        }
    }
    spare
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(weights: &[u32], fit: impl Fn(u32) -> Fit + Copy, rounds: u32) -> Vec<u32> {
        let mut random = fastrand::Rng::with_seed(7);
        let lot = Lot::new((0..).take(weights.len()).collect(), |slot| {
            weights[slot as usize]
        });
        let mut hits = vec![0; weights.len()];
        for _ in 0..rounds {
            let draw = &mut |n| random.u64(0..n);
            if let Some(slot) = best(&lot, 2, fit, |_, _| false, draw) {
                hits[slot as usize] += 1;
            }
        }
        hits
    }

    /// Idle endpoints get their shares: 5 standard deviations around the weights.
    #[test]
    fn idle_endpoints_share_by_weight() {
        for weights in [&[1, 1, 1][..], &[1, 3], &[5, 1, 1, 1], &[1; 40]] {
            let rounds = 40_000;
            let total: u32 = weights.iter().sum();
            for (hits, weight) in shares(weights, |_| Fit::Yes, rounds).iter().zip(weights) {
                let share = f64::from(*weight) / f64::from(total);
                let expected = share * f64::from(rounds);
                let deviation = (expected * (1.0 - share)).sqrt();
                let off = (f64::from(*hits) - expected).abs();
                assert!(off < 5.0 * deviation, "{weights:?}: {hits} not {expected}");
            }
        }
    }

    /// The power of two choices: after as many picks as there are endpoints nobody has many.
    #[test]
    fn load_is_spread() {
        let mut random = fastrand::Rng::with_seed(3);
        let lot = Lot::new((0..1000).collect(), |_| 1);
        let mut loads = vec![0u32; 1000];
        for _ in 0..1000 {
            let less = |a: u32, b: u32| loads[a as usize] < loads[b as usize];
            let slot = best(&lot, 2, |_| Fit::Yes, less, &mut |n| random.u64(0..n)).unwrap();
            loads[slot as usize] += 1;
        }
        assert!(
            *loads.iter().max().unwrap() <= 5,
            "{:?}",
            loads.iter().max()
        );
    }

    #[test]
    fn what_may_not_be_picked_is_not() {
        let hits = shares(
            &[1, 1, 1],
            |slot| if slot == 1 { Fit::No } else { Fit::Yes },
            3000,
        );
        assert_eq!(hits[1], 0);
        assert!(hits[0] > 1200 && hits[2] > 1200, "{hits:?}");
        assert_eq!(shares(&[1, 1], |_| Fit::No, 9), [0, 0]);
        // Cold ones are taken when nothing else is there.
        let hits = shares(
            &[1, 1],
            |slot| if slot == 0 { Fit::Cold } else { Fit::Yes },
            3000,
        );
        assert!(hits[0] < 120 && hits[0] + hits[1] == 3000, "{hits:?}");
        assert_eq!(shares(&[1, 1], |_| Fit::Cold, 90).iter().sum::<u32>(), 90);
    }
}
