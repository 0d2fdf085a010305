//! What is lost is put back, what is installed is removed, and bypass holds.

use std::time::Duration;

use mesh_intercept::{ApplyError, How, Intent, Interceptor, Removal, Virtual, bypass, observe};
use mesh_model::config::Mark;

use crate::place::{
    MARK, again, dial, eventually, has_table, inside, intent, kill_child, role, run, serve, sh,
};

const V4: &str = "240.240.1.2:80";

fn one() -> Intent {
    let service = Virtual {
        address: V4.parse().unwrap(),
        endpoints: vec!["10.9.0.2:8080".parse().unwrap()],
        fail_closed: false,
    };
    Intent {
        virtuals: vec![service],
        ..intent()
    }
}

/// Everything of ours that the kernel holds, as people see it.
fn traces() -> String {
    let mut text = sh("nft list tables");
    for family in ["-4", "-6"] {
        for line in sh(&format!("ip {family} rule"))
            .lines()
            .filter(|line| line.contains("7700"))
        {
            text += line;
        }
        text += &routes(family);
    }
    text
}

fn routes(family: &str) -> String {
    sh(&format!("ip {family} route show table all"))
        .lines()
        .filter(|line| {
            ["240.240", "fd6d:", "table 7700"]
                .iter()
                .any(|mark| line.contains(mark))
        })
        .collect()
}

#[test]
fn what_runs_goes_on_when_new_connections_are_left_alone() {
    let name = "life::what_runs_goes_on_when_new_connections_are_left_alone";
    inside(name, |place| {
        run(async {
            let mut interceptor = place.interceptor();
            interceptor.apply(&one()).await.unwrap();
            assert!(sh("nft list set inet meshd virtual4").contains("240.240.1.2"));
            interceptor.release().await.unwrap();
            let table = sh("nft list table inet meshd");
            assert!(
                !table.contains("240.240.1.2") && table.contains("ct direction reply"),
                "{table}"
            );
            assert!(traces().contains("7700") && has_table("meshd_fallback"));
            assert!(sh("nft list table inet meshd_fallback").contains("240.240.1.2"));
            assert!(interceptor.reassert().await.unwrap().is_empty());
            assert!(!sh("nft list table inet meshd").contains("240.240.1.2"));
            interceptor.remove(Removal::Stop).await.unwrap();
            assert!(!has_table("meshd") && !traces().contains("7700"));
        });
    });
}

#[test]
fn everything_goes_when_asked() {
    inside("life::everything_goes_when_asked", |place| {
        run(async {
            let before = traces();
            let mut interceptor = place.interceptor();
            interceptor.apply(&one()).await.unwrap();
            let installed = traces();
            for part in [
                "meshd",
                "meshd_fallback",
                "7700",
                "240.240.0.0/16",
                "fd6d:6573:6864::/64",
            ] {
                assert!(installed.contains(part), "{part} in {installed}");
            }
            assert!(
                routes("-4").contains("proto kernel"),
                "networkd leaves the kernel's alone"
            );
            interceptor.remove(Removal::Stop).await.unwrap();
            assert!(!has_table("meshd") && has_table("meshd_fallback"));
            assert!(!traces().contains("7700") && traces().contains("240.240.0.0/16"));
            interceptor.remove(Removal::Everything).await.unwrap();
            assert_eq!(traces(), before);
            assert!(!place.directory.path().join("interception.json").exists());
        });
    });
}

