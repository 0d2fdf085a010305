//! What a request of the admin socket brings: its query and its JSON.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use mesh_model::{name::ServiceId, query::decoded};
use serde::de::DeserializeOwned;

use super::answer::{Outcome, refuse};

/// Longest body of a request, in bytes.
const MAX_BODY: usize = 8 << 20;
/// Longest time that a body takes.
const BODY_TIME: Duration = Duration::from_secs(30);
/// What is told of a fault in a body, in characters: it may quote the body.
const TOLD: usize = 300;

/// The query of a request, decoded.
pub(crate) type Query = BTreeMap<String, String>;

/// The whole body of a request.
pub(crate) async fn body<B>(body: B) -> Outcome<Bytes>
where
    B: hyper::body::Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    body_within(body, BODY_TIME).await
}

async fn body_within<B>(body: B, time: Duration) -> Outcome<Bytes>
where
    B: hyper::body::Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let whole = Limited::new(body, MAX_BODY).collect();
    match tokio::time::timeout(time, whole).await {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(refuse(
            413,
            "body-too-large",
            format!("the body is longer than {} MiB", MAX_BODY >> 20),
            "send less at a time",
        )),
        Ok(Err(error)) => Err(refuse(
            400,
            "bad-request",
            format!("the body cannot be read: {}", short(&error.to_string())),
            "send it again",
        )),
        Err(_late) => Err(refuse(
            408,
            "body-too-slow",
            format!("the body was not whole after {time:?}"),
            "send it again",
        )),
    }
}

fn short(text: &str) -> String {
    match text.char_indices().nth(TOLD) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// The service that a query asks for; `None` when it asks for all.
pub(crate) fn service(query: &Query) -> Outcome<Option<ServiceId>> {
    match query.get("service").filter(|text| !text.is_empty()) {
        None => Ok(None),
        Some(text) => parse_service(text).map(Some),
    }
}

/// A service by its name, or a refusal.
pub(crate) fn parse_service(text: &str) -> Outcome<ServiceId> {
    ServiceId::parse(text).map_err(|error| {
        refuse(
            400,
            "bad-service",
            short(&error.to_string()),
            "write name or namespace/name",
        )
    })
}

/// The request's JSON, or a refusal that says where it is wrong.
pub(crate) fn parse<T: DeserializeOwned>(body: &Bytes) -> Outcome<T> {
    let body: &[u8] = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|error| {
        refuse(
            400,
            "bad-request",
            format!(
                "the body is not the expected JSON: {}",
                short(&error.to_string())
            ),
            "use a meshctl of the daemon's version",
        )
    })
}

/// The pairs of a query string; the last one of a name counts.
pub(crate) fn query(query: &str) -> Query {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let text = |part| String::from_utf8_lossy(&decoded(part)).into_owned();
            (text(key), text(value))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;

    use super::*;

    #[tokio::test]
    async fn a_body_that_is_too_long_is_refused() {
        let fits = Full::new(Bytes::from(vec![b' '; MAX_BODY]));
        assert_eq!(body(fits).await.unwrap().len(), MAX_BODY);
        let over = Full::new(Bytes::from(vec![b' '; MAX_BODY + 1]));
        let refused = body(over).await.unwrap_err();
        assert_eq!(refused.status, 413);
        assert_eq!(refused.body["what"], "the body is longer than 8 MiB");
    }

    #[tokio::test]
    async fn a_body_that_never_ends_is_refused() {
        let never = http_body_util::StreamBody::new(futures_util::stream::pending::<
            Result<hyper::body::Frame<Bytes>, std::io::Error>,
        >());
        let refused = body_within(never, Duration::from_millis(1))
            .await
            .unwrap_err();
        assert_eq!(refused.status, 408);
    }

    #[test]
    fn what_is_told_of_bad_json_is_bounded() {
        for text in ["{", "[1]", "\u{0}", "{\"a\":\"\u{1F980}\"}"] {
            let bad = Bytes::from(text.to_owned());
            let refused = parse::<u8>(&bad).unwrap_err();
            assert_eq!(refused.body["code"], "bad-request", "{text}");
        }
        let long = Bytes::from(format!("\"{}\"", "🦀".repeat(100_000)));
        let refused = parse::<u8>(&long).unwrap_err();
        assert!(refused.body.to_string().len() < 2_000);
        let deep = Bytes::from("[".repeat(1_000_000));
        parse::<serde_json::Value>(&deep).unwrap_err();
    }

    #[test]
    fn queries() {
        let asked = query("service=a%2Fb&x&service=default/web&=y");
        assert_eq!(service(&asked).unwrap().unwrap().to_string(), "default/web");
        assert_eq!(service(&query("")).unwrap(), None);
        let refused = service(&query("service=a/b/c")).unwrap_err();
        assert_eq!(refused.body["code"], "bad-service");
    }
}
