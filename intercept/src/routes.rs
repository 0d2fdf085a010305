//! Routes and `ip rule`s: put there, kept there, taken away; and word when somebody touches them.
//!
//! All are `proto kernel`: systemd-networkd deletes foreign routes and rules, but leaves the kernel's.

use std::{fmt, fs, io, net::IpAddr, pin::Pin, str::FromStr};

use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use rtnetlink::{
    Handle, IpVersion, MulticastGroup, RouteMessageBuilder, new_connection_with_strict_check,
    new_multicast_connection,
    packet_core::{NetlinkMessage, NetlinkPayload},
    packet_route::{
        RouteNetlinkMessage,
        route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType},
        rule::{RuleAction, RuleAttribute, RuleMessage},
    },
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

/// The kernel's table of local addresses.
const LOCAL_TABLE: u32 = 255;

/// A failed change or look at routes and rules.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RouteError {
    /// The kernel's socket for routes cannot be opened.
    #[error("the kernel's routing socket cannot be opened")]
    Open(#[source] io::Error),
    /// A request was refused.
    #[error("the kernel refused to {what}")]
    Refused {
        /// What was asked.
        what: String,
        /// What the kernel said.
        #[source]
        source: rtnetlink::Error,
    },
}

/// A range of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) network: IpAddr,
    pub(crate) prefix: u8,
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

impl FromStr for Range {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (network, prefix) = text.split_once('/').ok_or(())?;
        Ok(Self {
            network: network.parse().map_err(drop)?,
            prefix: prefix.parse().map_err(drop)?,
        })
    }
}

/// What must be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Makes a range of virtual addresses local, with the host's own address as source.
    Virtual { range: Range, source: IpAddr },
    /// Sends packets with the mark to the table.
    Rule {
        v6: bool,
        mark: u32,
        mask: u32,
        table: u32,
    },
    /// The table's only route: all is local.
    All { v6: bool, table: u32 },
}

impl Piece {
    pub(crate) const fn v6(&self) -> bool {
        match self {
            Self::Virtual { range, .. } => range.network.is_ipv6(),
            Self::Rule { v6, .. } | Self::All { v6, .. } => *v6,
        }
    }
}

impl fmt::Display for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Virtual { range, source } => write!(f, "route local {range} dev lo src {source}"),
            Self::Rule {
                v6,
                mark,
                mask,
                table,
            } => write!(
                f,
                "{} rule fwmark {mark:#x}/{mask:#x} priority {table} lookup {table}",
                family(*v6)
            ),
            Self::All { v6, table } => {
                write!(
                    f,
                    "{} route local default dev lo table {table}",
                    family(*v6)
                )
            }
        }
    }
}

fn family(v6: bool) -> &'static str {
    if v6 { "IPv6" } else { "IPv4" }
}

/// Talks to the kernel about routes and rules.
pub(crate) struct Routes {
    handle: Handle,
    events: Pin<Box<dyn Stream<Item = ()> + Send + Sync>>,
    loopback: u32,
    _stop: DropGuard,
}

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Routes")
            .field("loopback", &self.loopback)
            .finish_non_exhaustive()
    }
}

impl Routes {
    /// Opens both sockets; needs a tokio runtime.
    pub(crate) fn open() -> Result<Self, RouteError> {
        let loopback = nix::net::if_::if_nametoindex("lo")
            .map_err(|errno| RouteError::Open(io::Error::from(errno)))?;
        let (requests, handle, _none) =
            new_connection_with_strict_check().map_err(RouteError::Open)?;
        let (watch, watch_handle, events) = new_multicast_connection(&[
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
            MulticastGroup::Ipv4Rule,
            MulticastGroup::Ipv6Rule,
        ])
        .map_err(RouteError::Open)?;
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let ended = stop.clone();
        // Both live until the token ends them with this value; the watch needs its handle alive.
        tasks.spawn(async move {
            let both = futures_util::future::join(requests, watch);
            tokio::select! {
                () = ended.cancelled() => {}
                _ = both => {}
            }
            drop(watch_handle);
        });
        let events = events
            .filter(move |(message, _)| std::future::ready(matters(message, loopback)))
            .map(|_message| ());
        Ok(Self {
            handle,
            events: Box::pin(events),
            loopback,
            _stop: stop.drop_guard(),
        })
    }

    /// Waits until something was removed that might be ours.
    pub(crate) async fn disturbed(&mut self) {
        if self.events.next().await.is_none() {
            std::future::pending::<()>().await;
        }
    }

    /// Forgets disturbances that came until now.
    pub(crate) fn settle(&mut self) {
        while let Some(Some(())) = futures_util::FutureExt::now_or_never(self.events.next()) {}
    }

