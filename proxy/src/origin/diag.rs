//! The owner of a socket, asked from the kernel by `sock_diag` (sock_diag(7), `linux/inet_diag.h`).
//!
//! In: both ends of a TCP connection of this host, as its owner sees them. Out: user id and cgroup id.
//! Never: blocks; the kernel answers inside the send.

use std::{
    cell::Cell,
    io::{self, Read},
    net::{IpAddr, SocketAddr},
};

use socket2::{Domain, Protocol, Socket, Type};

/// Who holds a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner {
    /// User id of the process that made it; [`NOBODY`] when it is closed already.
    pub(crate) uid: u32,
    /// Id of the cgroup in which it was made (its inode number), where the kernel tells.
    pub(crate) cgroup: Option<u64>,
}

/// No user has this id (`(uid_t) -1`, chown(2)).
pub(crate) const NOBODY: u32 = u32::MAX;

/// A netlink socket for questions.
#[derive(Debug)]
pub(crate) struct Diag {
    socket: Socket,
    sequence: Cell<u32>,
}

/// `SOCK_DIAG_BY_FAMILY`.
const BY_FAMILY: u16 = 20;
/// `NLMSG_ERROR`.
const ERROR: u16 = 2;
/// `NLM_F_REQUEST`.
const REQUEST: u16 = 1;
/// `NLM_F_ROOT | NLM_F_MATCH`.
const DUMP: u16 = 0x300;
/// `NLMSG_DONE`.
const DONE: u16 = 3;
/// `INET_DIAG_CGROUP_ID`.
const CGROUP_ID: u16 = 21;
/// Length of `struct nlmsghdr`.
const HEADER: usize = 16;
/// Where `struct inet_diag_msg` has the socket's id: both ports, both addresses, interface, cookie.
const ID: usize = 4;
/// Where it has the user id.
const UID: usize = 64;
/// Where it has the inode; 0 when no process holds the socket any more: the kernel then says user 0.
const INODE: usize = 68;
/// Its length; attributes follow.
const MESSAGE: usize = 72;
/// TCP states that have a peer: established, and those after it, and connecting.
const CONNECTED: u32 = 0x0fff & !(1 << 10) & !(1 << 6);

impl Diag {
    /// Opens the socket.
    pub(crate) fn open() -> io::Result<Self> {
        let kind = Type::DGRAM.cloexec().nonblocking();
        let protocol = Protocol::from(libc::NETLINK_SOCK_DIAG);
        let socket = Socket::new_raw(Domain::from(libc::AF_NETLINK), kind, Some(protocol))?;
        socket.set_recv_buffer_size(1 << 20)?;
        Ok(Self {
            socket,
            sequence: Cell::new(0),
        })
    }

    /// Asks for the socket whose own end is `local` and whose other end is `remote`, both canonical.
    ///
    /// Redirection may have changed the port that we see of `local` (when two of the caller's connections
    /// share it); then the owner of all connections from that address to `remote` answers, if it is one.
    pub(crate) fn owner(&self, local: SocketAddr, remote: SocketAddr) -> io::Result<Owner> {
        match self.ask(local, remote, REQUEST) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                self.only_owner(local, remote)
            }
            answer => answer,
        }
    }

    fn ask(&self, local: SocketAddr, remote: SocketAddr, flags: u16) -> io::Result<Owner> {
        let sequence = self.send(local, remote, flags)?;
        let mut space = [0u8; 1024];
        loop {
            let length = (&self.socket).read(&mut space)?;
            for message in messages(space.get(..length).unwrap_or_default()) {
                if message.sequence == sequence {
                    return message.owner();
                }
            }
        }
    }

    /// The owner of all connections from `local`'s address to `remote`, when all have the same.
    fn only_owner(&self, local: SocketAddr, remote: SocketAddr) -> io::Result<Owner> {
        // In a dump, port 0 means any.
        let sequence = self.send(SocketAddr::new(local.ip(), 0), remote, REQUEST | DUMP)?;
        let mut space = vec![0u8; 32 * 1024];
        let mut found: Option<Owner> = None;
        let missing = || io::Error::from_raw_os_error(libc::ENOENT);
        loop {
            let length = (&self.socket).read(&mut space)?;
            for message in messages(space.get(..length).unwrap_or_default()) {
                if message.sequence != sequence {
                    continue;
                }
                match message.kind {
                    DONE => return found.ok_or_else(missing),
                    BY_FAMILY if message.is_between(local.ip(), remote) => {
                        let owner = message.owner()?;
                        if found.is_some_and(|other| other != owner) {
                            return Err(missing());
                        }
                        found = Some(owner);
                    }
                    ERROR => return message.owner(),
                    _ => {}
                }
            }
        }
    }

    fn send(&self, local: SocketAddr, remote: SocketAddr, flags: u16) -> io::Result<u32> {
        let sequence = self.sequence.get().wrapping_add(1);
        self.sequence.set(sequence);
        let sent = self.socket.send(&request(local, remote, flags, sequence))?;
        if sent == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        Ok(sequence)
    }
}

