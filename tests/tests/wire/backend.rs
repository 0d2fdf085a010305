//! A raw back end: records every byte, reads it with the strict reader, and answers what it is told.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::strict::{self, Message, Read};

/// What the back end saw.
#[derive(Debug, Clone)]
pub enum Seen {
    /// A request that reads strictly, on this connection.
    Request(u64, Box<Message>),
    /// A connection that ended within a message: what came of it.
    Cut(u64, Vec<u8>),
    /// Bytes that do not read.
    Malformed(String, Vec<u8>),
}

/// One step of an answer.
#[derive(Debug, Clone)]
pub enum Step {
    /// Sends bytes.
    Send(Vec<u8>),
    /// Waits a little, so that what follows comes apart.
    Pause,
    /// Ends the own direction and the connection.
    Close,
    /// Ends with a reset.
    Reset,
    /// Sends the bytes over and over until the other end is gone.
    Endless(Vec<u8>),
}

#[derive(Debug, Default)]
struct State {
    seen: Vec<Seen>,
    /// Answers to requests whose target is `/case…`.
    script: Option<(Vec<Step>, bool)>,
    answering: bool,
    open: Vec<(u64, TcpStream)>,
    next: u64,
}

/// The back end.
#[derive(Debug, Clone, Default)]
pub struct Backend {
    state: Arc<Mutex<State>>,
}

impl Backend {
    /// Serves a listening socket until the test program ends.
    pub fn serve(listener: TcpListener) -> Self {
        let backend = Self::default();
        let own = backend.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let own = own.clone();
                std::thread::spawn(move || own.connection(&stream));
            }
        });
        backend
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what was seen so far.
    pub fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut self.state().seen)
    }

    /// Number of open connections.
    pub fn connections(&self) -> usize {
        self.state().open.len()
    }

    /// Answers requests to `/case` with these steps; `early`: as soon as the head is there.
    pub fn answer(&self, steps: Vec<Step>, early: bool) {
        let mut state = self.state();
        state.script = Some((steps, early));
        state.answering = true;
    }

    /// Waits until the steps of [`Self::answer`] are done.
    pub fn wait_answered(&self) {
        mesh_tests::eventually("the back end has answered", Duration::from_secs(10), || {
            let state = self.state();
            if state.answering {
                Err("it has not")
            } else {
                Ok(())
            }
        });
    }

    /// Number of the last connection that came.
    pub fn last(&self) -> u64 {
        self.state().next
    }

    /// Ends all connections, so that the next request comes on a new one.
    pub fn hang_up(&self) {
        for (_, stream) in &self.state().open {
            let _gone = stream.shutdown(Shutdown::Both);
        }
        mesh_tests::eventually(
            "no connection to the back end",
            Duration::from_secs(5),
            || {
                let left = self.connections();
                if left == 0 { Ok(()) } else { Err(left) }
            },
        );
    }

    fn connection(&self, stream: &TcpStream) {
        let id = {
            let mut state = self.state();
            state.next += 1;
            let id = state.next;
            state.open.push((id, stream.try_clone().unwrap()));
            id
        };
        stream.set_nodelay(true).unwrap();
        self.requests(id, stream);
        self.state().open.retain(|(open, _)| *open != id);
    }

    fn requests(&self, id: u64, stream: &TcpStream) {
        let mut buffer: Vec<u8> = Vec::new();
        let mut piece = vec![0; 64 * 1024];
        let mut answered = false;
        loop {
            match strict::request(&buffer) {
                Ok(Read::Whole(message, used)) => {
                    buffer.drain(..used);
                    let target = message.line[1].clone();
                    let head = message.line[0] == "HEAD";
                    self.state().seen.push(Seen::Request(id, message));
                    if !std::mem::take(&mut answered) && !self.respond(id, stream, &target, head) {
                        return;
                    }
                    continue;
                }
                Ok(Read::Partial) => {
                    let target = early_target(&buffer);
                    if let (false, Some(target)) = (answered, target)
                        && self.is_early()
                    {
                        answered = true;
                        if !self.respond(id, stream, &target, false) {
                            return;
                        }
                    }
                }
                Err(why) => {
                    self.state().seen.push(Seen::Malformed(why, buffer));
                    return;
                }
            }
            match (&*stream).read(&mut piece) {
                Ok(count) if count > 0 => buffer.extend_from_slice(&piece[..count]),
                _ => {
                    if !buffer.is_empty() {
                        self.state().seen.push(Seen::Cut(id, buffer));
                    }
                    return;
                }
            }
        }
    }

    fn is_early(&self) -> bool {
        self.state()
            .script
            .as_ref()
            .is_some_and(|(_, early)| *early)
    }

    /// Answers; false when the connection is over.
    fn respond(&self, id: u64, stream: &TcpStream, target: &str, head: bool) -> bool {
        // The same to each try, if the mesh tries again.
        let script = if target.starts_with("/case") {
            self.state().script.clone()
        } else {
            None
        };
        let Some((steps, _)) = script else {
            return (&*stream).write_all(&usual(target, head)).is_ok();
        };
        let goes_on = self.carry_out(id, stream, steps);
        self.state().answering = false;
        goes_on
    }

    fn carry_out(&self, id: u64, stream: &TcpStream, steps: Vec<Step>) -> bool {
        for step in steps {
            let sent = match step {
                Step::Send(bytes) => (&*stream).write_all(&bytes).is_ok(),
                Step::Pause => {
                    std::thread::sleep(Duration::from_millis(40));
                    true
                }
                Step::Close => {
                    let _gone = stream.shutdown(Shutdown::Write);
                    self.state().answering = false;
                    drain(stream);
                    false
                }
                Step::Reset => {
                    socket2::SockRef::from(stream)
                        .set_linger(Some(Duration::ZERO))
                        .unwrap();
                    self.state().open.retain(|(open, _)| *open != id);
                    false
                }
                Step::Endless(bytes) => {
                    while (&*stream).write_all(&bytes).is_ok() {}
                    false
                }
            };
            if !sent {
                return false;
            }
        }
        true
    }
}

/// The usual answer: 200 with the target as its body.
pub fn usual(target: &str, head: bool) -> Vec<u8> {
    let body = if head { "" } else { target };
    format!(
        "HTTP/1.1 200 OK\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\ncontent-length: {}\r\n\r\n{body}",
        target.len()
    )
    .into_bytes()
}

/// The target, once a whole head is there.
fn early_target(buffer: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(buffer);
    text.contains("\r\n\r\n")
        .then(|| text.split(' ').nth(1).unwrap_or_default().to_owned())
}

fn drain(mut stream: &TcpStream) {
    let mut piece = [0; 4096];
    while matches!(stream.read(&mut piece), Ok(count) if count > 0) {}
}