    /// Whether a piece is there as it must be.
    pub(crate) async fn present(&self, piece: &Piece) -> Result<bool, RouteError> {
        match piece {
            Piece::Virtual { range, source } => Ok(self
                .local_routes(range.network.is_ipv6(), LOCAL_TABLE)
                .await?
                .iter()
                .any(|route| self.leads(route, *range) && source_of(route) == Some(*source))),
            Piece::All { v6, table } => Ok(self
                .local_routes(*v6, *table)
                .await?
                .iter()
                .any(|route| route.header.destination_prefix_length == 0)),
            Piece::Rule { v6, .. } => Ok(self
                .rules(*v6)
                .await?
                .iter()
                .any(|rule| same_rule(rule, piece))),
        }
    }

    /// Puts a piece there, replacing what has its place.
    pub(crate) async fn put(&self, piece: &Piece) -> Result<(), RouteError> {
        let added = match piece {
            Piece::Virtual { range, source } => {
                let mut route = self.local_route(range.network.is_ipv6(), LOCAL_TABLE);
                route.header.destination_prefix_length = range.prefix;
                route
                    .attributes
                    .push(RouteAttribute::Destination(address(range.network)));
                route
                    .attributes
                    .push(RouteAttribute::PrefSource(address(*source)));
                self.handle.route().add(route).replace().execute().await
            }
            Piece::All { v6, table } => {
                let route = self.local_route(*v6, *table);
                self.handle.route().add(route).replace().execute().await
            }
            Piece::Rule {
                v6,
                mark,
                mask,
                table,
            } => {
                self.remove_rules(*v6, *table).await?;
                let mut request = self
                    .handle
                    .rule()
                    .add()
                    .table_id(*table)
                    .priority(*table)
                    .action(RuleAction::ToTable)
                    .fw_mark(*mark);
                request
                    .message_mut()
                    .attributes
                    .push(RuleAttribute::FwMask(*mask));
                request
                    .message_mut()
                    .attributes
                    .push(RuleAttribute::Protocol(RouteProtocol::Kernel));
                if *v6 {
                    request.v6().execute().await
                } else {
                    request.v4().execute().await
                }
            }
        };
        match added {
            Err(error) if code(&error) == Some(nix::libc::EEXIST) => Ok(()),
            other => other.map_err(|source| RouteError::Refused {
                what: format!("add {piece}"),
                source,
            }),
        }
    }

    /// Takes a range's route away.
    pub(crate) async fn remove_range(&self, range: Range) -> Result<(), RouteError> {
        for route in self
            .local_routes(range.network.is_ipv6(), LOCAL_TABLE)
            .await?
        {
            if self.leads(&route, range) {
                let what = format!("delete route local {range}");
                gone(self.handle.route().del(route).execute().await, what)?;
            }
        }
        Ok(())
    }

    /// Takes the rules that lead to our table away, and its routes.
    pub(crate) async fn remove_table(&self, table: u32) -> Result<(), RouteError> {
        for v6 in [false, true] {
            self.remove_rules(v6, table).await?;
            for route in self.local_routes(v6, table).await? {
                let what = format!("delete {} routes of table {table}", family(v6));
                gone(self.handle.route().del(route).execute().await, what)?;
            }
        }
        Ok(())
    }

    /// Takes the rules at our priority that lead to our table away, whatever their mark.
    async fn remove_rules(&self, v6: bool, table: u32) -> Result<(), RouteError> {
        for rule in self.rules(v6).await? {
            if rule_table(&rule) == table && priority(&rule) == Some(table) {
                let what = format!("delete {} rule {table}", family(v6));
                gone(self.handle.rule().del(rule).execute().await, what)?;
            }
        }
        Ok(())
    }

    /// All rules of a family; empty when the host has none of that family.
    pub(crate) async fn rules(&self, v6: bool) -> Result<Vec<RuleMessage>, RouteError> {
        if v6 && !has_v6() {
            return Ok(Vec::new());
        }
        let version = if v6 { IpVersion::V6 } else { IpVersion::V4 };
        self.handle
            .rule()
            .get(version)
            .execute()
            .try_collect()
            .await
            .map_err(|source| RouteError::Refused {
                what: format!("list {} rules", family(v6)),
                source,
            })
    }

    async fn local_routes(&self, v6: bool, table: u32) -> Result<Vec<RouteMessage>, RouteError> {
        if v6 && !has_v6() {
            return Ok(Vec::new());
        }
        let listed: Result<Vec<RouteMessage>, _> = self
            .handle
            .route()
            .get(filter(v6, table))
            .execute()
            .try_collect()
            .await;
        match listed {
            // Older kernels ignore the filter.
            Ok(routes) => Ok(routes
                .into_iter()
                .filter(|route| {
                    table_of(route) == table
                        && route.header.kind == RouteType::Local
                        && route.header.protocol == RouteProtocol::Kernel
                })
                .collect()),
            // No such table yet.
            Err(error) if code(&error) == Some(nix::libc::ENOENT) => Ok(Vec::new()),
            Err(source) => Err(RouteError::Refused {
                what: format!("list {} routes of table {table}", family(v6)),
                source,
            }),
        }
    }

