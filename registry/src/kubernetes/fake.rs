//! A scripted API server: lists in pages, watches with a history that can be forgotten, and misbehaviour as told.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::Instant,
};
use tokio_util::task::TaskTracker;

/// How it behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Good,
    /// No JSON, in lists and on streams.
    Garbage,
    /// Connections close.
    Broken,
    /// Bodies and lines end early.
    Cut,
    /// Nothing is answered, and streams are silent.
    Silent,
    /// 500.
    Failing,
    /// The second page of a list is never had.
    HalfLists,
    /// Streams end as soon as they begin.
    Hasty,
    /// Nobody may list EndpointSlices.
    Forbidding,
}

struct State {
    /// By kind (true: slices), namespace and name: version and text.
    objects: BTreeMap<(bool, String, String), (u64, Value)>,
    /// Version, kind, namespace and line.
    history: Vec<(u64, bool, String, String)>,
    version: u64,
    /// Streams from before this are refused.
    oldest: u64,
    /// Where uids of this history begin.
    epoch: u64,
    page: usize,
    /// So many requests for a next page are refused as expired.
    expiring: usize,
    mood: Mood,
    token: Option<String>,
    asked: Vec<String>,
}

/// The server.
#[derive(Clone)]
pub(crate) struct Fake {
    state: Arc<Mutex<State>>,
    woken: Arc<watch::Sender<u64>>,
    pub(crate) address: String,
}

impl std::fmt::Debug for Fake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fake").finish_non_exhaustive()
    }
}

