//! Ends, cuts, changed bytes, and what is no TLS.

use std::io::{ErrorKind, Write as _};

use proptest::prelude::*;

use super::*;

/// The record of these bytes, which is not sent.
pub(super) fn record(theirs: &mut Plain, bytes: &[u8]) -> Vec<u8> {
    let mut records = Vec::new();
    match theirs {
        Plain::Client(theirs) => {
            let connection = theirs.get_mut().1;
            connection.writer().write_all(bytes).unwrap();
            connection.write_tls(&mut records).unwrap();
        }
        Plain::Server(theirs) => {
            let connection = theirs.get_mut().1;
            connection.writer().write_all(bytes).unwrap();
            connection.write_tls(&mut records).unwrap();
        }
    }
    records
}

/// What carries plain rustls.
pub(super) fn raw(theirs: Plain) -> DuplexStream {
    match theirs {
        Plain::Client(theirs) => theirs.into_inner().0,
        Plain::Server(theirs) => theirs.into_inner().0,
    }
}

/// Each direction ends by itself.
#[test]
fn half_closed() {
    run(async {
        let two = Two::new();
        for serves in [false, true] {
            let (ours, theirs) = tokio::io::duplex(1 << 20);
            let (mut ours, mut theirs) = two.side(serves, ours, theirs).await;
            theirs.write_all(b"last").await.unwrap();
            match &mut theirs {
                Plain::Client(theirs) => theirs.get_mut().1.send_close_notify(),
                Plain::Server(theirs) => theirs.get_mut().1.send_close_notify(),
            }
            theirs.flush().await.unwrap();
            let mut said = Vec::new();
            ours.read_to_end(&mut said).await.unwrap();
            assert_eq!(said, b"last");
            assert_eq!(ours.read(&mut [0]).await.unwrap(), 0, "it stays ended");
            // Our own direction is still open.
            let answer = pattern(100_000);
            ours.write_all(&answer).await.unwrap();
            ours.shutdown().await.unwrap();
            let mut said = Vec::new();
            theirs.read_to_end(&mut said).await.unwrap();
            assert_eq!(said, answer);
            let late = ours.write(b"x").await.unwrap_err();
            assert_eq!(late.kind(), ErrorKind::BrokenPipe);
        }
    });
}

/// What comes after our own end is still read.
#[test]
fn closed_first() {
    run(async {
        let two = Two::new();
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let (mut ours, mut theirs) = two.served(ours, theirs).await;
        ours.write_all(b"question").await.unwrap();
        ours.shutdown().await.unwrap();
        let mut said = Vec::new();
        theirs.read_to_end(&mut said).await.unwrap();
        assert_eq!(said, b"question");
        theirs.write_all(b"answer").await.unwrap();
        theirs.shutdown().await.unwrap();
        let mut said = Vec::new();
        ours.read_to_end(&mut said).await.unwrap();
        assert_eq!(said, b"answer");
    });
}

/// A cut is no end.
#[test]
fn cut() {
    run(async {
        let two = Two::new();
        for keep in [0, 1, 5, 20] {
            let (ours, theirs) = tokio::io::duplex(1 << 20);
            let (mut ours, mut theirs) = two.served(ours, theirs).await;
            let first = record(&mut theirs, b"first");
            let second = record(&mut theirs, b"second");
            let mut io = raw(theirs);
            io.write_all(&first).await.unwrap();
            io.write_all(&second[..keep]).await.unwrap();
            drop(io);
            let mut said = Vec::new();
            let error = ours.read_to_end(&mut said).await.unwrap_err();
            assert_eq!(
                (error.kind(), &*said),
                (ErrorKind::UnexpectedEof, &b"first"[..])
            );
            let again = ours.read(&mut [0]).await.unwrap_err();
            assert_eq!(again.kind(), ErrorKind::UnexpectedEof);
        }
    });
}

/// A record that was changed is refused, what came before it is not, and the other end is told.
#[test]
fn changed() {
    run(async {
        let two = Two::new();
        for (place, alert) in [
            (5, "BadRecordMac"),
            (12, "BadRecordMac"),
            (30, "BadRecordMac"),
        ] {
            let (ours, theirs) = tokio::io::duplex(1 << 20);
            let (mut ours, mut theirs) = two.served(ours, theirs).await;
            let mut bytes = record(&mut theirs, b"before");
            let begin = bytes.len();
            bytes.extend(record(&mut theirs, b"a second record"));
            bytes[begin + place] ^= 1;
            theirs.get_mut().0.write_all(&bytes).await.unwrap();
            let mut said = Vec::new();
            let error = ours.read_to_end(&mut said).await.unwrap_err();
            assert_eq!(
                (error.kind(), &*said),
                (ErrorKind::InvalidData, &b"before"[..])
            );
            assert_eq!(
                ours.write(b"x").await.unwrap_err().kind(),
                ErrorKind::BrokenPipe
            );
            let told = theirs.read(&mut [0]).await.unwrap_err();
            assert!(told.to_string().contains(alert), "{told}");
        }
    });
}

