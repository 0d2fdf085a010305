//! The table that lives as long as the daemon: redirects to the proxy, and back.

use super::{Contents, DIRECT, INBOUND, OWNER, VIRTUAL, declare_sets, declare_version, line};
use crate::intent::{Intent, reply_mark};

pub(super) fn text(intent: &Intent, contents: &Contents) -> String {
    let mut text = String::new();
    line(
        &mut text,
        0,
        &format!("add table inet {OWNER} {{ flags owner; }}"),
    );
    line(&mut text, 0, &format!("delete table inet {OWNER}"));
    line(&mut text, 0, &format!("table inet {OWNER} {{"));
    line(&mut text, 1, "flags owner");
    declare_version(&mut text);
    for names in [VIRTUAL, DIRECT, INBOUND] {
        declare_sets(&mut text, contents, OWNER, names);
    }
    outbound(&mut text, intent);
    inbound(&mut text, intent);
    replies(&mut text, intent);
    line(&mut text, 0, "}");
    text
}

/// Calls of local programs. Virtual addresses come before the look at local ones: their route makes them local.
///
/// The daemon's own calls pass. Those from a borrowed address are remembered for `replies`; here, where only the
/// first packet of a connection comes by, not where each does.
fn outbound(text: &mut String, intent: &Intent) {
    let own = own(intent);
    let port = intent.outbound_port;
    let (value, keep) = (intent.mark.value & intent.mark.mask, !intent.mark.mask);
    let mut chain = vec![
        "type nat hook output priority -100; policy accept;".to_owned(),
        format!(
            "oif \"lo\" {own} fib saddr type != local ct mark set ct mark & {keep:#010x} | {value:#010x}"
        ),
        format!("{own} return"),
    ];
    chain.push(format!(
        "ip daddr . tcp dport @{} redirect to :{port}",
        VIRTUAL.v4
    ));
    chain.push(format!(
        "ip6 daddr . tcp dport @{} redirect to :{port}",
        VIRTUAL.v6
    ));
    chain.push("fib daddr type local return".to_owned());
    chain.push(format!(
        "ip daddr . tcp dport @{} redirect to :{port}",
        DIRECT.v4
    ));
    chain.push(format!(
        "ip6 daddr . tcp dport @{} redirect to :{port}",
        DIRECT.v6
    ));
    put(text, "outbound", &chain);
}

/// Calls from other hosts. The address is this host's own, so no mark is needed to deliver them; one would
/// break hosts with `src_valid_mark` (the way back, looked up with the mark, is local: a martian).
fn inbound(text: &mut String, intent: &Intent) {
    let port = intent.inbound_port;
    put(
        text,
        "inbound",
        &[
            "type filter hook prerouting priority mangle; policy accept;".to_owned(),
            "iif \"lo\" return".to_owned(),
            format!(
                "ip daddr . tcp dport @{} tproxy ip to :{port} accept",
                INBOUND.v4
            ),
            format!(
                "ip6 daddr . tcp dport @{} tproxy ip6 to :{port} accept",
                INBOUND.v6
            ),
        ],
    );
}

/// What a program answers to a client whose address the proxy borrowed goes back to the proxy.
fn replies(text: &mut String, intent: &Intent) {
    let (value, mask, keep) = (
        intent.mark.value & intent.mark.mask,
        intent.mark.mask,
        !intent.mark.mask,
    );
    put(
        text,
        "replies",
        &[
            "type route hook output priority mangle; policy accept;".to_owned(),
            format!(
                "ct direction reply ct mark & {mask:#010x} == {value:#010x} meta mark set meta mark & {keep:#010x} | {:#010x}",
                // Without one nothing is applied; see `apply`.
                reply_mark(intent.mark).unwrap_or(value)
            ),
        ],
    );
}

/// Matches the daemon's own sockets.
fn own(intent: &Intent) -> String {
    let (value, mask) = (intent.mark.value & intent.mark.mask, intent.mark.mask);
    format!("meta mark & {mask:#010x} == {value:#010x}")
}

pub(super) fn put(text: &mut String, name: &str, chain: &[String]) {
    line(text, 1, &format!("chain {name} {{"));
    for rule in chain {
        line(text, 2, rule);
    }
    line(text, 1, "}");
}
