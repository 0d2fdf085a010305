//! What a client and a server of `ZooKeeper` say to each other: pure.
//!
//! In: values of ours, frames of theirs. Out: frames, replies, events. Never: panics on what came.

use super::jute::{Malformed, Reader, Writer};

/// Numbers of operations.
pub(crate) mod op {
    pub(crate) const CREATE: i32 = 1;
    pub(crate) const DELETE: i32 = 2;
    pub(crate) const EXISTS: i32 = 3;
    pub(crate) const GET_DATA: i32 = 4;
    pub(crate) const SET_DATA: i32 = 5;
    pub(crate) const SYNC: i32 = 9;
    pub(crate) const PING: i32 = 11;
    pub(crate) const CHILDREN: i32 = 12;
    pub(crate) const AUTH: i32 = 100;
    pub(crate) const ADD_WATCH: i32 = 106;
    pub(crate) const CLOSE: i32 = -11;
}

/// Numbers of messages that are no answer to a numbered request.
pub(super) mod xid {
    pub(in super::super) const EVENT: i32 = -1;
    pub(in super::super) const PING: i32 = -2;
    pub(in super::super) const AUTH: i32 = -4;
}

/// Errors of the server that have a meaning here.
pub(crate) mod code {
    /// The server is too old for the operation.
    pub(crate) const UNIMPLEMENTED: i32 = -6;
    /// There is no such node.
    pub(crate) const NO_NODE: i32 = -101;
    /// The session may not do that.
    pub(crate) const NO_AUTH: i32 = -102;
    /// A node with the name is there.
    pub(crate) const NODE_EXISTS: i32 = -110;
    /// The node has children.
    #[cfg(test)]
    pub(crate) const NOT_EMPTY: i32 = -111;
    /// The session is over.
    pub(crate) const SESSION_EXPIRED: i32 = -112;
    /// The session went on at another server.
    pub(crate) const SESSION_MOVED: i32 = -118;
}

/// What is known of a node beside its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Stat {
    /// Transaction of the last change of its data.
    pub(crate) mzxid: i64,
    /// Session that it lives with; 0: none.
    pub(crate) owner: i64,
    /// Number of its children.
    pub(crate) children: i32,
}

impl Stat {
    fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let _created = reader.long()?;
        let mzxid = reader.long()?;
        for _ in 0..2 {
            reader.long()?;
        }
        for _ in 0..3 {
            reader.int()?;
        }
        let owner = reader.long()?;
        let _length = reader.int()?;
        let children = reader.int()?;
        reader.long()?;
        Ok(Self {
            mzxid,
            owner,
            children,
        })
    }
    #[cfg(test)]
    pub(super) fn write(self, writer: Writer) -> Writer {
        let mut writer = writer.long(self.mzxid).long(self.mzxid).long(0).long(0);
        for _ in 0..3 {
            writer = writer.int(0);
        }
        writer.long(self.owner).int(0).int(self.children).long(0)
    }
}

/// A session as the server gave it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Ticket {
    /// 0: none yet.
    pub(super) id: i64,
    pub(super) password: Vec<u8>,
    /// Milliseconds after which the server ends it.
    pub(super) timeout_ms: i32,
}

/// The first message: goes on with `ticket`, or asks for a new session when its id is 0.
pub(super) fn hello(ticket: &Ticket, last_zxid: i64, timeout_ms: i32) -> Vec<u8> {
    let password: &[u8] = if ticket.id == 0 {
        &[0; 16]
    } else {
        &ticket.password
    };
    Writer::default()
        .int(0)
        .long(last_zxid)
        .int(timeout_ms)
        .long(ticket.id)
        .bytes(password)
        .flag(false)
        .0
}

/// The answer to [`hello`]; `None` when the session is over.
pub(super) fn welcome(frame: &[u8]) -> Result<Option<Ticket>, Malformed> {
    let mut reader = Reader(frame);
    let _protocol = reader.int()?;
    let timeout_ms = reader.int()?;
    let id = reader.long()?;
    let password = reader.bytes()?.to_vec();
    Ok((timeout_ms > 0 && id != 0).then_some(Ticket {
        id,
        password,
        timeout_ms,
    }))
}

/// The head of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) xid: i32,
    pub(super) zxid: i64,
    pub(super) error: i32,
}

/// The head, and what follows it.
pub(super) fn head(frame: &[u8]) -> Result<(Head, Reader<'_>), Malformed> {
    let mut reader = Reader(frame);
    let head = Head {
        xid: reader.int()?,
        zxid: reader.long()?,
        error: reader.int()?,
    };
    Ok((head, reader))
}

/// What happened to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// It is there.
    Created,
    /// It is gone.
    Deleted,
    /// Its data are others.
    Data,
    /// Its children are others.
    Children,
}

/// A change and its path; `None` for what says nothing of a node.
pub(super) fn event(mut reader: Reader<'_>) -> Result<Option<(Change, String)>, Malformed> {
    let kind = reader.int()?;
    let _state = reader.int()?;
    let path = reader.text()?.to_owned();
    let change = match kind {
        1 => Change::Created,
        2 => Change::Deleted,
        3 => Change::Data,
        4 => Change::Children,
        _ => return Ok(None),
    };
    Ok(Some((change, path)))
}

/// A request without its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(super) op: i32,
    pub(super) body: Vec<u8>,
}

/// Who may do what with a node that is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Everybody everything.
    Open,
    /// Everybody reads; who made it does everything. Needs a credential.
    Creators,
}

