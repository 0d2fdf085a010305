//! Slow start: the share of an endpoint that is new or back grows over a window.

use std::time::Duration;

use mesh_model::snapshot::traffic::SlowStart;

/// The part of its full share that an endpoint gets `age` after it came, from 0 to 1.
pub(crate) fn part(policy: &SlowStart, age: Duration) -> f64 {
    if age >= policy.window {
        return 1.0;
    }
    let least = f64::from(policy.minimum_percent.min(100)) / 100.0;
    let elapsed = age.as_secs_f64() / policy.window.as_secs_f64();
    let aggression = f64::from(policy.aggression);
    let aggression = if aggression > 0.0 { aggression } else { 1.0 };
    elapsed.powf(1.0 / aggression).clamp(least, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_the_whole() {
        let mut policy = SlowStart {
            window: Duration::from_mins(1),
            aggression: 1.0,
            minimum_percent: 10,
        };
        let at = |policy: &SlowStart, secs| part(policy, Duration::from_secs(secs));
        assert!((at(&policy, 0) - 0.1).abs() < 1e-9);
        assert!((at(&policy, 30) - 0.5).abs() < 1e-9);
        assert!((at(&policy, 60) - 1.0).abs() < 1e-9);
        assert!((at(&policy, 6000) - 1.0).abs() < 1e-9);
        policy.aggression = 2.0;
        assert!((at(&policy, 15) - 0.5).abs() < 1e-9);
        policy.aggression = 0.0;
        assert!((at(&policy, 15) - 0.25).abs() < 1e-9);
        policy.window = Duration::ZERO;
        assert!((at(&policy, 0) - 1.0).abs() < 1e-9);
    }
}
