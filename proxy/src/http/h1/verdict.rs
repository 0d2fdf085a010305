//! Reads whole heads however their bytes come, and judges the judge: for tests and the fuzzer.

use bytes::BytesMut;

use super::{
    HeadError, request, response,
    scan::{Scan, Scanned, Section},
    write::{self, RequestExtras, ResponseExtras},
};
use crate::http::message::{Request, Response};

/// Reads one request head that comes in pieces of `piece` bytes.
pub(crate) fn request_by(bytes: &[u8], piece: usize) -> Result<Request, HeadError> {
    let mut request = Request::default();
    request::read(whole(Section::Request, bytes, piece)?, &mut request)?;
    Ok(request)
}

/// Reads one head of an answer, to HEAD or not, that comes in pieces of `piece` bytes.
pub(crate) fn response_by(
    bytes: &[u8],
    head_request: bool,
    piece: usize,
) -> Result<Response, HeadError> {
    let mut response = Response::default();
    let head = whole(Section::Response, bytes, piece)?;
    response::read(head, head_request, &mut response)?;
    Ok(response)
}

fn whole(section: Section, bytes: &[u8], piece: usize) -> Result<&[u8], HeadError> {
    let mut scan = Scan::new(section);
    let mut seen = 0;
    loop {
        let at_hand = bytes.get(..seen).unwrap_or_default();
        if let Scanned::Whole { start, end } = scan.advance(at_hand)? {
            return Ok(at_hand.get(start..end).unwrap_or_default());
        }
        if seen == bytes.len() {
            return Err(HeadError::Truncated);
        }
        seen = seen.saturating_add(piece).min(bytes.len());
    }
}

/// Any bytes as the head of a request and of an answer: one verdict in one piece and cut at every place,
/// and a request that is accepted is accepted as it is sent on, and is sent on the same again.
pub(crate) fn judge(bytes: &[u8]) {
    let request = sent_on(bytes, usize::MAX);
    assert_eq!(request, sent_on(bytes, 1));
    if let Ok(head) = request {
        match sent_on(&head, usize::MAX) {
            Ok(again) => assert_eq!(again, head),
            // What the writer adds may exceed a bound that the head just met.
            Err(fault) => assert!(
                matches!(
                    fault,
                    HeadError::LineTooLong | HeadError::HeadTooLarge | HeadError::TooManyFields
                ),
                "{fault}"
            ),
        }
    }
    for head_request in [false, true] {
        let response = answered(bytes, head_request, usize::MAX);
        assert_eq!(response, answered(bytes, head_request, 1));
    }
}

fn sent_on(bytes: &[u8], piece: usize) -> Result<Vec<u8>, HeadError> {
    let extras = RequestExtras {
        default_host: "default",
        expect: true,
    };
    request_by(bytes, piece).map(|request| {
        let mut out = BytesMut::new();
        write::request(&mut out, &request, &extras);
        out.to_vec()
    })
}

fn answered(bytes: &[u8], head_request: bool, piece: usize) -> Result<Vec<u8>, HeadError> {
    response_by(bytes, head_request, piece).map(|response| {
        let mut out = BytesMut::new();
        let extras = ResponseExtras {
            framing: response.framing,
            version: response.version,
            persistent: response.persistent,
        };
        write::response(&mut out, &response, &extras);
        out.to_vec()
    })
}
