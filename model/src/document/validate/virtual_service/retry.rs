//! Retries and time-outs of a `VirtualService`'s HTTP routes.

use super::super::positive;
use crate::{
    document::virtual_service::{HttpRetries, HttpRoute, RETRY_ON},
    written::{At, choice},
};

/// Words that are read and have no meaning here.
const FOREIGN: [(&str, &str); 3] = [
    ("envoy-ratelimited", "it is a header of Envoy's"),
    (
        "retriable-headers",
        "it needs headers that Istio cannot name",
    ),
    ("http3-post-connect-failure", "HTTP/3 is not spoken"),
];

pub(super) fn retries(route: &HttpRoute, at: &At<'_>) {
    let Some(retries) = &route.retries else {
        return;
    };
    let here = at.key("retries");
    if retries.attempts.is_some_and(|attempts| attempts > 20) {
        here.key("attempts")
            .fault("is out of range", "write 0 to 20");
    }
    let each = retries.per_try_timeout;
    positive(each, &here.key("perTryTimeout"));
    if let (Some(whole), Some(each)) = (route.timeout, each)
        && !whole.0.is_zero()
        && each > whole
    {
        here.key("perTryTimeout").fault(
            "is longer than that of the whole request",
            "make it at most `timeout`",
        );
    }
    if retries.attempts == Some(0) && retries.retry_on.is_some() {
        here.key("retryOn")
            .note("never acts: 0 attempts switch retries off");
    }
    conditions(retries, &here.key("retryOn"));
    if retries.retry_remote_localities == Some(false) {
        here.key("retryRemoteLocalities")
            .note("a retry goes wherever the balancing sends it, other localities included");
    }
    if retries.retry_ignore_previous_hosts == Some(false) {
        here.key("retryIgnorePreviousHosts")
            .note("a retry never goes to an endpoint already tried while another is left");
    }
}

fn conditions(retries: &HttpRetries, at: &At<'_>) {
    for word in retries.retry_on.as_deref().unwrap_or_default().split(',') {
        let word = word.trim();
        if word.is_empty() || RETRY_ON.contains(&word) {
            if let Some((_, why)) = FOREIGN.iter().find(|(name, _)| *name == word) {
                at.note(format!("{word} never acts: {why}"));
            }
            continue;
        }
        let status = word.len() == 3 && word.bytes().all(|digit| digit.is_ascii_digit());
        if !status {
            at.fault(
                format!("{word:?} is no condition of a retry"),
                choice(word, &RETRY_ON),
            );
        } else if !word.starts_with(['4', '5']) {
            at.fault(
                format!("{word} is no status to try again on"),
                "write 400 to 599",
            );
        }
    }
}
