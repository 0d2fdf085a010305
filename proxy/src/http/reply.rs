//! Answers that the mesh makes itself, and names as its own.

use std::fmt::Write as _;

use mesh_model::snapshot::rule::DirectResponse;

use super::{
    convert,
    headers::RequestId,
    message::{Framing, Request, Response, Version},
};
use crate::failure::{Failure, Retry};

/// Writes the head of an answer to a failed request into `response`; its body.
///
/// gRPC gets a trailers-only answer: 200 with `grpc-status`, no body.
pub(crate) fn compose(
    failure: &Failure,
    request: &Request,
    host: &str,
    id: &RequestId,
    response: &mut Response,
) -> String {
    let reply = failure.reply();
    let code = failure.code.as_str();
    let id = id.as_str();
    response.clear();
    response.fields.push(
        convert::ERROR.as_bytes(),
        error(failure, host, id).as_bytes(),
    );
    if request.wishes.grpc && request.version == Version::Http2 {
        response.status = 200;
        response.grpc = true;
        response.fields.push(b"content-type", b"application/grpc");
        response
            .fields
            .push(b"grpc-status", reply.grpc.to_string().as_bytes());
        let text = format!("mesh: {} ({code}, id {id})", reply.text);
        response
            .fields
            .push(b"grpc-message", text.replace('%', "%25").as_bytes());
        if let Some(after) = failure.after {
            let text = after.as_millis().max(1).to_string();
            response
                .fields
                .push(b"grpc-retry-pushback-ms", text.as_bytes());
        }
        return String::new();
    }
    response.status = reply.status;
    if let Some(after) = failure.after {
        // Whole seconds, and never so few that it is too early again.
        let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
        let text = seconds.max(1).to_string();
        response.fields.push(b"retry-after", text.as_bytes());
    }
    text(
        response,
        format!("mesh: {} ({code}; host {host}; id {id})\n", reply.text),
        request,
    )
}

/// The value of `mesh-error`.
fn error(failure: &Failure, host: &str, id: &str) -> String {
    let mut text = String::with_capacity(96);
    let code = failure.code;
    // A code whose requests may have been processed, and this one was not.
    let left_out = failure.retry == Retry::Safe && code.documented().retry == Retry::IfRepeatable;
    let word = if left_out { UNPROCESSED } else { "" };
    // Writing to a string does not fail.
    let written = write!(text, "{}{word}; host={host}; id={id}", code.as_str());
    debug_assert!(written.is_ok());
    text
}

/// What `mesh-error` says behind its code when nobody has looked at the request.
const UNPROCESSED: &str = "; unprocessed";

/// Whether a `mesh-error` that another daemon sent says so.
pub(crate) fn is_left_out(value: &[u8]) -> bool {
    let mut words = value.split(|byte| *byte == b';').skip(1);
    words.any(|word| word.trim_ascii() == b"unprocessed")
}

/// The code in a `mesh-error` that another daemon sent.
pub(crate) fn code_of(value: &[u8]) -> Option<crate::failure::Code> {
    let word = value.split(|byte| *byte == b';').next()?;
    crate::failure::Code::parse(std::str::from_utf8(word).ok()?.trim())
}

/// Writes the head of a redirect into `response`; its body.
pub(crate) fn redirect(
    status: u16,
    location: &str,
    request: &Request,
    response: &mut Response,
) -> String {
    response.clear();
    response.status = status;
    response.fields.push(b"location", location.as_bytes());
    text(response, String::new(), request)
}

/// Writes the head of the answer that a rule asks for into `response`; its body.
pub(crate) fn direct<'d>(
    answer: &'d DirectResponse,
    request: &Request,
    response: &mut Response,
) -> &'d [u8] {
    response.clear();
    response.status = answer.status;
    for (name, value) in &answer.headers {
        response.fields.push(name.as_bytes(), value.as_bytes());
    }
    if matches!(answer.status, 204 | 304) || !frame(answer.body.len(), request, response) {
        return &[];
    }
    &answer.body
}

fn text(response: &mut Response, body: String, request: &Request) -> String {
    if !body.is_empty() {
        response
            .fields
            .push(b"content-type", b"text/plain; charset=utf-8");
        response.fields.push(b"cache-control", b"no-store");
    }
    if frame(body.len(), request, response) {
        body
    } else {
        String::new()
    }
}

/// Says how long the body is; false when none is sent.
fn frame(length: usize, request: &Request, response: &mut Response) -> bool {
    use mesh_model::snapshot::decide::RequestView as _;
    let length = length as u64;
    if request.method() == "HEAD" {
        response.answers_head = true;
        response.told_length = Some(length);
        return false;
    }
    response.framing = if length == 0 {
        Framing::None
    } else {
        Framing::Length(length)
    };
    length > 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Code;

    #[test]
    fn errors_name_themselves() {
        let id = RequestId::fresh();
        let failure = Failure::new(Code::NoEndpoint, "secret cause");
        let (mut request, mut response) = (Request::default(), Response::default());
        request.set_method(b"GET");
        let body = compose(&failure, &request, "alpha", &id, &mut response);
        assert_eq!(response.status, 503);
        assert!(body.contains("no-endpoint") && !body.contains("secret"));
        let value = response
            .fields
            .named(b"mesh-error")
            .next()
            .unwrap()
            .to_vec();
        assert_eq!(
            value,
            format!("no-endpoint; host=alpha; id={}", id.as_str()).into_bytes()
        );
        assert_eq!(code_of(&value), Some(Code::NoEndpoint));

        assert!(!is_left_out(&value));
        let failure = Failure::new(Code::UpstreamReset, "").with_retry(Retry::Safe);
        compose(&failure, &request, "alpha", &id, &mut response);
        let value = response.fields.named(b"mesh-error").next().unwrap();
        assert_eq!(code_of(value), Some(Code::UpstreamReset));
        assert!(is_left_out(value));

        request.set_method(b"HEAD");
        assert_eq!(compose(&failure, &request, "alpha", &id, &mut response), "");
        assert!(response.told_length.is_some());

        request.version = Version::Http2;
        request.wishes.grpc = true;
        assert_eq!(compose(&failure, &request, "alpha", &id, &mut response), "");
        assert_eq!((response.status, response.grpc_status()), (200, Some(14)));
    }
}
