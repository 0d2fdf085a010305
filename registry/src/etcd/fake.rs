//! An etcd that misbehaves on demand: ranges at any kept revision, watches, a password.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

/// The messages.
mod speech;

use speech::{
    AuthenticateRequest, AuthenticateResponse, Event, Header, KeyValue, RangeRequest,
    RangeResponse, WatchRequest, WatchResponse,
};

/// How it behaves now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Mood {
    #[default]
    Good,
    /// Connections are closed.
    Closed,
    /// Answers are nonsense.
    Garbage,
    /// Answers end in the middle.
    Cut,
    /// Nothing is answered.
    Silent,
    /// It knows no leader.
    Leaderless,
    /// Watches may not be made, although ranges may be read.
    Forbidding,
}

#[derive(Debug, Default)]
struct Store {
    mood: Mood,
    cluster: u64,
    revision: i64,
    compacted: i64,
    /// Every change since the compaction, in order; version 0 is a deletion.
    history: Vec<KeyValue>,
    password: Option<String>,
    /// What was asked, one line each.
    asked: Vec<String>,
    /// Events have a kind that nobody knows.
    strange: bool,
    /// A compaction that happens right after the next question for ranges.
    compacts: bool,
}

struct Shared {
    store: Mutex<Store>,
    /// Grows with every change.
    changed: watch::Sender<u64>,
    /// Grows when connections end.
    broken: watch::Sender<u64>,
}

