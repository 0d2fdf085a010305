//! Percentages and fractions as shares in parts per million.

use mesh_model::snapshot::limit::Share;

/// A percentage; what lies outside 0 to 100 is cut off.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to 0 to 1,000,000"
)]
pub(crate) fn share(percent: f64) -> Share {
    Share((percent * 10_000.0).round().clamp(0.0, 1_000_000.0) as u32)
}

/// `part` of `whole`.
pub(crate) fn fraction(part: u32, whole: u32) -> Share {
    share(100.0 * f64::from(part) / f64::from(whole.max(1)))
}

/// A number of a document as the proxy counts with it.
#[expect(
    clippy::cast_possible_truncation,
    reason = "six digits are enough for a factor that people write"
)]
pub(crate) fn single(number: f64) -> f32 {
    number as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_per_million() {
        let found = [
            share(100.0),
            share(0.1),
            share(12.34),
            share(-1.0),
            share(1e9),
            share(f64::NAN),
        ];
        let wanted = [1_000_000, 1000, 123_400, 0, 1_000_000, 0].map(Share);
        assert_eq!(found, wanted);
        assert_eq!(fraction(1, 3), Share(333_333));
        assert_eq!(fraction(1, 0), Share::ALL);
    }
}
