//! Answers of the admin socket: JSON values, refusals, and streams of JSON lines.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use hyper::{Response, StatusCode, header};
use mesh_model::admin::Refusal;
use serde::Serialize;

/// An answer.
pub(crate) type Answer = Response<BoxBody<Bytes, std::convert::Infallible>>;

/// What a request function yields: a value that becomes 200, or the answer that explains why not.
pub(crate) type Outcome<T> = Result<T, Refused>;

/// A refusal with its status.
#[derive(Debug)]
pub(crate) struct Refused {
    /// HTTP status.
    pub(crate) status: StatusCode,
    /// The JSON body, a [`Refusal`] or a richer object.
    pub(crate) body: serde_json::Value,
}

/// A refusal: status, code, what, remedy.
pub(crate) fn refuse(status: u16, code: &str, what: impl Into<String>, remedy: &str) -> Refused {
    let refusal = Refusal {
        code: code.to_owned(),
        what: what.into(),
        remedy: remedy.to_owned(),
    };
    Refused {
        status: StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
        body: serde_json::to_value(refusal).unwrap_or_default(),
    }
}

/// JSON with a status.
pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    let body = serde_json::to_vec(value).unwrap_or_default();
    bytes(status, "application/json", Bytes::from(body))
}

/// Bytes with a status and type.
pub(crate) fn bytes(status: StatusCode, kind: &'static str, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body).boxed());
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    answer
}

/// The answer for an outcome.
pub(crate) fn from_outcome<T: Serialize>(outcome: Outcome<T>) -> Answer {
    match outcome {
        Ok(value) => json(StatusCode::OK, &value),
        Err(refused) => json(refused.status, &refused.body),
    }
}

/// 404.
pub(crate) fn unknown(path: &str) -> Answer {
    from_outcome::<()>(Err(refuse(
        404,
        "unknown-path",
        format!("{path} is no path of the admin API"),
        "use a meshctl of the daemon's version",
    )))
}
