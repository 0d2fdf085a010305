//! One request, and its whole answer.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

use super::{failure::refused, json};
use crate::source::SourceError;

/// One request.
#[derive(Debug, Clone)]
pub struct Request {
    /// The method; safe ones are sent again when an idle connection turns out to be dead.
    pub method: Method,
    /// Path and query, below the path of the address.
    pub path: String,
    /// Fields beside the credentials.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body.
    pub body: Bytes,
    /// For the head of the answer, per server.
    pub deadline: Duration,
}

impl Request {
    /// A GET that is answered within ten seconds.
    pub fn get(path: impl Into<String>) -> Self {
        Self {
            method: Method::GET,
            path: path.into(),
            headers: Vec::new(),
            body: Bytes::new(),
            deadline: Duration::from_secs(10),
        }
    }
    /// With another deadline.
    #[must_use]
    pub fn within(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }
    /// The answer may come packed (gzip); it is read with [`Answer::json`].
    #[must_use]
    pub fn packed(self) -> Self {
        self.with(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip"))
    }
    /// With one more field.
    #[must_use]
    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// What was asked, for messages: address and path without query.
    pub subject: String,
    /// Its status.
    pub status: StatusCode,
    /// Its fields.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Answer {
    /// The answer when its status is 2xx, otherwise what the status means.
    pub fn good(self) -> Result<Self, SourceError> {
        if self.status.is_success() {
            return Ok(self);
        }
        Err(refused(
            self.status,
            &self.subject,
            &self.headers,
            &self.body,
        ))
    }
    /// The body as one JSON document, unpacked on the way where it came packed.
    pub fn json<'de, S: serde::de::DeserializeSeed<'de>>(
        &'de self,
        seed: S,
    ) -> Result<S::Value, SourceError> {
        json::read(self.field("content-encoding"), &self.body, seed).map_err(|what| {
            SourceError::Protocol {
                subject: self.subject.clone(),
                what,
            }
        })
    }
    /// A field as text.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok().map(str::trim)
    }
}