impl Fake {
    pub(crate) fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        let fake = Self {
            address: format!("http://{}", listener.local_addr().unwrap()),
            state: Arc::new(Mutex::new(State {
                objects: BTreeMap::new(),
                history: Vec::new(),
                version: 100,
                oldest: 0,
                epoch: 1,
                page: usize::MAX,
                expiring: 0,
                mood: Mood::Good,
                token: None,
                asked: Vec::new(),
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

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.state());
        self.woken.send_modify(|round| *round += 1);
        result
    }
    pub(crate) fn mood(&self, mood: Mood) {
        self.with(|state| state.mood = mood);
    }
    pub(crate) fn token(&self, token: &str) {
        self.with(|state| state.token = Some(token.to_owned()));
    }
    /// Pages are never longer.
    pub(crate) fn page(&self, most: usize) {
        self.with(|state| state.page = most);
    }
    /// So many next pages are refused as expired.
    pub(crate) fn expire_pages(&self, count: usize) {
        self.with(|state| state.expiring = count);
    }
    /// What happened so far is forgotten: streams from before must list again.
    pub(crate) fn compact(&self) {
        self.with(|state| {
            state.version += 10;
            state.oldest = state.version;
            state.history.clear();
        });
    }
    /// Another cluster: nothing in it, versions from `version` on.
    pub(crate) fn rebuild(&self, version: u64) {
        self.with(|state| {
            state.objects.clear();
            state.history.clear();
            state.epoch += 1;
            state.version = version;
            state.oldest = 0;
        });
    }
    /// Tells every stream how far it is.
    pub(crate) fn bookmark(&self) {
        self.with(|state| {
            state.version += 1;
            let version = state.version;
            for kind in [false, true] {
                let object = json!({"metadata": {"resourceVersion": version.to_string()}});
                let line = json!({"type": "BOOKMARK", "object": object}).to_string();
                state.history.push((version, kind, String::new(), line));
            }
        });
    }
    /// A line on every stream of slices, as it is.
    pub(crate) fn say(&self, line: &Value) {
        self.with(|state| {
            state.version += 1;
            let version = state.version;
            state
                .history
                .push((version, true, String::new(), line.to_string()));
        });
    }
    /// A change that no stream is told of.
    pub(crate) fn secretly(&self, change: impl FnOnce(&Self)) {
        let before = self.state().history.len();
        change(self);
        self.state().history.truncate(before);
    }
    pub(crate) fn asked(&self) -> Vec<String> {
        self.state().asked.clone()
    }

    /// Sets the whole content of a service: a slice for each port.
    pub(crate) fn put(&self, service: &str, endpoints: &[(u16, bool)]) {
        self.with(|state| {
            let spec = json!({"ports": [{"port": 80, "protocol": "TCP"}]});
            state.set(false, "default", service, json!({"spec": spec}));
            let prefix = format!("{service}-");
            let wanted: Vec<String> = endpoints
                .iter()
                .map(|one| format!("{prefix}{}", one.0))
                .collect();
            let over: Vec<String> = state
                .objects
                .keys()
                .filter(|(kind, _, name)| {
                    *kind && name.starts_with(&prefix) && !wanted.contains(name)
                })
                .map(|(_, _, name)| name.clone())
                .collect();
            for name in over {
                state.unset(true, "default", &name);
            }
            for (port, healthy) in endpoints {
                let one = json!({"addresses": ["10.0.0.1"], "conditions": {"ready": healthy}});
                state.set(
                    true,
                    "default",
                    &format!("{prefix}{port}"),
                    slice(service, "IPv4", &[one], *port),
                );
            }
        });
    }
    pub(crate) fn remove(&self, service: &str) {
        self.put(service, &[]);
        self.with(|state| state.unset(false, "default", service));
    }
    /// An object as it is written, but for its metadata.
    pub(crate) fn set(&self, slices: bool, namespace: &str, name: &str, object: Value) {
        self.with(|state| state.set(slices, namespace, name, object));
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
                    _ = woken.changed() => if self.state().mood == Mood::Broken { return },
                }
            }
            let head = String::from_utf8(head).unwrap();
            let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
            self.state().asked.push(path.clone());
            while self.state().mood == Mood::Silent {
                let _ended = woken.changed().await;
            }
            let Some((answer, watched)) = self.answer(&path, &head) else {
                return;
            };
            if stream.write_all(&answer).await.is_err() || self.state().mood == Mood::Cut {
                return;
            }
            if watched {
                self.watch(stream, &path).await;
                return;
            }
        }
    }

    /// The bytes, and whether a stream follows; `None` closes.
    fn answer(&self, path: &str, head: &str) -> Option<(Vec<u8>, bool)> {
        let mut state = self.state();
        let cut = if state.mood == Mood::Cut { 9 } else { 0 };
        let plain = |status: &str, body: &str| {
            let length = body.len() + cut;
            let text = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}");
            Some((text.into_bytes(), false))
        };
        let refused = |code: u16, what: &str, reason: &str| {
            let status = json!({"kind": "Status", "code": code, "message": what, "reason": reason});
            plain(&format!("{code} {reason}"), &status.to_string())
        };
        let known = |token: &String| {
            head.to_ascii_lowercase()
                .contains(&format!("authorization: bearer {token}\r\n"))
        };
        if !state.token.as_ref().is_none_or(known) {
            return refused(401, "Unauthorized", "Unauthorized");
        }
        let slices = path.contains("/endpointslices");
        match state.mood {
            Mood::Broken => return None,
            Mood::Garbage => return plain("200 OK", "<html>welcome</html>"),
            Mood::Failing => return refused(500, "etcdserver: leader changed", "InternalError"),
            Mood::Forbidding if slices => {
                return refused(
                    403,
                    "endpointslices.discovery.k8s.io is forbidden",
                    "Forbidden",
                );
            }
            _ => {}
        }
        if value(path, "watch").is_some() {
            let after: u64 = value(path, "resourceVersion").unwrap().parse().unwrap();
            if after < state.oldest {
                return refused(410, "too old resource version", "Expired");
            }
            return Some((
                b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec(),
                true,
            ));
        }
        let offset = value(path, "continue");
        if offset.is_some() && state.mood == Mood::HalfLists {
            return None;
        }
        if offset.is_some() && state.expiring > 0 {
            state.expiring -= 1;
            return refused(410, "The provided continue parameter is too old", "Expired");
        }
        let offset = offset.map_or(0, |text| text.parse().unwrap());
        plain("200 OK", &state.list(slices, path, offset))
    }

    async fn watch(&self, mut stream: TcpStream, path: &str) {
        let mut woken = self.woken.subscribe();
        let slices = path.contains("/endpointslices");
        let mut after: u64 = value(path, "resourceVersion").unwrap().parse().unwrap();
        let seconds = value(path, "timeoutSeconds").unwrap().parse().unwrap();
        let end = Instant::now() + Duration::from_secs(seconds);
        let namespace = namespace(path);
        let epoch = self.state().epoch;
        loop {
            woken.borrow_and_update();
            let (mut text, mood, ended) = {
                let state = self.state();
                let mine = |(at, kind, of, _): &&(u64, bool, String, String)| {
                    let inside = of.is_empty() || namespace.as_ref().is_none_or(|one| one == of);
                    *at > after && *kind == slices && inside
                };
                let lines = state.history.iter().filter(mine);
                let text: String = lines
                    .flat_map(|(_, _, _, line)| [line.as_str(), "\n"])
                    .collect();
                // As the real one: what happens below the version that was asked for is not told.
                after = after.max(state.version);
                (text, state.mood, state.epoch != epoch)
            };
            match mood {
                Mood::Broken | Mood::Hasty => return,
                Mood::Silent => text.clear(),
                Mood::Garbage => text = "<html>\n".into(),
                Mood::Cut => {
                    text = r#"{"type":"DELETED","object":{"metadata":{"name""#.into();
                }
                _ => {}
            }
            if !text.is_empty() {
                let chunk = format!("{:x}\r\n{text}\r\n", text.len());
                if stream.write_all(chunk.as_bytes()).await.is_err() {
                    return;
                }
            }
            if matches!(mood, Mood::Garbage | Mood::Cut) || ended {
                return;
            }
            let mut byte = [0];
            tokio::select! {
                _ = woken.changed() => {}
                _ = stream.read(&mut byte) => return,
                () = tokio::time::sleep_until(end) => {
                    let _gone = stream.write_all(b"0\r\n\r\n").await;
                    return;
                }
            }
        }
    }
}