/// Records that cannot be, each with its alert.
#[test]
fn impossible_records() {
    run(async {
        let two = Two::new();
        for (bytes, alert) in [
            (&b"GET / HTTP/1.1\r\n\r\n"[..], "UnexpectedMessage"),
            (&[21, 3, 3, 0, 2, 1, 0], "UnexpectedMessage"),
            (&[20, 3, 3, 0, 1, 1], "UnexpectedMessage"),
            (&[23, 3, 1, 0, 40], "DecodeError"),
            (&[23, 3, 3, 0xff, 0xff], "RecordOverflow"),
            (&[23, 3, 3, 0, 0], "BadRecordMac"),
        ] {
            let (ours, theirs) = tokio::io::duplex(1 << 20);
            let (mut ours, mut theirs) = two.called(ours, theirs).await;
            theirs.get_mut().0.write_all(bytes).await.unwrap();
            let error = ours.read(&mut [0]).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidData, "{bytes:?}");
            let told = theirs.read(&mut [0]).await.unwrap_err();
            assert!(told.to_string().contains(alert), "{told} {bytes:?}");
        }
    });
}

/// An alert of the other end is an error, and is not answered.
#[test]
fn given_up() {
    run(async {
        let two = Two::new();
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let (mut ours, mut theirs) = two.served(ours, theirs).await;
        // What we send is rubbish to the other end, which says so.
        ours.parts().0.write_all(&[23, 3, 3, 0, 20]).await.unwrap();
        ours.parts().0.write_all(&[0; 20]).await.unwrap();
        drop(theirs.read(&mut [0]).await.unwrap_err());
        drop(theirs.flush().await);
        let error = ours.read(&mut [0]).await.unwrap_err();
        let fault = error.get_ref().unwrap().downcast_ref();
        assert_eq!(fault, Some(&super::super::fault::Fault::Alert(20)));
        assert!(ours.parts().1.output().is_empty());
    });
}

/// A handshake that ends early, on either side.
#[test]
fn handshakes_that_are_cut() {
    run(async {
        let two = Two::new();
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        theirs.write_all(&[22, 3, 1, 0]).await.unwrap();
        drop(theirs);
        let error = two.server.accept(ours).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        drop(theirs);
        let cart = two.world.id("shop", "cart");
        let error = two.caller.connect(ours, &cart, &two.tunnel).await;
        assert!(error.is_err());
    });
}

/// Has no certificate.
#[derive(Debug)]
struct Nobody;

impl rustls::client::ResolvesClientCert for Nobody {
    fn resolve(
        &self,
        _: &[&[u8]],
        _: &[rustls::SignatureScheme],
    ) -> Option<Arc<rustls::sign::CertifiedKey>> {
        None
    }
    fn has_certs(&self) -> bool {
        false
    }
}

/// A client without a certificate, and one that wants another service: refused, and told so.
#[test]
fn handshakes_that_fail_are_answered() {
    run(async {
        let two = Two::new();
        let mut nobody = ClientConfig::clone(&two.plain_caller);
        nobody.client_auth_cert_resolver = Arc::new(Nobody);
        for (config, name) in [
            (Arc::new(nobody), NAME),
            (Arc::clone(&two.plain_caller), "other.shop.m.internal"),
        ] {
            let (ours, theirs) = tokio::io::duplex(1 << 20);
            let name = ServerName::try_from(name).unwrap();
            let (served, called) = join!(two.server.accept(ours), async {
                let mut called = TlsConnector::from(config).connect(name, theirs).await?;
                called.read(&mut [0]).await
            });
            assert_eq!(served.unwrap_err().kind(), ErrorKind::InvalidData);
            let told = called.unwrap_err();
            assert!(told.to_string().contains("alert"), "{told}");
        }
    });
}

/// A hello without an end is refused before it costs much.
#[test]
fn endless_handshakes() {
    run(async {
        let two = Two::new();
        let (ours, mut theirs) = tokio::io::duplex(1 << 16);
        let writer = tokio::task::spawn_local(async move {
            let mut count = 0_usize;
            // A ClientHello of 65,535 bytes, one byte in each record.
            let mut rest = vec![1, 0, 0xff, 0xff].into_iter();
            loop {
                let byte = rest.next().unwrap_or(7);
                let record = [22, 3, 1, 0, 1, byte];
                if theirs.write_all(&record).await.is_err() {
                    return count;
                }
                count += record.len();
            }
        });
        let error = two.server.accept(ours).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        assert!(writer.await.unwrap() < 1 << 18);
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Rubbish in the place of a handshake, or behind one.
    #[test]
    fn rubbish(
        bytes in prop::collection::vec(any::<u8>(), 0..600),
        like_tls: bool,
        behind: bool,
        serves: bool,
    ) {
        run(async move {
            let two = Two::new();
            let (ours, theirs) = tokio::io::duplex(1 << 20);
            let mut rubbish = bytes;
            if like_tls && let Some([kind, major, minor, high, low]) = rubbish.first_chunk_mut() {
                (*kind, *major, *minor, *high) = (20 + *kind % 4, 3, 3, *high % 3);
                *low %= 100;
            }
            if behind {
                let (mut ours, mut theirs) = two.side(serves, ours, theirs).await;
                theirs.get_mut().0.write_all(&rubbish).await.unwrap();
                theirs.get_mut().0.shutdown().await.unwrap();
                assert!(ours.read(&mut [0]).await.is_err());
                assert!(ours.read(&mut [0]).await.is_err());
            } else {
                let mut theirs = theirs;
                theirs.write_all(&rubbish).await.unwrap();
                theirs.shutdown().await.unwrap();
                let cart = two.world.id("shop", "cart");
                if serves {
                    assert!(two.server.accept(ours).await.is_err());
                } else {
                    assert!(two.caller.connect(ours, &cart, &two.tunnel).await.is_err());
                }
            }
        });
    }
}
