//! Answers of DNS servers to targets, addresses and endpoints. Pure: bytes in, meaning out.
//!
//! Never: takes an error, a referral or a cut answer for "there is nothing".

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{DNSClass, Name, RData, Record, RecordType},
};
use mesh_model::{
    address::{Address, canonical},
    endpoint::{Endpoint, Health},
};

/// The life of an answer that names none: a TTL of 0 (Consul's default), a negative answer without SOA.
const UNTOLD: Duration = Duration::from_secs(5);
/// The shortest and the longest life that is believed.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_mins(5);
/// Aliases that are followed inside one answer.
const ALIASES: usize = 8;
/// The datagram that fits everywhere without fragments.
const DATAGRAM: u16 = 1232;
/// Twelfths share a target's weight among 2, 3, 4 and 6 addresses exactly.
const TWELFTHS: u32 = 12;

/// Why an answer cannot be used. All of these keep what is known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// It is no DNS message.
    #[error("the answer cannot be understood")]
    Malformed,
    /// It answers something else.
    #[error("the answer belongs to another question")]
    Foreign,
    /// It was cut; ask over TCP.
    #[error("the answer was cut")]
    Cut,
    /// The server could not or would not answer.
    #[error("the server answered {0}")]
    Refused(ResponseCode),
    /// The server named other servers instead of answering.
    #[error("the server does not recurse")]
    Referral,
}

/// What an answer says. `life` is how long it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said<T> {
    /// This is what there is.
    Found {
        /// The content, never empty.
        what: Vec<T>,
        /// How long it holds.
        life: Duration,
    },
    /// With authority: there is nothing.
    Nothing {
        /// How long that holds.
        life: Duration,
    },
    /// The name is another name's alias, and the answer says nothing of that one.
    Alias {
        /// The name to ask for.
        name: Name,
        /// How long that holds.
        life: Duration,
    },
}

/// One SRV record (RFC 2782).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Lowest first.
    pub priority: u16,
    /// Share among its priority.
    pub weight: u16,
    /// The port.
    pub port: u16,
    /// The host.
    pub host: Name,
}

/// How long records of this TTL (seconds) are believed.
pub fn life(ttl: u32) -> Duration {
    if ttl == 0 {
        return UNTOLD;
    }
    Duration::from_secs(u64::from(ttl)).clamp(SHORTEST, LONGEST)
}

/// When to ask again: at 0.9 of the life at the latest, a tenth earlier by `dice` (0.0 to 1.0).
pub fn refresh(life: Duration, dice: f64) -> Duration {
    life.mul_f64(0.9 - 0.09 * dice.clamp(0.0, 1.0))
}

/// A question as bytes; `None` when the name cannot be written.
pub fn question(id: u16, name: &Name, kind: RecordType) -> Option<Vec<u8>> {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name.clone(), kind));
    let mut edns = Edns::new();
    edns.set_max_payload(DATAGRAM);
    message.set_edns(edns);
    message.to_vec().ok()
}

/// The answer to the question, checked: ours, whole, and positive or negative.
pub fn answer(
    bytes: &[u8],
    id: u16,
    name: &Name,
    kind: RecordType,
) -> Result<Message, AnswerError> {
    let message = Message::from_vec(bytes).map_err(|_not_dns| AnswerError::Malformed)?;
    if message.metadata.id != id || message.metadata.message_type != MessageType::Response {
        return Err(AnswerError::Foreign);
    }
    let code = message.metadata.response_code;
    let asked = |query: &Query| query.name == *name && query.query_type == kind;
    match message.queries.as_slice() {
        [query] if asked(query) => {}
        // Servers that could not read the question answer without it.
        [] if code != ResponseCode::NoError && code != ResponseCode::NXDomain => {}
        _ => return Err(AnswerError::Foreign),
    }
    if message.metadata.truncation {
        return Err(AnswerError::Cut);
    }
    if !matches!(code, ResponseCode::NoError | ResponseCode::NXDomain) {
        return Err(AnswerError::Refused(code));
    }
    let has = |kind| {
        message
            .authorities
            .iter()
            .any(|one| one.record_type() == kind)
    };
    let referral = code == ResponseCode::NoError
        && message.answers.is_empty()
        && !message.metadata.authoritative
        && has(RecordType::NS)
        && !has(RecordType::SOA);
    if referral {
        return Err(AnswerError::Referral);
    }
    Ok(message)
}

