//! When to renew: a pure schedule. Half of the lifetime, give or take, so that hosts do not ask all at once.

use std::time::Duration;

/// When to renew something that was made at `made_ms` and ends at `not_after_ms` (milliseconds since the
/// epoch): between 45 % and 55 % of its lifetime, chosen by `random` in `0.0..1.0`.
pub fn renew_at(made_ms: u64, not_after_ms: u64, random: f64) -> u64 {
    let lifetime = not_after_ms.saturating_sub(made_ms);
    let thousandths = 450 + part(100, random);
    made_ms + lifetime / 1000 * thousandths + lifetime % 1000 * thousandths / 1000
}

/// How long to wait after the `failures`-th failure in a row (from 1): doubling from half a second to a minute,
/// less up to half by `random` in `0.0..1.0`, and never more than a tenth of the time that is `left`.
pub fn retry_after(failures: u32, left: Duration, random: f64) -> Duration {
    let step = 500_u64 << failures.saturating_sub(1).min(7);
    let step = step.min(60_000);
    let wait = Duration::from_millis(step - part(step / 2, random));
    wait.min((left / 10).max(Duration::from_millis(250)))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "small whole numbers, and the factor is clamped to 0..=1"
)]
fn part(whole: u64, random: f64) -> u64 {
    (whole as f64 * random.clamp(0.0, 1.0)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_lifetime_give_or_take() {
        let day = 86_400_000;
        for (random, low, high) in [(0.0, 449, 451), (0.5, 499, 501), (0.999, 548, 551)] {
            let at = renew_at(1000, 1000 + day, random) - 1000;
            assert!(
                (day / 1000 * low..day / 1000 * high).contains(&at),
                "{random}: {at}"
            );
        }
        assert_eq!(renew_at(5, 5, 0.3), 5);
        assert_eq!(
            renew_at(9, 5, 0.3),
            9,
            "an impossible lifetime is due at once"
        );
    }

    #[test]
    fn retries_back_off_but_hurry_near_the_end() {
        let long = Duration::from_hours(24);
        assert_eq!(retry_after(1, long, 0.0), Duration::from_millis(500));
        assert_eq!(retry_after(2, long, 0.0), Duration::from_secs(1));
        assert_eq!(retry_after(40, long, 0.0), Duration::from_mins(1));
        assert!(retry_after(40, long, 0.999) >= Duration::from_secs(30));
        assert_eq!(
            retry_after(40, Duration::from_secs(30), 0.0),
            Duration::from_secs(3)
        );
        assert_eq!(
            retry_after(40, Duration::ZERO, 0.0),
            Duration::from_millis(250)
        );
    }
}
