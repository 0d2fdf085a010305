//! The table of registries: every case of the contract against every source.
//!
//! In: lines `contract: <source> <case>: pass …`, `n/a (<reason>)`, `FAIL` of test runners. Out: the table, and
//! what is missing in it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

/// The rows that a whole run must have.
const ROWS: [&str; 18] = [
    "memory",
    "file",
    "consul",
    "consul-fake",
    "nomad-fake",
    "dns",
    "dns-fake",
    "etcd",
    "etcd-fake",
    "eureka",
    "eureka-fake",
    "marathon-fake",
    "kubernetes",
    "kubernetes-fake",
    "serverset",
    "serverset-fake",
    "zk-leader",
    "curator",
];

/// The cases in the order of the columns, with what the head of a column shows.
const CASES: [(&str, &str); 16] = [
    ("initial-sync", "sync"),
    ("add", "add"),
    ("remove", "rem"),
    ("change", "chg"),
    ("health-flip", "hlth"),
    ("mass-removal", "mass"),
    ("addresses", "addr"),
    ("cut-body", "cut"),
    ("two-sources", "two"),
    ("sigstop", "stop"),
    ("kill-9", "kill"),
    ("restart-kept", "kept"),
    ("restart-empty", "empt"),
    ("token", "tokn"),
    ("certificate", "cert"),
    ("scale", "scal"),
];

/// What was said so far.
#[derive(Debug, Default)]
pub(super) struct Table {
    rows: BTreeMap<String, BTreeMap<String, String>>,
    skipped: BTreeSet<String>,
}

impl Table {
    /// Reads one line of a test runner; other lines change nothing.
    pub(super) fn take(&mut self, line: &str) {
        if let Some((_, rest)) = line.split_once("SKIPPED ") {
            let name = rest.split(':').next().unwrap_or_default();
            self.skipped.insert(name.to_owned());
        }
        let Some((_, rest)) = line.split_once("contract: ") else {
            return;
        };
        let Some((cell, how)) = rest.split_once(": ") else {
            return;
        };
        let Some((source, case)) = cell.rsplit_once(' ') else {
            return;
        };
        let source = source.replace(" (fake)", "-fake");
        if CASES.iter().any(|(known, _)| *known == case) {
            self.rows
                .entry(source)
                .or_default()
                .insert(case.to_owned(), how.to_owned());
        }
    }

    /// The table, with the reasons below it; nothing when nothing was said.
    pub(super) fn lines(&self) -> Vec<String> {
        if self.rows.is_empty() {
            return Vec::new();
        }
        let mut reasons: Vec<&str> = Vec::new();
        let mut all = vec![
            String::new(),
            "the contract of discovery sources:".to_owned(),
        ];
        all.push(CASES.iter().fold(format!("{:14}", ""), |line, (_, head)| {
            format!("{line} {head:>4}")
        }));
        for (source, cells) in &self.rows {
            let mut line = format!("{source:14}");
            for (case, _) in CASES {
                let how = cells.get(case).map_or("missing", String::as_str);
                let cell = if how.starts_with("pass") {
                    "ok".to_owned()
                } else if let Some(reason) = how.strip_prefix("n/a ") {
                    let known = reasons.iter().position(|one| *one == reason);
                    let at = known.unwrap_or_else(|| {
                        reasons.push(reason);
                        reasons.len() - 1
                    });
                    format!("-{}", at + 1)
                } else {
                    "FAIL".to_owned()
                };
                let _infallible = write!(line, " {cell:>4}");
            }
            all.push(line);
        }
        let notes = reasons.iter().enumerate();
        all.extend(notes.map(|(at, reason)| format!("  -{} n/a {reason}", at + 1)));
        all
    }

    /// Cells that nobody filled in a row that began; in a whole run rows that never began, too. A row that
    /// was skipped was counted as that.
    pub(super) fn missing(&self, whole: bool) -> Vec<String> {
        let mut all = Vec::new();
        for (source, cells) in &self.rows {
            for (case, _) in CASES {
                let good = cells
                    .get(case)
                    .is_some_and(|how| how.starts_with("pass") || how.starts_with("n/a "));
                if !good {
                    all.push(format!("{source} {case}"));
                }
            }
        }
        let absent = ROWS.iter().filter(|row| {
            let skipped = self.skipped.iter().any(|test| test.starts_with(**row));
            !self.rows.contains_key(**row) && !skipped
        });
        if whole {
            all.extend(absent.map(|row| format!("the row of {row}")));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_cell_is_told() {
        let mut table = Table::default();
        for (case, _) in CASES.iter().skip(1) {
            table.take(&format!("contract: consul {case}: pass (3 ms)"));
        }
        table.take("test a ... contract: consul token: n/a (it takes no credentials)");
        table.take("SKIPPED file: no disk");
        table.take("some contract: of no case: pass");
        assert_eq!(table.missing(false), ["consul initial-sync"]);
        let whole = table.missing(true);
        assert!(whole.contains(&"the row of memory".to_owned()));
        assert!(!whole.contains(&"the row of file".to_owned()));
        let lines = table.lines().join("\n");
        assert!(lines.contains("FAIL   ok"), "{lines}");
        assert!(
            lines.contains("-1 n/a (it takes no credentials)"),
            "{lines}"
        );
        table.take("contract: consul initial-sync: FAIL");
        assert_eq!(table.missing(false), ["consul initial-sync"]);
    }
}