impl Ask {
    fn new(op: i32, body: Writer) -> Self {
        Self { op, body: body.0 }
    }
    pub(crate) fn children(path: &str, watch: bool) -> Self {
        Self::new(op::CHILDREN, Writer::default().text(path).flag(watch))
    }
    pub(crate) fn data(path: &str, watch: bool) -> Self {
        Self::new(op::GET_DATA, Writer::default().text(path).flag(watch))
    }
    pub(crate) fn exists(path: &str, watch: bool) -> Self {
        Self::new(op::EXISTS, Writer::default().text(path).flag(watch))
    }
    /// What follows sees everything that was written before, at any server.
    pub(crate) fn sync(path: &str) -> Self {
        Self::new(op::SYNC, Writer::default().text(path))
    }
    /// Tells of every change of the node and of what is below it, until the connection ends.
    pub(crate) fn watch_all(path: &str) -> Self {
        Self::new(op::ADD_WATCH, Writer::default().text(path).int(1))
    }
    /// Makes a node; `flags` 0 stays, 1 lives with the session, 3 does so and gets a number.
    pub(crate) fn create(path: &str, data: &[u8], access: Access, flags: i32) -> Self {
        let all = 31;
        let body = Writer::default().text(path).bytes(data);
        let body = match access {
            Access::Open => body.int(1).int(all).text("world").text("anyone"),
            Access::Creators => body
                .int(2)
                .int(1)
                .text("world")
                .text("anyone")
                .int(all)
                .text("auth")
                .text(""),
        };
        Self::new(op::CREATE, body.int(flags))
    }
    pub(crate) fn set(path: &str, data: &[u8]) -> Self {
        Self::new(
            op::SET_DATA,
            Writer::default().text(path).bytes(data).int(-1),
        )
    }
    pub(crate) fn delete(path: &str) -> Self {
        Self::new(op::DELETE, Writer::default().text(path).int(-1))
    }
    pub(super) fn digest(user: &str, password: &str) -> Self {
        let secret = format!("{user}:{password}");
        Self::new(
            op::AUTH,
            Writer::default().int(0).text("digest").text(&secret),
        )
    }
    pub(super) fn ping() -> Self {
        Self::new(op::PING, Writer::default())
    }
    pub(super) fn close() -> Self {
        Self::new(op::CLOSE, Writer::default())
    }
    /// Its frame, appended.
    pub(super) fn write(&self, xid: i32, out: &mut Vec<u8>) {
        let length = i32::try_from(self.body.len() + 8).unwrap_or(i32::MAX);
        let head = Writer::default().int(length).int(xid).int(self.op).0;
        out.extend_from_slice(&head);
        out.extend_from_slice(&self.body);
    }
}

/// Names of children.
pub(super) fn read_children(mut reader: Reader<'_>) -> Result<Vec<String>, Malformed> {
    let names = reader.texts()?;
    // A name with a slash would lead elsewhere.
    if names
        .iter()
        .any(|name| name.is_empty() || name.contains('/'))
    {
        return Err(Malformed);
    }
    Ok(names)
}

/// Data and stat.
pub(super) fn read_data(mut reader: Reader<'_>) -> Result<(Vec<u8>, Stat), Malformed> {
    let bytes = reader.bytes()?.to_vec();
    Ok((bytes, Stat::read(&mut reader)?))
}

/// Stat alone.
pub(super) fn read_stat(mut reader: Reader<'_>) -> Result<Stat, Malformed> {
    Stat::read(&mut reader)
}

/// The path of a node that was made.
pub(super) fn read_path(mut reader: Reader<'_>) -> Result<String, Malformed> {
    reader.text().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    // As a server 3.8.0 wrote them.
    const WELCOME: &[u8] =
        b"\0\0\0\0\0\0\x23\x28\x01\x00\x00\x12\x34\x56\0\0\0\0\0\x10abcdefghijklmnop\0";

    #[test]
    fn a_session_is_read_and_its_end_too() {
        let ticket = welcome(WELCOME).unwrap().unwrap();
        assert_eq!((ticket.timeout_ms, ticket.password.len()), (9_000, 16));
        let mut over = WELCOME.to_vec();
        over[4..8].fill(0);
        assert_eq!(welcome(&over), Ok(None));
        for end in 0..WELCOME.len() - 1 {
            assert_eq!(welcome(&WELCOME[..end]), Err(Malformed), "{end}");
        }
        assert_eq!(hello(&ticket, 5, 9_000).len(), 45);
        assert_eq!(hello(&Ticket::default(), 0, 9_000).len(), 45);
    }

    #[test]
    fn answers_are_read_and_cut_ones_refused() {
        let stat = Stat {
            mzxid: 7,
            owner: 9,
            children: 2,
        };
        let body = stat.write(Writer::default().bytes(b"{}")).0;
        assert_eq!(read_data(Reader(&body)), Ok((b"{}".to_vec(), stat)));
        for end in 0..body.len() {
            assert_eq!(read_data(Reader(&body[..end])), Err(Malformed), "{end}");
        }
        let names = Writer::default().int(2).text("a").text("../b").0;
        assert_eq!(read_children(Reader(&names)), Err(Malformed));
    }

    #[test]
    fn events() {
        let body = |kind| Writer::default().int(kind).int(3).text("/a/b").0;
        assert_eq!(
            event(Reader(&body(2))),
            Ok(Some((Change::Deleted, "/a/b".to_owned())))
        );
        assert_eq!(event(Reader(&body(-1))), Ok(None));
        assert_eq!(event(Reader(&body(7))), Ok(None));
    }

    #[test]
    fn a_request_is_framed() {
        let mut out = Vec::new();
        Ask::children("/a", true).write(3, &mut out);
        assert_eq!(out, b"\0\0\0\x0f\0\0\0\x03\0\0\0\x0c\0\0\0\x02/a\x01");
    }
}
