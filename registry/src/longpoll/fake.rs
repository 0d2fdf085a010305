//! A scripted server of either dialect: answers as the real ones do, and misbehaves as told.
#![cfg_attr(
    not(test),
    expect(dead_code, reason = "tests do more with it than other crates")
)]
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a scripted server that cannot be set up fails its test"
)]

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_util::task::TaskTracker;

/// Whose words are spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Consul,
    Nomad,
}

/// A stream of events says something at least this often.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// How it behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Good,
    /// No JSON.
    Garbage,
    /// Connections close.
    Broken,
    /// Bodies end early.
    Cut,
    /// 200, and nothing in it: what the token may not see is left out.
    Blind,
    /// Services are listed, their instances are left out.
    Nodeless,
    /// As `Blind`, and says so.
    Filtered,
    /// 500.
    Leaderless,
    /// Nothing is answered.
    Silent,
}

#[derive(Debug)]
struct State {
    services: BTreeMap<String, (u64, Vec<Instance>)>,
    index: u64,
    mood: Mood,
    token: Option<String>,
    asked: Vec<String>,
    /// Tags of instances.
    tags: BTreeMap<(String, u16), String>,
    /// Addresses of instances that are not at the usual one.
    hosts: BTreeMap<(String, u16), String>,
}

/// An instance: its port, and whether its check passes.
pub(crate) type Instance = (u16, bool);

/// The server.
#[derive(Debug, Clone)]
pub(crate) struct Fake {
    pub(crate) kind: Kind,
    state: Arc<Mutex<State>>,
    woken: Arc<watch::Sender<u64>>,
    pub(crate) address: String,
}

