//! Raw bytes in, verdicts and normalised bytes out: the cases of RFC 9112 and of smuggling research.

use std::{future::poll_fn, task::Poll};

use bytes::BytesMut;
use mesh_model::snapshot::decide::RequestView as _;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{
    Connection, HeadError, ReadError,
    verdict::{judge, request_by, response_by},
    write::{self, RequestExtras, ResponseExtras},
};
use crate::http::{
    body::{BodyError, BodyEvent},
    message::{Form, Framing, Request, Response, Version},
};

fn request(text: &str) -> Result<Request, HeadError> {
    request_by(text.as_bytes(), usize::MAX)
}

fn response(text: &str, head_request: bool) -> Result<Response, HeadError> {
    response_by(text.as_bytes(), head_request, usize::MAX)
}

fn written(request: &Request) -> String {
    let mut out = BytesMut::new();
    let extras = RequestExtras {
        default_host: "default",
        expect: true,
    };
    write::request(&mut out, request, &extras);
    String::from_utf8(out.to_vec()).unwrap()
}

/// Requests that are accepted, and what is sent on.
const GOOD: &[(&str, &str)] = &[
    (
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\n\r\n",
    ),
    (
        "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\n\r\n",
    ),
    (
        "GET / HTTP/1.0\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: default\r\n\r\n",
    ),
    (
        "GET /a?b=c&d HTTP/1.1\r\nhost:a:80\r\n\r\n",
        "GET /a?b=c&d HTTP/1.1\r\nhost: a:80\r\n\r\n",
    ),
    (
        "GET /? HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /? HTTP/1.1\r\nhost: a\r\n\r\n",
    ),
    (
        "GET http://b:1/x HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /x HTTP/1.1\r\nhost: b:1\r\n\r\n",
    ),
    (
        "GET HTTP://b HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: b\r\n\r\n",
    ),
    (
        "GET http://b?q HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /?q HTTP/1.1\r\nhost: b\r\n\r\n",
    ),
    (
        "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n",
    ),
    (
        "OPTIONS http://b HTTP/1.1\r\nHost: a\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nhost: b\r\n\r\n",
    ),
    (
        "CONNECT b:443 HTTP/1.1\r\nHost: b:443\r\n\r\n",
        "CONNECT b:443 HTTP/1.1\r\nhost: b:443\r\n\r\n",
    ),
    (
        "M-SEARCH / HTTP/1.1\r\nHost: a\r\n\r\n",
        "M-SEARCH / HTTP/1.1\r\nhost: a\r\n\r\n",
    ),
    (
        "GET / HTTP/1.1\r\nHost: [::1]:8\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: [::1]:8\r\n\r\n",
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nX-A:  b \t\r\nX-A:\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nX-A: b\r\nX-A: \r\n\r\n",
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nX: \u{e9}\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nX: \u{e9}\r\n\r\n",
    ),
    (
        "GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /%C3%A9 HTTP/1.1\r\nhost: a\r\n\r\n",
    ),
    (
        "GET /a/../b%2f;c//d HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /a/../b%2f;c//d HTTP/1.1\r\nhost: a\r\n\r\n",
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n",
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\n",
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 005\r\nContent-Length: 5\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\n",
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551615\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 18446744073709551615\r\n\r\n",
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \tChunked \r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n",
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nX-End: 2\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nX-End: 2\r\n\r\n",
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: host, content-length, x-forwarded-for, authorization\r\nX-Forwarded-For: 1\r\nAuthorization: x\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nX-Forwarded-For: 1\r\nAuthorization: x\r\n\r\n",
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nKeep-Alive: 5\r\nProxy-Connection: x\r\nHTTP2-Settings: x\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\n\r\n",
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\n\r\n",
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\n\r\n",
    ),
    (
        "GET / HTTP/1.0\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\n\r\n",
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nTE: trailers, deflate\r\nConnection: te\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nte: trailers\r\nconnection: te\r\n\r\n",
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nExpect: 100-continue\r\n\r\n",
    ),
    (
        "GET / HTTP/1.0\r\nHost: a\r\nExpect: 100-continue\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\n\r\n",
    ),
    (
        "GET / HTTP/1.2\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\n\r\n",
    ),
    (
        "GET /a|b\\c?{\"d\"}[e] HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /a%7Cb%5Cc?%7B%22d%22%7D[e] HTTP/1.1\r\nhost: a\r\n\r\n",
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nContent_Length: 5\r\nX_Forwarded_For: b\r\nX_A: c\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nX_A: c\r\n\r\n",
    ),
];

