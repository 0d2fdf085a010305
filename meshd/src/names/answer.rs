//! One query in, one answer out, or word that it must be sent on.
//!
//! Never: answers for a name outside the mesh's domain.

use std::net::IpAddr;

use hickory_proto::{
    op::{Edns, Message, MessageType, Metadata, OpCode, Query, ResponseCode},
    rr::{
        DNSClass, Name, RData, Record, RecordType,
        rdata::{A, AAAA, SOA},
    },
};

use super::zone::{Current, Entry, Found};

/// Life of an answer in seconds: callers that stay away from the mesh for longer ask again.
const TTL: u32 = 5;
/// The most addresses in one answer.
const MAX_ADDRESSES: usize = 16;
/// The largest answer over UDP (RFC 9715 section 3: no fragments).
const MAX_DATAGRAM: u16 = 1232;
/// The largest answer over UDP for clients without EDNS (RFC 1035 section 4.2.1).
const PLAIN_DATAGRAM: u16 = 512;
/// Length of a message's header.
const HEADER: usize = 12;

/// How the query came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    /// A datagram.
    Udp,
    /// A stream.
    Tcp,
}

/// What to do with a query.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Send these bytes.
    Answer(Vec<u8>),
    /// Ask an upstream; refuse when there is none.
    Forward,
    /// Say nothing: it is no query.
    Drop,
}

/// Decides on a query. `turn` makes answers with several addresses go round.
pub(super) fn decide(
    bytes: &[u8],
    transport: Transport,
    current: &Current,
    turn: usize,
) -> Verdict {
    let Ok(request) = Message::from_vec(bytes) else {
        return failure(bytes, ResponseCode::FormErr).map_or(Verdict::Drop, Verdict::Answer);
    };
    if request.metadata.message_type != MessageType::Query {
        return Verdict::Drop;
    }
    if request.metadata.op_code != OpCode::Query {
        return encoded(&reply(&request, ResponseCode::NotImp), transport, &request);
    }
    let [query] = request.queries.as_slice() else {
        return encoded(&reply(&request, ResponseCode::FormErr), transport, &request);
    };
    let name = query.name.to_lowercase().to_ascii();
    let found = current.zone.find(name.trim_end_matches('.'));
    if found == Found::Foreign {
        return Verdict::Forward;
    }
    if query.query_class != DNSClass::IN {
        return encoded(&reply(&request, ResponseCode::Refused), transport, &request);
    }
    let mut answer = reply(&request, ResponseCode::NoError);
    answer.metadata.authoritative = true;
    match found {
        Found::Name(entry) => addresses(&mut answer, query, entry, current.plain, turn),
        Found::Nothing => answer.metadata.response_code = ResponseCode::NXDomain,
        Found::Empty | Found::Foreign => {}
    }
    if answer.answers.is_empty() {
        answer.authorities.extend(authority(current.zone.domain()));
    }
    encoded(&answer, transport, &request)
}

/// An answer without content to a query that may not be readable; none when it is no query at all.
pub(super) fn failure(bytes: &[u8], code: ResponseCode) -> Option<Vec<u8>> {
    if let Ok(request) = Message::from_vec(bytes) {
        return reply(&request, code).to_vec().ok();
    }
    let header = bytes.get(..HEADER)?;
    let (&[first, second], &flags) = (header.first_chunk()?, header.get(2)?);
    if flags & 0x80 != 0 {
        return None;
    }
    let mut answer = Message::response(u16::from_be_bytes([first, second]), OpCode::Query);
    answer.metadata.response_code = code;
    answer.to_vec().ok()
}

fn reply(request: &Message, code: ResponseCode) -> Message {
    let mut answer = Message::response(request.metadata.id, request.metadata.op_code);
    answer.metadata = Metadata::response_from_request(&request.metadata);
    answer.metadata.recursion_available = true;
    answer.metadata.response_code = code;
    answer.queries.clone_from(&request.queries);
    if request.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(MAX_DATAGRAM);
        answer.edns = Some(edns);
    }
    answer
}

