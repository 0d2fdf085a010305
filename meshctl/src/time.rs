//! Times for people: durations as typed, ages.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Milliseconds since the epoch.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Reads `500ms`, `30s`, `5m`, `1h30m`, `7d`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("'{text}' is no duration; write for example 30s, 5m, 1h30m or 7d");
    let (mut total, mut number, mut unit) = (Duration::ZERO, String::new(), String::new());
    let mut parts = Vec::new();
    for c in text.chars() {
        if c.is_ascii_digit() {
            if !unit.is_empty() {
                parts.push((std::mem::take(&mut number), std::mem::take(&mut unit)));
            }
            number.push(c);
        } else {
            unit.push(c);
        }
    }
    parts.push((number, unit));
    for (number, unit) in parts {
        let count: u64 = number.parse().map_err(|_none| wrong())?;
        let millis = match unit.as_str() {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(wrong()),
        };
        let part = count.checked_mul(millis).ok_or_else(wrong)?;
        total = total
            .checked_add(Duration::from_millis(part))
            .ok_or_else(wrong)?;
    }
    Ok(total)
}

/// How long ago, coarsely: `3s`, `5m`, `2h`, `9d`; `-` for 0.
pub(crate) fn age(then_ms: u64, now_ms: u64) -> String {
    if then_ms == 0 {
        return "-".to_owned();
    }
    span(now_ms.saturating_sub(then_ms))
}

/// A time from now, coarsely: `in 5m`, or `3s ago`.
pub(crate) fn until(then_ms: u64, now_ms: u64) -> String {
    if then_ms >= now_ms {
        format!("in {}", span(then_ms - now_ms))
    } else {
        format!("{} ago", span(now_ms - then_ms))
    }
}

/// Milliseconds, coarsely.
pub(crate) fn span(ms: u64) -> String {
    match ms / 1000 {
        s @ 0..=119 => format!("{s}s"),
        s @ 120..=7_199 => format!("{}m", s / 60),
        s @ 7_200..=172_799 => format!("{}h", s / 3600),
        s => format!("{}d", s / 86_400),
    }
}

/// Microseconds as milliseconds with one place, `-` for 0.
pub(crate) fn millis(us: u64) -> String {
    if us == 0 {
        return "-".to_owned();
    }
    format!("{}.{} ms", us / 1000, us % 1000 / 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let ok = |text, ms| assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        ok("500ms", 500);
        ok("30s", 30_000);
        ok("5m", 300_000);
        ok("1h30m", 5_400_000);
        ok("7d", 604_800_000);
        for bad in [
            "",
            "5",
            "m",
            "5x",
            "s5",
            "5 m",
            "99999999999999999999s",
            "-1s",
            "18446744073709551615d",
        ] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ages() {
        assert_eq!(age(0, 5), "-");
        assert_eq!(age(1_000, 4_000), "3s");
        assert_eq!(age(1, 600_001), "10m");
        assert_eq!(until(300_000, 0), "in 5m");
        assert_eq!(until(0, 3_000), "3s ago");
        assert_eq!(millis(1_234), "1.2 ms");
    }
}