/// Requests that are refused, with the status.
const BAD: &[(&str, u16)] = &[
    // First line.
    ("GET / HTTP/1.1\nHost: a\n\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\n\n", 400),
    ("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET /  HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (" GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET /\r\nHost: a\r\n\r\n", 400),
    ("GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400),
    ("GET / HTTP/1.1 x\r\nHost: a\r\n\r\n", 400),
    ("GET / http/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET / HTTP/11\r\nHost: a\r\n\r\n", 400),
    ("GET / HTTP/1.10\r\nHost: a\r\n\r\n", 400),
    ("GET / HTTP/1,1\r\nHost: a\r\n\r\n", 400),
    ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
    ("GET / HTTP/0.9\r\nHost: a\r\n\r\n", 505),
    ("GET /\r HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET /a\0 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET /%4 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (
        "TRACE / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n",
        400,
    ),
    ("GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET b:443 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET https://b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET http://u@b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET http://b:x/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET http://b\\c/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("CONNECT b HTTP/1.1\r\nHost: b\r\n\r\n", 400),
    ("CONNECT / HTTP/1.1\r\nHost: b\r\n\r\n", 400),
    ("CONNECT http://b:1/ HTTP/1.1\r\nHost: b\r\n\r\n", 400),
    (
        "CONNECT b:1 HTTP/1.1\r\nHost: b\r\nContent-Length: 3\r\n\r\n",
        400,
    ),
    ("G(T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET: / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (
        "ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFGHIJ / HTTP/1.1\r\nHost: a\r\n\r\n",
        400,
    ),
    // Host.
    ("GET / HTTP/1.1\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nhOST: b\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a:\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a:+8\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a?b\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\\b\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a%00\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 400),
    ("GET http://a/ HTTP/1.1\r\nHost: a, b\r\n\r\n", 400),
    ("GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", 400),
    // Field lines.
    ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX\t: b\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\n X: b\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n\tc\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX(: b\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX\u{e9}: b\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: b\0\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: b\rc\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: b\r\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: \x7f\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX\0: b\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: b\x0b\r\n\r\n", 400),
    // Content-Length.
    (
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\n",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5 5\r\n\r\n",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5,5\r\n\r\n",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 6\r\n\r\n",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\n",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5.0\r\n\r\n",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5;\r\n\r\n",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551616\r\n\r\n",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        400,
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
        400,
    ),
    // Transfer-Encoding.
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n",
        400,
    ),
    (
        "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \r\n\r\n",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        501,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked,\r\n\r\n",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;q=1\r\n\r\n",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n",
        400,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: foo, x-gzip ,Chunked\r\n\r\n",
        501,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
        400,
    ),
    // Connection.
    ("GET / HTTP/1.1\r\nHost: a\r\nConnection: a b\r\n\r\n", 400),
];

#[test]
fn good_requests_are_normalised() {
    for (text, wanted) in GOOD {
        let found = request(text).unwrap_or_else(|fault| panic!("{text:?}: {fault}"));
        assert_eq!(written(&found), *wanted, "{text:?}");
    }
}

#[test]
fn bad_requests_are_refused() {
    for (text, status) in BAD {
        let fault = request(text).expect_err(text);
        assert_ne!(fault, HeadError::Truncated, "{text:?}");
        assert_eq!(fault.status(), *status, "{text:?}: {fault}");
    }
}

/// What is sent on is accepted again and means the same: nobody behind us can read it otherwise.
#[test]
fn what_is_written_reads_the_same() {
    for (text, _) in GOOD {
        let first = request(text).unwrap();
        let second = request(&written(&first)).unwrap();
        assert_eq!(written(&second), written(&first));
        assert_eq!(
            (second.framing, second.raw_path()),
            (first.framing, first.raw_path())
        );
    }
}

#[test]
fn cuts_do_not_matter() {
    let all = GOOD
        .iter()
        .map(|(text, _)| text)
        .chain(BAD.iter().map(|(text, _)| text));
    for text in all {
        judge(text.as_bytes());
        let whole = request(text).map(|request| written(&request));
        for piece in [1, 2, 3, 5, 17] {
            let cut = request_by(text.as_bytes(), piece).map(|request| written(&request));
            assert_eq!(cut, whole, "{text:?} by {piece}");
        }
    }
}

#[test]
fn wishes() {
    for (text, persistent) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", true),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: CLOSE\r\n\r\n",
            false,
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, close\r\n\r\n",
            false,
        ),
        ("GET / HTTP/1.0\r\n\r\n", false),
        ("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", true),
        (
            "GET / HTTP/1.0\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n",
            false,
        ),
    ] {
        assert_eq!(
            request(text).unwrap().wishes.persistent,
            persistent,
            "{text:?}"
        );
    }
    let grpc = "POST /s/m HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc+proto\r\n\r\n";
    assert!(request(grpc).unwrap().wishes.grpc);
    let web = "POST /s/m HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc-web\r\n\r\n";
    assert!(!request(web).unwrap().wishes.grpc);
    let old = "GET / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n";
    assert!(!request(old).unwrap().wishes.expects_continue);
    assert_eq!(
        request("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n")
            .unwrap()
            .form,
        Form::Authority
    );
}

#[test]
fn bounds_have_their_own_status() {
    let line = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(17_000));
    assert_eq!(request(&line).unwrap_err().status(), 414);
    let head = format!(
        "GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
        "a".repeat(70_000)
    );
    assert_eq!(request(&head).unwrap_err().status(), 431);
    let many = format!(
        "GET / HTTP/1.1\r\nHost: a\r\n{}\r\n",
        "X: y\r\n".repeat(100)
    );
    assert_eq!(request(&many).unwrap_err().status(), 431);
    let enough = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(99));
    assert!(request(&enough).is_ok());
    let options = format!(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: {}\r\n\r\n",
        "a,".repeat(40)
    );
    assert_eq!(request(&options).unwrap_err().status(), 400);
}

