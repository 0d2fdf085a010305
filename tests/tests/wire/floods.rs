//! Floods: each is cut off or taken in stride, memory stays, and the next caller is served at once.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use mesh_tests::{process::say, wait::Running};

use super::{
    backend::Seen,
    client::{Answer, Client},
    frames::{
        self, CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, Http2, PING, RST_STREAM,
        SETTINGS, WINDOW_UPDATE, frame,
    },
    ways::{Way, Ways, ways},
};

/// How much the daemon may have grown after a flood, in KiB.
const GROWTH: u64 = 8 * 1024;
/// How long the next caller may wait.
const AT_ONCE: Duration = Duration::from_secs(2);
/// Longest time that is spent on one flood.
const PATIENCE: Duration = Duration::from_secs(15);

/// Writes until the other end is gone, all is written, or it takes no more; how much was taken.
fn pour(stream: &mut TcpStream, pieces: impl Iterator<Item = Vec<u8>>, most: usize) -> usize {
    stream
        .set_write_timeout(Some(Duration::from_secs(2)))
        .unwrap();
    let (begun, mut sent) = (Instant::now(), 0);
    for piece in pieces {
        if sent >= most || begun.elapsed() > PATIENCE || stream.write_all(&piece).is_err() {
            break;
        }
        sent += piece.len();
    }
    sent
}

/// Reads to the end of the connection; false when it is still open when the time is over.
fn ends(stream: &mut TcpStream, within: Duration) -> bool {
    stream
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    let (end, mut piece) = (Instant::now() + within, vec![0; 64 * 1024]);
    while Instant::now() < end {
        match stream.read(&mut piece) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_reset) => return true,
        }
    }
    false
}

/// After a flood: the next caller is served at once, memory has not grown, and the number of requests that
/// reached the back end.
fn after(ways: &Ways, what: &str, before: u64) -> usize {
    let begun = Running::now();
    let mut probe = Client::new(ways.dial(Way::Inbound));
    probe.send(
        b"GET /probe HTTP/1.1\r\nHost: raw\r\nConnection: close\r\n\r\n",
        false,
    );
    let answer = probe.answer(false, false);
    let waited = begun.elapsed();
    assert!(
        matches!(&answer, Answer::Whole(message) if message.body == b"/probe"),
        "{what}: the next caller got {answer:?}"
    );
    assert!(
        waited < AT_ONCE,
        "{what}: the next caller waited {waited:?}"
    );
    let grown = mesh_tests::eventually(what, Duration::from_secs(10), || {
        let grown = ways.memory(0).saturating_sub(before);
        if grown < GROWTH {
            Ok(grown)
        } else {
            Err(format!("{grown} KiB more than before"))
        }
    });
    let reached = ways
        .backend
        .take()
        .iter()
        .filter(|seen| matches!(seen, Seen::Request(_, message) if message.line[1] != "/probe"))
        .count();
    say(&format!(
        "  {what}: {grown} KiB more, {} ms for the next caller, {reached} requests at the back end",
        waited.as_millis()
    ));
    reached
}

fn endless(piece: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    std::iter::repeat(piece.repeat(16 * 1024 / piece.len()))
}

/// Warms up whatever is made once, so that growth is growth.
fn settled(ways: &Ways) -> u64 {
    for _ in 0..50 {
        let mut client = Client::new(ways.dial(Way::Inbound));
        client.send(
            b"GET /probe HTTP/1.1\r\nHost: raw\r\nConnection: close\r\n\r\n",
            false,
        );
        client.answer(false, false);
        let mut client = Http2::new(ways.dial(Way::Inbound));
        assert!(client.is_alive());
    }
    ways.backend.take();
    ways.memory(0)
}

#[test]
fn endless_messages_of_http1_are_cut() {
    mesh_tests::need!(namespaces);
    let ways = ways();
    let before = settled(&ways);
    let chunked = "POST / HTTP/1.1\r\nHost: raw\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (what, head, piece) in [
        ("an endless first line", "GET /".to_owned(), &b"a"[..]),
        ("an endless field", "GET / HTTP/1.1\r\nX: ".to_owned(), b"a"),
        ("an endless name", "GET / HTTP/1.1\r\n".to_owned(), b"a"),
        (
            "endless fields",
            "GET / HTTP/1.1\r\n".to_owned(),
            b"a: b\r\n",
        ),
        ("endless empty lines", String::new(), b"\r\n"),
        ("an endless chunk extension", format!("{chunked}1;"), b"a"),
        ("an endless chunk size", chunked.to_owned(), b"0"),
        ("endless trailers", format!("{chunked}0\r\n"), b"a: b\r\n"),
        ("an endless trailer", format!("{chunked}0\r\na: "), b"b"),
        (
            "endless chunk extensions",
            chunked.to_owned(),
            b"1;eeeeeeee\r\nx\r\n",
        ),
    ] {
        let mut stream = ways.dial(Way::Inbound);
        stream.write_all(head.as_bytes()).unwrap();
        // Far more than any bound, and than what is read on so that the answer arrives.
        let sent = pour(&mut stream, endless(piece), 64 * 1024 * 1024);
        assert!(sent < 16 * 1024 * 1024, "{what}: {sent} bytes were taken");
        assert!(
            ends(&mut stream, PATIENCE),
            "{what}: the connection stays open"
        );
        let reached = after(&ways, what, before);
        assert_eq!(reached, 0, "{what}: a whole request went on");
    }
}