impl Shared {
    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The fake. It ends with this.
pub(crate) struct Fake {
    shared: Arc<Shared>,
    pub(crate) address: String,
    _ends: DropGuard,
}

type Answer = Response<http_body_util::combinators::UnsyncBoxBody<Bytes, Infallible>>;

impl Store {
    fn header(&self) -> Header {
        Header {
            cluster_id: self.cluster,
            revision: self.revision,
        }
    }
    /// What stood there at a revision.
    fn at(&self, revision: i64) -> BTreeMap<&[u8], &KeyValue> {
        let mut all = BTreeMap::new();
        for kv in self.history.iter().filter(|kv| kv.mod_revision <= revision) {
            if kv.version == 0 {
                all.remove(&*kv.key);
            } else {
                all.insert(&*kv.key, kv);
            }
        }
        all
    }
    fn write(&mut self, key: &str, value: Option<&str>) {
        let version = self
            .at(self.revision)
            .get(key.as_bytes())
            .map_or(0, |kv| kv.version);
        if version == 0 && value.is_none() {
            return;
        }
        self.history.push(KeyValue {
            key: key.as_bytes().to_vec(),
            mod_revision: self.revision + 1,
            version: value.map_or(0, |_| version + 1),
            value: value.unwrap_or_default().as_bytes().to_vec(),
        });
    }
    /// Forgets what lies before now.
    fn compact(&mut self) {
        self.compacted = self.revision;
        let kept: Vec<KeyValue> = self.at(self.revision).into_values().cloned().collect();
        self.history = kept;
        self.history.sort_by_key(|kv| kv.mod_revision);
    }
}

impl Fake {
    pub(crate) fn start() -> Self {
        let shared = Arc::new(Shared {
            store: Mutex::new(Store {
                cluster: 7,
                revision: 1,
                ..Store::default()
            }),
            changed: watch::channel(0).0,
            broken: watch::channel(0).0,
        });
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        let tracker = TaskTracker::new();
        let (ours, token, inner) = (Arc::clone(&shared), stop.clone(), tracker.clone());
        tracker.spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            loop {
                let stream = tokio::select! {
                    () = token.cancelled() => return,
                    accepted = listener.accept() => accepted.unwrap().0,
                };
                let (shared, token) = (Arc::clone(&ours), token.clone());
                let mut broken = ours.broken.subscribe();
                inner.spawn(async move {
                    if shared.store().mood == Mood::Closed {
                        return;
                    }
                    let service = service_fn(move |request| answer(Arc::clone(&shared), request));
                    let served = http2::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service);
                    tokio::select! {
                        () = token.cancelled() => {}
                        _ = broken.changed() => {}
                        _ = served => {}
                    }
                });
            }
        });
        Self {
            shared,
            address,
            _ends: stop.drop_guard(),
        }
    }

    /// All of it at one revision; without a value: deleted.
    pub(crate) fn change(&self, changes: &[(String, Option<String>)]) {
        let mut store = self.shared.store();
        for (key, value) in changes {
            store.write(key, value.as_deref());
        }
        store.revision += 1;
        drop(store);
        self.shared.changed.send_modify(|at| *at += 1);
    }
    /// As [`Fake::change`], of keys that were never there.
    pub(crate) fn fill(&self, all: impl Iterator<Item = (String, String)>) {
        let mut store = self.shared.store();
        store.revision += 1;
        let mod_revision = store.revision;
        store.history.extend(all.map(|(key, value)| KeyValue {
            key: key.into_bytes(),
            mod_revision,
            version: 1,
            value: value.into_bytes(),
        }));
    }
    /// Behaves so from now on; what stands is ended, but by silence.
    pub(crate) fn mood(&self, mood: Mood) {
        self.shared.store().mood = mood;
        if mood != Mood::Silent {
            self.shared.broken.send_modify(|at| *at += 1);
        }
    }
    pub(crate) fn compact(&self) {
        self.shared.store().compact();
    }
    /// Compacts between the next range and the watch that follows it.
    pub(crate) fn compact_in_between(&self) {
        self.shared.store().compacts = true;
    }
    /// A new history under the same id, with as many revisions and more.
    pub(crate) fn rebuild(&self, revision: i64) {
        let mut store = self.shared.store();
        store.history.clear();
        (store.revision, store.compacted) = (revision, 0);
    }
    pub(crate) fn other_cluster(&self) {
        self.shared.store().cluster += 1;
    }
    pub(crate) fn password(&self, password: &str) {
        self.shared.store().password = Some(password.to_owned());
    }
    pub(crate) fn strange(&self) {
        self.shared.store().strange = true;
    }
    pub(crate) fn revision(&self) -> i64 {
        self.shared.store().revision
    }
    /// Says how far everything has been told, without an event.
    pub(crate) fn progress(&self, revision: i64) {
        self.shared.store().revision = revision;
        self.shared.changed.send_modify(|at| *at += 1);
    }
    /// What was asked since the last time.
    pub(crate) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.store().asked)
    }
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Answer, Infallible> {
    let path = request.uri().path().to_owned();
    let field = |name: &str| {
        request
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned)
    };
    let (token, leader) = (field("token"), field("hasleader"));
    let (sender, receiver) = mpsc::channel::<Frame<Bytes>>(1_024);
    let (mood, password) = {
        let store = shared.store();
        (store.mood, store.password.clone())
    };
    let known = password.is_none() || token == password || path.ends_with("/Authenticate");
    match mood {
        Mood::Silent => std::future::pending().await,
        Mood::Garbage => {
            let _gone = sender
                .send(Frame::data(Bytes::from_static(
                    b"\0\0\0\0\x04\xff\xff\xff\xff",
                )))
                .await;
            end(&sender, 0, "").await;
        }
        Mood::Leaderless if leader.is_some() => end(&sender, 14, "etcdserver: no leader").await,
        _ if !known => end(&sender, 16, "etcdserver: invalid auth token").await,
        _ if path.ends_with("Watch/Watch") => {
            let tracker = TaskTracker::new();
            tracker.spawn(watched(shared, request.into_body(), sender));
        }
        _ => {
            let body = request
                .into_body()
                .collect()
                .await
                .map(http_body_util::Collected::to_bytes)
                .unwrap_or_default();
            let body = body.get(5..).unwrap_or_default();
            let answer = if path.ends_with("/Authenticate") {
                authenticate(&shared, body)
            } else {
                range(&shared, body)
            };
            match answer {
                Ok(message) if mood == Mood::Cut => {
                    let half = message.slice(..message.len() / 2);
                    let _gone = sender.send(Frame::data(half)).await;
                }
                Ok(message) => {
                    let _gone = sender.send(Frame::data(message)).await;
                    end(&sender, 0, "").await;
                }
                Err((code, text)) => end(&sender, code, text).await,
            }
        }
    }
    let frames = futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|frame| (Ok(frame), receiver))
    });
    let answer = Response::builder().header("content-type", "application/grpc");
    Ok(answer.body(StreamBody::new(frames).boxed_unsync()).unwrap())
}

async fn end(sender: &mpsc::Sender<Frame<Bytes>>, code: u8, text: &str) {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from(u16::from(code)));
    trailers.insert("grpc-message", HeaderValue::from_str(text).unwrap());
    let _gone = sender.send(Frame::trailers(trailers)).await;
}