impl Fake {
    pub(crate) fn start(kind: Kind) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        let fake = Self {
            kind,
            address: format!("http://{}", listener.local_addr().unwrap()),
            state: Arc::new(Mutex::new(State {
                services: BTreeMap::new(),
                index: 10,
                mood: Mood::Good,
                token: None,
                asked: Vec::new(),
                tags: BTreeMap::new(),
                hosts: BTreeMap::new(),
            })),
            woken: Arc::new(watch::channel(0).0),
        };
        let server = fake.clone();
        let tracker = TaskTracker::new();
        tracker.clone().spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tracker.spawn(server.clone().serve(stream));
            }
        });
        fake
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.woken.send_modify(|round| *round += 1);
        result
    }
    pub(crate) fn put(&self, service: &str, endpoints: &[Instance]) {
        self.with(|state| {
            state.index += 1;
            state
                .services
                .insert(service.to_owned(), (state.index, endpoints.to_vec()));
        });
    }
    pub(crate) fn remove(&self, service: &str) {
        self.put(service, &[]);
    }
    pub(crate) fn mood(&self, mood: Mood) {
        self.with(|state| state.mood = mood);
    }
    pub(crate) fn token(&self, token: &str) {
        self.with(|state| state.token = Some(token.to_owned()));
    }
    /// The instance carries this tag from now on.
    pub(crate) fn tag(&self, service: &str, port: u16, tag: &str) {
        self.with(|state| {
            state.index += 1;
            state
                .tags
                .insert((service.to_owned(), port), tag.to_owned());
            if let Some((at, _)) = state.services.get_mut(service) {
                *at = state.index;
            }
        });
    }
    /// The instance is at this address.
    pub(crate) fn host(&self, service: &str, port: u16, host: &str) {
        self.with(|state| {
            state
                .hosts
                .insert((service.to_owned(), port), host.to_owned());
        });
    }
    /// So many endpoints in all, Consul's own among them.
    pub(crate) fn fill(&self, endpoints: usize) {
        let own = usize::from(self.kind == Kind::Consul);
        let all: Vec<Instance> = (1..=100).map(|port| (port, true)).collect();
        for at in 0..endpoints / 100 {
            let less = if at == 0 { own } else { 0 };
            self.put(&format!("s{at}"), &all[less..]);
        }
    }
    /// It forgets everything.
    pub(crate) fn empty(&self) {
        self.with(|state| {
            state.services.clear();
            state.index = 2;
        });
    }
    /// Another history: the index begins anew.
    pub(crate) fn rebuild(&self) {
        self.with(|state| {
            state.index = 1;
            for (at, _) in state.services.values_mut() {
                *at = 1;
            }
        });
    }
    pub(crate) fn asked(&self) -> Vec<String> {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .asked
            .clone()
    }

    async fn serve(self, mut stream: TcpStream) {
        let mut woken = self.woken.subscribe();
        loop {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                tokio::select! {
                    byte = stream.read_u8() => match byte {
                        Ok(byte) => head.push(byte),
                        Err(_) => return,
                    },
                    _ = woken.changed() => if self.is(Mood::Broken) { return },
                }
            }
            let head = String::from_utf8(head).unwrap();
            self.state
                .lock()
                .unwrap()
                .asked
                .push(head.lines().next().unwrap().to_owned());
            if self.kind == Kind::Nomad && head.starts_with("GET /v1/event/stream") {
                return self.events(&head, &mut stream).await;
            }
            let Some(answer) = self.answer(&head).await else {
                return;
            };
            if stream.write_all(&answer).await.is_err() || self.is(Mood::Cut) {
                return;
            }
        }
    }

    /// A line for each change, after one that says nothing. Without rights nothing else is said, as the real one does.
    async fn events(&self, head: &str, stream: &mut TcpStream) {
        let mut woken = self.woken.subscribe();
        let mut told = self.state.lock().unwrap().index;
        let nothing = "3\r\n{}\n\r\n";
        let mut text = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n{nothing}"
        );
        while stream.write_all(text.as_bytes()).await.is_ok() {
            text.clear();
            match tokio::time::timeout(HEARTBEAT, woken.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_ended)) => return,
                Err(_quiet) => text.push_str(nothing),
            }
            let state = self.state.lock().unwrap();
            match state.mood {
                Mood::Broken => return,
                Mood::Good if !Self::refuses(&state, head) => {}
                _ => continue,
            }
            for (name, (index, _)) in state.services.iter().filter(|(_, one)| one.0 > told) {
                let service = format!("{{\"ServiceName\":\"{name}\",\"Namespace\":\"default\"}}");
                let line = format!(
                    "{{\"Index\":{index},\"Events\":[{{\"Topic\":\"Service\",\"Type\":\"ServiceRegistration\",\"Key\":\"{name}\",\"Namespace\":\"default\",\"Index\":{index},\"Payload\":{{\"Service\":{service}}}}}]}}\n"
                );
                write!(text, "{:x}\r\n{line}\r\n", line.len()).unwrap();
            }
            told = state.index;
        }
    }

    fn is(&self, mood: Mood) -> bool {
        self.state.lock().unwrap().mood == mood
    }

    /// The bytes, once it is time; `None` closes.
    async fn answer(&self, head: &str) -> Option<Vec<u8>> {
        let path = head.split(' ').nth(1).unwrap_or_default();
        let value = |name: &str| {
            let query = path.split_once('?').map_or("", |(_, query)| query);
            query.split('&').find_map(|part| {
                part.strip_prefix(name)?
                    .strip_prefix('=')
                    .map(str::to_owned)
            })
        };
        let after: Option<u64> = value("index").and_then(|index| index.parse().ok());
        let wait = value("wait")
            .and_then(|wait| wait.trim_end_matches("ms").parse().ok())
            .unwrap_or(0);
        let end = tokio::time::Instant::now() + Duration::from_millis(wait);
        let mut woken = self.woken.subscribe();
        loop {
            woken.borrow_and_update();
            let ended = tokio::time::Instant::now() >= end;
            let (mood, ready) = {
                let state = self.state.lock().unwrap();
                let index = Self::index(&state, path);
                (state.mood, after.is_none_or(|after| index > after) || ended)
            };
            match mood {
                Mood::Broken => return None,
                Mood::Silent => {}
                Mood::Good if !ready => {}
                _ if path.starts_with("/v1/event") => {}
                _ => break,
            }
            let pause = if mood == Mood::Silent || ended {
                Duration::from_hours(1)
            } else {
                end.duration_since(tokio::time::Instant::now())
            };
            tokio::select! {
                _ = woken.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        Some(self.written(path, head))
    }

    /// True when the question does not come with the token.
    fn refuses(state: &State, head: &str) -> bool {
        let has = |token: &String| head.contains(&format!("-token: {token}\r\n"));
        state.token.as_ref().is_some_and(|token| !has(token))
    }

    fn index(state: &State, path: &str) -> u64 {
        let name = path
            .split('?')
            .next()
            .unwrap_or_default()
            .rsplit('/')
            .next()
            .unwrap_or_default();
        match state.services.get(name) {
            Some((index, _))
                if !path.starts_with("/v1/catalog") && !path.starts_with("/v1/services") =>
            {
                *index
            }
            _ => state.index,
        }
    }

    fn written(&self, path: &str, head: &str) -> Vec<u8> {
        let state = self.state.lock().unwrap();
        let plain = |status: &str, body: &str| {
            format!(
                "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            )
            .into_bytes()
        };
        let refused = Self::refuses(&state, head);
        if path.starts_with("/v1/status/leader") {
            return if state.mood == Mood::Leaderless {
                plain("200 OK", "\"\"")
            } else {
                plain("200 OK", "\"127.0.0.1:8300\"")
            };
        }
        if refused {
            return plain("403 Forbidden", "Permission denied");
        }
        if state.mood == Mood::Leaderless {
            return plain("500 Internal Server Error", "No cluster leader");
        }
        let names = path.starts_with("/v1/catalog/services") || path.starts_with("/v1/services");
        let blind = matches!(state.mood, Mood::Blind | Mood::Filtered);
        let body = match (state.mood, names) {
            (Mood::Garbage, _) => "<html>welcome</html>".to_owned(),
            (..) if path.starts_with("/v1/health/state/any") => Self::unwell(&state),
            (_, true) => self.names(&state, blind),
            (_, false) => {
                let name = path
                    .split('?')
                    .next()
                    .unwrap_or_default()
                    .rsplit('/')
                    .next()
                    .unwrap_or_default();
                let hidden = blind || state.mood == Mood::Nodeless;
                let all = state.services.get(name).filter(|_| !hidden);
                self.instances(&state, name, all.map_or(&[], |(_, all)| all))
            }
        };
        let word = match self.kind {
            Kind::Consul => "X-Consul",
            Kind::Nomad => "X-Nomad",
        };
        let index = if blind && self.kind == Kind::Nomad {
            0
        } else {
            Self::index(&state, path)
        };
        let mut text = format!(
            "HTTP/1.1 200 OK\r\n{word}-Index: {index}\r\n{word}-Knownleader: true\r\n{word}-Lastcontact: 0\r\n"
        );
        if state.mood == Mood::Filtered {
            text.push_str("X-Consul-Results-Filtered-By-Acls: true\r\n");
        }
        let cut = if state.mood == Mood::Cut { 9 } else { 0 };
        write!(text, "Content-Length: {}\r\n\r\n{body}", body.len() + cut).unwrap();
        text.into_bytes()
    }

    fn names(&self, state: &State, blind: bool) -> String {
        let known = state
            .services
            .iter()
            .filter(|(_, (_, all))| !all.is_empty() && !blind);
        match self.kind {
            Kind::Consul => {
                let own = (!blind).then(|| "\"consul\":[]".to_owned());
                let all: Vec<String> = own
                    .into_iter()
                    .chain(known.map(|(name, _)| format!("\"{name}\":[]")))
                    .collect();
                format!("{{{}}}", all.join(","))
            }
            Kind::Nomad => {
                let all: Vec<String> = known
                    .map(|(name, _)| format!("{{\"ServiceName\":\"{name}\",\"Tags\":[]}}"))
                    .collect();
                if all.is_empty() {
                    return "[]".into();
                }
                format!(
                    "[{{\"Namespace\":\"default\",\"Services\":[{}]}}]",
                    all.join(",")
                )
            }
        }
    }

    /// The checks that fail.
    fn unwell(state: &State) -> String {
        let all = state.services.iter().flat_map(|(name, (_, all))| {
            let ill = all.iter().filter(|one| !one.1);
            ill.map(move |(port, _)| {
                format!(
                    "{{\"Node\":\"lab\",\"CheckID\":\"{name}-{port}\",\"Status\":\"critical\",\"ServiceName\":\"{name}\"}}"
                )
            })
        });
        format!("[{}]", all.collect::<Vec<_>>().join(","))
    }

    fn instances(&self, state: &State, name: &str, all: &[Instance]) -> String {
        let one = |one: &Instance| {
            let (port, key) = (one.0, (name.to_owned(), one.0));
            let tags = state
                .tags
                .get(&key)
                .map_or_else(String::new, |tag| format!("\"{tag}\""));
            let host = state.hosts.get(&key).map(String::as_str);
            match self.kind {
                Kind::Consul => format!(
                    "{{\"Node\":{{\"Node\":\"lab\",\"Address\":\"10.0.0.1\"}},\"Service\":{{\"ID\":\"{name}-{port}\",\"Tags\":[{tags}],\"Address\":\"{host}\",\"Port\":{port}}},\"Checks\":[{{\"CheckID\":\"c\",\"Status\":\"{status}\"}}]}}",
                    host = host.unwrap_or_default(),
                    status = if one.1 { "passing" } else { "critical" },
                ),
                Kind::Nomad => format!(
                    "{{\"ID\":\"{name}-{port}\",\"Address\":\"{host}\",\"Port\":{port},\"Tags\":[{tags}]}}",
                    host = host.unwrap_or("10.0.0.1"),
                ),
            }
        };
        // Consul itself, as every agent lists it.
        if name == "consul" && self.kind == Kind::Consul && all.is_empty() {
            return self.instances(state, "consul", &[(8300, true)]);
        }
        format!("[{}]", all.iter().map(one).collect::<Vec<_>>().join(","))
    }
}
