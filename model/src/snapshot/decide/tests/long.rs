//! Long tables are read by an index, which finds what reading them in order finds.

use super::*;
use crate::snapshot::{
    RequestMatch,
    rule::{PathMatch, Regex},
};

/// Numbers that look random and are the same each time (Knuth's MMIX generator).
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: usize) -> usize {
        let Self(state) = self;
        *state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(*state >> 33).unwrap() % bound
    }
}

const PARTS: [&str; 4] = ["", "a", "b", "ab"];

fn path(draw: &mut Draw, most: usize) -> String {
    let parts = draw.below(most + 1);
    (0..parts)
        .map(|_| ["/", PARTS[draw.below(PARTS.len())]].concat())
        .collect()
}

fn table(draw: &mut Draw, length: usize) -> RuleTable {
    let rules = (0..length).map(|index| {
        let text = path(draw, 3);
        let path = match draw.below(12) {
            0 => PathMatch::Any,
            1 => PathMatch::Begins(text.into()),
            2 => PathMatch::Regex(Regex::new(&text).unwrap()),
            3 => PathMatch::AnyCase {
                text: text.into(),
                begins: false,
            },
            4..=7 => PathMatch::Prefix(text.trim_end_matches('/').into()),
            _ => PathMatch::Exact(text.into()),
        };
        // What is rare comes often first, or a rule for every path would end most tables early.
        let method = (draw.below(20) > 0).then(|| ["PUT", "GET"][draw.below(2)].into());
        let matches = RequestMatch {
            path,
            method,
            ..RequestMatch::default()
        };
        rule(index, matches, "a")
    });
    RuleTable::new(true, rules.collect())
}

#[test]
fn an_index_finds_what_reading_in_order_finds() {
    let mut draw = Draw(7);
    let (mut found, mut deep) = (0, 0);
    for round in 0..400 {
        let table = table(&mut draw, 17 + round % 60);
        let plain = RuleTable {
            index: crate::snapshot::PathIndex::default(),
            ..table.clone()
        };
        assert_eq!(table, plain, "the index is not compared");
        let [indexed, plain] = [table, plain].map(|table| frontend(table, BTreeMap::new()));
        for _ in 0..50 {
            let path: &'static str = Box::leak(path(&mut draw, 5).into_boxed_str());
            let home = Namespace::default();
            let wanted = matched(&plain, &home, &Get(path));
            assert_eq!(matched(&indexed, &home, &Get(path)), wanted, "{path}");
            if let Matched::Rule(rule) = wanted {
                found += 1;
                deep += usize::from(rule.route.rule > 16);
            }
        }
    }
    assert!(found > 1000 && deep > 100, "{found} {deep}");
}
