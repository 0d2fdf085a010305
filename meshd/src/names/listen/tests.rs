//! The process over real sockets: mesh names, other names, both transports, limits.

use std::{net::IpAddr, path::Path};

use hickory_proto::{
    op::{Message, Query},
    rr::{Name, RData, Record, RecordType, rdata::A},
};

use super::*;
use crate::names::{Entry, write};

struct Running {
    address: SocketAddr,
    folder: tempfile::TempDir,
    stop: CancellationToken,
    tasks: TaskTracker,
}

async fn start(upstream: Vec<SocketAddr>) -> Running {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("run")).unwrap();
    words(folder.path(), "240.240.1.2");
    let (udp, tcp, address) = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let settings = Settings {
        listen: vec![address],
        upstream,
        runtime_file: folder.path().join("run/names"),
        state_file: folder.path().join("names"),
        state_dir: folder.path().to_owned(),
    };
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    tasks.spawn(serve(settings, vec![(udp, tcp)], stop.clone()));
    Running {
        address,
        folder,
        stop,
        tasks,
    }
}

fn words(folder: &Path, address: &str) {
    let entry = Entry {
        name: "words.mesh.internal".to_owned(),
        addresses: vec![address.parse().unwrap()],
        direct: vec!["10.0.0.1".parse().unwrap()],
    };
    write(&folder.join("run"), folder, "mesh.internal", &[entry]).unwrap();
}

fn query(name: &str) -> Vec<u8> {
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    message.to_vec().unwrap()
}

async fn over_udp(server: SocketAddr, name: &str) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(&query(name), server).await.unwrap();
    let mut buffer = vec![0; 4096];
    let length = timeout(IDLE, socket.recv(&mut buffer))
        .await
        .unwrap()
        .unwrap();
    Message::from_vec(&buffer[..length]).unwrap()
}

async fn over_tcp(server: SocketAddr, names: &[&str]) -> Vec<Message> {
    let mut stream = TcpStream::connect(server).await.unwrap();
    let mut messages = Vec::new();
    for name in names {
        stream
            .write_all(&framed(&query(name)).unwrap())
            .await
            .unwrap();
        let length = stream.read_u16().await.unwrap();
        let mut answer = vec![0; usize::from(length)];
        stream.read_exact(&mut answer).await.unwrap();
        messages.push(Message::from_vec(&answer).unwrap());
    }
    messages
}

fn addresses(message: &Message) -> Vec<String> {
    message
        .answers
        .iter()
        .map(|record| record.data.to_string())
        .collect()
}

/// An upstream: over UDP it cuts every answer, over TCP it tells all. Before a good datagram it sends forged ones.
async fn upstream() -> (SocketAddr, TaskTracker) {
    let (udp, tcp, address) = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let tasks = TaskTracker::new();
    let reply = |bytes: &[u8], truncated: bool, count: u8| {
        let request = Message::from_vec(bytes).unwrap();
        let mut answer = request.clone().into_response();
        answer.metadata.truncation = truncated;
        let name = request.queries[0].name.clone();
        for last in 0..count {
            let data = RData::A(A([192, 0, 2, last].into()));
            answer.add_answer(Record::from_rdata(name.clone(), 60, data));
        }
        answer.to_vec().unwrap()
    };
    tasks.spawn(async move {
        let mut buffer = vec![0; 4096];
        while let Ok((length, client)) = udp.recv_from(&mut buffer).await {
            let mut forged = reply(&buffer[..length], false, 9);
            forged[0] ^= 0xff;
            udp.send_to(&forged, client).await.unwrap();
            let asked = Message::from_vec(&buffer[..length]).unwrap();
            let truncated = asked.queries[0].name.to_ascii().starts_with("large");
            udp.send_to(&reply(&buffer[..length], truncated, 1), client)
                .await
                .unwrap();
        }
    });
    tasks.spawn(async move {
        while let Ok((mut stream, _)) = tcp.accept().await {
            let query = read(&mut stream).await.unwrap().unwrap();
            stream
                .write_all(&framed(&reply(&query, false, 100)).unwrap())
                .await
                .unwrap();
        }
    });
    (address, tasks)
}

