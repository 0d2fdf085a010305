//! Heads of programs: what is taken, as what, and what is refused.

use super::*;

type Field<'f> = (&'f str, &'f str);

fn head_of(fields: &[Field<'_>]) -> Head {
    let mut head = Head::default();
    for (name, value) in fields {
        head.push(name.as_bytes(), value.as_bytes());
    }
    head
}

fn read_of(peer: Peer, fields: &[Field<'_>], ended: bool) -> Result<Request, HeadError> {
    let mut request = Request::default();
    request_from(&head_of(fields), ended, peer, &mut request).map(|()| request)
}

/// A request of a program: these fields of HTTP/2's own, and these others.
fn asked(pseudo: &[Field<'_>], others: &[Field<'_>], ended: bool) -> Result<Request, HeadError> {
    read_of(Peer::Program, &[pseudo, others].concat(), ended)
}

fn get<'f>(authority: &'f str, path: &'f str) -> [Field<'f>; 4] {
    [
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", authority),
        (":path", path),
    ]
}

#[test]
fn requests_come_in() {
    let post = [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "web:80"),
        (":path", "/a?b"),
    ];
    let fields = [("content-length", "5"), ("te", "trailers")];
    let request = asked(&post, &fields, false).unwrap();
    assert_eq!(request.authority(), Some("web:80"));
    assert_eq!(
        (request.method(), request.raw_path(), request.raw_query()),
        ("POST", "/a", Some("b"))
    );
    assert_eq!(request.framing, Framing::Length(5));
    assert!(request.wishes.takes_trailers);
    let [method, scheme, _, path] = get("", "/x");
    let request = asked(&[method, scheme, path], &[("host", "web")], true).unwrap();
    assert_eq!(
        (request.authority(), request.framing),
        (Some("web"), Framing::None)
    );
    assert!(asked(&get("WEB", "/"), &[("host", "web")], true).is_ok());
}

#[test]
fn extended_connects_come_in_as_upgrades() {
    let connect = |protocol| {
        [
            (":method", "CONNECT"),
            (":protocol", protocol),
            (":scheme", "http"),
            (":authority", "web"),
            (":path", "/chat?a"),
        ]
    };
    let fields = [("sec-websocket-version", "13")];
    let request = asked(&connect("websocket"), &fields, false).unwrap();
    assert_eq!((request.method(), request.raw_path()), ("GET", "/chat"));
    assert_eq!(
        (request.upgrade_name(), request.framing),
        (Some("websocket"), Framing::None)
    );
    assert!(request.extended && request.form == Form::Origin);
    for refused in ["h2c", "a b", ""] {
        let read = asked(&connect(refused), &fields, false);
        assert_eq!(read.unwrap_err(), HeadError::Target);
    }
    let sized = asked(&connect("websocket"), &[("content-length", "3")], false);
    assert_eq!(sized.unwrap_err(), HeadError::ContentLength);
    // No daemon asks in this way.
    let daemon = read_of(Peer::Daemon, &connect("websocket"), false);
    assert_eq!(daemon.unwrap_err(), HeadError::Method);
}

#[test]
fn connects_name_an_address() {
    let connect = [(":method", "CONNECT"), (":authority", "web:80")];
    let request = asked(&connect, &[], false).unwrap();
    assert_eq!(
        (request.form, request.authority()),
        (Form::Authority, Some("web:80"))
    );
    let alone = [(":method", "CONNECT")];
    for (pseudo, others, wanted) in [
        (vec![(":authority", "web")], vec![], HeadError::Target),
        (
            vec![(":authority", "web:80"), (":path", "/")],
            vec![],
            HeadError::StartLine,
        ),
        (vec![], vec![("host", "web:80")], HeadError::Host),
        (
            vec![(":authority", "web:80")],
            vec![("content-length", "0")],
            HeadError::ContentLength,
        ),
    ] {
        let read = asked(&[&alone[..], &pseudo].concat(), &others, false);
        assert_eq!(read.unwrap_err(), wanted, "{pseudo:?} {others:?}");
    }
}

