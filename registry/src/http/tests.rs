//! The client against raw servers that answer what a test tells them.

use std::{fs, path::Path, sync::Arc};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use http::HeaderName;

use super::*;

/// A server that answers the n-th request with the n-th text and closes; returns what was asked.
async fn serve(answers: Vec<Vec<u8>>) -> (String, tokio::task::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let tracker = TaskTracker::new();
    let task = tracker.spawn(async move {
        let mut asked = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            asked.push(request(&mut stream).await);
            stream.write_all(&answer).await.unwrap();
        }
        asked
    });
    (address, task)
}

async fn request<S: AsyncReadExt + Unpin>(stream: &mut S) -> String {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        text.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(text).unwrap()
}

fn answer(head: &str, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {head}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn access(addresses: &[&str], token: Option<&Path>) -> Access {
    Access {
        addresses: addresses.iter().map(|&text| text.to_owned()).collect(),
        token_file: token.map(Path::to_owned),
        ..Access::default()
    }
}

fn client(access: &Access) -> Client {
    Client::new(
        access,
        Credential::Field(HeaderName::from_static("x-consul-token")),
    )
    .unwrap()
}

#[tokio::test]
async fn a_rotated_token_is_read_again_and_never_shown() {
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    fs::write(&token, "old-secret\n").unwrap();
    let (at, asked) = serve(vec![
        answer("200 OK", "1"),
        answer("403 Forbidden", ""),
        answer("200 OK", "2"),
    ])
    .await;
    let client = client(&access(&[&at], Some(&token)));
    assert_eq!(client.send(&Request::get("/a")).await.unwrap().body, "1");
    // The same length and time: only the refusal tells.
    let when = fs::metadata(&token).unwrap().modified().unwrap();
    let same = fs::OpenOptions::new().write(true).open(&token).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&same, b"new", 0).unwrap();
    same.set_modified(when).unwrap();
    assert_eq!(client.send(&Request::get("/b")).await.unwrap().body, "2");
    let asked = asked.await.unwrap();
    assert!(asked[1].contains("x-consul-token: old-secret"), "{asked:?}");
    assert!(asked[2].contains("x-consul-token: new-secret"), "{asked:?}");
    assert!(!format!("{client:?}").contains("secret\""), "{client:?}");
}

#[tokio::test]
async fn what_goes_wrong_is_an_error() {
    let cut = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n[{".to_vec();
    let (at, _asked) = serve(vec![
        cut,
        b"no http at all\r\n\r\n".to_vec(),
        answer("200 OK\r\nx: y", ""),
        answer("500 Internal Server Error", "No cluster leader"),
        answer("429 Too Many Requests\r\nretry-after: 7", ""),
        answer("403 Forbidden", ""),
    ])
    .await;
    let client = client(&access(&[&at], None));
    for _ in 0..2 {
        let failed = client.send(&Request::get("/")).await;
        assert!(
            matches!(failed, Err(SourceError::Transport { .. })),
            "{failed:?}"
        );
    }
    let good = client.send(&Request::get("/")).await.unwrap();
    assert_eq!(good.field("x"), Some("y"));
    let say = async || {
        client
            .send(&Request::get("/p?q=1"))
            .await
            .unwrap()
            .good()
            .unwrap_err()
    };
    let no_leader = say().await.to_string();
    assert!(
        no_leader.contains("/p: 500 No cluster leader"),
        "{no_leader}"
    );
    assert!(
        matches!(say().await, SourceError::Throttled { retry_after } if retry_after.as_secs() == 7)
    );
    assert!(matches!(say().await, SourceError::Auth(_)));
}

#[tokio::test]
async fn silence_ends_and_the_next_address_answers() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent_at = format!("http://{}", silent.local_addr().unwrap());
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gone_at = format!("http://{}", gone.local_addr().unwrap());
    drop(gone);
    let (good, _asked) = serve(vec![answer("200 OK", "x"), answer("200 OK", "y")]).await;
    let client = client(&access(&[&silent_at, &gone_at, &good], None));
    let ask = Request::get("/").within(Duration::from_millis(100));
    assert_eq!(client.send(&ask).await.unwrap().body, "x");
    assert_eq!(
        client.subject(),
        good,
        "the one that answered is asked first"
    );
    assert_eq!(client.send(&ask).await.unwrap().body, "y");
}

#[tokio::test]
async fn lines_come_one_by_one() {
    let stream = b"HTTP/1.1 200 OK\r\n\r\n{}\n{\"a\":\r\n1}\ncut".to_vec();
    let (at, _asked) = serve(vec![stream]).await;
    let client = client(&access(&[&at], None));
    let mut lines = client
        .lines(&Request::get("/"), Duration::from_secs(5))
        .await
        .unwrap();
    let mut seen = Vec::new();
    while let Some(line) = lines.next().await.unwrap() {
        seen.push(String::from_utf8(line).unwrap());
    }
    assert_eq!(seen, ["{}", "{\"a\":", "1}"]);
}

#[tokio::test]
async fn a_unix_socket_is_spoken_to_and_connections_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let tracker = TaskTracker::new();
    let server = tracker.spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        for _ in 0..2 {
            request(&mut stream).await;
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nz")
                .await
                .unwrap();
        }
    });
    let client = client(&access(&[&format!("unix://{}", path.display())], None));
    for _ in 0..2 {
        assert_eq!(client.send(&Request::get("/")).await.unwrap().body, "z");
    }
    server.await.unwrap();
}

/// Makes a root and a server configuration of it.
fn authority(ca: &Path) -> Arc<rustls::ServerConfig> {
    let key = rcgen::KeyPair::generate().unwrap();
    let own = rcgen::CertificateParams::new(vec!["registry.test".into()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    fs::write(ca, own.pem()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![own.der().clone()],
            rustls_pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        );
    Arc::new(config.unwrap())
}

#[tokio::test]
async fn certificates_are_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let (ca, other) = (dir.path().join("ca.pem"), dir.path().join("other.pem"));
    let first = authority(&ca);
    let second = authority(&other);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = format!("https://{}", listener.local_addr().unwrap());
    let tracker = TaskTracker::new();
    tracker.spawn(async move {
        for config in [first, Arc::clone(&second), second] {
            let (stream, _) = listener.accept().await.unwrap();
            if let Ok(mut stream) = tokio_rustls::TlsAcceptor::from(config).accept(stream).await {
                request(&mut stream).await;
                stream.write_all(&answer("200 OK", "s")).await.unwrap();
                stream.shutdown().await.unwrap();
            }
        }
    });
    let mut access = access(&[&at], None);
    access.tls.ca = Some(ca.clone());
    access.tls.server_name = Some("registry.test".into());
    let client = client(&access);
    assert_eq!(client.send(&Request::get("/")).await.unwrap().body, "s");
    assert!(
        client.send(&Request::get("/")).await.is_err(),
        "another root"
    );
    fs::rename(&other, &ca).unwrap();
    assert_eq!(client.send(&Request::get("/")).await.unwrap().body, "s");
}