/// Connections that say nothing.
fn silent(ways: &Ways) -> Vec<TcpStream> {
    (0..1000).map(|_| ways.dial(Way::Inbound)).collect()
}

#[test]
fn slow_and_silent_callers_of_http1() {
    mesh_tests::need!(namespaces);
    let ways = ways();
    let before = settled(&ways);
    let silent_ones = silent(&ways);
    // Two hundred that never end their head. The daemon's patience with the first begins here.
    let first = Instant::now();
    let mut slow: Vec<TcpStream> = (0..200)
        .map(|_| {
            let mut stream = ways.dial(Way::Inbound);
            stream
                .write_all(b"GET / HTTP/1.1\r\nHost: raw\r\nX")
                .unwrap();
            stream
        })
        .collect();
    let begun = Running::now();
    // Each costs some KiB: what an unoptimised daemon needs, twice over.
    after(
        &ways,
        "1000 silent and 200 slow callers at once",
        before + 1200 * 32 - GROWTH,
    );
    // A byte a second does not prolong it. Nothing is written to those that may have had their answer.
    while first.elapsed() < Duration::from_secs(7) {
        for stream in &mut slow {
            stream.write_all(b"x").unwrap();
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    for stream in slow {
        let mut client = Client::new(stream);
        let answer = client.answer(false, false);
        assert!(
            matches!(&answer, Answer::Whole(message) if message.status() == 408),
            "a slow head: {answer:?}"
        );
        assert_eq!(client.answer(false, false), Answer::End);
    }
    let waited = begun.elapsed();
    assert!(
        waited < Duration::from_secs(16),
        "slow heads lived {waited:?}"
    );
    drop(silent_ones);
    // What the allocator keeps serves the next thousand: there is no leak.
    let kept = ways.memory(0);
    say(&format!(
        "  {} KiB more after they have gone",
        kept.saturating_sub(before)
    ));
    drop(silent(&ways));
    after(&ways, "after another thousand", kept);
}

#[test]
fn pipelines_are_bounded() {
    mesh_tests::need!(namespaces);
    let ways = ways();
    let before = settled(&ways);
    // Requests without end from a caller who reads no answer: they are taken one by one and then no more.
    let mut stream = ways.dial(Way::Inbound);
    let sent = pour(
        &mut stream,
        endless(b"GET /p HTTP/1.1\r\nHost: raw\r\n\r\n"),
        512 * 1024 * 1024,
    );
    let grown = ways.memory(0).saturating_sub(before);
    assert!(grown < GROWTH, "{grown} KiB for a pipeline of {sent} bytes");
    drop(stream);
    after(&ways, "a pipeline without end", before);
    ways.backend.hang_up();
    ways.backend.take();
}

/// One flood of HTTP/2: what it sends, and how many requests of it may reach the back end.
struct Flood {
    what: &'static str,
    bytes: Vec<u8>,
    most: usize,
    /// The connection must be ended by the daemon.
    ends: bool,
}

fn head(stream: u32, end: bool) -> Vec<u8> {
    let flags = END_HEADERS | if end { END_STREAM } else { 0 };
    frame(
        HEADERS,
        flags,
        stream,
        &frames::block(&frames::request("GET", "/flood")),
    )
}

fn odd(count: u32) -> impl Iterator<Item = u32> {
    (0..count).map(|number| number * 2 + 1)
}

fn floods() -> Vec<Flood> {
    let one = |what, bytes, most, ends| Flood {
        what,
        bytes,
        most,
        ends,
    };
    let cancel = 8u32.to_be_bytes();
    let many = |count: usize, frame: &[u8]| frame.repeat(count);
    let open = |rest: Vec<u8>| [head(1, false), rest].concat();
    let begun = |rest: Vec<u8>| {
        let block = frames::block(&frames::request("GET", "/flood"));
        [frame(HEADERS, 0, 1, &block), rest].concat()
    };
    let large = frames::block(&[(b"x-large".to_vec(), vec![b'a'; 16_000])]);
    vec![
        one(
            "1000 requests taken back at once",
            odd(1000)
                .flat_map(|stream| {
                    [head(stream, true), frame(RST_STREAM, 0, stream, &cancel)].concat()
                })
                .collect(),
            0,
            true,
        ),
        one(
            "1000 bodies taken back at once",
            odd(1000)
                .flat_map(|stream| {
                    [head(stream, false), frame(RST_STREAM, 0, stream, &cancel)].concat()
                })
                .collect(),
            0,
            true,
        ),
        one(
            "1000 requests that make the daemon reset them",
            odd(1000)
                .flat_map(|stream| {
                    [
                        head(stream, false),
                        frame(WINDOW_UPDATE, 0, stream, &[0; 4]),
                    ]
                    .concat()
                })
                .collect(),
            0,
            true,
        ),
        one(
            "10000 empty continuations",
            begun(many(10_000, &frame(CONTINUATION, 0, 1, b""))),
            0,
            true,
        ),
        one(
            "1000 large continuations",
            begun(many(1000, &frame(CONTINUATION, 0, 1, &large))),
            0,
            true,
        ),
        one(
            "100000 pings",
            many(100_000, &frame(PING, 0, 0, &[0; 8])),
            0,
            true,
        ),
        one(
            "100000 settings",
            many(100_000, &frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100])),
            0,
            true,
        ),
        one(
            "100000 empty settings",
            many(100_000, &frame(SETTINGS, 0, 0, &[])),
            0,
            true,
        ),
        one(
            "100000 priorities",
            many(100_000, &frame(2, 0, 1, &[0, 0, 0, 0, 16])),
            0,
            true,
        ),
        one(
            "100000 frames of no known type",
            many(100_000, &frame(77, 0, 0, b"x")),
            0,
            true,
        ),
        one(
            "100000 window updates",
            open(many(100_000, &frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]))),
            0,
            true,
        ),
        one(
            "100000 empty data frames",
            open(many(100_000, &frame(DATA, 0, 1, b""))),
            0,
            true,
        ),
        one(
            "100000 padded data frames of nothing",
            open(many(100_000, &frame(DATA, 8, 1, &[3, 0, 0, 0]))),
            0,
            true,
        ),
        one(
            "2000 requests at once",
            odd(2000).flat_map(|stream| head(stream, true)).collect(),
            2000,
            false,
        ),
        one(
            "2000 unended requests at once",
            odd(2000).flat_map(|stream| head(stream, false)).collect(),
            0,
            false,
        ),
    ]
}

