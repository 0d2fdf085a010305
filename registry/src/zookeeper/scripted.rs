//! A server of `ZooKeeper` in memory, for tests: it does what a real one does, and what it does not on demand.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use super::{
    jute::{Reader, Writer},
    message::{Stat, code, op, xid},
};

/// How it behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    /// As a server of 3.6 or later.
    Good,
    /// As an older one: it ends the session on a question that it does not know.
    Old,
    /// As one that does not answer what it does not know.
    Mute,
    /// Connections are closed at once.
    Broken,
    /// What it says is nonsense.
    Nonsense,
    /// It takes connections and says nothing.
    Silent,
    /// It answers the greeting and then half of each frame.
    Cut,
}

#[derive(Debug, Clone, Default)]
struct Node {
    data: Vec<u8>,
    owner: i64,
    zxid: i64,
    next: u32,
}

struct Peer {
    stream: TcpStream,
    session: i64,
    all: BTreeSet<String>,
    data: BTreeSet<String>,
    children: BTreeSet<String>,
    password: Option<String>,
}

struct State {
    nodes: BTreeMap<String, Node>,
    zxid: i64,
    sessions: BTreeSet<i64>,
    next: i64,
    mood: Mood,
    secret: Option<String>,
    peers: BTreeMap<u64, Peer>,
    asked: BTreeMap<i32, usize>,
    resumed: usize,
}

/// The server. Dropped, it ends its connections.
#[derive(Clone)]
pub(crate) struct Server {
    state: Arc<Mutex<State>>,
    pub(crate) address: String,
}

fn parent(path: &str) -> &str {
    match path.rsplit_once('/') {
        Some(("", _)) | None => "/",
        Some((parent, _)) => parent,
    }
}

impl State {
    /// Tells who watches.
    fn tell(&mut self, path: &str, kind: i32) {
        let above = |all: &BTreeSet<String>| {
            all.iter()
                .any(|base| base == "/" || path == base || path.starts_with(&format!("{base}/")))
        };
        let parent = parent(path).to_owned();
        for peer in self.peers.values_mut() {
            let once = peer.data.remove(path) | (kind == 2 && peer.children.remove(path));
            if (kind != 4 && above(&peer.all)) || once {
                event(&peer.stream, kind, path);
            }
            if kind != 3 && peer.children.remove(&parent) {
                event(&peer.stream, 4, &parent);
            }
        }
    }

    fn set(&mut self, path: &str, data: &[u8], owner: i64) {
        self.zxid += 1;
        let zxid = self.zxid;
        let known = self.nodes.contains_key(path);
        let node = self.nodes.entry(path.to_owned()).or_default();
        (node.data, node.zxid) = (data.to_vec(), zxid);
        if !known {
            node.owner = owner;
        }
        self.tell(path, if known { 3 } else { 1 });
    }

    fn remove(&mut self, path: &str) {
        self.zxid += 1;
        if self.nodes.remove(path).is_some() {
            self.tell(path, 2);
        }
    }

    fn expire(&mut self, session: i64) {
        self.sessions.remove(&session);
        let owned: Vec<String> = self
            .nodes
            .iter()
            .filter(|(_, node)| node.owner == session)
            .map(|(path, _)| path.clone())
            .collect();
        for path in owned {
            self.remove(&path);
        }
    }

    fn close_all(&mut self) {
        for peer in self.peers.values() {
            let _gone = peer.stream.shutdown(Shutdown::Both);
        }
    }

    fn children(&self, path: &str) -> Vec<String> {
        let inside = if path == "/" {
            "/".to_owned()
        } else {
            format!("{path}/")
        };
        self.nodes
            .range(inside.clone()..)
            .take_while(|(node, _)| node.starts_with(&inside))
            .filter_map(|(node, _)| node.strip_prefix(&inside))
            .filter(|name| !name.is_empty() && !name.contains('/'))
            .map(str::to_owned)
            .collect()
    }

    fn stat(&self, path: &str) -> Option<Stat> {
        let node = self.nodes.get(path)?;
        Some(Stat {
            mzxid: node.zxid,
            owner: node.owner,
            children: i32::try_from(self.children(path).len()).unwrap(),
        })
    }
}

fn event(stream: &TcpStream, kind: i32, path: &str) {
    let body = Writer::default()
        .int(xid::EVENT)
        .long(-1)
        .int(0)
        .int(kind)
        .int(3)
        .text(path);
    send(stream, &body.0);
}

fn send(mut stream: &TcpStream, body: &[u8]) {
    let mut frame = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
    frame.extend_from_slice(body);
    let _gone = stream.write_all(&frame);
}

fn frame(mut stream: &TcpStream) -> Option<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).ok()?;
    let mut body = vec![
        0;
        usize::try_from(u32::from_be_bytes(length))
            .unwrap()
            .min(1 << 20)
    ];
    stream.read_exact(&mut body).ok()?;
    Some(body)
}