#[test]
fn good_responses() {
    for (text, head, status, framing, persistent) in [
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
            false,
            200,
            Framing::Length(5),
            true,
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            false,
            200,
            Framing::None,
            true,
        ),
        (
            "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
            false,
            200,
            Framing::None,
            true,
        ),
        (
            "HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n",
            false,
            200,
            Framing::None,
            true,
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            false,
            200,
            Framing::Streamed,
            true,
        ),
        ("HTTP/1.1 200 OK\r\n\r\n", false, 200, Framing::Close, false),
        (
            "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n",
            false,
            200,
            Framing::Length(5),
            false,
        ),
        (
            "HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\n",
            false,
            200,
            Framing::Length(5),
            true,
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
            true,
            200,
            Framing::None,
            true,
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            true,
            200,
            Framing::None,
            true,
        ),
        (
            "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
            false,
            204,
            Framing::None,
            true,
        ),
        (
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
            false,
            304,
            Framing::None,
            true,
        ),
        (
            "HTTP/1.1 100 Continue\r\n\r\n",
            false,
            100,
            Framing::None,
            true,
        ),
        (
            "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n",
            false,
            103,
            Framing::None,
            true,
        ),
        (
            "HTTP/1.1 599 x\r\nConnection: close\r\nContent-Length: 1\r\n\r\n",
            false,
            599,
            Framing::Length(1),
            false,
        ),
    ] {
        let found = response(text, head).unwrap_or_else(|fault| panic!("{text:?}: {fault}"));
        assert_eq!(
            (found.status, found.framing, found.persistent),
            (status, framing, persistent),
            "{text:?}"
        );
    }
    assert_eq!(
        response("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", true)
            .unwrap()
            .told_length,
        Some(5)
    );
    assert_eq!(
        response("HTTP/1.1 204 x\r\nContent-Length: 5\r\n\r\n", true)
            .unwrap()
            .told_length,
        None
    );
}