#[test]
fn what_is_lost_is_put_back() {
    inside("life::what_is_lost_is_put_back", |place| {
        serve("127.0.0.1:15001", "proxy");
        place.far_server("[::]:8080", "far");
        run(async {
            let mut interceptor = place.interceptor();
            interceptor.apply(&one()).await.unwrap();
            assert_eq!(
                interceptor.reassert().await.unwrap(),
                [],
                "nothing is lost yet"
            );
            let installed = traces();
            for (line, subject) in [
                ("ip rule del priority 7700", "IPv4 rule"),
                ("ip -6 rule del priority 7700", "IPv6 rule"),
                ("ip route flush table 7700", "table 7700"),
                (
                    "ip route del local 240.240.0.0/16 table local",
                    "240.240.0.0/16",
                ),
                (
                    "ip -6 route del local fd6d:6573:6864::/64 table local",
                    "fd6d:",
                ),
            ] {
                sh(line);
                let disturbed =
                    tokio::time::timeout(Duration::from_secs(3), interceptor.disturbed());
                disturbed.await.expect(line);
                let findings = interceptor.reassert().await.unwrap();
                assert!(
                    findings.iter().any(|one| one.subject.contains(subject)),
                    "{line}: {findings:?}"
                );
                assert_eq!(traces(), installed, "{line}");
            }
            for line in [
                "nft delete table inet meshd_fallback",
                "nft flush chain inet meshd_fallback untranslated",
            ] {
                sh(line);
                let findings = interceptor.reassert().await.unwrap();
                assert_eq!(findings.len(), 1, "{line}: {findings:?}");
                assert!(
                    sh("nft list chain inet meshd_fallback untranslated").contains("reject"),
                    "{line}"
                );
            }
            assert_eq!(interceptor.reassert().await.unwrap(), []);
            assert_eq!(dial(V4), "proxy 10.9.0.1");
        });
    });
}

/// Taking an IPv6 address away takes it out of the routes whose source it is, without a word.
#[test]
fn an_address_that_comes_back_is_the_source_again() {
    inside(
        "life::an_address_that_comes_back_is_the_source_again",
        |place| {
            run(async {
                let mut interceptor = place.interceptor();
                interceptor.apply(&one()).await.unwrap();
                let installed = traces();
                sh("ip address del fd00:9::1/64 dev near");
                interceptor.disturbed().await;
                let findings = interceptor.reassert().await.unwrap();
                assert_eq!(findings.len(), 1, "{findings:?}");
                assert_eq!(
                    findings[0].code, "intercept-route",
                    "there is no such source now"
                );
                sh("ip address add fd00:9::1/64 dev near nodad");
                interceptor.reassert().await.unwrap();
                assert_eq!(traces(), installed);
            });
        },
    );
}

#[test]
fn a_dead_owner_child_is_replaced() {
    inside("life::a_dead_owner_child_is_replaced", |place| {
        serve("127.0.0.1:15001", "proxy");
        run(async {
            let mut interceptor = place.interceptor();
            interceptor.apply(&one()).await.unwrap();
            kill_child("nft");
            let disturbed = tokio::time::timeout(Duration::from_secs(3), interceptor.disturbed());
            disturbed.await.unwrap();
            let findings = interceptor.reassert().await.unwrap();
            assert_eq!(findings.len(), 1, "{findings:?}");
            assert_eq!(dial(V4), "proxy 10.9.0.1");
        });
    });
}

#[test]
fn nobody_else_can_take_the_table_away() {
    const NAME: &str = "life::nobody_else_can_take_the_table_away";
    if let Some(directory) = role("daemon") {
        run(async {
            let settings = mesh_intercept::Settings::new(&directory, &directory);
            let mut interceptor = Interceptor::start(settings).unwrap();
            interceptor.apply(&one()).await.unwrap();
            mesh_intercept::apply::keep(&mut interceptor, |_findings| ()).await;
        });
    }
    inside(NAME, |place| {
        serve("127.0.0.1:15001", "proxy");
        let mut daemon = again(NAME, "daemon", place.directory.path());
        eventually("the daemon captures", || {
            has_table("meshd") && dial(V4) == "proxy 10.9.0.1"
        });
        run(async {
            let elsewhere = tempfile::tempdir().unwrap();
            let settings = mesh_intercept::Settings::new(elsewhere.path(), elsewhere.path());
            let mut second = Interceptor::start(settings).unwrap();
            assert!(matches!(second.apply(&one()).await, Err(ApplyError::Held)));
            sh("nft flush ruleset");
            assert!(has_table("meshd"));
            assert_eq!(dial(V4), "proxy 10.9.0.1");
            // The daemon lives: it takes its table down itself when it sees the marker.
            bypass::enter(place.directory.path()).await.unwrap();
            eventually("the daemon obeys the marker", || {
                !has_table("meshd") && !traces().contains("7700")
            });
        });
        daemon.kill().unwrap();
        daemon.wait().unwrap();
    });
}

