//! An independent reader of HTTP/1 that forgives nothing: it judges what meshd sends, both ways.
//!
//! Source: RFC 9112 and RFC 3986, in the narrowest form. It shares no line with the codec under test.

/// A message that was read to its end.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Message {
    /// First line and field lines as they came, without the empty line.
    pub head: String,
    /// The first line, split.
    pub line: [String; 3],
    /// Names as they came, and values.
    pub fields: Vec<(String, String)>,
    /// The body without its framing.
    pub body: Vec<u8>,
    /// The trailers.
    pub trailers: Vec<(String, String)>,
}

/// What bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    /// A message, and how many bytes it took.
    Whole(Box<Message>, usize),
    /// The beginning of one.
    Partial,
}

impl Message {
    /// The values of a name in any case.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.fields
            .iter()
            .filter(move |(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The value of a name that stands once.
    pub fn one<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.all(name).next()
    }

    /// The status of an answer.
    pub fn status(&self) -> u16 {
        self.line[1].parse().unwrap_or(0)
    }
}

fn token(text: &[u8]) -> bool {
    !text.is_empty()
        && text
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

/// `/` and what RFC 3986 allows behind it; square brackets stay, as `docs/wire.md` says.
fn origin_form(target: &[u8]) -> bool {
    let plain =
        |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?[]%".contains(byte);
    let path = target
        .split(|byte| *byte == b'?')
        .next()
        .unwrap_or_default();
    let mut rest = path;
    while let Some(at) = rest.iter().position(|byte| *byte == b'%') {
        let digits = rest.get(at + 1..at + 3);
        if !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
            return false;
        }
        rest = &rest[at + 3..];
    }
    target.first() == Some(&b'/') && target.iter().all(plain)
}

fn host(value: &str) -> bool {
    let (name, port) = match value.strip_prefix('[') {
        Some(rest) => {
            let Some((name, rest)) = rest.split_once(']') else {
                return false;
            };
            if name.parse::<std::net::Ipv6Addr>().is_err() {
                return false;
            }
            ("v6", rest.to_owned())
        }
        None => match value.split_once(':') {
            Some((name, port)) => (name, format!(":{port}")),
            None => (value, String::new()),
        },
    };
    let port_is_good = port.is_empty()
        || port.strip_prefix(':').is_some_and(|port| {
            port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok()
        });
    let name_is_good = !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte));
    port_is_good && name_is_good
}

fn field(line: &[u8]) -> Result<(String, String), String> {
    let shown = || String::from_utf8_lossy(line).into_owned();
    let colon = line
        .iter()
        .position(|byte| *byte == b':')
        .ok_or_else(|| format!("no colon: {:?}", shown()))?;
    let (name, value) = line.split_at(colon);
    if !token(name) {
        return Err(format!("field name: {:?}", shown()));
    }
    let value = value
        .strip_prefix(b": ")
        .ok_or_else(|| format!("not one space: {:?}", shown()))?;
    if value
        .iter()
        .any(|byte| (*byte < 0x20 && *byte != b'\t') || *byte == 0x7f)
    {
        return Err(format!("control byte: {:?}", shown()));
    }
    if matches!(value.first(), Some(b' ' | b'\t')) || matches!(value.last(), Some(b' ' | b'\t')) {
        return Err(format!("space around a value: {:?}", shown()));
    }
    let text = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|byte| char::from(*byte))
            .collect::<String>()
    };
    Ok((text(name), text(value)))
}

/// Lines, and where the text behind the empty one begins.
type Lines<'b> = (Vec<&'b [u8]>, usize);

/// Lines up to the empty one. Every line ends in CRLF and nothing else.
fn lines(bytes: &[u8]) -> Result<Option<Lines<'_>>, String> {
    let (mut all, mut at) = (Vec::new(), 0);
    loop {
        let rest = &bytes[at..];
        let Some(end) = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
            return Ok(None);
        };
        match rest.get(end..end + 2) {
            Some(b"\r\n") => {}
            None if rest[end] == b'\r' => return Ok(None),
            _ => return Err("a line that does not end in CRLF".to_owned()),
        }
        at += end + 2;
        if end == 0 {
            return Ok(Some((all, at)));
        }
        all.push(&rest[..end]);
    }
}

enum Body {
    Length(usize),
    Chunked,
    Close,
}