    fn local_route(&self, v6: bool, table: u32) -> RouteMessage {
        let mut route = filter(v6, table);
        route.header.scope = RouteScope::Host;
        route.attributes.push(RouteAttribute::Oif(self.loopback));
        route
    }

    fn leads(&self, route: &RouteMessage, range: Range) -> bool {
        route.header.destination_prefix_length == range.prefix
            && route.attributes.iter().any(|attribute| {
                matches!(attribute, RouteAttribute::Destination(to) if *to == address(range.network))
            })
            && route
                .attributes
                .iter()
                .any(|attribute| matches!(attribute, RouteAttribute::Oif(oif) if *oif == self.loopback))
    }
}

/// True when the host speaks IPv6 on loopback.
pub(crate) fn has_v6() -> bool {
    fs::read_to_string("/proc/sys/net/ipv6/conf/lo/disable_ipv6")
        .is_ok_and(|text| text.trim() == "0")
}

/// The message that both asks for, and begins, a local route of the kernel's making.
fn filter(v6: bool, table: u32) -> RouteMessage {
    let builder = |mut message: RouteMessage| {
        message.header.kind = RouteType::Local;
        message.header.protocol = RouteProtocol::Kernel;
        message.header.scope = RouteScope::Universe;
        // Numbers above 255 stand in the attribute alone.
        message.header.table = u8::try_from(table).unwrap_or(0);
        message.attributes.push(RouteAttribute::Table(table));
        message
    };
    if v6 {
        builder(RouteMessageBuilder::<std::net::Ipv6Addr>::new().build())
    } else {
        builder(RouteMessageBuilder::<std::net::Ipv4Addr>::new().build())
    }
}

fn address(ip: IpAddr) -> RouteAddress {
    match ip {
        IpAddr::V4(ip) => RouteAddress::Inet(ip),
        IpAddr::V6(ip) => RouteAddress::Inet6(ip),
    }
}

fn source_of(route: &RouteMessage) -> Option<IpAddr> {
    route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::PrefSource(RouteAddress::Inet(ip)) => Some(IpAddr::V4(*ip)),
            RouteAttribute::PrefSource(RouteAddress::Inet6(ip)) => Some(IpAddr::V6(*ip)),
            _ => None,
        })
}

fn table_of(route: &RouteMessage) -> u32 {
    route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Table(table) => Some(*table),
            _ => None,
        })
        .unwrap_or_else(|| u32::from(route.header.table))
}

pub(crate) fn rule_table(rule: &RuleMessage) -> u32 {
    rule.attributes
        .iter()
        .find_map(|attribute| match attribute {
            RuleAttribute::Table(table) => Some(*table),
            _ => None,
        })
        .unwrap_or_else(|| u32::from(rule.header.table))
}

pub(crate) fn priority(rule: &RuleMessage) -> Option<u32> {
    rule.attributes
        .iter()
        .find_map(|attribute| match attribute {
            RuleAttribute::Priority(priority) => Some(*priority),
            _ => None,
        })
}

/// Mark and mask of a rule; the mask is all ones when it names none.
pub(crate) fn mark(rule: &RuleMessage) -> Option<(u32, u32)> {
    let find = |wanted: fn(&RuleAttribute) -> Option<u32>| rule.attributes.iter().find_map(wanted);
    let value = find(|attribute| match attribute {
        RuleAttribute::FwMark(mark) => Some(*mark),
        _ => None,
    })?;
    let mask = find(|attribute| match attribute {
        RuleAttribute::FwMask(mask) => Some(*mask),
        _ => None,
    });
    Some((value, mask.unwrap_or(u32::MAX)))
}

fn same_rule(rule: &RuleMessage, piece: &Piece) -> bool {
    matches!(piece, Piece::Rule { mark: value, mask, table, .. }
        if mark(rule) == Some((*value, *mask))
            && rule_table(rule) == *table
            && priority(rule) == Some(*table))
}

/// The kernel's error number, positive.
fn code(error: &rtnetlink::Error) -> Option<i32> {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.code.map(|code| -code.get()),
        _ => None,
    }
}

/// Deleting what somebody else has just deleted is done.
fn gone(result: Result<(), rtnetlink::Error>, what: String) -> Result<(), RouteError> {
    match result {
        Err(error) if matches!(code(&error), Some(nix::libc::ENOENT | nix::libc::ESRCH)) => Ok(()),
        other => other.map_err(|source| RouteError::Refused { what, source }),
    }
}

/// Removals only: our own additions must not wake us. Taking an address away takes the routes with it
/// whose source it is, without a word.
fn matters(message: &NetlinkMessage<RouteNetlinkMessage>, loopback: u32) -> bool {
    let NetlinkPayload::InnerMessage(inner) = &message.payload else {
        return false;
    };
    match inner {
        RouteNetlinkMessage::DelRoute(route) => route.header.kind == RouteType::Local,
        RouteNetlinkMessage::DelRule(_) | RouteNetlinkMessage::DelAddress(_) => true,
        RouteNetlinkMessage::NewLink(link) => link.header.index == loopback,
        _ => false,
    }
}