fn addresses(answer: &mut Message, query: &Query, entry: &Entry, plain: bool, turn: usize) {
    let list = if plain {
        &entry.direct
    } else {
        &entry.addresses
    };
    let wanted: Vec<RData> = list
        .iter()
        .filter_map(|address| match (address, query.query_type) {
            (IpAddr::V4(ip), RecordType::A | RecordType::ANY) => Some(RData::A(A(*ip))),
            (IpAddr::V6(ip), RecordType::AAAA | RecordType::ANY) => Some(RData::AAAA(AAAA(*ip))),
            _ => None,
        })
        .collect();
    let start = if wanted.is_empty() {
        0
    } else {
        turn % wanted.len()
    };
    let round = wanted
        .iter()
        .cycle()
        .skip(start)
        .take(wanted.len().min(MAX_ADDRESSES));
    answer
        .answers
        .extend(round.map(|data| Record::from_rdata(query.name.clone(), TTL, data.clone())));
}

/// What lets resolvers remember that there is nothing (RFC 2308 section 3), for a moment.
fn authority(domain: &str) -> Option<Record> {
    let zone = Name::from_ascii(format!("{domain}.")).ok()?;
    let people = Name::from_ascii(format!("hostmaster.{domain}.")).ok()?;
    let soa = SOA::new(zone.clone(), people, 1, 3600, 600, 86_400, 1);
    Some(Record::from_rdata(zone, 1, RData::SOA(soa)))
}