impl Server {
    /// On a free port.
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let root = BTreeMap::from([("/".to_owned(), Node::default())]);
        let state = Arc::new(Mutex::new(State {
            nodes: root,
            zxid: 0,
            sessions: BTreeSet::new(),
            next: 0x100,
            mood: Mood::Good,
            secret: None,
            peers: BTreeMap::new(),
            asked: BTreeMap::new(),
            resumed: 0,
        }));
        let server = Self { state, address };
        let again = server.clone();
        thread::spawn(move || {
            for (number, stream) in (0..).zip(listener.incoming()) {
                let (server, Ok(stream)) = (again.clone(), stream) else {
                    return;
                };
                thread::spawn(move || server.serve(number, &stream));
            }
        });
        server
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Behaves so from now on; connections that stand end, but for silence.
    pub(crate) fn mood(&self, mood: Mood) {
        let mut state = self.state();
        state.mood = mood;
        if mood != Mood::Silent {
            state.close_all();
        }
    }

    /// Sets a node and what is above it.
    pub(crate) fn put(&self, path: &str, data: &str) {
        let mut state = self.state();
        let mut above = Vec::new();
        let mut at = path;
        while parent(at) != "/" {
            at = parent(at);
            above.push(at.to_owned());
        }
        for path in above.into_iter().rev() {
            if !state.nodes.contains_key(&path) {
                state.set(&path, b"", 0);
            }
        }
        state.set(path, data.as_bytes(), 0);
    }

    /// Removes a node and what is below it.
    pub(crate) fn remove(&self, path: &str) {
        let mut state = self.state();
        let inside = format!("{path}/");
        let mut below: Vec<String> = state
            .nodes
            .keys()
            .filter(|node| *node == path || node.starts_with(&inside))
            .cloned()
            .collect();
        below.sort_by_key(|node| std::cmp::Reverse(node.len()));
        for path in below {
            state.remove(&path);
        }
    }

    /// Data of every node below a path.
    pub(crate) fn below(&self, path: &str) -> BTreeMap<String, String> {
        let inside = format!("{path}/");
        let text = |node: &Node| String::from_utf8_lossy(&node.data).into_owned();
        self.state()
            .nodes
            .iter()
            .filter(|(node, _)| node.starts_with(&inside))
            .map(|(path, node)| (path.clone(), text(node)))
            .collect()
    }

    /// Forgets everything: nodes, sessions, its history.
    pub(crate) fn empty(&self) {
        let mut state = self.state();
        state.nodes.retain(|path, _| path == "/");
        state.sessions.clear();
        state.zxid = 0;
        state.close_all();
    }

    /// Every session is over.
    pub(crate) fn expire(&self) {
        let mut state = self.state();
        for session in std::mem::take(&mut state.sessions) {
            state.expire(session);
        }
        state.close_all();
    }

    /// Reading needs this credential, `user:password`.
    pub(crate) fn secret(&self, secret: Option<&str>) {
        self.state().secret = secret.map(str::to_owned);
    }

    /// How often an operation was asked for.
    pub(crate) fn asked(&self, op: i32) -> usize {
        self.state().asked.get(&op).copied().unwrap_or_default()
    }

    /// How often a session went on.
    pub(crate) fn resumed(&self) -> usize {
        self.state().resumed
    }

    fn serve(&self, number: u64, stream: &TcpStream) {
        let _slower = stream.set_nodelay(true);
        match self.state().mood {
            Mood::Broken => return,
            Mood::Nonsense => {
                let _gone = (&*stream).write_all(&[0xff; 64]);
                return;
            }
            _ => {}
        }
        if self.greet(number, stream).is_some() {
            while self.answer(number, stream).is_some() {}
        }
        self.state().peers.remove(&number);
        let _gone = stream.shutdown(Shutdown::Both);
    }

    fn greet(&self, number: u64, stream: &TcpStream) -> Option<()> {
        let hello = frame(stream)?;
        let mut reader = Reader(&hello);
        let (_, seen, wanted, id) = (
            reader.int().ok()?,
            reader.long().ok()?,
            reader.int().ok()?,
            reader.long().ok()?,
        );
        let mut state = self.state();
        if state.mood == Mood::Silent {
            drop(state);
            return frame(stream).map(drop).and(None);
        }
        // A client that has seen more than this server knows must go elsewhere.
        if seen > state.zxid {
            return None;
        }
        let session = if id == 0 {
            state.next += 1;
            let fresh = state.next;
            state.sessions.insert(fresh);
            fresh
        } else {
            id
        };
        let lives = state.sessions.contains(&session);
        state.resumed += usize::from(lives && id != 0);
        let peer = Peer {
            stream: stream.try_clone().ok()?,
            session,
            all: BTreeSet::new(),
            data: BTreeSet::new(),
            children: BTreeSet::new(),
            password: None,
        };
        state.peers.insert(number, peer);
        let body = Writer::default()
            .int(0)
            .int(if lives { wanted } else { 0 })
            .long(if lives { session } else { 0 })
            .bytes(&[7; 16])
            .flag(false);
        send(stream, &body.0);
        lives.then_some(())
    }

