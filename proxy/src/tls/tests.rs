//! Streams of TLS against plain rustls: in pieces of any size, cut, closed, changed, renewed, and with rubbish.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use mesh_identity::tls as configurations;
use mesh_model::{
    endpoint::{AuthorityForm, Tunnel, TunnelKind},
    snapshot::{
        Snapshot,
        cell::{self, Publisher},
    },
};
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf},
    join,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{Tls, TlsStream};
use crate::trial::{A, B, NAME, World, run};

/// Ends, cuts and changes on the way.
mod ends;
/// Pieces of any size.
mod pieces;
/// What comes after a handshake beside bytes.
mod renewed;

/// Two hosts, and what plain rustls has in the place of each.
struct Two {
    world: World,
    caller: Tls,
    server: Tls,
    plain_caller: Arc<ClientConfig>,
    plain_server: Arc<ServerConfig>,
    tunnel: Tunnel,
    _publishers: [Publisher; 2],
}

impl Two {
    fn new() -> Self {
        let world = World::new();
        let (cart, web) = (world.id("shop", "cart"), world.id("shop", "web"));
        let host = |host, id: &_, change: &dyn Fn(&mut Snapshot)| {
            let credentials = world.credentials(host, std::slice::from_ref(id));
            let (mut publisher, reader) = cell::cell();
            let mut snapshot = world.snapshot(host);
            change(&mut snapshot);
            publisher.publish(snapshot);
            (publisher, reader, credentials)
        };
        let named = |snapshot: &mut Snapshot| {
            let identities = &mut snapshot.inbound.identities;
            identities.insert(NAME.into(), web.clone());
        };
        let (publisher_a, reader_a, credentials_a) = host(A, &cart, &|_| ());
        let (publisher_b, reader_b, credentials_b) = host(B, &web, &named);
        let (sans, kind) = (Arc::from([web.clone()]), TunnelKind::Mesh);
        let plain_caller = configurations::tunnel_client(
            reader_a.clone(),
            credentials_a.clone(),
            &cart,
            Arc::clone(&sans),
            kind,
        );
        let tunnel = Tunnel {
            kind,
            address: SocketAddr::from(([127, 0, 0, 1], 1)),
            server_name: Some(NAME.into()),
            sans,
            next_hop: None,
            authority: AuthorityForm::Address,
            network: None,
        };
        Self {
            caller: Tls::new(reader_a, credentials_a),
            plain_server: configurations::tunnel_server(reader_b.clone(), credentials_b.clone()),
            server: Tls::new(reader_b, credentials_b),
            plain_caller: plain_caller.unwrap(),
            tunnel,
            world,
            _publishers: [publisher_a, publisher_b],
        }
    }

    /// Our own server's side, and plain rustls as the caller.
    async fn served<I: AsyncRead + AsyncWrite + Unpin>(
        &self,
        ours: I,
        theirs: DuplexStream,
    ) -> (TlsStream<I>, Plain) {
        let connector = TlsConnector::from(Arc::clone(&self.plain_caller));
        let name = ServerName::try_from(NAME).unwrap();
        let (ours, theirs) = join!(self.server.accept(ours), connector.connect(name, theirs));
        let (ours, verified) = ours.unwrap();
        assert_eq!(verified.server_name.as_deref(), Some(NAME));
        assert_eq!(verified.peer.id, self.world.id("shop", "cart"));
        assert!(verified.mesh && !verified.chain.is_empty());
        (ours, Plain::Client(theirs.unwrap()))
    }

    /// Our own caller's side, and plain rustls as the server.
    async fn called<I: AsyncRead + AsyncWrite + Unpin>(
        &self,
        ours: I,
        theirs: DuplexStream,
    ) -> (TlsStream<I>, Plain) {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.plain_server));
        let cart = self.world.id("shop", "cart");
        let connect = self.caller.connect(ours, &cart, &self.tunnel);
        let (ours, theirs) = join!(connect, acceptor.accept(theirs));
        let (ours, verified) = ours.unwrap();
        assert_eq!(verified.peer.id, self.world.id("shop", "web"));
        assert!(verified.mesh && verified.server_name.is_none());
        (ours, Plain::Server(theirs.unwrap()))
    }

    /// One of both sides.
    async fn side<I: AsyncRead + AsyncWrite + Unpin>(
        &self,
        serves: bool,
        ours: I,
        theirs: DuplexStream,
    ) -> (TlsStream<I>, Plain) {
        if serves {
            self.served(ours, theirs).await
        } else {
            self.called(ours, theirs).await
        }
    }
}

type Plain = tokio_rustls::TlsStream<DuplexStream>;

/// A connection that moves so many bytes at a time, over and over, and has to be asked twice for each.
struct Trickle {
    io: DuplexStream,
    sizes: Vec<usize>,
    turn: usize,
    asked: bool,
}

impl Trickle {
    fn new(io: DuplexStream, sizes: &[usize]) -> Self {
        Self {
            io,
            sizes: sizes.to_vec(),
            turn: 0,
            asked: false,
        }
    }

    fn size(&mut self, cx: &Context<'_>) -> Poll<usize> {
        self.asked = !self.asked;
        if self.asked {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.turn += 1;
        Poll::Ready(self.sizes[self.turn % self.sizes.len()])
    }
}

impl AsyncRead for Trickle {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Poll::Ready(size) = self.size(cx) else {
            return Poll::Pending;
        };
        let mut some = vec![0; size.min(buf.remaining())];
        let mut part = ReadBuf::new(&mut some);
        let read = Pin::new(&mut self.io).poll_read(cx, &mut part);
        buf.put_slice(part.filled());
        read
    }
}

impl AsyncWrite for Trickle {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Poll::Ready(size) = self.size(cx) else {
            return Poll::Pending;
        };
        let size = size.min(buf.len());
        Pin::new(&mut self.io).poll_write(cx, &buf[..size])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Bytes that differ from place to place.
fn pattern(length: usize) -> Vec<u8> {
    (0..length)
        .map(|at| u8::try_from((at / 251 + at) % 256).unwrap())
        .collect()
}

/// Sends bytes each way at once and looks at what comes.
async fn exchange(
    ours: &mut (impl AsyncRead + AsyncWrite + Unpin),
    theirs: &mut (impl AsyncRead + AsyncWrite + Unpin),
    there: &[u8],
    back: &[u8],
) {
    let (mut our_read, mut our_write) = tokio::io::split(ours);
    let (mut their_read, mut their_write) = tokio::io::split(theirs);
    let (mut came, mut went) = (vec![0; back.len()], vec![0; there.len()]);
    let (a, b, c, d) = join!(
        async {
            our_write.write_all(there).await?;
            our_write.flush().await
        },
        async {
            their_write.write_all(back).await?;
            their_write.flush().await
        },
        our_read.read_exact(&mut came),
        their_read.read_exact(&mut went),
    );
    a.and(b).and(c).and(d).unwrap();
    assert!(came == back && went == there);
}
