//! Raw requests of HTTP/1 over every way, judged by the bytes that the back end received.

use mesh_tests::process::say;

use super::{
    backend::Seen,
    client::{Answer, Client},
    corpus::{self, Case},
    strict::Message,
    ways::{WAYS, Way, Ways, ways},
};

/// Sent behind what must be refused: nothing behind it may be processed.
const BEHIND: &[u8] = b"GET /behind HTTP/1.1\r\nHost: raw\r\n\r\n";
/// Requests longer than this are not sent byte by byte.
const APART: usize = 3000;

/// What must follow.
#[derive(Debug)]
enum Wanted {
    /// This status, the connection closed, nothing at the back end.
    Refused(u16),
    /// This status and the connection closed; of the body's head the back end may have seen a part.
    Broken(u16),
    /// The connection closed without an answer.
    Closed,
    /// This status from the mesh itself; the connection stays.
    Answered(u16),
    /// Exactly these messages; and then.
    Forwarded(Vec<Expected>, Then),
}

impl Wanted {
    /// The back end may get a part of a message.
    fn may_be_cut(&self) -> bool {
        matches!(self, Self::Broken(_) | Self::Closed)
    }
}

/// What becomes of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Kept,
    Closed,
    /// What follows is refused with this status.
    Refused(u16),
}

/// A message that the back end must get.
#[derive(Debug, Default, Clone)]
pub struct Expected {
    head: Vec<String>,
    body: Vec<u8>,
    trailers: Vec<(String, String)>,
}

fn wanted(case: &Case, client: &str) -> Wanted {
    let mut then = Then::Kept;
    for (word, rest) in &case.lines {
        let status = || {
            rest.trim()
                .parse()
                .unwrap_or_else(|_| panic!("{}: {word} {rest}", case.name))
        };
        match word.as_str() {
            "refused" => return Wanted::Refused(status()),
            "broken" => return Wanted::Broken(status()),
            "closed" => return Wanted::Closed,
            "answered" => return Wanted::Answered(status()),
            "close" => then = Then::Closed,
            "then" => then = Then::Refused(status()),
            "forwarded" | ">" | "{client}" | ">>" | ">t" | "|" | "." | "on" | "end" | "http10"
            | "alone" => {}
            other => panic!("{}: {other}?", case.name),
        }
    }
    let all = expected(case, client);
    assert!(!all.is_empty(), "{}: nothing is expected", case.name);
    Wanted::Forwarded(all, then)
}

/// The messages that the back end must have got.
pub fn expected(case: &Case, client: &str) -> Vec<Expected> {
    let mut all = Vec::<Expected>::new();
    for (word, rest) in &case.lines {
        let text = || {
            let bytes = corpus::unescape(&rest.replace("{ip}", client));
            bytes
                .iter()
                .map(|byte| char::from(*byte))
                .collect::<String>()
        };
        if word == "forwarded" {
            all.push(Expected::default());
        }
        let Some(last) = all.last_mut() else { continue };
        match word.as_str() {
            ">" => last.head.push(text()),
            ">>" => last.body.extend(corpus::unescape(rest)),
            ">t" => {
                let text = text();
                let (name, value) = text.split_once(": ").unwrap();
                last.trailers.push((name.to_owned(), value.to_owned()));
            }
            "{client}" => {
                last.head.push(format!("x-forwarded-for: {client}"));
                last.head.push("x-forwarded-proto: http".to_owned());
            }
            _ => {}
        }
    }
    all
}

/// Names without case and order, for what was carried by HTTP/2.
fn sorted(head: &[String]) -> (String, Vec<(String, String)>) {
    let mut fields: Vec<(String, String)> = head
        .iter()
        .skip(1)
        .map(|line| line.split_once(": ").unwrap_or((line, "")))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    fields.sort();
    (head.first().cloned().unwrap_or_default(), fields)
}

/// How an empty body is said does not matter where HTTP/2 lies between.
fn without_empty_framing(
    mut head: (String, Vec<(String, String)>),
    body: &[u8],
) -> (String, Vec<(String, String)>) {
    if body.is_empty() {
        head.1
            .retain(|(name, _)| name != "content-length" && name != "transfer-encoding");
    }
    head
}