fn encoded(answer: &Message, transport: Transport, request: &Message) -> Verdict {
    let Ok(bytes) = answer.to_vec() else {
        return Verdict::Drop;
    };
    let limit = match (transport, &request.edns) {
        (Transport::Tcp, _) => u16::MAX,
        (Transport::Udp, Some(edns)) => edns.max_payload().clamp(PLAIN_DATAGRAM, MAX_DATAGRAM),
        (Transport::Udp, None) => PLAIN_DATAGRAM,
    };
    if bytes.len() <= usize::from(limit) {
        return Verdict::Answer(bytes);
    }
    match answer.truncate().to_vec() {
        Ok(bytes) => Verdict::Answer(bytes),
        Err(_) => Verdict::Drop,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::names::zone::{Source, Zone, write};

    fn current(plain: bool) -> Current {
        let folder = tempfile::tempdir().unwrap();
        let entry = |name: &str, addresses: Vec<IpAddr>, direct: Vec<IpAddr>| Entry {
            name: name.to_owned(),
            addresses,
            direct,
        };
        let many = (1..=40)
            .map(|last| IpAddr::from([10, 0, 0, last]))
            .collect();
        let entries = [
            entry(
                "words.mesh.internal",
                vec!["240.240.1.2".parse().unwrap(), "fd6d::2".parse().unwrap()],
                vec!["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()],
            ),
            entry("many.mesh.internal", many, Vec::new()),
        ];
        write(folder.path(), folder.path(), "mesh.internal", &entries).unwrap();
        let settings = super::super::Settings {
            listen: Vec::new(),
            upstream: Vec::new(),
            runtime_file: folder.path().join("names"),
            state_file: folder.path().join("names"),
            state_dir: folder.path().to_owned(),
        };
        let zone: Arc<Zone> = Source::new(settings).current().zone;
        Current { zone, plain }
    }

    fn ask(name: &str, kind: RecordType) -> Vec<u8> {
        let mut query = Message::query();
        query.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        query.to_vec().unwrap()
    }

    fn answered(verdict: Verdict) -> Message {
        let Verdict::Answer(bytes) = verdict else {
            panic!("{verdict:?}")
        };
        Message::from_vec(&bytes).unwrap()
    }

    fn told(verdict: Verdict) -> Vec<String> {
        answered(verdict)
            .answers
            .iter()
            .map(|record| record.data.to_string())
            .collect()
    }

    #[test]
    fn mesh_names_have_virtual_addresses() {
        let current = current(false);
        for (kind, expected) in [
            (RecordType::A, vec!["240.240.1.2"]),
            (RecordType::AAAA, vec!["fd6d::2"]),
            (RecordType::ANY, vec!["240.240.1.2", "fd6d::2"]),
            (RecordType::MX, vec![]),
        ] {
            for name in ["words.mesh.internal.", "WORDS.Mesh.Internal."] {
                let verdict = decide(&ask(name, kind), Transport::Udp, &current, 0);
                let message = answered(verdict);
                let found: Vec<String> = message
                    .answers
                    .iter()
                    .map(|record| record.data.to_string())
                    .collect();
                assert_eq!(found, expected, "{name} {kind}");
                assert_eq!(message.metadata.response_code, ResponseCode::NoError);
                assert!(message.metadata.authoritative);
                assert_eq!(
                    message.queries[0].name.to_ascii(),
                    name,
                    "the question comes back as asked"
                );
                assert!(message.answers.iter().all(|record| record.ttl == TTL));
                assert_eq!(message.authorities.is_empty(), !expected.is_empty());
            }
        }
    }

    #[test]
    fn plain_addresses_go_round() {
        let current = current(true);
        let query = ask("words.mesh.internal.", RecordType::A);
        assert_eq!(
            told(decide(&query, Transport::Udp, &current, 0)),
            ["10.0.0.1", "10.0.0.2"]
        );
        assert_eq!(
            told(decide(&query, Transport::Udp, &current, 1)),
            ["10.0.0.2", "10.0.0.1"]
        );
    }

    #[test]
    fn unknown_names_of_the_mesh_do_not_exist_and_others_are_sent_on() {
        let current = current(false);
        let verdict = decide(
            &ask("nobody.mesh.internal.", RecordType::A),
            Transport::Udp,
            &current,
            0,
        );
        let message = answered(verdict);
        assert_eq!(message.metadata.response_code, ResponseCode::NXDomain);
        assert_eq!(message.authorities.len(), 1);
        let verdict = decide(
            &ask("example.com.", RecordType::A),
            Transport::Udp,
            &current,
            0,
        );
        assert_eq!(verdict, Verdict::Forward);
    }

    #[test]
    fn an_answer_has_at_most_sixteen_addresses() {
        let current = current(false);
        let query = ask("many.mesh.internal.", RecordType::A);
        assert_eq!(told(decide(&query, Transport::Udp, &current, 39)).len(), 16);
    }

    #[test]
    fn an_answer_that_is_too_large_is_cut_over_udp_only() {
        let current = current(false);
        let name = "many.mesh.internal.";
        let mut message = Message::query();
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
        let request = message.clone();
        let mut large = reply(&request, ResponseCode::NoError);
        for _ in 0..60 {
            large.add_answer(Record::from_rdata(
                Name::from_ascii(name).unwrap(),
                TTL,
                RData::A(A([10, 0, 0, 1].into())),
            ));
        }
        let cut = answered(encoded(&large, Transport::Udp, &request));
        assert!(cut.metadata.truncation && cut.answers.is_empty());
        let whole = answered(encoded(&large, Transport::Tcp, &request));
        assert!(!whole.metadata.truncation && whole.answers.len() == 60);
        let mut edns = Edns::new();
        edns.set_max_payload(4096);
        message.edns = Some(edns);
        let whole = answered(encoded(&large, Transport::Udp, &message));
        assert_eq!(whole.answers.len(), 60, "1232 bytes are enough");
        drop(current);
    }

    #[test]
    fn what_is_no_query_gets_an_error_or_nothing() {
        let current = current(false);
        let mut broken = ask("words.mesh.internal.", RecordType::A);
        broken.truncate(20);
        let message = answered(decide(&broken, Transport::Udp, &current, 0));
        assert_eq!(message.metadata.response_code, ResponseCode::FormErr);
        for bytes in [&b""[..], b"short", &[0xff; 12], &[0xff; 40]] {
            assert_eq!(
                decide(bytes, Transport::Udp, &current, 0),
                Verdict::Drop,
                "{bytes:?}"
            );
        }
        let mut answer = Message::response(7, OpCode::Query);
        answer.add_query(Query::query(Name::from_ascii("a.").unwrap(), RecordType::A));
        let bytes = answer.to_vec().unwrap();
        assert_eq!(decide(&bytes, Transport::Udp, &current, 0), Verdict::Drop);
        let none = Message::query().to_vec().unwrap();
        let message = answered(decide(&none, Transport::Udp, &current, 0));
        assert_eq!(message.metadata.response_code, ResponseCode::FormErr);
    }

    #[test]
    fn random_bytes_never_panic() {
        let current = current(false);
        let good = ask("words.mesh.internal.", RecordType::A);
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..20_000 {
            let mut bytes = good.clone();
            for _ in 0..random.usize(1..6) {
                let place = random.usize(0..bytes.len());
                bytes[place] = random.u8(..);
            }
            bytes.truncate(random.usize(0..=good.len()));
            drop(decide(&bytes, Transport::Udp, &current, random.usize(..)));
        }
    }
}