#[test]
fn bypass_holds_until_it_is_undone() {
    inside("life::bypass_holds_until_it_is_undone", |place| {
        run(async {
            let before = traces();
            let directory = place.directory.path();
            let mut interceptor = place.interceptor();
            interceptor.apply(&one()).await.unwrap();
            interceptor.remove(Removal::Stop).await.unwrap();
            drop(interceptor);
            assert!(!bypass::active(directory));
            let owner_left = bypass::enter(directory).await.unwrap();
            assert!(!owner_left && bypass::owner_gone(Duration::ZERO).await.unwrap());
            assert!(bypass::active(directory));
            assert_eq!(traces(), before);
            bypass::enter(directory).await.unwrap();
            let mut interceptor = place.interceptor();
            assert_eq!(interceptor.apply(&one()).await.unwrap().how, How::Bypassed);
            assert_eq!(traces(), before);
            let findings = observe::findings(&place.settings(), MARK).await;
            assert_eq!(findings.len(), 1, "{findings:?}");
            bypass::leave(directory).unwrap();
            bypass::leave(directory).unwrap();
            interceptor.reassert().await.unwrap();
            assert_eq!(observe::tables(&place.settings()).await, (true, true));
        });
    });
}

#[test]
fn changed_numbers_leave_nothing_stale() {
    inside("life::changed_numbers_leave_nothing_stale", |place| {
        run(async {
            let mut interceptor = place.interceptor();
            interceptor.apply(&one()).await.unwrap();
            let moved = Intent {
                virtual_v4: ("198.18.0.0".parse().unwrap(), 15),
                mark: Mark {
                    value: 0x0100_0000,
                    mask: 0x0f00_0000,
                },
                virtuals: Vec::new(),
                ..one()
            };
            assert_eq!(interceptor.apply(&moved).await.unwrap().how, How::Replaced);
            let (routes, rules) = (sh("ip route show table all"), sh("ip rule"));
            assert!(
                routes.contains("198.18.0.0/15") && !routes.contains("240.240"),
                "{routes}"
            );
            assert!(
                rules.contains("0x2000000/0xf000000") && !rules.contains("0x4e0000"),
                "{rules}"
            );
        });
    });
}

#[test]
fn foreign_rules_in_the_way_are_found() {
    inside("life::foreign_rules_in_the_way_are_found", |place| {
        run(async {
            let settings = place.settings();
            assert_eq!(observe::findings(&settings, MARK).await, []);
            let mut interceptor = place.interceptor();
            interceptor.apply(&one()).await.unwrap();
            assert_eq!(
                observe::findings(&settings, MARK).await,
                [],
                "our own are not foreign"
            );
            sh("ip rule add fwmark 0x80000/0xff0000 priority 5210 lookup 52");
            sh("ip -6 rule add priority 7699 lookup 7700");
            let findings = observe::findings(&settings, MARK).await;
            let subjects: Vec<&str> = findings.iter().map(|one| one.subject.as_str()).collect();
            assert_eq!(
                subjects,
                ["ip rule priority 5210", "ip -6 rule priority 7699"]
            );
        });
    });
}

#[test]
fn a_host_without_ipv6_is_served() {
    inside("life::a_host_without_ipv6_is_served", |place| {
        serve("127.0.0.1:15001", "proxy");
        for name in ["all", "lo"] {
            std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1").unwrap();
        }
        run(async {
            let mut interceptor = place.interceptor();
            let applied = interceptor
                .apply(&Intent {
                    host_v6: None,
                    ..one()
                })
                .await
                .unwrap();
            assert_eq!(applied.findings, []);
            assert_eq!(dial(V4), "proxy 10.9.0.1");
            assert_eq!(interceptor.reassert().await.unwrap(), []);
            interceptor.remove(Removal::Everything).await.unwrap();
        });
    });
}
