//! A connection that can be broken on the way: between a client under test and a server that behaves.
//!
//! In: the address of a server. Out: an address that leads there, until a fault is set. Setting a fault ends
//! the connections that stand, but for `Fault::Silent`, which holds them.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// What goes wrong on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// Connections are closed as soon as they come.
    Closed,
    /// Every answer is nonsense.
    Garbage,
    /// An answer ends in the middle of its body; one that is no HTTP/1, in the middle of a piece.
    Cut,
    /// Nothing passes; what was taken is given later.
    Silent,
}

#[derive(Debug)]
struct State {
    fault: Fault,
    to: SocketAddr,
    open: Vec<TcpStream>,
    ended: bool,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// The way to a server. Dropped, it ends its connections.
#[derive(Debug)]
pub struct Wire {
    shared: Arc<Shared>,
    address: SocketAddr,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// The fault, once it is not silence.
    fn speaks(&self) -> Option<Fault> {
        let mut state = self.state();
        while state.fault == Fault::Silent && !state.ended {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        (!state.ended).then_some(state.fault)
    }
    fn set(&self, change: impl FnOnce(&mut State), ends: bool) {
        let mut state = self.state();
        change(&mut state);
        if ends {
            for one in state.open.drain(..) {
                let _gone = one.shutdown(Shutdown::Both);
            }
        }
        drop(state);
        self.changed.notify_all();
    }
}

impl Wire {
    /// A way to this server, on a free port of 127.0.0.1.
    pub fn new(to: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                fault: Fault::None,
                to,
                open: Vec::new(),
                ended: false,
            }),
            changed: Condvar::new(),
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if accepting.state().ended {
                    return;
                }
                let shared = Arc::clone(&accepting);
                if let Ok(stream) = stream {
                    std::thread::spawn(move || carry(&shared, &stream));
                }
            }
        });
        Ok(Self { shared, address })
    }

    /// Where it begins.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on this goes wrong.
    pub fn fault(&self, fault: Fault) {
        let ends = fault != Fault::Silent && self.shared.state().fault != Fault::Silent;
        self.shared.set(|state| state.fault = fault, ends);
    }

    /// Does something while nothing passes: what is asked meanwhile is answered afterwards.
    pub fn silently<T>(&self, work: impl FnOnce() -> T) -> T {
        let before = self.shared.state().fault;
        self.fault(Fault::Silent);
        let done = work();
        self.fault(before);
        done
    }

    /// From now on it leads elsewhere; what stands is ended.
    pub fn lead(&self, to: SocketAddr) {
        self.shared.set(|state| state.to = to, true);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.shared.set(|state| state.ended = true, true);
        // The acceptor looks up.
        let _gone = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
    }
}

/// Carries one connection.
fn carry(shared: &Arc<Shared>, near: &TcpStream) {
    if shared.speaks().is_none_or(|fault| fault == Fault::Closed) {
        return;
    }
    let to = shared.state().to;
    let Ok(far) = TcpStream::connect_timeout(&to, Duration::from_secs(2)) else {
        return;
    };
    let _best_effort = (near.set_nodelay(true), far.set_nodelay(true));
    let (Ok(near_again), Ok(far_again)) = (near.try_clone(), far.try_clone()) else {
        return;
    };
    if let (Ok(one), Ok(other)) = (near.try_clone(), far.try_clone()) {
        shared.state().open.extend([one, other]);
    }
    let there = Arc::clone(shared);
    std::thread::spawn(move || {
        copy(&there, near_again, &far_again, false);
        let _gone = far_again.shutdown(Shutdown::Both);
    });
    copy(shared, far, near, true);
    let _gone = near.shutdown(Shutdown::Both);
}

/// Copies one direction; faults of content touch what the server says.
fn copy(shared: &Shared, mut from: TcpStream, mut to: &TcpStream, answers: bool) {
    let mut piece = vec![0; 64 << 10];
    loop {
        let Ok(read @ 1..) = from.read(&mut piece) else {
            return;
        };
        let Some(fault) = shared.speaks() else {
            return;
        };
        let bytes = piece.get(..read).unwrap_or_default();
        let (bytes, ends) = match fault {
            Fault::Closed => return,
            Fault::Garbage if answers => (&b"\0\x01 what is not said \xff\xfe\r\n\r\n"[..], true),
            Fault::Cut if answers => cut(bytes),
            _ => (bytes, false),
        };
        if to.write_all(bytes).is_err() || ends {
            return;
        }
    }
}

/// The first part of a piece, and whether it was cut.
fn cut(bytes: &[u8]) -> (&[u8], bool) {
    let head = bytes.windows(4).position(|part| part == b"\r\n\r\n");
    let keep = match head {
        // A head without body: what follows is cut.
        Some(end) if end + 4 == bytes.len() => return (bytes, false),
        Some(end) => end + 4 + (bytes.len() - end - 4) / 2,
        None => bytes.len() / 2,
    };
    (bytes.get(..keep).unwrap_or_default(), true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(at: SocketAddr) -> Vec<u8> {
        let mut stream = TcpStream::connect(at).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_millis(300)))
            .unwrap();
        let mut all = Vec::new();
        if stream.write_all(b"?").is_ok() {
            let _ended = stream.read_to_end(&mut all);
        }
        all
    }

    #[test]
    fn each_fault_is_what_it_says() {
        const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\n\r\n12345678";
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut byte = [0];
                if stream.read_exact(&mut byte).is_ok() {
                    let _gone = stream.write_all(ANSWER);
                }
            }
        });
        let wire = Wire::new(to).unwrap();
        assert_eq!(asked(wire.address()), ANSWER);
        wire.fault(Fault::Cut);
        assert_eq!(asked(wire.address()), b"HTTP/1.1 200 OK\r\n\r\n1234");
        wire.fault(Fault::Closed);
        assert_eq!(asked(wire.address()), b"");
        wire.fault(Fault::Silent);
        assert_eq!(asked(wire.address()), b"");
        wire.fault(Fault::Garbage);
        assert!(asked(wire.address()).starts_with(b"\0\x01"));
        wire.fault(Fault::None);
        assert_eq!(asked(wire.address()), ANSWER);
    }
}
