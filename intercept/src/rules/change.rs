//! The step from one intent to the next, as small as it can be.

use super::{
    Contents, FALLBACK, OWNER, SERVICES, element, elements, line, service_chain, service_rule,
    versions,
};
use crate::intent::Intent;

/// The transaction that leads from `old`, which the kernel follows, to `new`.
///
/// `None` when more than elements differ (ports, marks, ranges): then whole tables are due.
pub fn change(old: &Intent, new: &Intent) -> Option<String> {
    if !same_chains(old, new) {
        return None;
    }
    let (before, after) = (Contents::of(old), Contents::of(new));
    let (owner, fallback) = versions(new);
    let mut text = String::new();
    for (table, version) in [(OWNER, owner), (FALLBACK, fallback)] {
        line(&mut text, 0, &format!("flush set inet {table} version"));
        line(
            &mut text,
            0,
            &format!("add element inet {table} version {{ {version:#010x} }}"),
        );
    }
    for (&(table, name), wanted) in &after.sets {
        let present = before.sets.get(&(table, name))?;
        for (verb, list) in [
            ("delete", elements(present.difference(wanted).copied())),
            ("add", elements(wanted.difference(present).copied())),
        ] {
            if !list.is_empty() {
                line(
                    &mut text,
                    0,
                    &format!("{verb} element inet {table} {name} {{ {list} }}"),
                );
            }
        }
    }
    services(&mut text, &before, &after);
    Some(text)
}

fn same_chains(old: &Intent, new: &Intent) -> bool {
    (
        old.outbound_port,
        old.inbound_port,
        old.mark,
        old.virtual_v4,
        old.virtual_v6,
    ) == (
        new.outbound_port,
        new.inbound_port,
        new.mark,
        new.virtual_v4,
        new.virtual_v6,
    )
}

fn services(text: &mut String, before: &Contents, after: &Contents) {
    for &address in before
        .services
        .keys()
        .filter(|one| !after.services.contains_key(one))
    {
        let chain = service_chain(address);
        let map = SERVICES.of(address.ip());
        line(
            text,
            0,
            &format!(
                "delete element inet {FALLBACK} {map} {{ {} }}",
                element(address)
            ),
        );
        line(text, 0, &format!("flush chain inet {FALLBACK} {chain}"));
        line(text, 0, &format!("delete chain inet {FALLBACK} {chain}"));
    }
    for (&address, endpoints) in &after.services {
        let chain = service_chain(address);
        let rule = service_rule(address, endpoints);
        match before.services.get(&address) {
            Some(present) if present == endpoints => {}
            Some(_) => {
                line(text, 0, &format!("flush chain inet {FALLBACK} {chain}"));
                line(text, 0, &format!("add rule inet {FALLBACK} {chain} {rule}"));
            }
            None => {
                let map = SERVICES.of(address.ip());
                line(text, 0, &format!("add chain inet {FALLBACK} {chain}"));
                line(text, 0, &format!("add rule inet {FALLBACK} {chain} {rule}"));
                line(
                    text,
                    0,
                    &format!(
                        "add element inet {FALLBACK} {map} {{ {} : jump {chain} }}",
                        element(address)
                    ),
                );
            }
        }
    }
}
