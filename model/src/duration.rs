//! Spans of time as people write them (Gateway API's GEP-2257): `10s`, `500ms`, `1m30s`, `0s`.

use std::{fmt::Write as _, time::Duration};

/// A text that is no span of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a span of time: write 1 to 4 numbers of at most 5 digits with h, m, s or ms, such as 1m30s"
)]
pub struct DurationError(pub String);

const UNITS: [(&str, u64); 4] = [("ms", 1), ("h", 3_600_000), ("m", 60_000), ("s", 1000)];

/// Reads a span of time: `([0-9]{1,5}(h|m|s|ms)){1,4}`.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let bad = || DurationError(text.chars().take(40).collect());
    let mut rest = text;
    let mut total = 0;
    for _part in 0..4 {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, behind) = rest.split_at_checked(digits).ok_or_else(bad)?;
        if !(1..=5).contains(&digits) {
            return Err(bad());
        }
        let number: u64 = number.parse().map_err(|_digits| bad())?;
        let (unit, behind) = UNITS
            .iter()
            .find_map(|(word, unit)| Some((*unit, behind.strip_prefix(word)?)))
            .ok_or_else(bad)?;
        total += number * unit;
        rest = behind;
        if rest.is_empty() {
            return Ok(Duration::from_millis(total));
        }
    }
    Err(bad())
}

const LONG_UNITS: [(&str, u128); 7] = [
    ("ms", 1_000_000),
    ("us", 1000),
    ("µs", 1000),
    ("ns", 1),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
];

/// Reads a span of time as Istio's documents hold it (Go's form without signs): `1.5s`, `1h30m`, `100us`;
/// everything that [`parse`] reads is read alike.
pub fn parse_fractions(text: &str) -> Result<Duration, DurationError> {
    let bad = || DurationError(text.chars().take(40).collect());
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let mut rest = text;
    let mut total: u128 = 0;
    for _part in 0..8 {
        let (whole, behind) = rest.split_at_checked(digits(rest)).ok_or_else(bad)?;
        let (fraction, behind) = match behind.strip_prefix('.') {
            Some(behind) => behind.split_at_checked(digits(behind)).ok_or_else(bad)?,
            None => ("", behind),
        };
        if whole.is_empty() || whole.len() > 9 || fraction.len() > 9 {
            return Err(bad());
        }
        let (unit, behind) = LONG_UNITS
            .iter()
            .find_map(|(word, unit)| Some((*unit, behind.strip_prefix(word)?)))
            .ok_or_else(bad)?;
        let scale = 10_u128.pow(u32::try_from(fraction.len()).map_err(|_length| bad())?);
        let number: u128 = format!("{whole}{fraction}")
            .parse()
            .map_err(|_digits| bad())?;
        total += number * unit / scale;
        rest = behind;
        if rest.is_empty() {
            let nanos = u64::try_from(total).map_err(|_large| bad())?;
            return Ok(Duration::from_nanos(nanos));
        }
    }
    Err(bad())
}

/// Prints a span of time so that [`parse`] reads the same; parts of a millisecond are dropped.
pub fn print(duration: Duration) -> String {
    let mut left = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (word, unit) in [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)] {
        if left >= unit {
            let _infallible = write!(text, "{}{word}", left / unit);
            left %= unit;
        }
    }
    if text.is_empty() {
        "0s".to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_fractions() {
        for (text, micros) in [
            ("1.5s", 1_500_000),
            ("0.25s", 250_000),
            ("1h30m", 5_400_000_000),
            ("100us", 100),
            ("100ms", 100_000),
            ("1m0.5s", 60_500_000),
            ("604800s", 604_800_000_000),
            ("0s", 0),
        ] {
            let wanted = Duration::from_micros(micros);
            assert_eq!(parse_fractions(text), Ok(wanted), "{text}");
        }
        for bad in [
            "",
            "5",
            ".5s",
            "1.5",
            "-1s",
            "1d",
            "s",
            "9999999999s",
            "999999999h",
        ] {
            assert!(parse_fractions(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn reads_and_prints() {
        for (text, millis, printed) in [
            ("10s", 10_000, "10s"),
            ("0s", 0, "0s"),
            ("0ms", 0, "0s"),
            ("500ms", 500, "500ms"),
            ("1m30s", 90_000, "1m30s"),
            ("90s", 90_000, "1m30s"),
            ("1h2m3s4ms", 3_723_004, "1h2m3s4ms"),
            ("5s500ms", 5500, "5s500ms"),
        ] {
            let read = parse(text).unwrap();
            assert_eq!(read, Duration::from_millis(millis), "{text}");
            assert_eq!(print(read), printed);
        }
        for bad in [
            "",
            "1",
            "s",
            "1.5s",
            "-1s",
            "100000s",
            "1h1m1s1ms1s",
            "1d",
            "1 s",
            "1sx",
            "ä",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
