//! Raw answers of a hostile back end: what the caller sees, and that nobody else sees anything of them.

use std::time::Duration;

use mesh_tests::process::say;

use super::{
    backend::{Seen, Step},
    client::{Answer, Client},
    corpus::{self, Case, unescape},
    strict::Message,
    ways::{WAYS, Way, Ways, ways},
};

/// What the caller must see.
#[derive(Debug, Default)]
struct Wanted {
    interims: Vec<u16>,
    /// Any number of interim answers may come before.
    behind_interims: bool,
    /// `None`: a cut answer.
    status: Option<u16>,
    head: Vec<String>,
    body: Option<Vec<u8>>,
    trailers: Vec<String>,
    /// The caller's connection is closed.
    closed: bool,
    kept: bool,
}

/// What the back end does.
fn steps(case: &Case) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut bytes = Vec::new();
    for (word, rest) in &case.lines {
        let step = match word.as_str() {
            "<" => {
                bytes.extend(unescape(rest));
                bytes.extend_from_slice(b"\r\n");
                continue;
            }
            "<." => {
                bytes.extend(unescape(rest));
                continue;
            }
            "<pause" => Step::Pause,
            "<close" => Step::Close,
            "<reset" => Step::Reset,
            "<endless" => Step::Endless(unescape(rest).repeat(100)),
            _ => continue,
        };
        if !bytes.is_empty() {
            steps.push(Step::Send(std::mem::take(&mut bytes)));
        }
        steps.push(step);
    }
    if !bytes.is_empty() {
        steps.push(Step::Send(bytes));
    }
    steps
}

fn wanted(case: &Case) -> Wanted {
    let mut wanted = Wanted::default();
    let mut said = false;
    for (word, rest) in &case.lines {
        let text = || {
            let bytes = unescape(rest);
            bytes
                .iter()
                .map(|byte| char::from(*byte))
                .collect::<String>()
        };
        match word.as_str() {
            "interim" => wanted.interims.push(rest.parse().unwrap()),
            "sees" if rest == "cut" => said = true,
            "sees" => {
                let (status, more) = rest.split_once(' ').unwrap_or((rest, ""));
                wanted.behind_interims = more == "behind interims";
                wanted.status = Some(status.parse().unwrap());
                said = true;
            }
            ">" => wanted.head.push(text()),
            "{date}" => wanted.head.push("date: {date}".to_owned()),
            ">>" => wanted.body.get_or_insert_default().extend(unescape(rest)),
            ">t" => wanted.trailers.push(text()),
            "kept" => wanted.kept = true,
            "discarded" | "on" | "ask" | "|" | "." | "early" => {}
            "closed" => wanted.closed = true,
            word if word.starts_with('<') => {}
            other => panic!("{}: {other}?", case.name),
        }
    }
    assert!(said, "{}: nothing is expected", case.name);
    wanted
}

/// The head as lines; the value of a well-formed date is left out where a date is wanted.
fn head(message: &Message, wanted: &[String]) -> Vec<String> {
    let dated = wanted.iter().any(|line| line == "date: {date}");
    message
        .head
        .split('\n')
        .map(|line| match line.strip_prefix("date: ") {
            Some(date) if dated && is_date(date) => "date: {date}".to_owned(),
            _ => line.to_owned(),
        })
        .collect()
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 section 5.6.7).
fn is_date(text: &str) -> bool {
    let shape: String = text
        .chars()
        .map(|letter| match letter {
            '0'..='9' => '9',
            'A'..='Z' => 'A',
            'a'..='z' => 'a',
            other => other,
        })
        .collect();
    shape == "Aaa, 99 Aaa 9999 99:99:99 AAA"
}

fn sorted(lines: Vec<String>) -> Vec<String> {
    let mut lines: Vec<String> = lines
        .into_iter()
        .map(|line| match line.split_once(": ") {
            Some((name, value)) => format!("{}: {value}", name.to_ascii_lowercase()),
            None => line,
        })
        .collect();
    lines[1..].sort();
    lines
}

fn check(way: Way, message: &Message, wanted: &Wanted) -> Result<(), String> {
    if !wanted.head.is_empty() {
        let found = head(message, &wanted.head);
        let same = if way == Way::Hop {
            sorted(found.clone()) == sorted(wanted.head.clone())
        } else {
            found == wanted.head
        };
        if !same {
            return Err(format!("saw {found:#?}\nwanted {:#?}", wanted.head));
        }
    }
    if wanted
        .body
        .as_ref()
        .is_some_and(|body| *body != message.body)
    {
        return Err(format!("body {:?}", String::from_utf8_lossy(&message.body)));
    }
    let trailers: Vec<String> = message
        .trailers
        .iter()
        .map(|(name, value)| format!("{}: {value}", name.to_ascii_lowercase()))
        .collect();
    let lower: Vec<String> = wanted
        .trailers
        .iter()
        .map(|line| line.to_ascii_lowercase())
        .collect();
    if wanted.body.is_some() && trailers != lower {
        return Err(format!("trailers {trailers:?}, wanted {lower:?}"));
    }
    Ok(())
}

