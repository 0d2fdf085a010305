//! Updates of keys, tickets, and records that carry nothing.

use std::io::{ErrorKind, Write as _};

use rustls::server::ServerSessionMemoryCache;

use super::*;

/// The other end renews its keys and wants ours renewed.
#[test]
fn the_other_end_renews() {
    run(async {
        let two = Two::new();
        for serves in [false, true] {
            let (ours, theirs) = tokio::io::duplex(1 << 20);
            let (mut ours, mut theirs) = two.side(serves, ours, theirs).await;
            for _ in 0..3 {
                match &mut theirs {
                    Plain::Client(theirs) => theirs.get_mut().1.refresh_traffic_keys().unwrap(),
                    Plain::Server(theirs) => theirs.get_mut().1.refresh_traffic_keys().unwrap(),
                }
                exchange(&mut ours, &mut theirs, &pattern(40_000), &pattern(40_000)).await;
            }
            assert!(
                ours.parts().1.sealed() < 10,
                "our keys were renewed as well"
            );
        }
    });
}

/// Our keys are renewed before they have sealed too much.
#[test]
fn we_renew() {
    run(async {
        let two = Two::new();
        for serves in [false, true] {
            let (ours, theirs) = tokio::io::duplex(1 << 20);
            let (mut ours, mut theirs) = two.side(serves, ours, theirs).await;
            ours.parts().1.renew_after(5);
            exchange(&mut ours, &mut theirs, &pattern(1_000_000), &pattern(10)).await;
            assert!(ours.parts().1.sealed() <= 6);
            theirs.write_all(b"x").await.unwrap();
            ours.shutdown().await.unwrap();
            assert_eq!(theirs.read(&mut [0]).await.unwrap(), 0);
        }
    });
}

/// Who renews without end and sends nothing is cut off.
#[test]
fn renewing_without_end() {
    run(async {
        let two = Two::new();
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let (mut ours, mut theirs) = two.served(ours, theirs).await;
        let Plain::Client(client) = &mut theirs else {
            panic!("it calls")
        };
        let mut bytes = Vec::new();
        for _ in 0..40 {
            let (_, connection) = client.get_mut();
            connection.refresh_traffic_keys().unwrap();
            while connection.wants_write() {
                connection.write_tls(&mut bytes).unwrap();
            }
        }
        client.get_mut().0.write_all(&bytes).await.unwrap();
        let error = ours.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        assert!(error.to_string().contains("without bytes"), "{error}");
    });
}

/// A server that sends tickets, before its first bytes and among them.
#[test]
fn tickets() {
    run(async {
        let mut two = Two::new();
        let mut server = ServerConfig::clone(&two.plain_server);
        server.session_storage = ServerSessionMemoryCache::new(32);
        server.send_tls13_tickets = 4;
        two.plain_server = Arc::new(server);
        for sizes in [&[usize::MAX][..], &[7], &[300, 1]] {
            let (ours, theirs) = tokio::io::duplex(1 << 20);
            let ours = Trickle::new(ours, sizes);
            let (mut ours, mut theirs) = two.called(ours, theirs).await;
            exchange(&mut ours, &mut theirs, b"there", &pattern(20_000)).await;
        }
    });
}

/// Bytes that the caller sends with the end of its handshake.
#[test]
fn bytes_with_the_handshake() {
    run(async {
        let two = Two::new();
        for length in [1, 5000, 30_000] {
            let (ours, mut theirs) = tokio::io::duplex(1 << 20);
            let config = Arc::clone(&two.plain_caller);
            let name = ServerName::try_from(NAME).unwrap();
            let mut client = rustls::ClientConnection::new(config, name).unwrap();
            let peer = async {
                let mut bytes = Vec::new();
                client.write_tls(&mut bytes).unwrap();
                theirs.write_all(&bytes).await.unwrap();
                while client.is_handshaking() {
                    let mut some = vec![0; 4096];
                    let count = theirs.read(&mut some).await.unwrap();
                    let mut some = &some[..count];
                    while !some.is_empty() {
                        client.read_tls(&mut some).unwrap();
                        client.process_new_packets().unwrap();
                    }
                }
                client.set_buffer_limit(None);
                client.writer().write_all(&pattern(length)).unwrap();
                client.send_close_notify();
                let mut bytes = Vec::new();
                while client.wants_write() {
                    client.write_tls(&mut bytes).unwrap();
                }
                theirs.write_all(&bytes).await.unwrap();
                theirs
            };
            let (accepted, _theirs) = join!(two.server.accept(ours), peer);
            let (mut ours, _) = accepted.unwrap();
            let mut said = Vec::new();
            ours.read_to_end(&mut said).await.unwrap();
            assert!(said == pattern(length), "{length}");
        }
    });
}
