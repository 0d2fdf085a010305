//! Intent to nftables text; pure.
//!
//! In: an [`Intent`] whose ports are already cleared of those that must not be captured. Out: the text of
//! one transaction: whole tables, or the step from one intent to the next. Never: runs anything.
//!
//! Each table holds a set `version` with one element, a hash of the table's whole text: reading it back
//! tells which intent the kernel follows, however it came there.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
};

use crate::intent::{Intent, MAX_FALLBACK_ENDPOINTS, plain};

mod change;
mod fallback;
mod owner;

pub use change::change;

/// Name of the table that lives as long as the daemon.
pub const OWNER: &str = "meshd";
/// Name of the table that outlives the daemon.
pub const FALLBACK: &str = "meshd_fallback";

/// The table `inet meshd`, whole: replaces the one that is there.
pub fn owner_table(intent: &Intent) -> String {
    let text = owner::text(intent, &Contents::of(intent));
    stamped(&text)
}

/// The table `inet meshd_fallback`, whole: replaces the one that is there.
pub fn fallback_table(intent: &Intent) -> String {
    let text = fallback::text(intent, &Contents::of(intent));
    stamped(&text)
}

/// The versions of both tables, as they stand in their `version` sets.
pub fn versions(intent: &Intent) -> (u32, u32) {
    let contents = Contents::of(intent);
    (
        version(&owner::text(intent, &contents)),
        version(&fallback::text(intent, &contents)),
    )
}

/// What changes often: the elements of sets and maps.
struct Contents {
    sets: BTreeMap<(&'static str, &'static str), BTreeSet<SocketAddr>>,
    services: BTreeMap<SocketAddr, Vec<SocketAddr>>,
}

impl Contents {
    fn of(intent: &Intent) -> Self {
        let mut sets: BTreeMap<_, BTreeSet<SocketAddr>> = BTreeMap::new();
        for (table, base) in [
            (OWNER, VIRTUAL),
            (OWNER, DIRECT),
            (OWNER, INBOUND),
            (FALLBACK, CLOSED),
        ] {
            sets.insert((table, base.v4), BTreeSet::new());
            sets.insert((table, base.v6), BTreeSet::new());
        }
        let mut put = |table, names: Names, address: SocketAddr| {
            let address = plain(address);
            let name = names.of(address.ip());
            sets.entry((table, name)).or_default().insert(address);
        };
        for one in &intent.virtuals {
            put(OWNER, VIRTUAL, one.address);
        }
        for &address in &intent.direct {
            put(OWNER, DIRECT, address);
        }
        for one in &intent.inbound {
            put(OWNER, INBOUND, one.address);
            if one.strict {
                put(FALLBACK, CLOSED, one.address);
            }
        }
        Self {
            sets,
            services: services(intent),
        }
    }

    fn set(&self, table: &'static str, name: &'static str) -> impl Iterator<Item = SocketAddr> {
        self.sets.get(&(table, name)).into_iter().flatten().copied()
    }
}

/// Where each virtual address goes directly; those that go nowhere are left out.
fn services(intent: &Intent) -> BTreeMap<SocketAddr, Vec<SocketAddr>> {
    let mut services = BTreeMap::new();
    for one in intent.virtuals.iter().filter(|one| !one.fail_closed) {
        let address = plain(one.address);
        let endpoints: BTreeSet<SocketAddr> = one
            .endpoints
            .iter()
            .map(|&endpoint| plain(endpoint))
            .filter(|endpoint| endpoint.is_ipv4() == address.is_ipv4())
            .collect();
        if !endpoints.is_empty() {
            services.insert(
                address,
                endpoints.into_iter().take(MAX_FALLBACK_ENDPOINTS).collect(),
            );
        }
    }
    services
}

/// The IPv4 and the IPv6 set of one meaning.
#[derive(Clone, Copy)]
struct Names {
    v4: &'static str,
    v6: &'static str,
}

impl Names {
    const fn of(self, ip: IpAddr) -> &'static str {
        match ip {
            IpAddr::V4(_) => self.v4,
            IpAddr::V6(_) => self.v6,
        }
    }
}

const VIRTUAL: Names = Names {
    v4: "virtual4",
    v6: "virtual6",
};
const DIRECT: Names = Names {
    v4: "direct4",
    v6: "direct6",
};
const INBOUND: Names = Names {
    v4: "inbound4",
    v6: "inbound6",
};
const CLOSED: Names = Names {
    v4: "closed4",
    v6: "closed6",
};
const SERVICES: Names = Names {
    v4: "services4",
    v6: "services6",
};

/// `address . port` as nftables writes it.
fn element(address: SocketAddr) -> String {
    format!("{} . {}", address.ip(), address.port())
}

fn elements(addresses: impl Iterator<Item = SocketAddr>) -> String {
    addresses
        .into_iter()
        .map(element)
        .collect::<Vec<_>>()
        .join(", ")
}

/// A set of `address . port`, both families.
fn declare_sets(text: &mut String, contents: &Contents, table: &'static str, names: Names) {
    for (name, kind) in [(names.v4, "ipv4_addr"), (names.v6, "ipv6_addr")] {
        let list = elements(contents.set(table, name));
        line(text, 1, &format!("set {name} {{"));
        line(text, 2, &format!("type {kind} . inet_service;"));
        if !list.is_empty() {
            line(text, 2, &format!("elements = {{ {list} }}"));
        }
        line(text, 1, "}");
    }
}

fn line(text: &mut String, depth: usize, content: &str) {
    for _ in 0..depth {
        text.push_str("    ");
    }
    text.push_str(content);
    text.push('\n');
}

const STAMP: &str = "@version@";

fn stamped(text: &str) -> String {
    text.replacen(STAMP, &format!("{:#010x}", version(text)), 1)
}

fn declare_version(text: &mut String) {
    line(text, 1, "set version {");
    line(text, 2, "type mark;");
    line(text, 2, &format!("elements = {{ {STAMP} }}"));
    line(text, 1, "}");
}

/// FNV-1a folded to 32 bits, never 0: it tells intents apart, it guards against nobody.
fn version(text: &str) -> u32 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in text.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    let folded = u32::try_from((hash >> 32) ^ (hash & 0xffff_ffff)).unwrap_or(1);
    folded.max(1)
}

/// The chain that sends one virtual address on directly.
fn service_chain(address: SocketAddr) -> String {
    let mut name = String::from("to_");
    match address.ip() {
        IpAddr::V4(ip) => {
            for octet in ip.octets() {
                write_into(&mut name, format_args!("{octet}_"));
            }
        }
        IpAddr::V6(ip) => write_into(&mut name, format_args!("{:032x}_", u128::from(ip))),
    }
    write_into(&mut name, format_args!("{}", address.port()));
    name
}

fn write_into(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    text.write_fmt(arguments).unwrap_or_default();
}

/// The one rule of a service's chain: new connections go round the endpoints in turn.
fn service_rule(address: SocketAddr, endpoints: &[SocketAddr]) -> String {
    let family = if address.is_ipv4() { "ip" } else { "ip6" };
    if let [only] = endpoints {
        return format!("meta l4proto tcp dnat {family} to {only}");
    }
    let turns: Vec<String> = endpoints
        .iter()
        .enumerate()
        .map(|(turn, &endpoint)| format!("{turn} : {}", element(endpoint)))
        .collect();
    format!(
        "meta l4proto tcp dnat {family} to numgen inc mod {} map {{ {} }}",
        endpoints.len(),
        turns.join(", ")
    )
}
