//! The `date` of answers that have none (RFC 9110 section 6.6.1): one text per second and thread.

use std::cell::RefCell;

use mesh_model::time;

use super::fields::{Fields, Known};
use crate::clock;

const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

thread_local! {
    /// The second, and its text.
    static LAST: RefCell<(u64, String)> = const { RefCell::new((u64::MAX, String::new())) };
}

/// Says when the answer came, unless it says so itself.
pub(crate) fn add(fields: &mut Fields) {
    if fields.of(Known::Date).next().is_some() {
        return;
    }
    let second = clock::now_ms() / 1000;
    LAST.with_borrow_mut(|(last, date)| {
        if *last != second {
            *last = second;
            *date = text(second);
        }
        fields.push(b"date", date.as_bytes());
    });
}

/// A second since the epoch as `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 section 5.6.7).
fn text(second: u64) -> String {
    // 2026-11-21T13:54:19Z
    let stamp = time::rfc3339(second.saturating_mul(1000));
    let part = |from: usize, to: usize| stamp.get(from..to).unwrap_or_default();
    let at = |list: &[&'static str], place: u64| {
        let place = usize::try_from(place).unwrap_or_default();
        list.get(place).copied().unwrap_or_default()
    };
    let month = part(5, 7).parse::<u64>().unwrap_or(1).saturating_sub(1);
    [
        at(&DAYS, second / 86_400 % 7),
        ", ",
        part(8, 10),
        " ",
        at(&MONTHS, month),
        " ",
        part(0, 4),
        " ",
        part(11, 19),
        " GMT",
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (second, wanted) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (4_102_444_799, "Thu, 31 Dec 2099 23:59:59 GMT"),
        ] {
            assert_eq!(text(second), wanted);
        }
        let mut fields = Fields::default();
        add(&mut fields);
        add(&mut fields);
        assert_eq!(fields.len(), 1);
        let mut own = Fields::default();
        own.push(b"Date", b"x");
        add(&mut own);
        assert_eq!(own.named(b"date").collect::<Vec<_>>(), [b"x"]);
    }
}
