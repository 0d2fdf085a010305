//! What a request of the admin socket brings: its query and its JSON.

use std::collections::BTreeMap;

use bytes::Bytes;
use mesh_model::query::decoded;
use serde::de::DeserializeOwned;

use super::answer::{Outcome, refuse};

/// The query of a request, decoded.
pub(crate) type Query = BTreeMap<String, String>;

/// The request's JSON, or a refusal that says where it is wrong.
pub(crate) fn parse<T: DeserializeOwned>(body: &Bytes) -> Outcome<T> {
    let body: &[u8] = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|error| {
        refuse(
            400,
            "bad-request",
            format!("the body is not the expected JSON: {error}"),
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
