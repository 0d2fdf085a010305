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
    contract::{Hook, ID, Na, Registered, Setup, Watched, World, laws, matrix, up},
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
    /// The second half of each answer is missing.
    Cut,
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
                            if at.lock().unwrap().mood == Mood::Cut {
                                framed.truncate(framed.len() / 2);
                            }
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
        Mood::Good | Mood::Cut => {}
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

struct Names {
    server: Server,
    services: Vec<String>,
}

impl Names {
    fn new(server: Server) -> Self {
        Self {
            server,
            services: vec!["web".into(), "api".into()],
        }
    }
    fn set(&self, service: &str, records: &[([u16; 3], &str)], hosts: &[(&str, &str)]) {
        let name = format!("{service}.test.");
        let records = records
            .iter()
            .map(|(numbers, host)| srv(&name, 1, *numbers, host))
            .collect();
        let hosts = hosts.iter().map(|(host, at)| ip(host, 1, at)).collect();
        self.server
            .script(&name, RecordType::SRV, Script::Records(records, hosts));
    }
}

impl World for Names {
    fn put(&mut self, service: &str, endpoints: &[Registered]) {
        let all: Vec<_> = endpoints
            .iter()
            .map(|one| ([0, 1, one.port], "ten.test."))
            .collect();
        self.set(service, &all, &[("ten.test.", "10.0.0.1")]);
    }
    fn remove(&mut self, service: &str) {
        let key = (n(&format!("{service}.test.")), RecordType::SRV);
        self.server.zone().scripts.remove(&key);
    }
    fn garbage(&mut self) {
        self.server.zone().mood = Mood::Garbage;
    }
    fn break_off(&mut self) {
        self.server.zone().mood = Mood::Gone;
    }
    fn repair(&mut self) {
        self.server.zone().mood = Mood::Good;
    }
    fn opener(&self) -> Arc<dyn Fn() -> Box<dyn Source> + Send + Sync> {
        let server = self.server.address;
        let services = self.services.clone();
        Arc::new(move || {
            let records: Vec<DnsRecord> = services
                .iter()
                .map(|name| record(name, &format!("{name}.test"), None))
                .collect();
            Box::new(DnsSource::new(ID, &[server], &records, false))
        })
    }
    fn tells_health(&self) -> bool {
        false
    }
    fn change(&mut self, service: &str, port: u16) -> Hook {
        let all = [([0, 1, 1], "ten.test."), ([0, 7, port], "ten.test.")];
        self.set(service, &all, &[("ten.test.", "10.0.0.1")]);
        Ok(())
    }
    fn put_addresses(&mut self, service: &str) -> Hook<Vec<String>> {
        self.set(
            service,
            &[([0, 1, 80], "six.test."), ([0, 1, 5432], "db.test.")],
            &[("six.test.", "fd00::1"), ("db.test.", "10.0.0.53")],
        );
        Ok(vec!["[fd00::1]:80".into(), "10.0.0.53:5432".into()])
    }
    fn fill(&mut self, endpoints: usize) -> Hook {
        self.services = (0..endpoints / 1_000).map(|at| format!("s{at}")).collect();
        let all: Vec<_> = (1..=1_000)
            .map(|port| ([0, 1, port], "ten.test."))
            .collect();
        for service in self.services.clone() {
            self.set(&service, &all, &[("ten.test.", "10.0.0.1")]);
        }
        Ok(())
    }
    fn cut(&mut self) -> Hook {
        self.server.zone().mood = Mood::Cut;
        Ok(())
    }
    fn kill(&mut self) -> Hook {
        Err(Na::Twin)
    }
    fn freeze(&mut self) -> Hook {
        Err(Na::Twin)
    }
}

async fn servers(count: usize) -> Mutex<Vec<Server>> {
    let mut servers = Vec::new();
    for _ in 0..count {
        servers.push(Server::new(true).await);
    }
    Mutex::new(servers)
}

#[tokio::test]
async fn dns_obeys() {
    let servers = servers(4).await;
    laws(|| Names::new(servers.lock().unwrap().pop().unwrap())).await;
}

#[tokio::test]
async fn dns_passes_every_case() {
    let servers = servers(2).await;
    matrix("dns-fake", |setup| match setup {
        Setup::Plain | Setup::Large => Ok(Names::new(servers.lock().unwrap().pop().unwrap())),
        Setup::Token => Err(Na::NoCredentials),
        Setup::Tls => Err(Na::NoTls),
    })
    .await;
}

#[tokio::test]
async fn a_broken_name_is_its_own_trouble() {
    let server = Server::new(true).await;
    let mut names = Names::new(server);
    names.put("web", &[up(1), up(2), up(3), up(4)]);
    names.server.script(
        "api.test.",
        RecordType::SRV,
        Script::Code(ResponseCode::ServFail),
    );
    let run = Watched::new(&names);
    run.has("web", &[1, 2, 3, 4]).await;
    run.is("synced").await;
    names.put("web", &[up(1)]);
    // The hold ends, although the other name cannot be read.
    run.has("web", &[1]).await;
    names.break_off();
    run.is("degraded").await;
    run.end().await;
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
    // Before the silent one is given up, after 4 s.
    let web = tokio::time::timeout(Duration::from_millis(3_500), first_set(&outlet));
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
            match update {
                Update::Replace(set, _) => return set.endpoints,
                Update::Listed(set, _) => return set.unpacked().endpoints,
                Update::Absent(_) => {}
            }
        }
    }
}