    fn answer(&self, number: u64, stream: &TcpStream) -> Option<()> {
        let asked = frame(stream)?;
        let mut reader = Reader(&asked);
        let (xid, op) = (reader.int().ok()?, reader.int().ok()?);
        let mut state = self.state();
        if state.mood == Mood::Silent {
            return Some(());
        }
        *state.asked.entry(op).or_default() += 1;
        let mood = state.mood;
        let result = state.act(number, op, &mut reader);
        let zxid = state.zxid;
        let (error, body) = match result {
            Ok(body) => (0, body),
            Err(0) => return Some(()),
            Err(error) => (error, Writer::default()),
        };
        let mut whole = Writer::default().int(xid).long(zxid).int(error).0;
        whole.extend_from_slice(&body.0);
        if mood == Mood::Cut {
            let half = [&200_u32.to_be_bytes()[..], &whole].concat();
            let _gone = (&*stream).write_all(&half);
            return None;
        }
        // The lock is held: an event that follows the change must not come before its answer.
        send(stream, &whole);
        let over = error == code::UNIMPLEMENTED || op == op::CLOSE;
        if over && let Some(peer) = state.peers.get(&number) {
            let session = peer.session;
            state.expire(session);
        }
        (!over).then_some(())
    }
}

impl State {
    fn act(&mut self, number: u64, op: i32, reader: &mut Reader<'_>) -> Result<Writer, i32> {
        let text = |reader: &mut Reader<'_>| reader.text().map(str::to_owned).map_err(|_cut| -5);
        let secret = self.secret.clone();
        let (mood, peer) = (self.mood, self.peers.get_mut(&number).ok_or(-4)?);
        let may = secret.is_none() || peer.password == secret;
        match op {
            op::PING | op::CLOSE => Ok(Writer::default()),
            op::AUTH => {
                let _type = reader.int();
                let _scheme = text(reader)?;
                peer.password = Some(text(reader)?);
                Ok(Writer::default())
            }
            op::SYNC => Ok(Writer::default().text(&text(reader)?)),
            op::ADD_WATCH => match mood {
                Mood::Old => Err(code::UNIMPLEMENTED),
                Mood::Mute => Err(0),
                _ => {
                    peer.all.insert(text(reader)?);
                    Ok(Writer::default())
                }
            },
            op::EXISTS | op::GET_DATA | op::CHILDREN => {
                let path = text(reader)?;
                let watch = reader.flag().unwrap_or_default();
                if !may && op != op::EXISTS {
                    return Err(code::NO_AUTH);
                }
                let there = self.nodes.contains_key(&path);
                if watch && op == op::CHILDREN && there {
                    peer.children.insert(path.clone());
                } else if watch && (there || op == op::EXISTS) {
                    peer.data.insert(path.clone());
                }
                let stat = self.stat(&path).ok_or(code::NO_NODE)?;
                Ok(match op {
                    op::EXISTS => stat.write(Writer::default()),
                    op::GET_DATA => stat.write(Writer::default().bytes(&self.nodes[&path].data)),
                    _ => {
                        let names = self.children(&path);
                        let count = i32::try_from(names.len()).unwrap();
                        let list = names
                            .iter()
                            .fold(Writer::default().int(count), |list, name| list.text(name));
                        stat.write(list)
                    }
                })
            }
            op::CREATE => {
                let path = text(reader)?;
                let data = reader.bytes().map_err(|_cut| -5)?.to_vec();
                let lists = reader.int().map_err(|_cut| -5)?;
                for _ in 0..lists {
                    let _entry = (reader.int(), reader.text(), reader.text());
                }
                let flags = reader.int().map_err(|_cut| -5)?;
                let session = peer.session;
                let above = self.nodes.get_mut(parent(&path)).ok_or(code::NO_NODE)?;
                let path = if flags & 2 == 0 {
                    path
                } else {
                    above.next += 1;
                    format!("{path}{:010}", above.next - 1)
                };
                if self.nodes.contains_key(&path) {
                    return Err(code::NODE_EXISTS);
                }
                self.set(&path, &data, if flags & 1 == 0 { 0 } else { session });
                Ok(Writer::default().text(&path))
            }
            op::SET_DATA => {
                let path = text(reader)?;
                let data = reader.bytes().map_err(|_cut| -5)?.to_vec();
                if !self.nodes.contains_key(&path) {
                    return Err(code::NO_NODE);
                }
                self.set(&path, &data, 0);
                Ok(self
                    .stat(&path)
                    .unwrap_or_default()
                    .write(Writer::default()))
            }
            op::DELETE => {
                let path = text(reader)?;
                if !self.nodes.contains_key(&path) {
                    return Err(code::NO_NODE);
                }
                if !self.children(&path).is_empty() {
                    return Err(code::NOT_EMPTY);
                }
                self.remove(&path);
                Ok(Writer::default())
            }
            _ => Err(code::UNIMPLEMENTED),
        }
    }
}
