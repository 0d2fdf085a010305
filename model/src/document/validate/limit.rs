//! Rate limits, faults made on purpose, answers of the mesh's own.

use std::time::Duration;

use super::{at_most, exactly_one, filter, final_status, is_token, part, positive, source};
use crate::{
    document::{
        limit::{
            AbortSpec, DirectResponseSpec, FaultInjectionSpec, LimitBySpec, LimitSpec,
            RateLimitSpec,
        },
        span::GrpcCode,
    },
    written::At,
};

/// Longest time that a limit counts over.
const LONGEST: Duration = Duration::from_hours(24);
/// Longest answer of the mesh's own, bytes.
pub(super) const MAX_BODY: usize = 64 << 10;
/// Longest delay that is made on purpose.
pub(super) const MAX_DELAY: Duration = Duration::from_hours(1);

pub(super) fn rate(limit: &RateLimitSpec, at: &At<'_>) {
    source::targets(&limit.target_refs, &at.key("targetRefs"));
    source::matches(&limit.matches, &at.key("matches"));
    amount(&limit.limit, &at.key("limit"));
    let at = at.key("by");
    at_most(limit.by.len(), 8, &at);
    for (index, one) in limit.by.iter().enumerate() {
        let at = at.index(index);
        if let LimitBySpec::Header(name) = one
            && !is_token(name)
        {
            at.key("header").fault(
                format!("{name:?} is no header name"),
                "use letters, digits and - (RFC 9110 section 5.6.2)",
            );
        }
        let same = |other: &LimitBySpec| match (other, one) {
            (LimitBySpec::Header(a), LimitBySpec::Header(b)) => a.eq_ignore_ascii_case(b),
            _ => other == one,
        };
        if limit.by.iter().take(index).any(same) {
            at.fault("is written twice", "leave one of them");
        }
    }
}

fn amount(limit: &LimitSpec, at: &At<'_>) {
    if limit.requests == 0 {
        at.key("requests").fault(
            "0 lets nothing through",
            "write at least 1; to refuse calls write an AuthorizationPolicy",
        );
    }
    let per = limit.per.0;
    if per.is_zero() {
        at.key("per").fault(
            format!("{} requests in no time are no limit", limit.requests),
            "write a span such as 1s",
        );
    } else if per < Duration::from_millis(1) || per > LONGEST {
        at.key("per")
            .fault("is too short or too long", "write 1ms to 24h");
    }
    if limit.burst == Some(0) {
        at.key("burst").fault(
            "0 lets nothing through",
            "write at least 1, or leave it out",
        );
    }
}

pub(super) fn fault(fault: &FaultInjectionSpec, at: &At<'_>) {
    source::targets(&fault.target_refs, &at.key("targetRefs"));
    source::matches(&fault.matches, &at.key("matches"));
    if fault.delay.is_none() && fault.abort.is_none() && fault.bandwidth.is_none() {
        at.fault("makes no fault", "write `delay`, `abort` or `bandwidth`");
    }
    if let Some(delay) = &fault.delay {
        let at = at.key("delay");
        part(delay.percent, &at.key("percent"));
        hold(delay.time.0, &at.key("time"));
    }
    if let Some(abort) = &fault.abort {
        check_abort(abort, &at.key("abort"));
    }
    if let Some(bandwidth) = &fault.bandwidth {
        let at = at.key("bandwidth");
        part(bandwidth.percent, &at.key("percent"));
        if bandwidth.rate.0 == 0 {
            at.key("rate")
                .fault("is less than a byte a second", "write at least 1B/s");
        }
    }
}

/// How long a request is held back.
pub(super) fn hold(time: Duration, at: &At<'_>) {
    positive(Some(crate::document::span::Span(time)), at);
    if time > MAX_DELAY {
        at.fault("is longer than anybody waits", "write at most 1h");
    }
}

fn check_abort(abort: &AbortSpec, at: &At<'_>) {
    part(abort.percent, &at.key("percent"));
    exactly_one(
        &[
            ("http", abort.http.is_some()),
            ("grpc", abort.grpc.is_some()),
            ("reset", abort.reset),
        ],
        at,
    );
    if let Some(status) = abort.http {
        final_status(status, &at.key("http"));
    }
    if let Some(code) = abort.grpc {
        failure(code, &at.key("grpc"));
    }
}

/// A gRPC status that is a failure.
pub(super) fn failure(code: GrpcCode, at: &At<'_>) {
    if code.0 == 0 {
        at.fault("OK is no failure", "write a status such as UNAVAILABLE");
    }
}

pub(super) fn direct(response: &DirectResponseSpec, at: &At<'_>) {
    answer(response.status, response.body.len(), at);
    if response.body.len() > MAX_BODY {
        too_long(&at.key("body"));
    }
    filter::header_list(&response.headers, &at.key("headers"));
}

pub(super) fn too_long(at: &At<'_>) {
    at.fault(
        "is longer than 64 KiB",
        "shorten it, or let a service answer",
    );
}

/// A status, and a body only where HTTP has one (RFC 9110, sections 15.3.5 and 15.4.5).
pub(super) fn answer(status: u16, body: usize, at: &At<'_>) {
    final_status(status, &at.key("status"));
    if matches!(status, 204 | 205 | 304) && body > 0 {
        at.key("body").fault(
            format!("an answer with {status} has no body"),
            "remove it, or write another status",
        );
    }
}
