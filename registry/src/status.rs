//! How a source is doing, as it says itself.

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
