//! What etcd's errors mean: pure.

use std::io;

use etcd_client::Error;
use mesh_model::cause::chain;
use tonic::Code;

use crate::source::SourceError;

/// The error as the failure of a source that read `subject`.
pub(crate) fn failed(subject: &str, error: Error) -> SourceError {
    let subject = subject.to_owned();
    match error {
        Error::GRpcStatus(status) if is_refusal(status.code(), status.message()) => {
            SourceError::Auth(format!("{subject} ({})", status.message()))
        }
        Error::GRpcStatus(status) if status.code() == Code::ResourceExhausted => {
            SourceError::Throttled {
                retry_after: std::time::Duration::from_secs(1),
            }
        }
        Error::GRpcStatus(status) => SourceError::Transport {
            cause: io::Error::other(match std::error::Error::source(&status) {
                Some(cause) => chain(cause),
                None => status.message().to_owned(),
            }),
            subject,
        },
        Error::IoError(cause) => SourceError::Transport { subject, cause },
        other => SourceError::Protocol {
            subject,
            what: other.to_string(),
        },
    }
}

/// True when the server has no users, so that none is to be named.
pub(crate) fn is_without_auth(error: &Error) -> bool {
    matches!(error, Error::GRpcStatus(status) if status.message().contains("authentication is not enabled"))
}

/// True when the wanted revision is not there any more, or not yet: a whole read is needed.
pub(crate) fn is_compacted(error: &Error) -> bool {
    matches!(error, Error::GRpcStatus(status) if status.code() == Code::OutOfRange && status.message().contains("revision"))
}

/// True when a lease is not there: not a failure of the connection.
pub(crate) fn is_leaseless(error: &Error) -> bool {
    match error {
        Error::GRpcStatus(status) => status.message().contains("lease not found"),
        Error::LeaseKeepAliveError(text) => text.contains("lease not found"),
        _ => false,
    }
}

/// True when an answer is larger than the bound.
pub(crate) fn is_too_large(error: &Error) -> bool {
    matches!(error, Error::GRpcStatus(status) if status.message().contains("length too large"))
}

/// True when the text is about credentials: the code alone does not tell for all of them.
pub(crate) fn is_refusal(code: Code, text: &str) -> bool {
    let told = [
        "permission denied",
        "authentication failed",
        "user name is empty",
        "invalid auth token",
        "user name not found",
    ];
    matches!(code, Code::Unauthenticated | Code::PermissionDenied)
        || told.iter().any(|part| text.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Status;

    fn status(code: Code, text: &str) -> Error {
        Error::GRpcStatus(Status::new(code, text))
    }

    #[test]
    fn what_etcd_says() {
        let auth = |code, text| matches!(failed("x", status(code, text)), SourceError::Auth(_));
        assert!(auth(
            Code::PermissionDenied,
            "etcdserver: permission denied"
        ));
        assert!(auth(
            Code::InvalidArgument,
            "etcdserver: authentication failed, invalid user ID or password"
        ));
        assert!(auth(
            Code::InvalidArgument,
            "etcdserver: user name is empty"
        ));
        assert!(auth(
            Code::Unauthenticated,
            "etcdserver: invalid auth token"
        ));
        assert!(!auth(Code::Unavailable, "etcdserver: no leader"));
        assert!(!auth(
            Code::InvalidArgument,
            "etcdserver: revision of auth store is old"
        ));
        assert!(is_without_auth(&status(
            Code::FailedPrecondition,
            "etcdserver: authentication is not enabled"
        )));
        assert!(is_compacted(&status(
            Code::OutOfRange,
            "etcdserver: mvcc: required revision has been compacted"
        )));
        assert!(is_compacted(&status(
            Code::OutOfRange,
            "etcdserver: mvcc: required revision is a future revision"
        )));
        let large = status(
            Code::OutOfRange,
            "Error, decoded message length too large: found 9 bytes, the limit is: 5 bytes",
        );
        assert!(is_too_large(&large) && !is_compacted(&large));
        assert!(matches!(
            failed(
                "x",
                status(Code::ResourceExhausted, "etcdserver: too many requests")
            ),
            SourceError::Throttled { .. }
        ));
    }
}
