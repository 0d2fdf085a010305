//! Points in time as people read them.

/// Milliseconds since the epoch as `2026-11-21T09:00:00Z` (RFC 3339, UTC, whole seconds).
pub fn rfc3339(ms: u64) -> String {
    let seconds = ms / 1000;
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (hour, minute, second) = (rest / 3600, rest % 3600 / 60, rest % 60);
    // Days to a civil date, counted from 0000-03-01 in eras of 400 years.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Seconds since the epoch of a date in one of the three forms of RFC 9110 section 5.6.7, such as
/// `Sun, 06 Nov 1994 08:49:37 GMT`. What lies before the epoch counts as 0. `None`: it is none of them.
pub fn http_date(text: &str) -> Option<u64> {
    if let Some((_day_name, rest)) = text.split_once(", ") {
        let rest = rest.strip_suffix(" GMT")?;
        // `06 Nov 1994 08:49:37`, or `06-Nov-94 08:49:37`.
        let (date, clock) = rest.rsplit_once(' ')?;
        let mut parts = date.split([' ', '-']);
        let (day, month, year) = (parts.next()?, parts.next()?, parts.next()?);
        let short = date.contains('-');
        let year = number(year, if short { 2 } else { 4 })?;
        // Two digits mean at most fifty years ahead: no daemon of ours runs before 2020.
        let year = if short {
            year + if year >= 70 { 1900 } else { 2000 }
        } else {
            year
        };
        return parts
            .next()
            .is_none()
            .then(|| seconds(year, month, number(day, 2)?, clock))?;
    }
    // `Sun Nov  6 08:49:37 1994`
    let (_day_name, rest) = text.split_once(' ')?;
    let (month, rest) = rest.split_once(' ')?;
    let (day, rest) = rest.trim_start().split_once(' ')?;
    let (clock, year) = rest.split_once(' ')?;
    seconds(
        number(year, 4)?,
        month,
        number(day, day.len().min(2))?,
        clock,
    )
}

fn number(text: &str, digits: usize) -> Option<u64> {
    let plain = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok())?
}

fn seconds(year: u64, month: &str, day: u64, clock: &str) -> Option<u64> {
    const MONTHS: [&str; 12] = [
        "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec", "Jan", "Feb",
    ];
    let from_march = MONTHS.iter().position(|name| *name == month)? as u64;
    let mut parts = clock.split(':');
    let mut part = |below| {
        parts
            .next()
            .and_then(|text| number(text, 2))
            .filter(|n| *n < below)
    };
    // A leap second is the next minute's first.
    let (hour, minute, second) = (part(24)?, part(60)?, part(61)?);
    if parts.next().is_some() || !(1..=31).contains(&day) {
        return None;
    }
    let year = if from_march >= 10 {
        year.checked_sub(1)?
    } else {
        year
    };
    let (era, year_of_era) = (year / 400, year % 400);
    let day_of_year = (153 * from_march + 2) / 5 + day - 1;
    let days =
        era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let since = days.saturating_sub(719_468);
    Some(since * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::{http_date, rfc3339};

    #[test]
    fn dates() {
        for (text, wanted) in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some(784_111_777)),
            ("Sun Nov  6 08:49:37 1994", Some(784_111_777)),
            ("Tue Nov 16 08:49:37 1994", Some(784_975_777)),
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Mon, 28 Feb 2000 23:59:59 GMT", Some(951_782_399)),
            ("Tue, 29 Feb 2000 00:00:00 GMT", Some(951_782_400)),
            ("Sun, 22 Nov 2026 09:00:00 GMT", Some(1_795_338_000)),
            ("Sunday, 22-Nov-26 09:00:00 GMT", Some(1_795_338_000)),
            ("Sun, 06 Nov 1994 08:49:37 CET", None),
            ("Sun, 06 Nov 1994 24:49:37 GMT", None),
            ("Sun, 00 Nov 1994 08:49:37 GMT", None),
            ("Sun, 06 Nor 1994 08:49:37 GMT", None),
            ("06 Nov 1994", None),
            ("", None),
        ] {
            assert_eq!(http_date(text), wanted, "{text}");
        }
    }

    #[test]
    fn times() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399_999, "2000-02-28T23:59:59Z"),
            (951_782_400_000, "2000-02-29T00:00:00Z"),
            (1_795_255_706_123, "2026-11-21T10:08:26Z"),
            (1_795_338_000_000, "2026-11-22T09:00:00Z"),
        ] {
            assert_eq!(rfc3339(ms), text);
        }
    }
}
