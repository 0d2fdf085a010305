//! Plain bytes behind a 101 and behind CONNECT.

use std::io::{Read as _, Write as _};

use super::{
    backend::{Seen, Step},
    client::{Answer, Client},
    ways::{WAYS, Way, ways},
};

#[test]
fn plain_bytes_only_behind_the_101_that_was_asked_for() {
    mesh_tests::need!(namespaces);
    let ways = ways();
    for way in WAYS {
        ways.backend.hang_up();
        let head = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: chat\r\nX-A: b\r\n\r\n";
        let steps = vec![
            Step::Send([&head[..], b"first words\0\r\n"].concat()),
            Step::Pause,
            Step::Send(b"\xffmore".to_vec()),
            Step::Close,
        ];
        ways.backend.answer(steps, false);
        let mut stream = ways.dial(way);
        // What stands behind the wish waits for the answer.
        let asked = b"GET /case HTTP/1.1\r\nHost: raw\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\nnot yet";
        stream.write_all(asked).unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        let text = String::from_utf8_lossy(&all).to_ascii_lowercase();
        assert!(
            text.starts_with("http/1.1 101 switching protocols\r\n"),
            "{way:?}: {text}"
        );
        assert!(
            text.contains("\r\nupgrade: chat\r\n") && text.contains("\r\nx-a: b\r\n"),
            "{way:?}: {text}"
        );
        assert!(
            all.ends_with(b"\r\n\r\nfirst words\0\r\n\xffmore"),
            "{way:?}: {text}"
        );
        ways.backend.wait_answered();
        for seen in ways.backend.take() {
            assert!(
                matches!(&seen, Seen::Request(_, message) if message.one("upgrade") == Some("chat")),
                "{way:?}: {seen:?}"
            );
        }
    }
}

#[test]
fn connect_opens_a_tunnel_to_a_service_and_nowhere_else() {
    mesh_tests::need!(namespaces);
    let ways = ways();
    ways.backend.hang_up();
    for way in [Way::Explicit, Way::Hop] {
        let mut client = Client::new(ways.dial(way));
        // The request inside comes at once, behind the head.
        client.send(b"CONNECT raw:80 HTTP/1.1\r\nHost: raw:80\r\n\r\nGET /inside HTTP/1.1\r\nHost: raw\r\n\r\n", false);
        match client.answer(true, false) {
            Answer::Whole(message) if message.status() == 200 && message.fields.is_empty() => {}
            other => panic!("{way:?}: {other:?}"),
        }
        match client.answer(false, false) {
            Answer::Whole(message) if message.body == b"/inside" => {}
            other => panic!("{way:?}: {other:?}"),
        }
        let seen = ways.backend.take();
        assert!(
            matches!(&seen[..], [Seen::Request(_, message)] if message.line[1] == "/inside"),
            "{way:?}: {seen:?}"
        );
        for (place, status) in [
            ("nowhere.example:80", 404),
            ("10.77.0.1:22", 404),
            ("127.0.0.1:15020", 404),
        ] {
            let mut client = Client::new(ways.dial(way));
            client.send(
                format!("CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n\r\n").as_bytes(),
                false,
            );
            match client.answer(false, false) {
                Answer::Whole(message) if message.status() == status => {}
                other => panic!("{way:?} {place}: {other:?}"),
            }
        }
    }
    assert!(ways.backend.take().is_empty());
}
