//! A scripted server over TCP and UDP: the law, and what only DNS can do wrong.

use std::sync::{Mutex, PoisonError};

use hickory_proto::{
    op::{Message, Metadata, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, AAAA, CNAME, SOA, SRV},
    },
};
use mesh_model::{
    endpoint::{Endpoint, Health},
    name::ServiceName,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UdpSocket},
};

use super::*;
use crate::{
    contract::{ID, Registered, World, laws},
    sink::{Outlet, Update},
};

/// How the server answers a question.
#[derive(Debug, Clone)]
enum Script {
    Records(Vec<Record>, Vec<Record>),
    Code(ResponseCode),
    Empty,
    Silent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Mood {
    #[default]
    Good,
    Garbage,
    Gone,
}

#[derive(Debug, Default)]
struct Zone {
    scripts: BTreeMap<(Name, RecordType), Script>,
    mood: Mood,
    /// Records that a datagram carries; the rest is left out without a word.
    datagram: Option<usize>,
    asked: Vec<(Name, RecordType, bool)>,
}

/// The server; its tasks end with it.
struct Server {
    address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    _tasks: JoinSet<()>,
}

fn n(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn srv(name: &str, ttl: u32, numbers: [u16; 3], host: &str) -> Record {
    let [priority, weight, port] = numbers;
    let data = RData::SRV(SRV::new(priority, weight, port, n(host)));
    Record::from_rdata(n(name), ttl, data)
}

fn ip(name: &str, ttl: u32, ip: &str) -> Record {
    let data = match ip.parse().unwrap() {
        std::net::IpAddr::V4(ip) => RData::A(A(ip)),
        std::net::IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
    };
    Record::from_rdata(n(name), ttl, data)
}

fn alias(name: &str, ttl: u32, of: &str) -> Record {
    Record::from_rdata(n(name), ttl, RData::CNAME(CNAME(n(of))))
}

fn soa(ttl: u32, minimum: u32) -> Record {
    let data = RData::SOA(SOA::new(
        n("ns.test."),
        n("root.test."),
        1,
        1,
        1,
        1,
        minimum,
    ));
    Record::from_rdata(n("test."), ttl, data)
}

impl Server {
    async fn new(stream: bool) -> Self {
        let (tcp, udp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let address = udp.local_addr().unwrap();
            if let Ok(tcp) = TcpListener::bind(address).await {
                break (tcp, udp);
            }
        };
        let address = udp.local_addr().unwrap();
        let zone = Arc::new(Mutex::new(Zone::default()));
        let mut tasks = JoinSet::new();
        let at = Arc::clone(&zone);
        tasks.spawn(async move {
            let mut bytes = vec![0; 4096];
            loop {
                let (length, from) = udp.recv_from(&mut bytes).await.unwrap();
                if let Some(answer) = reply(&at, &bytes[..length], false) {
                    udp.send_to(&answer, from).await.unwrap();
                }
            }
        });
        if stream {
            let at = Arc::clone(&zone);
            tasks.spawn(async move {
                let mut open = JoinSet::new();
                loop {
                    let (mut stream, _) = tcp.accept().await.unwrap();
                    let at = Arc::clone(&at);
                    open.spawn(async move {
                        let Ok(length) = stream.read_u16().await else {
                            return;
                        };
                        let mut bytes = vec![0; usize::from(length)];
                        if stream.read_exact(&mut bytes).await.is_err() {
                            return;
                        }
                        if at.lock().unwrap().mood == Mood::Gone {
                            return;
                        }
                        if let Some(answer) = reply(&at, &bytes, true) {
                            let length = u16::try_from(answer.len()).unwrap();
                            let mut framed = length.to_be_bytes().to_vec();
                            framed.extend(answer);
                            let _gone = stream.write_all(&framed).await;
                        } else {
                            std::future::pending::<()>().await;
                        }
                    });
                }
            });
        }
        Self {
            address,
            zone,
            _tasks: tasks,
        }
    }

    fn zone(&self) -> std::sync::MutexGuard<'_, Zone> {
        self.zone.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn script(&self, name: &str, kind: RecordType, script: Script) {
        self.zone().scripts.insert((n(name), kind), script);
    }

    fn answers(&self, name: &str, kind: RecordType, records: Vec<Record>) {
        self.script(name, kind, Script::Records(records, Vec::new()));
    }

    fn exchange(&self) -> Exchange {
        Exchange {
            servers: vec![self.address],
            udp: false,
        }
    }
}

fn reply(zone: &Mutex<Zone>, bytes: &[u8], stream: bool) -> Option<Vec<u8>> {
    let mut zone = zone.lock().unwrap();
    let request = Message::from_vec(bytes).unwrap();
    let query = request.queries[0].clone();
    zone.asked
        .push((query.name.clone(), query.query_type, stream));
    match zone.mood {
        Mood::Good => {}
        Mood::Garbage => return Some(b"\x00\x01nonsense".to_vec()),
        Mood::Gone => return None,
    }
    let mut answer = Message::response(request.metadata.id, request.metadata.op_code);
    answer.metadata = Metadata::response_from_request(&request.metadata);
    answer.metadata.authoritative = true;
    answer.add_query(query.clone());
    let known = zone.scripts.keys().any(|(name, _)| *name == query.name);
    match zone.scripts.get(&(query.name.clone(), query.query_type)) {
        Some(Script::Silent) => return None,
        Some(Script::Code(code)) => answer.metadata.response_code = *code,
        Some(Script::Records(records, extra)) => {
            let most = zone.datagram.filter(|_| !stream).unwrap_or(records.len());
            answer.add_answers(records.iter().take(most).cloned());
            answer.add_additionals(extra.iter().cloned());
        }
        Some(Script::Empty) => {
            answer.add_authority(soa(1, 1));
        }
        None => {
            answer.add_authority(soa(1, 1));
            if !known {
                answer.metadata.response_code = ResponseCode::NXDomain;
            }
        }
    }
    Some(answer.to_vec().unwrap())
}

fn record(service: &str, name: &str, port: Option<u16>) -> DnsRecord {
    DnsRecord {
        service: ServiceName::new(service).unwrap(),
        name: name.to_owned(),
        port,
    }
}

struct Names(Server);

impl World for Names {
    fn put(&mut self, service: &str, endpoints: &[Registered]) {
        let name = format!("{service}.test.");
        let records = endpoints
            .iter()
            .map(|one| srv(&name, 1, [0, 1, one.port], "ten.test."))
            .collect();
        self.0.script(
            &name,
            RecordType::SRV,
            Script::Records(records, vec![ip("ten.test.", 1, "10.0.0.1")]),
        );
    }
    fn remove(&mut self, service: &str) {
        let key = (n(&format!("{service}.test.")), RecordType::SRV);
        self.0.zone().scripts.remove(&key);
    }
    fn garbage(&mut self) {
        self.0.zone().mood = Mood::Garbage;
    }
    fn break_off(&mut self) {
        self.0.zone().mood = Mood::Gone;
    }
    fn repair(&mut self) {
        self.0.zone().mood = Mood::Good;
    }
    fn opener(&self) -> Arc<dyn Fn() -> Box<dyn Source> + Send + Sync> {
        let server = self.0.address;
        Arc::new(move || {
            let records = ["web", "api"].map(|name| record(name, &format!("{name}.test"), None));
            Box::new(DnsSource::new(ID, &[server], &records, false))
        })
    }
    fn tells_health(&self) -> bool {
        false
    }
}

#[tokio::test]
async fn dns_obeys() {
    let mut servers = Vec::new();
    for _ in 0..4 {
        servers.push(Server::new(true).await);
    }
    let servers = Mutex::new(servers);
    laws(|| Names(servers.lock().unwrap().pop().unwrap())).await;
}

async fn ask(exchange: &Exchange, record: DnsRecord) -> Result<Resolved, ResolveError> {
    resolve(exchange, &[record], &Memory::new()).await
}

fn seen(endpoints: &[Endpoint]) -> Vec<(String, u16, u32)> {
    endpoints
        .iter()
        .map(|one| (one.address.to_string(), one.priority, one.weight))
        .collect()
}

#[tokio::test]
async fn a_datagram_that_lacks_records_is_not_believed() {
    let server = Server::new(true).await;
    let records = (1..=40).map(|port| srv("web.test.", 30, [1, 5, port], "ten.test."));
    server.answers("web.test.", RecordType::SRV, records.collect());
    server.answers(
        "ten.test.",
        RecordType::A,
        vec![ip("ten.test.", 30, "10.0.0.1")],
    );
    server.zone().datagram = Some(3);
    let whole = ask(&server.exchange(), record("web", "web.test", None)).await;
    assert_eq!(whole.unwrap().endpoints.len(), 40);
    assert!(server.zone().asked.iter().all(|(_, _, stream)| *stream));
    let datagrams = Exchange {
        udp: true,
        ..server.exchange()
    };
    let part = ask(&datagrams, record("web", "web.test", None)).await;
    assert_eq!(part.unwrap().endpoints.len(), 3, "as was asked for");
}

#[tokio::test]
async fn udp_only_where_tcp_is_refused() {
    let server = Server::new(false).await;
    server.answers(
        "web.test.",
        RecordType::A,
        vec![ip("web.test.", 0, "10.0.0.1")],
    );
    server.answers(
        "web.test.",
        RecordType::AAAA,
        vec![ip("web.test.", 9, "fd00::1")],
    );
    let found = ask(&server.exchange(), record("web", "web.test.", Some(80)))
        .await
        .unwrap();
    let wanted = [("10.0.0.1:80", 0, 1), ("[fd00::1]:80", 0, 1)];
    assert_eq!(
        seen(&found.endpoints),
        wanted.map(|(address, priority, weight)| (address.to_owned(), priority, weight))
    );
    assert_eq!(found.life, Duration::from_secs(5), "a TTL of 0 is 5 s");
}

#[tokio::test]
async fn every_address_of_a_target_and_its_aliases() {
    let server = Server::new(true).await;
    server.script(
        "web.test.",
        RecordType::SRV,
        Script::Records(
            vec![
                srv("web.test.", 60, [10, 0, 80], "one.test."),
                srv("web.test.", 60, [10, 6, 80], "TWO.test."),
                srv("web.test.", 60, [20, 6, 80], "three.test."),
            ],
            vec![ip("one.test.", 40, "10.0.0.1")],
        ),
    );
    server.answers(
        "two.test.",
        RecordType::A,
        vec![alias("two.test.", 50, "far.test.")],
    );
    server.answers(
        "two.test.",
        RecordType::AAAA,
        vec![alias("two.test.", 50, "far.test.")],
    );
    server.answers(
        "far.test.",
        RecordType::A,
        vec![
            ip("far.test.", 45, "10.0.0.2"),
            ip("far.test.", 45, "10.0.0.3"),
        ],
    );
    server.answers(
        "far.test.",
        RecordType::AAAA,
        vec![ip("far.test.", 45, "fd00::2")],
    );
    server.script("three.test.", RecordType::A, Script::Empty);
    let found = ask(&server.exchange(), record("web", "web.test", None))
        .await
        .unwrap();
    let wanted = [
        ("10.0.0.1:80", 10, 12),
        ("10.0.0.2:80", 10, 24),
        ("10.0.0.3:80", 10, 24),
        ("[fd00::2]:80", 10, 24),
    ];
    assert_eq!(
        seen(&found.endpoints),
        wanted.map(|(address, priority, weight)| (address.to_owned(), priority, weight))
    );
    let asked = server.zone().asked.clone();
    assert!(
        asked.iter().all(|(name, _, _)| *name != n("one.test.")),
        "it came along"
    );
}

#[tokio::test]
async fn absence_and_errors_are_three_things() {
    let server = Server::new(true).await;
    let dot = vec![srv("dot.test.", 9, [0, 0, 0], ".")];
    server.answers("dot.test.", RecordType::SRV, dot);
    server.script("empty.test.", RecordType::SRV, Script::Empty);
    for name in ["dot.test", "empty.test", "nowhere.test"] {
        let found = ask(&server.exchange(), record("web", name, None))
            .await
            .unwrap();
        assert!(found.endpoints.is_empty(), "{name}");
    }
    for code in [
        ResponseCode::ServFail,
        ResponseCode::Refused,
        ResponseCode::NotImp,
    ] {
        server.script("bad.test.", RecordType::SRV, Script::Code(code));
        let error = ask(&server.exchange(), record("web", "bad.test", None))
            .await
            .unwrap_err();
        assert!(chain(&error).contains("the server answered"), "{error}");
    }
    let error = ask(&server.exchange(), record("web", "a..b", None))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("is no DNS name"));
}

#[tokio::test]
async fn the_next_server_is_asked_and_a_lost_target_keeps_its_addresses() {
    let (first, second) = (Server::new(true).await, Server::new(true).await);
    first.script(
        "web.test.",
        RecordType::SRV,
        Script::Code(ResponseCode::ServFail),
    );
    first.script(
        "ten.test.",
        RecordType::A,
        Script::Code(ResponseCode::ServFail),
    );
    first.script(
        "ten.test.",
        RecordType::AAAA,
        Script::Code(ResponseCode::ServFail),
    );
    let targets = vec![srv("web.test.", 9, [0, 1, 80], "ten.test.")];
    second.answers("web.test.", RecordType::SRV, targets);
    second.answers(
        "ten.test.",
        RecordType::A,
        vec![ip("ten.test.", 9, "10.0.0.1")],
    );
    let exchange = Exchange {
        servers: vec![first.address, second.address],
        udp: false,
    };
    let records = [record("web", "web.test", None)];
    let found = resolve(&exchange, &records, &Memory::new()).await.unwrap();
    assert_eq!((found.endpoints.len(), &found.doubt), (1, &None));
    second.script(
        "ten.test.",
        RecordType::A,
        Script::Code(ResponseCode::ServFail),
    );
    let again = resolve(&exchange, &records, &found.memory).await.unwrap();
    assert_eq!(again.endpoints, found.endpoints);
    assert!(again.doubt.is_some());
    assert!(
        resolve(&exchange, &records, &Memory::new()).await.is_err(),
        "nothing to keep"
    );
}

#[tokio::test]
async fn a_slow_name_does_not_hold_up_another() {
    let server = Server::new(true).await;
    server.script("slow.test.", RecordType::A, Script::Silent);
    server.script("slow.test.", RecordType::AAAA, Script::Silent);
    server.answers(
        "web.test.",
        RecordType::A,
        vec![ip("web.test.", 1, "10.0.0.1")],
    );
    let records = [
        record("a", "slow.test", Some(1)),
        record("web", "web.test", Some(80)),
    ];
    let mut source = DnsSource::new("dns/x", &[server.address], &records, false);
    let (sink, outlet) = Sink::new();
    let run = source.run(sink, Demand::all(), CancellationToken::new());
    let web = tokio::time::timeout(Duration::from_secs(2), first_set(&outlet));
    tokio::select! {
        ended = run => panic!("{ended:?}"),
        set = web => assert_eq!(set.unwrap()[0].health, Health::Unknown),
    }
}

async fn first_set(outlet: &Outlet) -> Vec<Endpoint> {
    loop {
        outlet.filled().await;
        let updates = outlet.take().map(|batch| batch.updates).unwrap_or_default();
        for update in updates.into_values() {
            if let Update::Replace(set, _) = update {
                return set.endpoints;
            }
        }
    }
}
