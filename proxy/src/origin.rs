//! Where a connection was going, and who opened it.
//!
//! The kernel answers both: the original destination from the connection tracker (redirect) or the
//! socket's own name (tproxy), and the owner of the caller's socket from `sock_diag`, without any right
//! to look into other processes.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use mesh_model::{
    address::canonical,
    snapshot::{Caller, Snapshot},
};
use tokio::net::TcpStream;

use self::units::Units;

/// The owner of a socket, asked from the kernel.
mod diag;
/// Which unit a cgroup belongs to.
pub(crate) mod units;

pub(crate) use diag::Owner;

/// Asks who opened connections; one per worker.
#[derive(Debug)]
pub(crate) struct Origins {
    diag: Option<diag::Diag>,
    units: Arc<Units>,
}

impl Origins {
    /// Opens the socket to the kernel; without one every caller counts as the host.
    pub(crate) fn new(units: Arc<Units>) -> Self {
        let diag = diag::Diag::open()
            .inspect_err(|error| tracing::warn!(%error, "callers cannot be told apart"))
            .ok();
        Self { diag, units }
    }

    /// The owner of the socket that has `local` at its own end and `remote` at the other.
    pub(crate) fn owner(&self, local: SocketAddr, remote: SocketAddr) -> Option<Owner> {
        let diag = self.diag.as_ref()?;
        diag.owner(canonical(local), canonical(remote))
            .inspect_err(|error| tracing::debug!(%error, %local, %remote, "owner not found"))
            .ok()
    }

    /// The owner of the socket at the other end of `stream`. An error: it was reset, so that socket is gone,
    /// and one that was found in its place is somebody else's.
    pub(crate) fn owner_of(
        &self,
        stream: &TcpStream,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> io::Result<Option<Owner>> {
        let owner = self.owner(local, remote);
        stream.take_error()?.map_or(Ok(owner), Err)
    }

    /// Who owns a socket, in terms of the mesh: by unit, by user, or the host. `None` while idle.
    pub(crate) fn caller(&self, snapshot: &Snapshot, owner: Option<Owner>) -> Option<Arc<Caller>> {
        let callers = &snapshot.callers;
        let by_unit = || {
            if callers.by_unit.is_empty() {
                return None;
            }
            let unit = self.units.unit(owner?.cgroup?)?;
            callers.by_unit.get(&*unit)
        };
        by_unit()
            .or_else(|| callers.by_uid.get(&owner?.uid))
            .or(callers.host.as_ref())
            .cloned()
    }
}

/// Where a redirected connection was going before the kernel redirected it; `None`: it was not.
pub(crate) fn redirected_from(stream: &TcpStream) -> io::Result<Option<SocketAddr>> {
    let socket = socket2::SockRef::from(stream);
    let local = canonical(stream.local_addr()?);
    let original = match local.ip() {
        IpAddr::V4(_) => socket.original_dst_v4(),
        IpAddr::V6(_) => socket.original_dst_v6(),
    };
    let original = match original {
        Ok(address) => address.as_socket().map(canonical),
        // Not tracked: dialled as it is.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOPROTOOPT)) => {
            None
        }
        Err(error) => return Err(error),
    };
    Ok(original.filter(|address| *address != local))
}

/// Where a tproxied connection was going: the name of its own socket.
pub(crate) fn dialled(stream: &TcpStream) -> io::Result<SocketAddr> {
    stream.local_addr().map(canonical)
}

/// True when a connection was made to one of our own listeners and not redirected there.
pub(crate) fn is_loop(destination: SocketAddr, own: &[SocketAddr]) -> bool {
    own.iter().any(|listener| {
        listener.port() == destination.port()
            && (listener.ip() == destination.ip()
                || listener.ip().is_unspecified() && destination.ip().is_loopback())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_resets_is_not_taken_for_somebody_else() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let place = listener.local_addr().unwrap();
        let victim = TcpStream::connect(place).await.unwrap();
        let (accepted, peer) = listener.accept().await.unwrap();
        let origins = Origins::new(Arc::new(Units::new(None)));
        let owner = origins.owner_of(&accepted, peer, place).unwrap();
        assert!(owner.is_some());
        let thief = TcpStream::connect(place).await.unwrap();
        let (accepted, peer) = listener.accept().await.unwrap();
        socket2::SockRef::from(&thief)
            .set_linger(Some(std::time::Duration::ZERO))
            .unwrap();
        drop(thief);
        assert_eq!(origins.owner(peer, place), owner, "the victim is found");
        assert!(origins.owner_of(&accepted, peer, place).is_err());
        drop(victim);
    }

    #[test]
    fn loops() {
        let own: Vec<SocketAddr> = ["127.0.0.1:15001", "0.0.0.0:15006"]
            .map(|text| text.parse().unwrap())
            .to_vec();
        for (destination, found) in [
            ("127.0.0.1:15001", true),
            ("127.0.0.1:15006", true),
            ("127.0.0.1:80", false),
            ("240.240.0.1:15001", false),
        ] {
            assert_eq!(
                is_loop(destination.parse().unwrap(), &own),
                found,
                "{destination}"
            );
        }
    }
}
