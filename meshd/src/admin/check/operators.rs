//! Whether somebody may commit, and whose right to it ends soon.

use std::time::Duration;

use mesh_model::{admin::CheckRow, catalog::Catalog, grant::OperatorGrant, time::rfc3339};

use super::{rough, row, state::hex};

/// A right that ends within this time is told of; one that was given for a short time, in its last third.
const SOON_MS: u64 = 30 * 24 * 3_600 * 1_000;
const SECTION: &str = "operators";

/// A line for each right that ends soon, or one when nobody has any that is in force. Rights that were left to end
/// while others go on are nobody's trouble.
pub(super) fn rows(catalog: &Catalog, now_ms: u64) -> Vec<CheckRow> {
    let ended = |grant: &OperatorGrant| grant.not_after_ms <= now_ms;
    if !catalog.operators.is_empty() && catalog.operators.iter().all(|grant| ended(grant)) {
        return vec![row(
            SECTION,
            "error",
            "no operator's right is in force any more: nobody can commit",
            "on an authority, `meshctl operator add NAME --key KEY`; `meshctl operator key` shows the KEY",
        )];
    }
    catalog
        .operators
        .iter()
        .filter(|grant| !ended(grant))
        .filter_map(|grant| {
            let left = grant.not_after_ms - now_ms;
            let given = grant.not_after_ms.saturating_sub(grant.not_before_ms);
            (left < SOON_MS.min(given / 3)).then(|| soon(grant, left))
        })
        .collect()
}

fn soon(grant: &OperatorGrant, left_ms: u64) -> CheckRow {
    let name = &grant.name;
    row(
        SECTION,
        "warning",
        format!(
            "the right of operator {name} ends at {} (in {})",
            rfc3339(grant.not_after_ms),
            rough(Duration::from_millis(left_ms))
        ),
        &format!(
            "on an authority, `meshctl operator add {name} --key {}`",
            hex(&grant.key)
        ),
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const DAY: u64 = 24 * 3_600 * 1_000;

    fn told(rights: &[(&str, u64, u64)], now: u64) -> Vec<(String, String)> {
        let operators = rights.iter().map(|(name, from, to)| {
            Arc::new(OperatorGrant {
                name: (*name).to_owned(),
                key: vec![0xab; 32],
                not_before_ms: from * DAY,
                not_after_ms: to * DAY,
                ..OperatorGrant::default()
            })
        });
        let catalog = Catalog {
            operators: operators.collect(),
            ..Catalog::default()
        };
        rows(&catalog, now * DAY)
            .into_iter()
            .map(|line| (line.state, line.what))
            .collect()
    }

    #[test]
    fn rights_that_end_soon_are_told_and_the_end_of_all() {
        let year = ("ann", 0, 365);
        assert_eq!(told(&[], 9), []);
        assert_eq!(told(&[year], 330), []);
        let soon = |name: &str, day: &str, left: &str| {
            let what = format!("the right of operator {name} ends at {day}T00:00:00Z (in {left})");
            [("warning".to_owned(), what)]
        };
        assert_eq!(told(&[year], 336), soon("ann", "1971-01-01", "29 d"));
        // For a week: its last third.
        assert_eq!(told(&[year, ("bot", 10, 16)], 13), []);
        assert_eq!(
            told(&[year, ("bot", 10, 17)], 15),
            soon("bot", "1970-01-18", "2 d")
        );
        // One that ended beside one in force was left to end.
        assert_eq!(told(&[year, ("bot", 10, 17)], 18), []);
        let none = told(&[year, ("bot", 10, 17)], 366);
        assert_eq!(none.len(), 1);
        assert_eq!(none[0].0, "error");
    }
}