fn run(ways: &Ways, way: Way, case: &Case) -> Result<(), String> {
    let wanted = wanted(case);
    ways.backend.hang_up();
    ways.backend.take();
    ways.backend
        .answer(steps(case), case.word("early").is_some());
    let ask = case.word("ask").unwrap_or("GET HTTP/1.1");
    let (method, version) = ask.split_once(' ').unwrap();
    let own = case.bytes();
    let bytes = if own.is_empty() {
        format!("{method} /case {version}\r\nHost: raw\r\n\r\n").into_bytes()
    } else {
        own
    };
    let (is_head, http10) = (method == "HEAD", version == "HTTP/1.0");
    let mut client = Client::new(ways.dial(way));
    client.send(&bytes, false);
    let mut interims = Vec::new();
    let answer = loop {
        match client.answer(is_head, http10) {
            Answer::Whole(message) if message.status() < 200 && message.status() != 101 => {
                interims.push(message.status());
            }
            other => break other,
        }
    };
    if !wanted.behind_interims && interims != wanted.interims {
        return Err(format!("interim answers {interims:?}, then {answer:?}"));
    }
    match (&answer, wanted.status) {
        (Answer::End | Answer::Cut(_), None) => {}
        (Answer::Whole(message), Some(status)) if message.status() == status => {
            check(way, message, &wanted)?;
        }
        (Answer::Whole(message), _) => {
            let body = String::from_utf8_lossy(&message.body);
            let seen = ways.backend.take();
            return Err(format!(
                "saw {:?} {body:?}; the back end {seen:?}",
                message.head
            ));
        }
        _ => return Err(format!("saw {answer:?}")),
    }
    if wanted.closed && client.answer(false, false) != Answer::End {
        return Err("the caller's connection was not closed".to_owned());
    }
    drop(client);
    next_caller(ways, way, &wanted)
}

/// The next caller gets its own answer, on the same connection to the back end or on another.
fn next_caller(ways: &Ways, way: Way, wanted: &Wanted) -> Result<(), String> {
    ways.backend.wait_answered();
    let mut probe = Client::new(ways.dial(way));
    for target in ["/probe-one", "/probe-two"] {
        probe.send(
            format!("GET {target} HTTP/1.1\r\nHost: raw\r\n\r\n").as_bytes(),
            false,
        );
        match probe.answer(false, false) {
            Answer::Whole(message)
                if message.status() == 200 && message.body == target.as_bytes() => {}
            other => return Err(format!("the next caller got {other:?}")),
        }
    }
    let (mut of_case, mut of_probe) = (Vec::new(), Vec::new());
    for seen in ways.backend.take() {
        match seen {
            Seen::Request(id, message) if message.line[1].starts_with("/probe") => {
                of_probe.push(id);
            }
            Seen::Request(id, _) | Seen::Cut(id, _) => of_case.push(id),
            Seen::Malformed(why, _) => return Err(format!("not strict: {why}")),
        }
    }
    let again = of_probe.iter().any(|id| of_case.contains(id));
    if of_probe.len() != 2 || again != wanted.kept {
        return Err(format!(
            "connections of the case {of_case:?}, of the next caller {of_probe:?}"
        ));
    }
    Ok(())
}

#[test]
fn raw_responses() {
    mesh_tests::need!(namespaces);
    let ways = ways();
    let only = std::env::var("WIRE_ONLY").ok();
    let cases: Vec<Case> = corpus::load("responses")
        .into_iter()
        .filter(|case| only.as_ref().is_none_or(|only| case.name.contains(only)))
        .collect();
    let (mut runs, mut deviations) = (0, Vec::new());
    for way in WAYS {
        for case in &cases {
            let on = case.word("on").unwrap_or("inbound explicit hop");
            if !on.split_whitespace().any(|name| name == way.name()) {
                continue;
            }
            runs += 1;
            if let Err(what) = run(&ways, way, case) {
                deviations.push(format!(
                    "{} ({}; rule {}): {what}",
                    case.name,
                    way.name(),
                    case.rules.join(", ")
                ));
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }
    say(&format!(
        "raw answers: {} cases, {runs} runs over three ways, {} deviations",
        cases.len(),
        deviations.len()
    ));
    assert!(deviations.is_empty(), "{}", deviations.join("\n\n"));
    assert!(
        only.is_some() || cases.len() >= 80,
        "only {} cases",
        cases.len()
    );
}
