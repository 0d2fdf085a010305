//! Signs of life of a member whose watch is silent.

use std::{io, time::Duration};

use etcd_client::{GetOptions, KvClient};
use tokio::time::{sleep, timeout};

use super::failure::failed;
use crate::source::SourceError;

/// Between two signs of life, and for one.
const PROBE: (Duration, Duration) = (Duration::from_secs(7), Duration::from_secs(3));

/// Asks for a sign of life again and again: the watch of a member that is cut off from the others, or of a
/// user who may not read any more, would only be silent. Ends with what is wrong.
pub(super) async fn probe(
    mut kv: KvClient,
    subject: &str,
    prefix: String,
    cluster: u64,
) -> SourceError {
    // Any key that may be read at all.
    let key = if prefix.is_empty() {
        "\0".to_owned()
    } else {
        prefix
    };
    let options = GetOptions::new().with_count_only();
    let mut highest = 0;
    loop {
        sleep(PROBE.0.mul_f64(0.9 + 0.2 * fastrand::f64())).await;
        let answer = match timeout(PROBE.1, kv.get(&*key, Some(options.clone()))).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return failed(subject, error),
            Err(_late) => {
                return SourceError::Transport {
                    subject: subject.to_owned(),
                    cause: io::ErrorKind::TimedOut.into(),
                };
            }
        };
        let header = answer
            .header()
            .map(|header| (header.cluster_id(), header.revision()));
        match header {
            Some((id, revision)) if id == cluster && revision >= highest => highest = revision,
            _ => {
                return SourceError::Protocol {
                    subject: subject.to_owned(),
                    what: "it is another cluster now".into(),
                };
            }
        }
    }
}