#[test]
fn bad_responses() {
    for text in [
        "HTTP/1.1 99 x\r\n\r\n",
        "HTTP/1.1 600 x\r\n\r\n",
        "HTTP/1.1 2000 x\r\n\r\n",
        "HTTP/1.1 2x0 x\r\n\r\n",
        "HTTP/1.1  200 x\r\n\r\n",
        "HTTP/1.1\t200 x\r\n\r\n",
        "HTTP/2.0 200 x\r\n\r\n",
        "HTTP/0.9 200 x\r\n\r\n",
        "http/1.1 200 x\r\n\r\n",
        "<html>\r\n\r\n",
        "ICY 200 OK\r\n\r\n",
        "HTTP/1.1 200 x\0\r\n\r\n",
        "HTTP/1.1 200 x\n\r\n",
        "HTTP/1.1 200 x\r\nA: b\n\r\n",
        "HTTP/1.1 200 x\r\nA : b\r\n\r\n",
        "HTTP/1.1 200 x\r\nA: b\r\n c\r\n\r\n",
        "HTTP/1.1 200 x\r\nA: b\0\r\n\r\n",
        "HTTP/1.1 200 x\r\nContent-Length: x\r\n\r\n",
        "HTTP/1.1 200 x\r\nContent-Length: 1, 1\r\n\r\n",
        "HTTP/1.1 200 x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "HTTP/1.1 200 x\r\nContent-Length: +1\r\n\r\n",
        "HTTP/1.1 200 x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        "HTTP/1.1 200 x\r\nTransfer-Encoding: x\r\n\r\n",
        "HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
        "HTTP/1.0 200 x\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 20\r\n\r\n",
        "HTTP/1.1\r\n\r\n",
        "\r\n\r\n",
        "HTTP/1.1 200 x\r\n: b\r\n\r\n",
        "HTTP/1.1 200 x\r\nConnection: a b\r\n\r\n",
    ] {
        let fault = response(text, false).expect_err(text);
        assert_ne!(fault, HeadError::Truncated, "{text:?}");
    }
}

#[test]
fn answers_are_written_for_their_caller() {
    let source = "HTTP/1.1 200 Fine\r\nConnection: x-a\r\nKeep-Alive: 5\r\nX-A: 1\r\nX-B: 2\r\nContent-Length: 5\r\n\r\n";
    for (framing, version, persistent, wanted) in [
        (
            Framing::Length(5),
            Version::Http11,
            true,
            "HTTP/1.1 200 Fine\r\nX-B: 2\r\ncontent-length: 5\r\n\r\n",
        ),
        (
            Framing::Streamed,
            Version::Http11,
            false,
            "HTTP/1.1 200 Fine\r\nX-B: 2\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n",
        ),
        (
            Framing::Length(5),
            Version::Http10,
            true,
            "HTTP/1.1 200 Fine\r\nX-B: 2\r\ncontent-length: 5\r\nconnection: keep-alive\r\n\r\n",
        ),
        (
            Framing::Close,
            Version::Http10,
            false,
            "HTTP/1.1 200 Fine\r\nX-B: 2\r\nconnection: close\r\n\r\n",
        ),
        (
            Framing::None,
            Version::Http11,
            true,
            "HTTP/1.1 200 Fine\r\nX-B: 2\r\ncontent-length: 0\r\n\r\n",
        ),
    ] {
        let found = response(source, false).unwrap();
        let mut out = BytesMut::new();
        write::response(
            &mut out,
            &found,
            &ResponseExtras {
                framing,
                version,
                persistent,
            },
        );
        assert_eq!(String::from_utf8_lossy(&out), wanted);
    }
    let mut out = BytesMut::new();
    let found = response(source, true).unwrap();
    let extras = ResponseExtras {
        framing: Framing::None,
        version: Version::Http11,
        persistent: true,
    };
    write::response(&mut out, &found, &extras);
    assert!(String::from_utf8_lossy(&out).contains("content-length: 5\r\n"));
}