/// What differs.
pub fn compare(way: Way, found: &Message, wanted: &Expected) -> Result<(), String> {
    let head: Vec<String> = found.head.split('\n').map(str::to_owned).collect();
    let same = match way {
        Way::Hop => {
            let plain = |head: &[String]| without_empty_framing(sorted(head), &wanted.body);
            plain(&head) == plain(&wanted.head)
        }
        _ => head == wanted.head,
    };
    let trailers = |all: &[(String, String)]| -> Vec<(String, String)> {
        let mut all: Vec<_> = all
            .iter()
            .map(|(name, value)| (name.to_ascii_lowercase(), value.clone()))
            .collect();
        all.sort();
        all
    };
    if !same {
        return Err(format!("forwarded {head:#?}\nwanted {:#?}", wanted.head));
    }
    if found.body != wanted.body {
        return Err(format!(
            "body {:?}, wanted {:?}",
            String::from_utf8_lossy(&found.body),
            String::from_utf8_lossy(&wanted.body)
        ));
    }
    if trailers(&found.trailers) != trailers(&wanted.trailers) {
        return Err(format!(
            "trailers {:?}, wanted {:?}",
            found.trailers, wanted.trailers
        ));
    }
    Ok(())
}

fn says_close(message: &Message) -> bool {
    message
        .all("connection")
        .any(|value| value.eq_ignore_ascii_case("close"))
}

/// One case over one way; what deviates.
fn run(ways: &Ways, way: Way, case: &Case, apart: bool, late: &Late) -> Result<(), String> {
    let wanted = wanted(case, &ways.client(way));
    let bytes = case.bytes();
    let http10 = case.word("http10").is_some();
    let mut client = Client::new(ways.dial(way));
    client.send(&bytes, apart);
    let alone = case.word("alone").is_some() || case.word("end").is_some();
    let refused = matches!(
        wanted,
        Wanted::Refused(_) | Wanted::Broken(_) | Wanted::Closed
    );
    if refused && !alone {
        client.send(BEHIND, false);
    }
    if case.word("end").is_some() {
        client.end();
    }
    let ended = |client: &mut Client| match client.answer(false, false) {
        Answer::End => Ok(()),
        other => Err(format!("the connection was not closed: {other:?}")),
    };
    match &wanted {
        Wanted::Refused(status) | Wanted::Broken(status) => {
            match client.answer(false, http10) {
                Answer::Whole(message) if message.status() == *status && says_close(&message) => {}
                other => return Err(format!("wanted {status} and close, got {other:?}")),
            }
            ended(&mut client)?;
        }
        Wanted::Closed => match client.answer(false, http10) {
            Answer::End | Answer::Cut(_) => {}
            // A server may tell before it closes (RFC 9112 section 8).
            Answer::Whole(message) if message.status() == 400 && says_close(&message) => {
                ended(&mut client)?;
            }
            other => return Err(format!("wanted an end, got {other:?}")),
        },
        Wanted::Answered(status) => match client.answer(false, http10) {
            Answer::Whole(message) if message.status() == *status && !says_close(&message) => {}
            other => return Err(format!("wanted {status}, got {other:?}")),
        },
        Wanted::Forwarded(all, then) => {
            for (index, expected) in all.iter().enumerate() {
                let head = expected
                    .head
                    .first()
                    .is_some_and(|line| line.starts_with("HEAD "));
                let target = expected.head[0].split(' ').nth(1).unwrap_or_default();
                let last = index + 1 == all.len();
                match client.answer(head, http10) {
                    Answer::Whole(message)
                        if message.status() == 200
                            && (head || message.body == target.as_bytes())
                            && says_close(&message) == (last && *then == Then::Closed) => {}
                    other => return Err(format!("answer {index}: {other:?}")),
                }
            }
            match then {
                Then::Closed => ended(&mut client)?,
                Then::Kept => {
                    client.send(b"GET /again HTTP/1.1\r\nHost: raw\r\n\r\n", false);
                    match client.answer(false, false) {
                        Answer::Whole(message) if message.body == b"/again" => {}
                        other => return Err(format!("the connection was not kept: {other:?}")),
                    }
                }
                Then::Refused(status) => {
                    match client.answer(false, false) {
                        Answer::Whole(message)
                            if message.status() == *status && says_close(&message) => {}
                        other => return Err(format!("wanted {status} then, got {other:?}")),
                    }
                    ended(&mut client)?;
                }
            }
        }
    }
    drop(client);
    seen(ways, way, &wanted, late)
}