/// The targets of `name`. A target `.` says that the service is decidedly not there.
pub fn targets(message: &Message, name: &Name) -> Said<Target> {
    let found = read(message, name, |data| match data {
        RData::SRV(srv) => Some(Target {
            priority: srv.priority,
            weight: srv.weight,
            port: srv.port,
            host: srv.target.clone(),
        }),
        _ => None,
    });
    let Said::Found { mut what, life } = found else {
        return found;
    };
    what.retain(|target| !target.host.is_root() && target.port != 0);
    if what.is_empty() {
        return Said::Nothing { life };
    }
    Said::Found { what, life }
}

/// The addresses of `name`.
pub fn addresses(message: &Message, name: &Name) -> Said<IpAddr> {
    read(message, name, RData::ip_addr)
}

/// The addresses that came along, by host, each host with the shortest life of its records.
pub fn additionals(message: &Message) -> BTreeMap<Name, (Vec<IpAddr>, Duration)> {
    let mut found: BTreeMap<Name, (Vec<IpAddr>, Duration)> = BTreeMap::new();
    for record in &message.additionals {
        if let Some(ip) = record.data.ip_addr() {
            let (ips, shortest) = found
                .entry(record.name.clone())
                .or_insert_with(|| (Vec::new(), LONGEST));
            ips.push(ip);
            *shortest = life(record.ttl).min(*shortest);
        }
    }
    found
}

/// Follows aliases inside the answer and takes what is wanted at their end.
fn read<T>(message: &Message, name: &Name, take: impl Fn(&RData) -> Option<T>) -> Said<T> {
    let mut shortest = LONGEST;
    let mut at = name;
    let class = |record: &&Record| record.dns_class == DNSClass::IN;
    for _ in 0..=ALIASES {
        let here = || {
            message
                .answers
                .iter()
                .filter(class)
                .filter(|one| one.name == *at)
        };
        let mut ttl = shortest;
        let what: Vec<T> = here()
            .filter_map(|one| take(&one.data).inspect(|_| ttl = ttl.min(life(one.ttl))))
            .collect();
        if !what.is_empty() {
            return Said::Found { what, life: ttl };
        }
        let alias = here().find_map(|one| match &one.data {
            RData::CNAME(alias) => Some((&alias.0, one.ttl)),
            _ => None,
        });
        let Some((next, ttl)) = alias else { break };
        shortest = shortest.min(life(ttl));
        at = next;
    }
    let negative = message.authorities.iter().find_map(|one| match &one.data {
        // RFC 2308 section 5: the smaller of the SOA's own TTL and its last field.
        RData::SOA(soa) => Some(life(one.ttl.min(soa.minimum))),
        _ => None,
    });
    let nowhere = message.metadata.response_code == ResponseCode::NXDomain;
    if at != name && !nowhere && negative.is_none() {
        return Said::Alias {
            name: at.clone(),
            life: shortest,
        };
    }
    Said::Nothing {
        life: negative.unwrap_or(UNTOLD).min(shortest),
    }
}

/// One place behind a name: where, and its share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Lowest first.
    pub priority: u16,
    /// Share among its priority, of the target as a whole.
    pub weight: u16,
    /// The port.
    pub port: u16,
    /// All addresses of the target.
    pub ips: Vec<IpAddr>,
}

/// The endpoints of all places. A target's weight is shared by its addresses, so that a second address
/// (or the other family) does not double its share; weight 0 becomes 1, the least there is.
pub fn endpoints(places: &[Place]) -> Vec<Endpoint> {
    let mut by_address: BTreeMap<SocketAddr, Endpoint> = BTreeMap::new();
    let shared = places.iter().any(|place| place.ips.len() > 1);
    for place in places {
        let count = u32::try_from(place.ips.len()).unwrap_or(u32::MAX).max(1);
        let weight = match (u32::from(place.weight), shared) {
            (weight, false) => weight,
            (weight, true) => weight.max(1) * TWELFTHS / count,
        };
        for ip in &place.ips {
            let address = canonical(SocketAddr::new(*ip, place.port));
            if address.ip().is_unspecified() {
                continue;
            }
            let known = by_address.get(&address);
            if known.is_some_and(|known| known.priority <= place.priority) {
                continue;
            }
            by_address.insert(
                address,
                Endpoint {
                    id: Arc::from(address.to_string()),
                    address: Address::Socket(address),
                    health: Health::Unknown,
                    weight: weight.max(1),
                    priority: place.priority,
                    locality: None,
                    metadata: Arc::default(),
                    host: None,
                    tunnel: None,
                },
            );
        }
    }
    by_address.into_values().collect()
}

#[cfg(test)]
mod tests;
