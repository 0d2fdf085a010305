//! The names of one service to its endpoints: SRV, then every address of every target.
//!
//! In: the records, the addresses known before. Out: data, a decided absence, or an error that keeps all.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use futures_util::stream::{self, StreamExt};
use hickory_proto::rr::{Name, RecordType};
use mesh_model::{cause::chain, config::DnsRecord, endpoint::Endpoint};

use super::{
    exchange::{Answered, Exchange, ExchangeError},
    parse::{self, Place, Said, Target},
};

/// Aliases that are followed over several answers.
const ALIASES: usize = 8;
/// Hosts of one service that are asked for at a time.
const AT_ONCE: usize = 8;

/// The addresses of hosts as they were last known.
pub(super) type Memory = BTreeMap<Name, Vec<IpAddr>>;

/// What the names of a service say.
#[derive(Debug)]
pub(super) struct Resolved {
    /// The whole set; empty: with authority, there is no such service.
    pub(super) endpoints: Vec<Endpoint>,
    /// How long that holds.
    pub(super) life: Duration,
    /// The addresses used.
    pub(super) memory: Memory,
    /// A target whose addresses could not be read: the ones known before were used.
    pub(super) doubt: Option<String>,
}

/// Why the names of a service cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ResolveError {
    #[error("{0:?} is no DNS name")]
    Name(String),
    #[error("cannot resolve {name}")]
    Exchange {
        name: Name,
        #[source]
        cause: ExchangeError,
    },
    #[error("{0} has too many aliases")]
    Aliases(Name),
    #[error("its names took longer than 30 s")]
    Slow,
}

/// One resolution in the making.
struct Resolution<'a> {
    exchange: &'a Exchange,
    before: &'a Memory,
    done: Resolved,
}

/// Asks for all records of a service.
pub(super) async fn resolve(
    exchange: &Exchange,
    records: &[DnsRecord],
    before: &Memory,
) -> Result<Resolved, ResolveError> {
    let mut resolution = Resolution {
        exchange,
        before,
        done: Resolved {
            endpoints: Vec::new(),
            life: parse::life(u32::MAX),
            memory: Memory::new(),
            doubt: None,
        },
    };
    let mut places = Vec::new();
    for record in records {
        let name = name(&record.name)?;
        match record.port {
            Some(port) => {
                resolution.hosts(std::iter::once(&name)).await?;
                let ips = resolution
                    .done
                    .memory
                    .get(&name)
                    .cloned()
                    .unwrap_or_default();
                // Names with a port have no weights: each address is as good as another.
                places.extend(ips.into_iter().map(|ip| Place {
                    priority: 0,
                    weight: 1,
                    port,
                    ips: vec![ip],
                }));
            }
            None => places.extend(resolution.service(&name).await?),
        }
    }
    let mut done = resolution.done;
    done.endpoints = parse::endpoints(&places);
    Ok(done)
}

fn name(text: &str) -> Result<Name, ResolveError> {
    let read = if text.is_ascii() {
        Name::from_ascii(text)
    } else {
        Name::from_utf8(text)
    };
    let mut name = read.map_err(|_not_a_name| ResolveError::Name(text.to_owned()))?;
    name.set_fqdn(true);
    Ok(name)
}

