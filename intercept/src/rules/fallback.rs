//! The table that outlives the daemon: virtual addresses go on directly, or are refused at once.

use super::{
    CLOSED, Contents, FALLBACK, SERVICES, declare_sets, declare_version, element, line, owner::put,
    service_chain, service_rule,
};
use crate::intent::Intent;

pub(super) fn text(intent: &Intent, contents: &Contents) -> String {
    let mut text = String::new();
    line(&mut text, 0, &format!("add table inet {FALLBACK}"));
    line(&mut text, 0, &format!("delete table inet {FALLBACK}"));
    line(&mut text, 0, &format!("table inet {FALLBACK} {{"));
    declare_version(&mut text);
    declare_sets(&mut text, contents, FALLBACK, CLOSED);
    for (&address, endpoints) in &contents.services {
        put(
            &mut text,
            &service_chain(address),
            &[service_rule(address, endpoints)],
        );
    }
    declare_services(&mut text, contents);
    put(
        &mut text,
        "outbound",
        &[
            // After the owner table's, which has bound the connection when it is there.
            "type nat hook output priority -90; policy accept;".to_owned(),
            format!("ip daddr . tcp dport vmap @{}", SERVICES.v4),
            format!("ip6 daddr . tcp dport vmap @{}", SERVICES.v6),
        ],
    );
    refuse(&mut text, intent);
    foreign(&mut text, intent);
    line(&mut text, 0, "}");
    text
}

fn declare_services(text: &mut String, contents: &Contents) {
    for (name, kind, v4) in [
        (SERVICES.v4, "ipv4_addr", true),
        (SERVICES.v6, "ipv6_addr", false),
    ] {
        let list: Vec<String> = contents
            .services
            .keys()
            .filter(|address| address.is_ipv4() == v4)
            .map(|&address| format!("{} : jump {}", element(address), service_chain(address)))
            .collect();
        line(text, 1, &format!("map {name} {{"));
        line(text, 2, &format!("type {kind} . inet_service : verdict;"));
        if !list.is_empty() {
            line(text, 2, &format!("elements = {{ {} }}", list.join(", ")));
        }
        line(text, 1, "}");
    }
}

/// What nobody has translated: without this a program that listens on all addresses would answer for
/// somebody else's virtual address, because the route makes the whole range local.
///
/// After the chains that translate, and like them for the first packet of a connection only; packets that
/// they never see, because somebody's rules keep them from being tracked, meet the same words in `foreign`.
fn refuse(text: &mut String, intent: &Intent) {
    let mut words = Vec::new();
    for range in ranges(intent) {
        words.push(format!("{range} meta l4proto tcp reject with tcp reset"));
        words.push(format!("{range} meta l4proto udp reject"));
    }
    put(text, "untranslated", &words);
    put(
        text,
        "refuse",
        &[
            "type nat hook output priority -80; policy accept;".to_owned(),
            "jump untranslated".to_owned(),
        ],
    );
}

/// From other hosts: virtual addresses mean nothing there, and strict ports are for the proxy only. Only
/// the first packet is refused: connections that the program had before live on.
fn foreign(text: &mut String, intent: &Intent) {
    let mut chain = vec![
        "type filter hook prerouting priority -140; policy accept;".to_owned(),
        "iif \"lo\" ct state invalid,untracked goto untranslated".to_owned(),
        "iif \"lo\" return".to_owned(),
    ];
    chain.extend(
        ranges(intent)
            .into_iter()
            .map(|range| format!("{range} drop")),
    );
    // Looking for a socket costs: only first packets are worth it.
    chain.push("tcp flags & (syn | ack) != syn return".to_owned());
    chain.push("socket transparent 1 return".to_owned());
    for (family, name) in [("ip", CLOSED.v4), ("ip6", CLOSED.v6)] {
        chain.push(format!(
            "{family} daddr . tcp dport @{name} reject with tcp reset"
        ));
    }
    put(text, "foreign", &chain);
}

fn ranges(intent: &Intent) -> [String; 2] {
    let ((v4, v4_prefix), (v6, v6_prefix)) = (intent.virtual_v4, intent.virtual_v6);
    [
        format!("ip daddr {v4}/{v4_prefix}"),
        format!("ip6 daddr {v6}/{v6_prefix}"),
    ]
}
