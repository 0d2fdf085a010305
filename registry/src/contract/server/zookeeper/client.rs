//! A plain client for the far side of tests: one blocking connection, with all its credentials.

use std::{
    io::{Error, Read, Result, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

/// Everybody everything, or all that the connection's credentials stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// Everybody.
    World,
    /// The connection's own credentials.
    Us,
}

/// One change.
#[derive(Debug, Clone)]
pub enum Change {
    /// A node that stays: path, data, whose it is.
    Create(String, Vec<u8>, Owner),
    /// Data of a node.
    Set(String, Vec<u8>),
    /// No such node.
    Delete(String),
}

/// A connection.
#[derive(Debug)]
pub struct Client(TcpStream);

struct Out(Vec<u8>);

impl Out {
    fn int(mut self, value: i32) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }
    fn bytes(mut self, value: &[u8]) -> Self {
        self = self.int(i32::try_from(value.len()).unwrap_or(i32::MAX));
        self.0.extend_from_slice(value);
        self
    }
    fn text(self, value: &str) -> Self {
        self.bytes(value.as_bytes())
    }
    fn flag(mut self, value: bool) -> Self {
        self.0.push(u8::from(value));
        self
    }
    fn owner(self, owner: Owner) -> Self {
        match owner {
            Owner::World => self.int(1).int(31).text("world").text("anyone"),
            Owner::Us => self.int(1).int(31).text("auth").text(""),
        }
    }
}

/// The number that stands there; -1 past the end.
fn int(bytes: &[u8], at: usize) -> i32 {
    let four = bytes.get(at..).and_then(<[u8]>::first_chunk);
    four.map_or(-1, |four| i32::from_be_bytes(*four))
}

/// The bytes behind a length that stands there, and where they end.
fn counted(bytes: &[u8], at: usize) -> (&[u8], usize) {
    let length = usize::try_from(int(bytes, at)).unwrap_or_default();
    let end = at + 4 + length;
    (bytes.get(at + 4..end).unwrap_or_default(), end)
}

impl Client {
    /// Credentials as `user:password`. A server that has just started hangs up for a while.
    pub fn open(at: SocketAddr, credentials: &[String]) -> Result<Self> {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            match Self::greet(at, credentials) {
                Err(_) if Instant::now() < end => std::thread::sleep(Duration::from_millis(20)),
                done => return done,
            }
        }
    }

    /// As [`Client::open`], once.
    pub fn greet(at: SocketAddr, credentials: &[String]) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&at, Duration::from_secs(2))?;
        stream.set_nodelay(true)?;
        // One that is about to start may take a connection and never answer it.
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        let mut client = Self(stream);
        let hello = Out(Vec::new())
            .int(0)
            .int(0)
            .int(0)
            .int(60_000)
            .int(0)
            .int(0);
        client.send(&hello.bytes(&[0; 16]).flag(false).0)?;
        client.frame()?;
        client.0.set_read_timeout(Some(Duration::from_secs(20)))?;
        for credential in credentials {
            let auth = Out(Vec::new()).int(0).text("digest").text(credential);
            client.ask(-4, 100, &auth.0)?;
        }
        Ok(client)
    }

    fn send(&mut self, body: &[u8]) -> Result<()> {
        let whole = Out(Vec::new()).bytes(body).0;
        self.0.write_all(&whole)
    }

    fn frame(&mut self) -> Result<Vec<u8>> {
        let mut length = [0; 4];
        self.0.read_exact(&mut length)?;
        let length = usize::try_from(int(&length, 0)).map_err(Error::other)?;
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        Ok(body)
    }

    /// The body of the answer; the server's error as an error with its number.
    fn ask(&mut self, xid: i32, op: i32, body: &[u8]) -> Result<Vec<u8>> {
        let mut whole = Out(Vec::new()).int(xid).int(op).0;
        whole.extend_from_slice(body);
        self.send(&whole)?;
        let mut answer = self.frame()?;
        match int(&answer, 12) {
            0 => Ok(answer.split_off(16)),
            error => Err(Error::other(format!("error {error}"))),
        }
    }

    /// All of them, or none.
    pub fn change(&mut self, changes: &[Change]) -> Result<()> {
        let mut out = Out(Vec::new());
        for change in changes {
            out = match change {
                Change::Create(path, data, owner) => {
                    let out = out.int(1).flag(false).int(-1).text(path).bytes(data);
                    out.owner(*owner).int(0)
                }
                Change::Set(path, data) => out
                    .int(5)
                    .flag(false)
                    .int(-1)
                    .text(path)
                    .bytes(data)
                    .int(-1),
                Change::Delete(path) => out.int(2).flag(false).int(-1).text(path).int(-1),
            };
        }
        let answer = self.ask(1, 14, &out.int(-1).flag(true).int(-1).0)?;
        match int(&answer, 0) {
            -1 => Err(Error::other(format!(
                "refused: {:?}",
                answer.get(..64).unwrap_or(&answer)
            ))),
            _ => Ok(()),
        }
    }

    /// Names of the children; none where the node is not there.
    pub fn children(&mut self, path: &str) -> Result<Option<Vec<String>>> {
        let body = Out(Vec::new()).text(path).flag(false).0;
        let answer = match self.ask(1, 8, &body) {
            Err(error) if error.to_string() == "error -101" => return Ok(None),
            answer => answer?,
        };
        let mut at = 4;
        let mut names = Vec::new();
        for _ in 0..int(&answer, 0) {
            let (name, end) = counted(&answer, at);
            names.push(String::from_utf8_lossy(name).into_owned());
            at = end;
        }
        Ok(Some(names))
    }

    /// A node's data.
    pub fn data(&mut self, path: &str) -> Result<String> {
        let answer = self.ask(1, 4, &Out(Vec::new()).text(path).flag(false).0)?;
        Ok(String::from_utf8_lossy(counted(&answer, 0).0).into_owned())
    }

    /// Gives the node to the connection's credentials.
    pub fn own(&mut self, path: &str) -> Result<()> {
        let body = Out(Vec::new()).text(path).owner(Owner::Us).int(-1).0;
        self.ask(1, 7, &body).map(drop)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _gone = self.ask(1, -11, &[]);
    }
}