#[test]
fn bounds_are_those_of_http1() {
    let names: Vec<String> = (0..=FIELD_LIMIT)
        .map(|number| format!("x-{number}"))
        .collect();
    let fields: Vec<Field<'_>> = names.iter().map(|name| (name.as_str(), "y")).collect();
    let most = &fields[..FIELD_LIMIT];
    assert!(asked(&get("web", "/"), most, true).is_ok());
    let read = asked(&get("web", "/"), &fields, true);
    assert_eq!(read.unwrap_err(), HeadError::TooManyFields);
    let long = format!("/{}", "a".repeat(LINE_LIMIT));
    let read = asked(&get("web", &long), &[], true);
    assert_eq!(read.unwrap_err(), HeadError::LineTooLong);
    let large = "a".repeat(link::head::LIMIT);
    let read = asked(&get("web", "/"), &[("x", &large)], true);
    assert_eq!(read.unwrap_err(), HeadError::HeadTooLarge);
}

#[test]
fn malformed_requests_are_refused() {
    let none: &[Field<'_>] = &[];
    for (authority, path, others, wanted) in [
        ("a", "*", none, HeadError::Target),
        ("a", "x", none, HeadError::Target),
        ("a", "/a#b", none, HeadError::Target),
        ("a", "/#", none, HeadError::Target),
        ("a", "/%00", none, HeadError::Target),
        ("a", "/%0", none, HeadError::Target),
        ("a", "/a b", none, HeadError::Target),
        ("a", "", none, HeadError::StartLine),
        ("u@a", "/", none, HeadError::Host),
        ("", "/", none, HeadError::Host),
        ("a", "/", &[("host", "b")], HeadError::Host),
        ("a", "/", &[("host", "a"), ("host", "a")], HeadError::Host),
        ("a", "/", &[("connection", "close")], HeadError::Connection),
        ("a", "/", &[("keep-alive", "1")], HeadError::Connection),
        ("a", "/", &[("te", "gzip")], HeadError::Connection),
        (
            "a",
            "/",
            &[("transfer-encoding", "chunked")],
            HeadError::Connection,
        ),
        (
            "a",
            "/",
            &[("content-length", "x")],
            HeadError::ContentLength,
        ),
        (
            "a",
            "/",
            &[("content-length", "1")],
            HeadError::ContentLength,
        ),
        ("a", "/", &[("X", "y")], HeadError::FieldName),
        ("a", "/", &[("x\"a", "y")], HeadError::FieldName),
        ("a", "/", &[("x", " y")], HeadError::FieldValue),
        ("a", "/", &[("x", "y\n")], HeadError::FieldValue),
        ("a", "/", &[(":path", "/")], HeadError::StartLine),
        ("a", "/", &[(":foo", "/")], HeadError::StartLine),
        ("a", "/", &[(":protocol", "x")], HeadError::StartLine),
        ("a", "/", &[("x", "y"), (":foo", "/")], HeadError::StartLine),
    ] {
        let read = asked(&get(authority, path), others, true);
        assert_eq!(read.unwrap_err(), wanted, "{authority} {path} {others:?}");
    }
    for missing in 0..4 {
        let mut fields = get("a", "/").to_vec();
        fields.remove(missing);
        assert!(asked(&fields, &[], true).is_err(), "{missing}");
    }
    let [_, _, authority, path] = get("a", "/");
    for (method, scheme, wanted) in [
        ("G T", "http", HeadError::Method),
        ("GET", "ftp", HeadError::Target),
    ] {
        let fields = [(":method", method), (":scheme", scheme), authority, path];
        assert_eq!(asked(&fields, &[], true).unwrap_err(), wanted);
    }
    let trace = [(":method", "TRACE"), (":scheme", "http"), authority, path];
    let read = asked(&trace, &[("content-length", "1")], false);
    assert_eq!(read.unwrap_err(), HeadError::ContentLength);
}

/// A program is held to what a daemon never says.
#[test]
fn trailers() {
    let read = |peer, fields: &[Field<'_>]| fields_from(&head_of(fields), peer);
    for (fields, wanted) in [
        ([("connection", "x")], HeadError::Connection),
        ([("X", "x")], HeadError::FieldName),
        ([(":status", "200")], HeadError::FieldName),
        ([("x", "\n")], HeadError::FieldValue),
    ] {
        let found = read(Peer::Program, &fields).unwrap_err();
        assert_eq!(found, wanted, "{fields:?}");
    }
    let fields = read(Peer::Program, &[("x-sum", "1"), ("host", "a")]).unwrap();
    let names: Vec<_> = fields.iter().map(|(_, name, _)| name.to_vec()).collect();
    assert_eq!(names, [b"x-sum".to_vec()]);
}