/// `struct nlmsghdr` and `struct inet_diag_req_v2`.
fn request(local: SocketAddr, remote: SocketAddr, flags: u16, sequence: u32) -> Vec<u8> {
    let both_v4 = local.is_ipv4() && remote.is_ipv4();
    let family = if both_v4 {
        libc::AF_INET
    } else {
        libc::AF_INET6
    };
    let mut out = Vec::with_capacity(HEADER + 56);
    out.extend(72u32.to_ne_bytes());
    out.extend(BY_FAMILY.to_ne_bytes());
    out.extend(flags.to_ne_bytes());
    out.extend(sequence.to_ne_bytes());
    out.extend(0u32.to_ne_bytes());
    out.extend([u8::try_from(family).unwrap_or_default(), 6, 0, 0]);
    out.extend(CONNECTED.to_ne_bytes());
    out.extend(local.port().to_be_bytes());
    out.extend(remote.port().to_be_bytes());
    out.extend(sixteen(local.ip(), both_v4));
    out.extend(sixteen(remote.ip(), both_v4));
    out.extend(0u32.to_ne_bytes());
    out.extend(u64::MAX.to_ne_bytes());
    out
}

fn sixteen(ip: IpAddr, v4: bool) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) if v4 => {
            let mut out = [0; 16];
            for (to, from) in out.iter_mut().zip(ip.octets()) {
                *to = from;
            }
            out
        }
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

/// One netlink message.
struct Message<'a> {
    kind: u16,
    sequence: u32,
    body: &'a [u8],
}

fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32::from_ne_bytes(array(bytes, 0)?)).ok()?;
        let message = Message {
            kind: u16::from_ne_bytes(array(bytes, 4)?),
            sequence: u32::from_ne_bytes(array(bytes, 8)?),
            body: bytes.get(HEADER..length)?,
        };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

impl Message<'_> {
    fn owner(&self) -> io::Result<Owner> {
        let short = || io::Error::from(io::ErrorKind::UnexpectedEof);
        if self.kind == ERROR {
            let code = i32::from_ne_bytes(array(self.body, 0).ok_or_else(short)?);
            return Err(io::Error::from_raw_os_error(code.saturating_neg()));
        }
        let uid = u32::from_ne_bytes(array(self.body, UID).ok_or_else(short)?);
        let inode = u32::from_ne_bytes(array(self.body, INODE).ok_or_else(short)?);
        Ok(Owner {
            // Otherwise whoever sends and closes at once would pass for root.
            uid: if inode == 0 { NOBODY } else { uid },
            cgroup: self.cgroup(),
        })
    }

    fn cgroup(&self) -> Option<u64> {
        let mut attributes = self.body.get(MESSAGE..)?;
        loop {
            let length = usize::from(u16::from_ne_bytes(array(attributes, 0)?));
            if u16::from_ne_bytes(array(attributes, 2)?) == CGROUP_ID {
                return Some(u64::from_ne_bytes(array(attributes, 4)?));
            }
            attributes = attributes.get(length.max(4).next_multiple_of(4)..)?;
        }
    }

    fn is_between(&self, local: IpAddr, remote: SocketAddr) -> bool {
        let v4 = self.body.first().copied() == u8::try_from(libc::AF_INET).ok();
        let port = array(self.body, ID + 2).map(u16::from_be_bytes);
        let own = array::<16>(self.body, ID + 4);
        let other = array::<16>(self.body, ID + 20);
        port == Some(remote.port())
            && own == Some(sixteen(local, v4))
            && other == Some(sixteen(remote.ip(), v4))
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn check(listen: &str) {
        let listener = TcpListener::bind(listen).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let diag = Diag::open().unwrap();
        let owner = diag
            .owner(client.local_addr().unwrap(), listener.local_addr().unwrap())
            .unwrap();
        assert_eq!(owner.uid, nix::unistd::getuid().as_raw());
        // A port that is not the caller's: found by being the only owner of connections to that place.
        let mut other = client.local_addr().unwrap();
        other.set_port(1);
        assert_eq!(
            diag.owner(other, listener.local_addr().unwrap()).unwrap(),
            owner
        );
        // Nobody dials here.
        let mut nobody = listener.local_addr().unwrap();
        nobody.set_port(1);
        assert!(diag.owner(client.local_addr().unwrap(), nobody).is_err());
    }

    #[test]
    fn owner_of_a_connection() {
        check("127.0.0.1:0");
        check("[::1]:0");
    }

    #[test]
    fn a_caller_that_is_gone_is_nobody() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let place = listener.local_addr().unwrap();
        let client = TcpStream::connect(place).unwrap();
        let own = client.local_addr().unwrap();
        let (_accepted, _) = listener.accept().unwrap();
        drop(client);
        let owner = Diag::open().unwrap().owner(own, place).unwrap();
        assert_eq!(owner.uid, NOBODY);
    }

    #[test]
    fn malformed_answers_are_errors() {
        for length in 0..80 {
            for message in messages(&vec![0xff; length]) {
                assert!(message.owner().is_err());
            }
        }
        let mut bytes = request(
            "1.2.3.4:5".parse().unwrap(),
            "6.7.8.9:10".parse().unwrap(),
            1,
            7,
        );
        bytes.truncate(40);
        assert_eq!(messages(&bytes).count(), 0);
    }
}