#[test]
fn floods_of_http2() {
    mesh_tests::need!(namespaces);
    let ways = ways();
    let before = settled(&ways);
    for flood in floods() {
        let mut stream = ways.dial(Way::Inbound);
        let mut all = frames::PREFACE.to_vec();
        all.extend(frame(SETTINGS, 0, 0, &[]));
        all.extend(&flood.bytes);
        let mut reader = stream.try_clone().unwrap();
        let ended = std::thread::scope(|scope| {
            let reading = scope.spawn(move || {
                let limit = if flood.ends {
                    PATIENCE
                } else {
                    Duration::from_millis(500)
                };
                ends(&mut reader, limit)
            });
            pour(
                &mut stream,
                all.chunks(64 * 1024).map(<[u8]>::to_vec),
                usize::MAX,
            );
            reading.join().unwrap()
        });
        if flood.ends {
            assert!(ended, "{}: the connection stays open", flood.what);
        }
        drop(stream);
        let reached = after(&ways, flood.what, before);
        assert!(
            reached <= flood.most,
            "{}: {reached} requests reached the back end",
            flood.what
        );
    }
    // Answers that nobody takes: windows of nothing on a hundred streams.
    let mut client = Http2::new(ways.dial(Way::Inbound));
    client.send(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]));
    for stream in odd(100) {
        client.send(&head(stream, true));
    }
    client.is_alive();
    after(&ways, "100 answers that nobody takes", before);
    drop(client);
    after(&ways, "after answers that nobody took", before);
}

#[test]
fn a_huge_list_of_fields_is_told_so() {
    mesh_tests::need!(namespaces);
    let ways = ways();
    let mut fields = frames::request("GET", "/huge");
    fields.extend((0..90).map(|number| (format!("x-{number}").into_bytes(), vec![b'a'; 1000])));
    let block = frames::block(&fields);
    let mut bytes = Vec::new();
    let pieces: Vec<&[u8]> = block.chunks(16_000).collect();
    for (at, piece) in pieces.iter().enumerate() {
        let end = if at + 1 == pieces.len() {
            END_HEADERS
        } else {
            0
        };
        let (kind, flags) = if at == 0 {
            (HEADERS, END_STREAM)
        } else {
            (CONTINUATION, 0)
        };
        bytes.extend(frame(kind, flags | end, 1, piece));
    }
    let mut client = Http2::new(ways.dial(Way::Inbound));
    client.send(&bytes);
    client.read(PATIENCE, |client| client.is_over(1));
    let found = client.of(1);
    assert!(
        found.status == Some(431) || client.goaway.is_some(),
        "{found:?}"
    );
    assert_eq!(ways.backend.take().len(), 0);
}