fn framed(message: &impl Message) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(message.encoded_len()).unwrap());
    message.encode(&mut bytes).unwrap();
    bytes.freeze()
}

type Refusal = (u8, &'static str);

fn authenticate(shared: &Shared, body: &[u8]) -> Result<Bytes, Refusal> {
    let request = AuthenticateRequest::decode(body).unwrap();
    let store = shared.store();
    match &store.password {
        None => Err((9, "etcdserver: authentication is not enabled")),
        Some(password) if *password != request.password || request.name.is_empty() => Err((
            3,
            "etcdserver: authentication failed, invalid user ID or password",
        )),
        Some(password) => Ok(framed(&AuthenticateResponse {
            header: Some(store.header()),
            token: password.clone(),
        })),
    }
}

fn range(shared: &Shared, body: &[u8]) -> Result<Bytes, Refusal> {
    let request = RangeRequest::decode(body).unwrap();
    let mut store = shared.store();
    if request.limit > 0 {
        store.asked.push(format!("page at {}", request.revision));
    }
    if request.revision > store.revision {
        return Err((
            11,
            "etcdserver: mvcc: required revision is a future revision",
        ));
    }
    if request.revision > 0 && request.revision < store.compacted {
        return Err((11, "etcdserver: mvcc: required revision has been compacted"));
    }
    let revision = if request.revision > 0 {
        request.revision
    } else {
        store.revision
    };
    let inside = |key: &[u8]| {
        if request.range_end.is_empty() {
            *key == *request.key
        } else {
            key >= &*request.key && key < &*request.range_end
        }
    };
    let all = store.at(revision);
    let found: Vec<&KeyValue> = all.into_values().filter(|kv| inside(&kv.key)).collect();
    let limit = usize::try_from(request.limit)
        .ok()
        .filter(|limit| *limit > 0)
        .unwrap_or(usize::MAX);
    let limit = if request.count_only { 0 } else { limit };
    let answer = RangeResponse {
        header: Some(store.header()),
        more: found.len() > limit,
        count: i64::try_from(found.len()).unwrap(),
        kvs: found.into_iter().take(limit).cloned().collect(),
    };
    if std::mem::take(&mut store.compacts) {
        store.write("/nobody", Some("x"));
        store.revision += 1;
        store.compact();
    }
    Ok(framed(&answer))
}

async fn watched(shared: Arc<Shared>, mut body: Incoming, sender: mpsc::Sender<Frame<Bytes>>) {
    let mut changed = shared.changed.subscribe();
    let Some(Ok(frame)) = body.frame().await else {
        return;
    };
    let bytes = frame.into_data().unwrap_or_default();
    let request = WatchRequest::decode(bytes.get(5..).unwrap_or_default()).unwrap();
    let mut next = request.create.unwrap().start_revision;
    let first = {
        let mut store = shared.store();
        store.asked.push(format!("watch from {next}"));
        let mut answers = vec![WatchResponse {
            header: Some(store.header()),
            created: true,
            ..WatchResponse::default()
        }];
        if store.mood == Mood::Forbidding {
            answers[0].canceled = true;
            "etcdserver: permission denied".clone_into(&mut answers[0].cancel_reason);
        } else if next <= store.compacted {
            answers.push(WatchResponse {
                header: Some(store.header()),
                canceled: true,
                compact_revision: store.compacted + 1,
                ..WatchResponse::default()
            });
        }
        answers
    };
    let silent = first.iter().any(|answer| answer.canceled);
    for answer in first {
        let _gone = sender.send(Frame::data(framed(&answer))).await;
    }
    loop {
        if silent {
            sender.closed().await;
            return;
        }
        let (answer, until) = {
            let store = shared.store();
            let kind = if store.strange { 9 } else { 0 };
            let new = store.history.iter().filter(|kv| kv.mod_revision >= next);
            let events = new
                .map(|kv| Event {
                    kind,
                    kv: Some(kv.clone()),
                })
                .collect();
            let answer = WatchResponse {
                header: Some(store.header()),
                events,
                ..WatchResponse::default()
            };
            (answer, store.revision + 1)
        };
        if until > next || !answer.events.is_empty() {
            let _gone = sender.send(Frame::data(framed(&answer))).await;
        }
        next = next.max(until);
        tokio::select! {
            _ = changed.changed() => {}
            () = sender.closed() => return,
        }
    }
}