#[tokio::test]
async fn mesh_names_follow_the_file() {
    let running = start(Vec::new()).await;
    assert_eq!(
        addresses(&over_udp(running.address, "words.mesh.internal.").await),
        ["240.240.1.2"]
    );
    words(running.folder.path(), "240.240.1.77");
    let answers = over_tcp(
        running.address,
        &["words.mesh.internal.", "WORDS.mesh.internal."],
    )
    .await;
    assert_eq!(
        answers.iter().map(addresses).collect::<Vec<_>>(),
        [["240.240.1.77"], ["240.240.1.77"]]
    );
    std::fs::write(mesh_intercept::bypass::marker(running.folder.path()), b"").unwrap();
    assert_eq!(
        addresses(&over_udp(running.address, "words.mesh.internal.").await),
        ["10.0.0.1"]
    );
    let nobody = over_udp(running.address, "nobody.mesh.internal.").await;
    assert_eq!(nobody.metadata.response_code, ResponseCode::NXDomain);
    running.stop.cancel();
    running.tasks.close();
    running.tasks.wait().await;
}

#[tokio::test]
async fn other_names_are_refused_without_an_upstream() {
    let running = start(Vec::new()).await;
    let answer = over_udp(running.address, "example.com.").await;
    assert_eq!(answer.metadata.response_code, ResponseCode::Refused);
    let answers = over_tcp(running.address, &["example.com."]).await;
    assert_eq!(answers[0].metadata.response_code, ResponseCode::Refused);
}

#[tokio::test]
async fn other_names_are_sent_on() {
    let (upstream, _tasks) = upstream().await;
    let running = start(vec![upstream]).await;
    assert_eq!(
        addresses(&over_udp(running.address, "example.com.").await),
        ["192.0.2.0"]
    );
    let cut = over_udp(running.address, "large.example.com.").await;
    assert!(
        cut.metadata.truncation,
        "the client is told to ask over TCP"
    );
    let answers = over_tcp(running.address, &["large.example.com."]).await;
    assert_eq!(answers[0].answers.len(), 100);
}

#[tokio::test]
async fn a_dead_upstream_is_passed_over() {
    let (good, _tasks) = upstream().await;
    // Held, and connected to itself: what others send it is refused, and nobody else gets the port.
    let held = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let dead = held.local_addr().unwrap();
    held.connect(dead).await.unwrap();
    let running = start(vec![dead, good]).await;
    assert_eq!(
        addresses(&over_udp(running.address, "example.com.").await),
        ["192.0.2.0"]
    );
    let running = start(vec![dead]).await;
    let answer = over_udp(running.address, "example.com.").await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
}

#[tokio::test]
async fn a_flood_of_connections_does_not_stop_datagrams() {
    let running = start(Vec::new()).await;
    let mut held = Vec::new();
    for _ in 0..MAX_CONNECTIONS + 10 {
        held.push(TcpStream::connect(running.address).await.unwrap());
    }
    assert_eq!(
        addresses(&over_udp(running.address, "words.mesh.internal.").await),
        ["240.240.1.2"]
    );
    held.clear();
    let answers = over_tcp(running.address, &["words.mesh.internal."]).await;
    assert_eq!(addresses(&answers[0]), ["240.240.1.2"]);
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let taken = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings {
        listen: vec![address],
        upstream: Vec::new(),
        runtime_file: folder.path().join("run/names"),
        state_file: folder.path().join("names"),
        state_dir: folder.path().to_owned(),
    };
    let error = run(settings, CancellationToken::new()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("cannot answer names on {address}")
    );
    assert_eq!(address.ip(), "127.0.0.1".parse::<IpAddr>().unwrap());
}
