//! The rules as text, against golden files; `UPDATE=1` rewrites them.
#![expect(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    reason = "an integration test is its own module, and fails by panicking"
)]

use std::{fs, path::PathBuf};

use mesh_intercept::{Inbound, Intent, Virtual, rules};
use mesh_model::config::Mark;

const MARK: Mark = Mark {
    value: 0x004d_0000,
    mask: 0x00ff_0000,
};

fn full() -> Intent {
    let one = |address: &str, endpoints: &[&str], fail_closed| Virtual {
        address: address.parse().unwrap(),
        endpoints: endpoints.iter().map(|text| text.parse().unwrap()).collect(),
        fail_closed,
    };
    let inbound = |address: &str, strict| Inbound {
        address: address.parse().unwrap(),
        strict,
    };
    Intent {
        host_v4: Some("10.9.0.1".parse().unwrap()),
        host_v6: Some("fd00:9::1".parse().unwrap()),
        virtuals: vec![
            one(
                "240.240.1.2:80",
                &["10.9.0.3:8080", "10.9.0.2:8080", "[fd00:9::2]:8080"],
                false,
            ),
            one(
                "[fd6d:6573:6864::2]:80",
                &["10.9.0.2:8080", "[fd00:9::2]:8080"],
                false,
            ),
            one("240.240.1.3:80", &["10.9.0.2:9000"], true),
            one("240.240.1.4:443", &[], false),
            one("240.240.1.5:5432", &["10.9.0.5:5432"], false),
        ],
        direct: [
            "10.9.0.2:8080",
            "[::ffff:10.9.0.3]:8080",
            "[fd00:9::2]:8080",
        ]
        .iter()
        .map(|text| text.parse().unwrap())
        .collect(),
        inbound: vec![
            inbound("10.9.0.1:8081", false),
            inbound("[fd00:9::1]:8081", false),
            inbound("10.9.0.1:9443", true),
        ],
        ..Intent::empty(15001, 15006, MARK)
    }
}

fn golden(name: &str, text: &str) {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&file, text).unwrap();
    }
    let expected = fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(text, expected, "{name} differs; UPDATE=1 rewrites it");
}

#[test]
fn the_tables_of_an_idle_mesh() {
    let intent = Intent::empty(15001, 15006, MARK);
    golden("empty-owner.nft", &rules::owner_table(&intent));
    golden("empty-fallback.nft", &rules::fallback_table(&intent));
}

#[test]
fn the_tables_of_a_full_host() {
    golden("full-owner.nft", &rules::owner_table(&full()));
    golden("full-fallback.nft", &rules::fallback_table(&full()));
}

#[test]
fn other_ports_marks_and_ranges() {
    let intent = Intent {
        virtual_v4: ("198.18.0.0".parse().unwrap(), 15),
        virtual_v6: ("fd11:22::".parse().unwrap(), 48),
        ..Intent::empty(
            4001,
            4006,
            Mark {
                value: 0x0d00_0001,
                mask: 0x0f00_0000,
            },
        )
    };
    golden("other-owner.nft", &rules::owner_table(&intent));
    golden("other-fallback.nft", &rules::fallback_table(&intent));
}

#[test]
fn a_step_holds_only_what_differs() {
    let old = full();
    let mut new = full();
    new.virtuals.remove(4);
    new.virtuals[0].endpoints.pop();
    new.virtuals[0].endpoints.pop();
    new.virtuals.push(Virtual {
        address: "240.240.1.9:80".parse().unwrap(),
        endpoints: vec!["10.9.0.9:80".parse().unwrap()],
        fail_closed: false,
    });
    new.direct.pop();
    new.inbound[2].strict = false;
    golden("step.nft", &rules::change(&old, &new).unwrap());
    golden("step-none.nft", &rules::change(&old, &old).unwrap());
}

#[test]
fn other_chains_need_whole_tables() {
    let old = full();
    for new in [
        Intent {
            outbound_port: 1,
            ..full()
        },
        Intent {
            inbound_port: 1,
            ..full()
        },
        Intent {
            mark: Mark { value: 1, mask: 1 },
            ..full()
        },
        Intent {
            virtual_v4: ("198.18.0.0".parse().unwrap(), 15),
            ..full()
        },
    ] {
        assert_eq!(rules::change(&old, &new), None);
    }
    let moved = Intent {
        host_v4: None,
        ..full()
    };
    assert!(
        rules::change(&old, &moved).is_some(),
        "the source is in the route, not in the rules"
    );
}

#[test]
fn versions_follow_the_text_and_not_the_order() {
    let mut shuffled = full();
    shuffled.virtuals.reverse();
    shuffled.direct.reverse();
    assert_eq!(rules::versions(&full()), rules::versions(&shuffled));
    let mut other = full();
    other.virtuals[0].endpoints.truncate(1);
    assert_ne!(rules::versions(&full()), rules::versions(&other));
}
