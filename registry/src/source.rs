//! What a source is: it runs until it fails, and reports whole sets of endpoints.

use std::{convert::Infallible, time::Duration};

use async_trait::async_trait;
use mesh_model::cause::chain;
use tokio_util::sync::CancellationToken;

use crate::{demand::Demand, sink::Sink, status::SourceStatus};

/// One place where services are registered. One task runs it; a failure is returned and the supervisor
/// starts it again after a jittered wait, while everything that it reported stays.
#[async_trait]
pub trait Source: Send {
    /// The id of its settings, such as `file/etc`.
    fn id(&self) -> &str;
    /// What it can do.
    fn capabilities(&self) -> Capabilities;
    /// Reports into `out` until it fails; stops early when `stop` is cancelled (the caller drops it then).
    async fn run(
        &mut self,
        out: Sink,
        demand: Demand,
        stop: CancellationToken,
    ) -> Result<Infallible, SourceError>;
}

/// What a source can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// Whether it lists everything or watches what is demanded.
    pub reach: Reach,
    /// True when changes are pushed, false when it polls.
    pub pushes: bool,
    /// True when it knows health.
    pub health: bool,
    /// True when it knows weights.
    pub weights: bool,
    /// The shortest time after which a change may be expected here.
    pub latency: Duration,
}

/// How much of a registry a source reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Everything.
    All,
    /// The services of [`Demand`].
    OnDemand,
}

/// Why a source stopped. It is started again after all of these.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The registry could not be reached or broke off.
    #[error("cannot read {subject}")]
    Transport {
        /// What was read: a path, an address.
        subject: String,
        /// The cause.
        #[source]
        cause: std::io::Error,
    },
    /// The registry refused the credentials.
    #[error("{0} refused the credentials")]
    Auth(String),
    /// The answer made no sense.
    #[error("cannot understand {subject}: {what}")]
    Protocol {
        /// What was read.
        subject: String,
        /// What was wrong with it.
        what: String,
    },
    /// The registry asked to wait.
    #[error("asked to wait {} s", retry_after.as_secs())]
    Throttled {
        /// How long.
        retry_after: Duration,
    },
    /// The settings cannot work; tried again slowly, since a person must act.
    #[error("settings cannot work: {0}")]
    Config(String),
}

impl From<&SourceError> for SourceStatus {
    fn from(error: &SourceError) -> Self {
        let text = chain(error);
        match error {
            SourceError::Auth(_) => Self::AuthFailed { error: text },
            _ => Self::Degraded { error: text },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_told_with_its_cause() {
        let error = SourceError::Transport {
            subject: "/etc/x".into(),
            cause: std::io::Error::other("gone"),
        };
        assert_eq!(
            SourceStatus::from(&error).error(),
            Some("cannot read /etc/x: gone")
        );
        assert_eq!(
            SourceStatus::from(&SourceError::Auth("consul".into())).as_str(),
            "auth-failed"
        );
    }
}