fn framing(message: &Message) -> Result<Option<Body>, String> {
    let lengths: Vec<&str> = message.all("content-length").collect();
    let encodings: Vec<&str> = message.all("transfer-encoding").collect();
    match (lengths.as_slice(), encodings.as_slice()) {
        ([], []) => Ok(None),
        ([length], [])
            if !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit()) =>
        {
            Ok(Some(Body::Length(
                length
                    .parse()
                    .map_err(|error| format!("length {length}: {error}"))?,
            )))
        }
        ([], ["chunked"]) => Ok(Some(Body::Chunked)),
        _ => Err(format!("framing: {lengths:?} {encodings:?}")),
    }
}

/// Reads one request.
pub fn request(bytes: &[u8]) -> Result<Read, String> {
    let Some((lines, at)) = lines(bytes)? else {
        return Ok(Read::Partial);
    };
    let Some((first, rest)) = lines.split_first() else {
        return Err("an empty line before the request".to_owned());
    };
    let parts: Vec<&[u8]> = first.split(|byte| *byte == b' ').collect();
    let [method, target, b"HTTP/1.1"] = parts.as_slice() else {
        return Err(format!(
            "request line: {:?}",
            String::from_utf8_lossy(first)
        ));
    };
    let good = token(method)
        && match *method {
            b"CONNECT" => host(&String::from_utf8_lossy(target)),
            b"OPTIONS" if *target == b"*" => true,
            _ => origin_form(target),
        };
    if !good {
        return Err(format!(
            "request line: {:?}",
            String::from_utf8_lossy(first)
        ));
    }
    let mut message = message(first, &parts, rest)?;
    let hosts: Vec<&str> = message.all("host").collect();
    if !matches!(hosts.as_slice(), [one] if host(one)) {
        return Err(format!("host: {hosts:?}"));
    }
    for name in [
        "keep-alive",
        "proxy-connection",
        "http2-settings",
        "proxy-authenticate",
    ] {
        if message.one(name).is_some() {
            return Err(format!("a field of one hop: {name}"));
        }
    }
    let options: Vec<String> = message
        .all("connection")
        .flat_map(|value| value.split(','))
        .map(|option| option.trim().to_ascii_lowercase())
        .collect();
    for option in &options {
        if !matches!(option.as_str(), "upgrade" | "te" | "close") {
            return Err(format!("connection: {option}"));
        }
    }
    if message.one("upgrade").is_some() != options.iter().any(|option| option == "upgrade") {
        return Err("upgrade and its option do not stand together".to_owned());
    }
    let framing = framing(&message)?.unwrap_or(Body::Length(0));
    body(&bytes[at..], at, &framing, &mut message)
}

/// Reads one answer; `bodiless` to HEAD, `http10` when the caller spoke HTTP/1.0, `ended` when no more comes.
pub fn response(bytes: &[u8], bodiless: bool, http10: bool, ended: bool) -> Result<Read, String> {
    let Some((lines, at)) = lines(bytes)? else {
        return Ok(Read::Partial);
    };
    let Some((first, rest)) = lines.split_first() else {
        return Err("an empty line before the answer".to_owned());
    };
    let mut parts = first.splitn(3, |byte| *byte == b' ');
    let (Some(b"HTTP/1.1"), Some(status), Some(reason)) =
        (parts.next(), parts.next(), parts.next())
    else {
        return Err(format!("status line: {:?}", String::from_utf8_lossy(first)));
    };
    if status.len() != 3
        || !status.iter().all(u8::is_ascii_digit)
        || !(b'1'..=b'5').contains(&status[0])
    {
        return Err(format!("status: {:?}", String::from_utf8_lossy(status)));
    }
    let mut message = message(first, &[b"HTTP/1.1", status, reason], rest)?;
    let framing = framing(&message)?;
    let without = bodiless || matches!(message.status(), 100..=199 | 204 | 304);
    if without {
        if message.status() < 200 && framing.is_some() {
            return Err("an interim answer with framing".to_owned());
        }
        return Ok(Read::Whole(Box::new(message), at));
    }
    let framing = match framing {
        Some(Body::Chunked) if http10 => return Err("chunks to HTTP/1.0".to_owned()),
        Some(framing) => framing,
        None if http10 && ended => Body::Close,
        None if http10 => return Ok(Read::Partial),
        None => return Err("an answer without framing".to_owned()),
    };
    body(&bytes[at..], at, &framing, &mut message)
}

