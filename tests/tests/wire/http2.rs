//! Raw cases of HTTP/2: what each stream comes to, and what the back end received of it.

use std::time::Duration;

use mesh_tests::process::say;

use super::{
    backend::Seen,
    client::{Answer, Client},
    corpus::{self, Case, unescape},
    frames::{
        self, CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, Http2, RST_STREAM, frame,
    },
    requests::compare,
    ways::{WAYS, Way, Ways, ways},
};

const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
struct Head {
    stream: u32,
    end: bool,
    /// How many frames carry it.
    pieces: usize,
    fields: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Head {
    fn frames(&self) -> Vec<u8> {
        let block = frames::block(&self.fields);
        let flags = if self.end { END_STREAM } else { 0 };
        // A frame holds 16 KiB.
        let size = block.len().div_ceil(self.pieces.max(1)).clamp(1, 16_384);
        let pieces: Vec<&[u8]> = block.chunks(size).collect();
        let last = pieces.len().saturating_sub(1);
        let mut out = Vec::new();
        for (at, piece) in pieces.into_iter().enumerate() {
            let end = if at == last { END_HEADERS } else { 0 };
            let kind = if at == 0 { HEADERS } else { CONTINUATION };
            let flags = if at == 0 { flags | end } else { end };
            out.extend(frame(kind, flags, self.stream, piece));
        }
        out
    }
}

/// Everything that the case sends; `None` stands for a round trip.
fn sent(case: &Case) -> Vec<Option<Vec<u8>>> {
    let mut all = vec![Some(Vec::new())];
    let mut head: Option<Head> = None;
    for (word, rest) in &case.lines {
        let mut push = |bytes: Vec<u8>| {
            if let Some(Some(last)) = all.last_mut() {
                last.extend(bytes);
            }
        };
        if word == "f" {
            let (name, value) = rest.split_once(" = ").unwrap_or((rest, ""));
            let head = head
                .as_mut()
                .unwrap_or_else(|| panic!("{}: a field without a head", case.name));
            head.fields.push((unescape(name), unescape(value)));
            continue;
        }
        if word == "without" {
            let head = head.as_mut().unwrap();
            head.fields.retain(|(name, _)| name != rest.as_bytes());
            continue;
        }
        if let Some(head) = head.take() {
            push(head.frames());
        }
        let mut parts = rest.split(' ');
        let mut number = || parts.next().unwrap_or_default().parse::<u32>().unwrap_or(0);
        match word.as_str() {
            "get" | "post" | "head" => {
                let fields = match word.as_str() {
                    "get" => frames::request("GET", "/h2"),
                    "post" => frames::request("POST", "/h2"),
                    _ => Vec::new(),
                };
                head = Some(Head {
                    stream: number(),
                    end: rest.contains(" end"),
                    pieces: if rest.contains(" pieces") { 7 } else { 1 },
                    fields,
                });
            }
            "data" => {
                let stream = number();
                let (end, text) = match rest.split_once(" end") {
                    Some((_, text)) => (END_STREAM, text.strip_prefix(' ').unwrap_or(text)),
                    None => (0, rest.split_once(' ').map_or("", |(_, text)| text)),
                };
                push(frame(DATA, end, stream, &unescape(text)));
            }
            "rst" => {
                let (stream, code) = (number(), number());
                push(frame(RST_STREAM, 0, stream, &code.to_be_bytes()));
            }
            "frame" => {
                let (kind, flags, stream) = (number(), number(), number());
                let payload = unescape(parts.next().unwrap_or_default());
                push(frame(
                    u8::try_from(kind).unwrap(),
                    u8::try_from(flags).unwrap(),
                    stream,
                    &payload,
                ));
            }
            "bytes" => push(unescape(rest)),
            "round" => {
                all.push(None);
                all.push(Some(Vec::new()));
            }
            _ => {}
        }
    }
    if let (Some(head), Some(Some(last))) = (head, all.last_mut()) {
        last.extend(head.frames());
    }
    all
}

/// True when the stream, or the whole connection, was refused as the RFC allows: by a reset or the end of the
/// connection with an error, or by an answer of 4xx before.
fn is_refused(client: &Http2, stream: u32) -> bool {
    let own = client.of(stream);
    own.status
        .is_some_and(|status| (400..500).contains(&status))
        && (own.ended || own.reset.is_some())
        || (own.status.is_none() && own.reset.is_some_and(|code| code != 0))
        || client.goaway.is_some()
}

fn judge(case: &Case, client: &mut Http2) -> Result<(), String> {
    for (word, rest) in &case.lines {
        if word != "sees" {
            continue;
        }
        if rest == "goaway" {
            client.read(PATIENCE, |client| client.goaway.is_some());
            if client.goaway.is_none() {
                return Err("the connection was not ended with an error".to_owned());
            }
            client.read(PATIENCE, |_| false);
            if !client.ended {
                return Err("the connection was not closed".to_owned());
            }
            continue;
        }
        if rest == "closed" {
            client.read(PATIENCE, |_| false);
            if !client.ended {
                return Err("the connection was not closed".to_owned());
            }
            continue;
        }
        let (stream, wanted) = rest.split_once(' ').unwrap();
        let stream = stream.parse().unwrap();
        client.read(PATIENCE, |client| client.is_over(stream));
        let found = client.of(stream);
        let good = match wanted.split_once(' ').unwrap_or((wanted, "")) {
            ("refused", _) => is_refused(client, stream),
            ("reset", code) => found
                .reset
                .is_some_and(|found| code.is_empty() || found.to_string() == code),
            (status, body) => {
                found.ended
                    && found.status.map(|status| status.to_string()).as_deref() == Some(status)
                    && (body.is_empty() || found.body == body.as_bytes())
            }
        };
        if !good {
            return Err(format!(
                "stream {stream}: wanted {wanted}, got {found:?}, goaway {:?}, ended {}",
                client.goaway, client.ended
            ));
        }
    }
    Ok(())
}

fn run(ways: &Ways, way: Way, case: &Case, late: Option<u64>) -> Result<(), String> {
    let mut client = if case.word("bare").is_some() {
        Http2::bare(ways.dial(way))
    } else {
        Http2::new(ways.dial(way))
    };
    for piece in sent(case) {
        match piece {
            Some(bytes) => {
                client.send(&bytes);
            }
            None => {
                client.is_alive();
            }
        }
    }
    if case.word("hangup").is_some() {
        client.is_alive();
        drop(client);
    } else {
        judge(case, &mut client)?;
        if case.word("alive").is_some() && !client.is_alive() {
            return Err("the connection did not survive".to_owned());
        }
        drop(client);
    }
    // The next caller gets its own answer, and the back end has seen nothing but what was wanted.
    let mut probe = Client::new(ways.dial(way));
    probe.send(
        b"GET /probe HTTP/1.1\r\nHost: raw\r\nConnection: close\r\n\r\n",
        false,
    );
    match probe.answer(false, false) {
        Answer::Whole(message) if message.body == b"/probe" => {}
        other => return Err(format!("the next caller got {other:?}")),
    }
    let wanted = super::requests::expected(case, &ways.client(way));
    let cut = case.word("cut").is_some();
    let mut requests = Vec::new();
    for seen in ways.backend.take() {
        match seen {
            Seen::Request(_, message) if message.line[1] == "/probe" => {}
            Seen::Request(_, message) => requests.push(message),
            Seen::Cut(..) if cut => {}
            // The back end may read the end of what was cut before only now.
            Seen::Cut(id, _) if late.is_some_and(|late| id <= late) => {}
            Seen::Cut(_, bytes) => {
                return Err(format!(
                    "a cut message: {:?}",
                    String::from_utf8_lossy(&bytes)
                ));
            }
            Seen::Malformed(why, bytes) => {
                return Err(format!(
                    "not strict: {why}: {:?}",
                    String::from_utf8_lossy(&bytes)
                ));
            }
        }
    }
    if requests.len() != wanted.len() {
        return Err(format!(
            "the back end got {} messages, wanted {}: {requests:#?}",
            requests.len(),
            wanted.len()
        ));
    }
    requests.sort_by(|one, other| one.line[1].cmp(&other.line[1]));
    requests
        .iter()
        .zip(&wanted)
        .try_for_each(|(found, wanted)| compare(Way::Hop, found, wanted))
}

#[test]
fn raw_http2() {
    mesh_tests::need!(namespaces);
    let ways = ways();
    let only = std::env::var("WIRE_ONLY").ok();
    let cases: Vec<Case> = corpus::load("http2")
        .into_iter()
        .filter(|case| only.as_ref().is_none_or(|only| case.name.contains(only)))
        .collect();
    let (mut runs, mut deviations) = (0, Vec::new());
    for way in WAYS {
        let mut late = None;
        for case in &cases {
            let on = case.word("on").unwrap_or("inbound explicit hop");
            if !on.split_whitespace().any(|name| name == way.name()) {
                continue;
            }
            runs += 1;
            if let Err(what) = run(&ways, way, case, late) {
                deviations.push(format!(
                    "{} ({}; rule {}): {what}",
                    case.name,
                    way.name(),
                    case.rules.join(", ")
                ));
                std::thread::sleep(Duration::from_millis(50));
                ways.backend.take();
            }
            let cut = case.word("cut").is_some();
            late = cut.then(|| ways.backend.last());
        }
    }
    say(&format!(
        "raw HTTP/2: {} cases, {runs} runs over three ways, {} deviations",
        cases.len(),
        deviations.len()
    ));
    assert!(deviations.is_empty(), "{}", deviations.join("\n\n"));
    assert!(
        only.is_some() || cases.len() >= 60,
        "only {} cases",
        cases.len()
    );
}