/// What cases before may still be sending to the back end.
#[derive(Default)]
struct Late {
    /// The last connection, when the last case may have been cut.
    connection: Option<u64>,
    /// The first lines of all that their caller left: a busy mesh dials for them when the next case has begun.
    lines: Vec<Vec<u8>>,
}

impl Late {
    fn follow(&mut self, ways: &Ways, case: &Case) {
        let wanted = wanted(case, "");
        self.connection = wanted.may_be_cut().then(|| ways.backend.last());
        if matches!(wanted, Wanted::Closed) {
            self.lines.push(first_line(&case.bytes()).to_vec());
        }
    }

    fn may_be(&self, connection: u64, bytes: &[u8]) -> bool {
        let known = |line: &Vec<u8>| line == first_line(bytes);
        self.connection.is_some_and(|last| connection <= last) || self.lines.iter().any(known)
    }
}

fn first_line(bytes: &[u8]) -> &[u8] {
    bytes
        .split(|byte| *byte == b'\n')
        .next()
        .unwrap_or_default()
}

/// What the back end has seen: exactly what was wanted, and then a probe of another caller.
fn seen(ways: &Ways, way: Way, wanted: &Wanted, late: &Late) -> Result<(), String> {
    let mut probe = Client::new(ways.dial(way));
    probe.send(
        b"GET /probe HTTP/1.1\r\nHost: raw\r\nConnection: close\r\n\r\n",
        false,
    );
    match probe.answer(false, false) {
        Answer::Whole(message) if message.body == b"/probe" => {}
        other => return Err(format!("the next caller got {other:?}")),
    }
    let mut requests = Vec::new();
    for seen in ways.backend.take() {
        match seen {
            Seen::Request(_, message)
                if matches!(message.line[1].as_str(), "/probe" | "/again") => {}
            Seen::Request(_, message) => requests.push(message),
            // The back end may read the end of what was cut before only now.
            Seen::Cut(id, bytes) => {
                if !wanted.may_be_cut() && !late.may_be(id, &bytes) {
                    return Err(format!(
                        "a cut message: {:?}",
                        String::from_utf8_lossy(&bytes)
                    ));
                }
            }
            Seen::Malformed(why, bytes) => {
                return Err(format!(
                    "not strict: {why}: {:?}",
                    String::from_utf8_lossy(&bytes)
                ));
            }
        }
    }
    let all: &[Expected] = match wanted {
        Wanted::Forwarded(all, _) => all,
        _ => &[],
    };
    if requests.len() != all.len() {
        return Err(format!(
            "the back end got {} messages, wanted {}: {requests:#?}",
            requests.len(),
            all.len()
        ));
    }
    requests
        .iter()
        .zip(all)
        .try_for_each(|(found, wanted)| compare(way, found, wanted))
}

#[test]
fn raw_requests() {
    mesh_tests::need!(namespaces);
    let ways = ways();
    let only = std::env::var("WIRE_ONLY").ok();
    let cases: Vec<Case> = corpus::load("requests")
        .into_iter()
        .filter(|case| only.as_ref().is_none_or(|only| case.name.contains(only)))
        .collect();
    let (mut runs, mut deviations) = (0, Vec::new());
    for way in WAYS {
        let mut late = Late::default();
        for case in &cases {
            let on = case.word("on").unwrap_or("inbound explicit hop");
            if !on.split_whitespace().any(|name| name == way.name()) {
                continue;
            }
            let apart = case.bytes().len() <= APART;
            for apart in [false, true].into_iter().take(1 + usize::from(apart)) {
                runs += 1;
                if let Err(what) = run(&ways, way, case, apart, &late) {
                    let how = if apart { ", byte by byte" } else { "" };
                    deviations.push(format!(
                        "{} ({}{how}; rule {}): {what}",
                        case.name,
                        way.name(),
                        case.rules.join(", ")
                    ));
                    ways.backend.take();
                }
                late.follow(&ways, case);
            }
        }
    }
    say(&format!(
        "raw requests: {} cases, {runs} runs over three ways, {} deviations",
        cases.len(),
        deviations.len()
    ));
    assert!(deviations.is_empty(), "{}", deviations.join("\n\n"));
    assert!(
        only.is_some() || cases.len() >= 300,
        "only {} cases",
        cases.len()
    );
}