/// Everything that a connection reads: heads and bodies, until an end or a fault.
async fn heard(bytes: &[u8], cuts: &[usize]) -> Vec<String> {
    let (mut peer, own) = tokio::io::duplex(64);
    let feed = async move {
        let mut from = 0;
        for cut in cuts.iter().copied().chain([bytes.len()]) {
            let cut = cut.clamp(from, bytes.len());
            if peer.write_all(bytes.get(from..cut).unwrap()).await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
            from = cut;
        }
        // What the other side sends is of no interest; its end is.
        drop(peer.shutdown().await);
        let mut rest = Vec::new();
        drop(peer.read_to_end(&mut rest).await);
    };
    let listen = async move {
        let mut wire = Connection::new(own, BytesMut::new());
        let mut told = Vec::new();
        loop {
            match poll_fn(|cx| wire.poll_whole(cx)).await {
                Ok(()) => {}
                Err(ReadError::Closed) => break told,
                Err(fault) => {
                    told.push(format!("{fault}"));
                    break told;
                }
            }
            let mut request = Request::default();
            if let Err(fault) = wire.read_request(&mut request) {
                told.push(format!("{fault}"));
                break told;
            }
            told.push(format!("{} {}", request.method(), request.raw_path()));
            let mut body = Vec::new();
            let ended = poll_fn(|cx| {
                loop {
                    match wire.poll_body(cx) {
                        Poll::Ready(Ok(BodyEvent::Data { length, .. })) => {
                            body.extend_from_slice(wire.front(length));
                            wire.consume(length);
                        }
                        Poll::Ready(Ok(BodyEvent::End)) => return Poll::Ready(Ok(())),
                        Poll::Ready(Err(fault)) => return Poll::Ready(Err(fault)),
                        Poll::Pending => return Poll::Pending,
                    }
                }
            })
            .await;
            told.push(String::from_utf8_lossy(&body).into_owned());
            if let Some(trailers) = wire.take_trailers() {
                told.push(format!("{} trailers", trailers.len()));
            }
            if let Err(fault) = ended {
                assert!(matches!(fault, BodyError::Malformed(_)), "{fault}");
                told.push("cut".to_owned());
                break told;
            }
        }
    };
    let ((), told) = tokio::join!(feed, listen);
    told
}

const PIPELINE: &[u8] = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n\
POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\nhello world\
POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n1\r\n \r\n5\r\nthere\r\n0\r\nX-T: 1\r\n\r\n\
POST /d HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n\r\n\
GET /e HTTP/1.1\r\nHost: a\r\n\r\n";

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// However the bytes are cut, the same is heard.
    #[test]
    fn cuts_do_not_change_what_is_heard(
        mut cuts in proptest::collection::vec(0..PIPELINE.len(), 0..12),
        end in 0..=PIPELINE.len(),
    ) {
        cuts.sort_unstable();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let bytes = PIPELINE.get(..end).unwrap();
        let whole = runtime.block_on(heard(bytes, &[]));
        let cut = runtime.block_on(heard(bytes, &cuts));
        prop_assert_eq!(whole, cut);
    }

    /// Whatever comes, a verdict is given without a panic, and the same for any cut.
    #[test]
    fn noise_is_judged_alike(bytes in proptest::collection::vec(
        prop_oneof![Just(b'\r'), Just(b'\n'), Just(b':'), Just(b' '), Just(b'/'), Just(b'H'), any::<u8>()], 0..200,
    ), piece in 1usize..20) {
        let head = [b"GET / HTTP/1.1\r\nHost: a\r\n".as_slice(), &bytes, b"\r\n\r\n"].concat();
        let whole = request_by(&head, usize::MAX / 2).map(|request| written_bytes(&request));
        let cut = request_by(&head, piece).map(|request| written_bytes(&request));
        prop_assert_eq!(whole, cut);
        judge(&head);
        judge(&bytes);
    }
}

fn written_bytes(request: &Request) -> Vec<u8> {
    let mut out = BytesMut::new();
    write::request(&mut out, request, &RequestExtras::default());
    out.to_vec()
}

#[tokio::test]
async fn pipelines_are_heard_in_order() {
    let told = heard(PIPELINE, &[]).await;
    let wanted = [
        "GET /a",
        "",
        "POST /b",
        "hello world",
        "POST /c",
        "hello there",
        "1 trailers",
        "POST /d",
        "",
        "GET /e",
        "",
    ];
    assert_eq!(told, wanted);
}

#[tokio::test]
async fn truncation_is_a_fault() {
    for text in [
        "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel",
        "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
    ] {
        assert_eq!(
            heard(text.as_bytes(), &[]).await.last().unwrap(),
            "cut",
            "{text:?}"
        );
    }
    let head = heard(b"GET / HTTP/1.1\r\nHost", &[]).await;
    assert_eq!(head, [HeadError::Truncated.to_string()]);
}
