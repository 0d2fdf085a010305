//! Lines of an answer without end: NDJSON, server-sent events.

use std::{collections::VecDeque, time::Duration};

use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::{HttpError, pool::Connection};
use crate::source::SourceError;

/// Most bytes of one line.
const MAX_LINE: usize = 4 << 20;

/// The lines, as they come.
#[derive(Debug)]
pub struct Lines {
    body: Incoming,
    subject: String,
    silence: Duration,
    partial: Vec<u8>,
    ready: VecDeque<Vec<u8>>,
    /// Kept: the connection ends with its sender.
    _connection: Connection,
}

impl Lines {
    pub(super) fn new(
        body: Incoming,
        subject: String,
        silence: Duration,
        connection: Connection,
    ) -> Self {
        Self {
            body,
            subject,
            silence,
            partial: Vec::new(),
            ready: VecDeque::new(),
            _connection: connection,
        }
    }

    /// The next line without its end; `None` at the end of the stream. A line that was cut off is none.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, SourceError> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Ok(Some(line));
            }
            let frame = tokio::time::timeout(self.silence, self.body.frame())
                .await
                .map_err(|_late| HttpError::Late("line").about(&self.subject))?;
            let Some(frame) = frame else { return Ok(None) };
            let frame = frame.map_err(|error| HttpError::Broken(error).about(&self.subject))?;
            if let Ok(data) = frame.into_data() {
                self.take(&data)?;
            }
        }
    }

    fn take(&mut self, data: &[u8]) -> Result<(), SourceError> {
        for piece in data.split_inclusive(|byte| *byte == b'\n') {
            self.partial.extend_from_slice(piece);
            if self.partial.len() > MAX_LINE {
                return Err(HttpError::TooLarge.about(&self.subject));
            }
            if self.partial.ends_with(b"\n") {
                let mut line = std::mem::take(&mut self.partial);
                while line
                    .last()
                    .is_some_and(|byte| matches!(byte, b'\n' | b'\r'))
                {
                    line.pop();
                }
                self.ready.push_back(line);
            }
        }
        Ok(())
    }
}
