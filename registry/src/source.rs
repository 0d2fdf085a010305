//! What a source is: it runs until it fails, and reports whole sets of endpoints.

use std::{convert::Infallible, time::Duration};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::{demand::Demand, sink::Sink};

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

/// How a source is doing, as it says itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum SourceStatus {
    /// Nothing complete was read since it was started.
    #[default]
    Connecting,
    /// What is published is what the registry has.
    Synced,
    /// Part of it is older: an error stands in the way.
    Degraded {
        /// The error, one line.
        error: String,
    },
    /// The registry refuses the credentials.
    AuthFailed {
        /// The error, one line.
        error: String,
    },
}

impl SourceStatus {
    /// The word used in tables and metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Synced => "synced",
            Self::Degraded { .. } => "degraded",
            Self::AuthFailed { .. } => "auth-failed",
        }
    }
    /// The error, if any.
    pub fn error(&self) -> Option<&str> {
        match self {
            Self::Degraded { error } | Self::AuthFailed { error } => Some(error),
            Self::Connecting | Self::Synced => None,
        }
    }
}

impl From<&SourceError> for SourceStatus {
    fn from(error: &SourceError) -> Self {
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(error);
        while let Some(inner) = cause {
            text.push_str(": ");
            text.push_str(&inner.to_string());
            cause = inner.source();
        }
        match error {
            SourceError::Auth(_) => Self::AuthFailed { error: text },
            _ => Self::Degraded { error: text },
        }
    }
}

/// When a set was read, in the registry's own terms. An older set never replaces a newer one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// Consul's and Nomad's index.
    Index(u64),
    /// etcd's revision, inside one cluster.
    Revision {
        /// The cluster's id.
        cluster: u64,
        /// The revision.
        revision: u64,
    },
    /// `ZooKeeper`'s transaction id.
    Zxid(i64),
    /// The hash of the content: order is the order of reading.
    Hash(u64),
    /// Milliseconds since the epoch on the registry's clock.
    Clock(u64),
    /// Read from disk at boot: everything is newer.
    Saved,
}

impl Version {
    /// True when `self` is certainly older than `other`: same kind, same cluster, smaller.
    pub fn is_older_than(self, other: Self) -> bool {
        match (self, other) {
            (Self::Index(mine), Self::Index(theirs)) | (Self::Clock(mine), Self::Clock(theirs)) => {
                mine < theirs
            }
            (Self::Zxid(mine), Self::Zxid(theirs)) => mine < theirs,
            (
                Self::Revision {
                    cluster: here,
                    revision: mine,
                },
                Self::Revision {
                    cluster: there,
                    revision: theirs,
                },
            ) => here == there && mine < theirs,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_comparable_versions_are_older() {
        assert!(Version::Index(1).is_older_than(Version::Index(2)));
        assert!(!Version::Index(2).is_older_than(Version::Index(2)));
        assert!(!Version::Index(1).is_older_than(Version::Saved));
        assert!(!Version::Hash(1).is_older_than(Version::Hash(2)));
        let at = |cluster, revision| Version::Revision { cluster, revision };
        assert!(at(1, 5).is_older_than(at(1, 6)));
        assert!(
            !at(1, 5).is_older_than(at(2, 6)),
            "a new cluster counts from the start"
        );
    }

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
