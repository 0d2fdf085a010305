//! How much goes to which level of preference, by the capacity that is healthy there.
//!
//! As Envoy documents for priority levels: a level that is healthy to 1/1.4 (71 %) still takes everything;
//! below that the rest spills to the next.

use smallvec::SmallVec;

/// Capacity beyond what is needed that a level is taken to have, in percent.
const OVERPROVISIONING: u128 = 140;
/// What the shares of all levels add up to.
pub(crate) const WHOLE: u32 = 10_000;

/// Weights of a level's endpoints.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Capacity {
    /// Of all.
    pub(crate) total: u64,
    /// Of those that are usable.
    pub(crate) usable: u64,
}

impl Capacity {
    /// What it can take of everything, in parts of [`WHOLE`].
    pub(crate) fn availability(self) -> u32 {
        let whole = u128::from(WHOLE);
        let usable = u128::from(self.usable.min(self.total)) * whole * OVERPROVISIONING / 100;
        let available = usable.checked_div(u128::from(self.total)).unwrap_or(0);
        u32::try_from(available.min(whole)).unwrap_or(WHOLE)
    }
}

/// True when the levels together can take everything.
pub(crate) fn suffice(levels: &[Capacity]) -> bool {
    let all: u32 = levels
        .iter()
        .map(|level| level.availability())
        .fold(0, u32::saturating_add);
    all >= WHOLE
}

/// The share of each level; they add up to [`WHOLE`], or to 0 when nothing is usable anywhere.
pub(crate) fn shares(levels: &[Capacity]) -> SmallVec<[u32; 8]> {
    let available = levels.iter().map(|level| level.availability());
    let all: u32 = available.clone().fold(0, u32::saturating_add);
    let mut shares: SmallVec<[u32; 8]> = if all >= WHOLE {
        let mut left = WHOLE;
        available
            .map(|available| {
                let share = available.min(left);
                left -= share;
                share
            })
            .collect()
    } else {
        let part = |available: u32| u64::from(available) * u64::from(WHOLE);
        available
            .map(|available| part(available).checked_div(u64::from(all)).unwrap_or(0))
            .map(|share| u32::try_from(share).unwrap_or(0))
            .collect()
    };
    // What rounding lost goes to the first that takes any.
    let sum: u32 = shares.iter().sum();
    if let Some(first) = shares.iter_mut().find(|share| **share > 0) {
        *first += WHOLE - sum;
    }
    shares
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn percent(healthy: &[u64]) -> Vec<u32> {
        let levels: Vec<_> = healthy
            .iter()
            .map(|usable| Capacity {
                total: 100,
                usable: *usable,
            })
            .collect();
        shares(&levels).iter().map(|share| share / 100).collect()
    }

    /// The tables of Envoy's documentation of priority levels.
    #[test]
    fn as_envoy_documents() {
        assert_eq!(percent(&[100, 100]), [100, 0]);
        assert_eq!(percent(&[72, 100]), [100, 0]);
        assert_eq!(percent(&[71, 100]), [99, 0]);
        assert_eq!(percent(&[50, 100]), [70, 30]);
        assert_eq!(percent(&[25, 100]), [35, 65]);
        assert_eq!(percent(&[0, 100]), [0, 100]);
        // Not enough anywhere: what is there takes all, in proportion.
        assert_eq!(percent(&[25, 25]), [50, 50]);
        assert_eq!(percent(&[5, 0, 0]), [100, 0, 0]);
        assert_eq!(percent(&[20, 20, 10]), [40, 40, 20]);
        assert_eq!(percent(&[0, 0]), [0, 0]);
        assert_eq!(percent(&[]), [] as [u32; 0]);
    }

    proptest! {
        #[test]
        fn nothing_is_lost(levels in prop::collection::vec((0u64..1 << 40, 0u64..1 << 40), 0..8)) {
            let levels: Vec<_> = levels
                .into_iter()
                .map(|(a, b)| Capacity { total: a.max(b), usable: a.min(b) })
                .collect();
            let found = shares(&levels);
            let any = levels.iter().any(|level| level.availability() > 0);
            prop_assert_eq!(found.iter().sum::<u32>(), if any { WHOLE } else { 0 });
            for (share, level) in found.iter().zip(&levels) {
                prop_assert!(level.availability() > 0 || *share == 0);
            }
        }
    }
}