fn message(first: &[u8], parts: &[&[u8]], rest: &[&[u8]]) -> Result<Message, String> {
    let text = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|byte| char::from(*byte))
            .collect::<String>()
    };
    let mut message = Message {
        line: [text(parts[0]), text(parts[1]), text(parts[2])],
        ..Message::default()
    };
    let mut head = text(first);
    for line in rest {
        message.fields.push(field(line)?);
        head.push('\n');
        head.push_str(&text(line));
    }
    message.head = head;
    Ok(message)
}

fn body(rest: &[u8], at: usize, framing: &Body, message: &mut Message) -> Result<Read, String> {
    let used = match framing {
        Body::Length(length) if rest.len() < *length => return Ok(Read::Partial),
        Body::Length(length) => {
            message.body = rest[..*length].to_vec();
            *length
        }
        Body::Close => {
            message.body = rest.to_vec();
            rest.len()
        }
        Body::Chunked => match chunks(rest, message)? {
            Some(used) => used,
            None => return Ok(Read::Partial),
        },
    };
    Ok(Read::Whole(Box::new(std::mem::take(message)), at + used))
}

/// Chunks without extensions, the last one and trailers; how many bytes they took.
fn chunks(bytes: &[u8], message: &mut Message) -> Result<Option<usize>, String> {
    let mut at = 0;
    loop {
        let rest = &bytes[at..];
        let digits = rest
            .iter()
            .take_while(|byte| byte.is_ascii_hexdigit())
            .count();
        if digits > 16 {
            return Err("a long chunk size".to_owned());
        }
        match rest.get(digits..digits + 2) {
            Some(b"\r\n") if digits > 0 => {}
            None if rest.len() <= digits || rest[digits] == b'\r' => return Ok(None),
            _ => {
                return Err(format!(
                    "chunk line: {:?}",
                    String::from_utf8_lossy(&rest[..rest.len().min(40)])
                ));
            }
        }
        let text = std::str::from_utf8(&rest[..digits]).map_err(|error| error.to_string())?;
        let size = usize::from_str_radix(text, 16).map_err(|error| error.to_string())?;
        at += digits + 2;
        if size == 0 {
            let Some((lines, used)) = lines(&bytes[at..])? else {
                return Ok(None);
            };
            for line in lines {
                let (name, value) = field(line)?;
                let lower = name.to_ascii_lowercase();
                if [
                    "content-length",
                    "transfer-encoding",
                    "host",
                    "connection",
                    "te",
                    "upgrade",
                    "trailer",
                ]
                .contains(&lower.as_str())
                {
                    return Err(format!("a trailer that frames or routes: {name}"));
                }
                message.trailers.push((name, value));
            }
            return Ok(Some(at + used));
        }
        let Some(data) = bytes.get(at..at + size) else {
            return Ok(None);
        };
        message.body.extend_from_slice(data);
        at += size;
        match bytes.get(at..at + 2) {
            Some(b"\r\n") => at += 2,
            None if bytes.len() <= at || bytes[at] == b'\r' => return Ok(None),
            _ => return Err("no CRLF behind a chunk".to_owned()),
        }
    }
}

#[test]
fn the_judge_is_strict() {
    for good in [
        "GET / HTTP/1.1\r\nhost: a\r\n\r\n",
        "POST /a%2f?b HTTP/1.1\r\nhost: a:80\r\ncontent-length: 2\r\n\r\nab",
        "POST / HTTP/1.1\r\nhost: [::1]\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nx: y\r\n\r\n",
    ] {
        assert!(
            matches!(request(good.as_bytes()), Ok(Read::Whole(_, used)) if used == good.len()),
            "{good:?}"
        );
        for cut in 0..good.len() {
            assert_eq!(
                request(&good.as_bytes()[..cut]),
                Ok(Read::Partial),
                "{good:?} cut at {cut}"
            );
        }
    }
    for bad in [
        "GET / HTTP/1.1\nhost: a\r\n\r\n",
        "GET / HTTP/1.0\r\nhost: a\r\n\r\n",
        "GET  / HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET /\" HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET /%zz HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: u@a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx : b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx: b\r\n c\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\na",
        "GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: Chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1;a\r\nb\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nconnection: x\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nupgrade: x\r\n\r\n",
    ] {
        assert!(request(bad.as_bytes()).is_err(), "{bad:?}");
    }
}
