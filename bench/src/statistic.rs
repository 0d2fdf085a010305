//! Order statistics of a few runs and of many latencies.

/// The smallest.
pub(crate) fn least(values: &[f64]) -> Option<f64> {
    values.iter().copied().min_by(f64::total_cmp)
}

/// The largest.
pub(crate) fn most(values: &[f64]) -> Option<f64> {
    values.iter().copied().max_by(f64::total_cmp)
}

/// The middle one; of an even number the mean of the two in the middle.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = sorted.get(sorted.len() / 2).copied()?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    sorted
        .get(sorted.len() / 2 - 1)
        .map(|lower| f64::midpoint(*lower, upper))
}

/// The value below which this many of a thousand are (nearest rank); sorts what it is given.
pub(crate) fn quantile(values: &mut [u32], per_thousand: usize) -> Option<u32> {
    values.sort_unstable();
    let rank = (values.len() * per_thousand).div_ceil(1000);
    values.get(rank.saturating_sub(1)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_odd_and_even() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[]), None);
        assert_eq!(least(&[3.0, 1.0]), Some(1.0));
        assert_eq!(most(&[3.0, 1.0]), Some(3.0));
    }

    #[test]
    fn nearest_rank() {
        let mut values: Vec<u32> = (1..=100).rev().collect();
        assert_eq!(quantile(&mut values, 500), Some(50));
        assert_eq!(quantile(&mut values, 990), Some(99));
        assert_eq!(quantile(&mut values, 1000), Some(100));
        assert_eq!(quantile(&mut [7], 1), Some(7));
        assert_eq!(quantile(&mut [], 500), None);
    }
}
