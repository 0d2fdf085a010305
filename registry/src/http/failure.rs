//! Why there is no answer, and what a status that is not 2xx means.

use std::{io, time::Duration};

use http::{HeaderMap, StatusCode, header};

use super::MAX_BODY;
use crate::source::SourceError;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// No address answers.
    #[error("cannot connect")]
    Connect(#[source] io::Error),
    /// The connection broke, or what came was no HTTP.
    #[error("the connection broke")]
    Broken(#[source] hyper::Error),
    /// Nothing came in time.
    #[error("no {0} in time")]
    Late(&'static str),
    /// The body is larger than [`MAX_BODY`].
    #[error("the answer is larger than {MAX_BODY} bytes")]
    TooLarge,
    /// A file with a credential or certificate cannot be used.
    #[error("{path}: {what}")]
    File {
        /// The file.
        path: String,
        /// What is wrong; never its content.
        what: String,
    },
    /// The request cannot be written.
    #[error("{0} cannot be asked")]
    Request(String),
}

impl HttpError {
    /// As the failure of a source that read `subject`.
    pub fn about(self, subject: &str) -> SourceError {
        let subject = subject.to_owned();
        match self {
            Self::Connect(cause) => SourceError::Transport { subject, cause },
            Self::File { path, what } => SourceError::Config(format!("{path}: {what}")),
            Self::Request(what) => SourceError::Config(format!("{what} cannot be asked")),
            Self::TooLarge => SourceError::Protocol {
                subject,
                what: self.to_string(),
            },
            Self::Late(_) => SourceError::Transport {
                subject,
                cause: io::Error::new(io::ErrorKind::TimedOut, self.to_string()),
            },
            Self::Broken(cause) => SourceError::Transport {
                subject,
                cause: io::Error::other(cause),
            },
        }
    }
}

/// What a status that is not 2xx means.
pub(super) fn refused(
    status: StatusCode,
    subject: &str,
    headers: &HeaderMap,
    body: &[u8],
) -> SourceError {
    if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        return SourceError::Auth(subject.to_owned());
    }
    let wait = headers
        .get(header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.trim().parse().ok());
    if status == StatusCode::TOO_MANY_REQUESTS || wait.is_some() {
        let retry_after = Duration::from_secs(wait.unwrap_or(1_u64).min(300));
        return SourceError::Throttled { retry_after };
    }
    let text: String = String::from_utf8_lossy(body).chars().take(160).collect();
    SourceError::Protocol {
        subject: subject.to_owned(),
        what: format!(
            "{} {}",
            status.as_u16(),
            text.replace(char::is_control, " ").trim()
        ),
    }
}