/// A slice with these endpoints on one port.
pub(crate) fn slice(service: &str, family: &str, endpoints: &[Value], port: u16) -> Value {
    json!({
        "labels": {"kubernetes.io/service-name": service},
        "addressType": family, "endpoints": endpoints,
        "ports": [{"name": "", "protocol": "TCP", "port": port}],
    })
}

fn value(path: &str, name: &str) -> Option<String> {
    let (_, query) = path.split_once('?')?;
    query
        .split('&')
        .find_map(|part| Some(part.strip_prefix(name)?.strip_prefix('=')?.to_owned()))
}

fn namespace(path: &str) -> Option<String> {
    let (_, rest) = path.split_once("/namespaces/")?;
    Some(rest.split('/').next()?.to_owned())
}

impl State {
    fn set(&mut self, slices: bool, namespace: &str, name: &str, mut object: Value) {
        let key = (slices, namespace.to_owned(), name.to_owned());
        let labels = object
            .as_object_mut()
            .unwrap()
            .remove("labels")
            .unwrap_or_default();
        let old = self.objects.get(&key).map(|(_, old)| old.clone());
        let next = self.version + 1;
        let uid = match &old {
            Some(old) => old["metadata"]["uid"].clone(),
            None => format!("{}-{next}", self.epoch).into(),
        };
        let meta = |version: &Value| json!({"name": name, "namespace": namespace, "uid": uid, "labels": labels, "resourceVersion": version});
        if let Some(old) = &old {
            object["metadata"] = meta(&old["metadata"]["resourceVersion"]);
            if object == *old {
                return;
            }
        }
        self.version = next;
        object["metadata"] = meta(&next.to_string().into());
        let word = if old.is_some() { "MODIFIED" } else { "ADDED" };
        let line = json!({"type": word, "object": object}).to_string();
        self.history
            .push((next, slices, namespace.to_owned(), line));
        self.objects.insert(key, (next, object));
    }

    fn unset(&mut self, slices: bool, namespace: &str, name: &str) {
        let key = (slices, namespace.to_owned(), name.to_owned());
        let Some((_, mut object)) = self.objects.remove(&key) else {
            return;
        };
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        let line = json!({"type": "DELETED", "object": object}).to_string();
        self.history
            .push((self.version, slices, namespace.to_owned(), line));
    }

    fn list(&self, slices: bool, path: &str, offset: usize) -> String {
        let namespace = namespace(path);
        let only = value(path, "fieldSelector")
            .map(|text| text.trim_start_matches("metadata.name%3D").to_owned());
        let mine = |(kind, of, name): &(bool, String, String)| {
            *kind == slices
                && namespace.as_ref().is_none_or(|one| one == of)
                && only.as_ref().is_none_or(|one| one == name)
        };
        let all: Vec<&Value> = self
            .objects
            .iter()
            .filter(|(key, _)| mine(key))
            .map(|(_, one)| &one.1)
            .collect();
        let limit: usize = value(path, "limit").unwrap().parse().unwrap();
        let limit = limit.min(self.page);
        let items: Vec<&Value> = all.iter().copied().skip(offset).take(limit).collect();
        let mut meta = json!({"resourceVersion": self.version.to_string()});
        if offset + items.len() < all.len() {
            meta["continue"] = (offset + items.len()).to_string().into();
        }
        let kind = if slices {
            "EndpointSliceList"
        } else {
            "ServiceList"
        };
        json!({"kind": kind, "metadata": meta, "items": items}).to_string()
    }
}