impl Resolution<'_> {
    fn holds(&mut self, life: Duration) {
        self.done.life = self.done.life.min(life);
    }

    async fn service(&mut self, name: &Name) -> Result<Vec<Place>, ResolveError> {
        let (targets, extra) = self.targets(name).await?;
        for (host, (ips, life)) in extra {
            if targets.iter().any(|target| target.host == host) {
                self.holds(life);
                self.done.memory.entry(host).or_insert(ips);
            }
        }
        self.hosts(targets.iter().map(|target| &target.host))
            .await?;
        let place = |target: Target| Place {
            priority: target.priority,
            weight: target.weight,
            port: target.port,
            ips: self
                .done
                .memory
                .get(&target.host)
                .cloned()
                .unwrap_or_default(),
        };
        Ok(targets.into_iter().map(place).collect())
    }

    async fn targets(
        &mut self,
        name: &Name,
    ) -> Result<(Vec<Target>, BTreeMap<Name, (Vec<IpAddr>, Duration)>), ResolveError> {
        let mut at = name.clone();
        for _ in 0..=ALIASES {
            let Answered { message, stream } = self.ask(&at, RecordType::SRV).await?;
            match parse::targets(&message, &at) {
                Said::Found { what, life } => {
                    self.holds(life);
                    // Additional records of a datagram are dropped first when it is full.
                    let extra = if stream {
                        parse::additionals(&message)
                    } else {
                        BTreeMap::new()
                    };
                    return Ok((what, extra));
                }
                Said::Nothing { life } => {
                    self.holds(life);
                    return Ok((Vec::new(), BTreeMap::new()));
                }
                Said::Alias { name, life } => {
                    self.holds(life);
                    at = name;
                }
            }
        }
        Err(ResolveError::Aliases(name.clone()))
    }

    /// Learns all addresses of the hosts that are not known yet, a few at a time.
    async fn hosts(&mut self, hosts: impl Iterator<Item = &Name>) -> Result<(), ResolveError> {
        let unknown: BTreeSet<Name> = hosts
            .filter(|host| !self.done.memory.contains_key(*host))
            .cloned()
            .collect();
        let exchange = self.exchange;
        let mut answers = stream::iter(unknown)
            .map(|host| async move {
                let found = both(exchange, &host).await;
                (host, found)
            })
            .buffer_unordered(AT_ONCE);
        while let Some((host, found)) = answers.next().await {
            let ips = match found {
                Ok((ips, life)) => {
                    self.done.life = self.done.life.min(life);
                    ips
                }
                // What was known of this host stays; without that, the whole set stays.
                Err(error) => {
                    let Some(known) = self.before.get(&host) else {
                        return Err(error);
                    };
                    self.done.doubt = Some(chain(&error));
                    known.clone()
                }
            };
            self.done.memory.insert(host, ips);
        }
        Ok(())
    }

    async fn ask(&self, name: &Name, kind: RecordType) -> Result<Answered, ResolveError> {
        ask(self.exchange, name, kind).await
    }
}

/// All addresses of a host, both families.
async fn both(exchange: &Exchange, host: &Name) -> Result<(Vec<IpAddr>, Duration), ResolveError> {
    let (v4, v6) = tokio::join!(
        addresses(exchange, host, RecordType::A),
        addresses(exchange, host, RecordType::AAAA)
    );
    let ((mut ips, life4), (v6, life6)) = (v4?, v6?);
    // A family that is not there says nothing of how long the other one holds.
    let life = match (ips.is_empty(), v6.is_empty()) {
        (false, true) => life4,
        (true, false) => life6,
        _ => life4.min(life6),
    };
    ips.extend(v6);
    Ok((ips, life))
}

async fn addresses(
    exchange: &Exchange,
    name: &Name,
    kind: RecordType,
) -> Result<(Vec<IpAddr>, Duration), ResolveError> {
    let mut at = name.clone();
    let mut shortest = parse::life(u32::MAX);
    for _ in 0..=ALIASES {
        let answered = ask(exchange, &at, kind).await?;
        match parse::addresses(&answered.message, &at) {
            Said::Found { what, life } => return Ok((what, life.min(shortest))),
            Said::Nothing { life } => return Ok((Vec::new(), life.min(shortest))),
            Said::Alias { name, life } => {
                shortest = shortest.min(life);
                at = name;
            }
        }
    }
    Err(ResolveError::Aliases(name.clone()))
}

async fn ask(exchange: &Exchange, name: &Name, kind: RecordType) -> Result<Answered, ResolveError> {
    exchange
        .ask(name, kind)
        .await
        .map_err(|cause| ResolveError::Exchange {
            name: name.clone(),
            cause,
        })
}
