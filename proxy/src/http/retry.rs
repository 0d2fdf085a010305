//! May a request be sent again, and when?
//!
//! In: a route's policy, a failed try or the head of an answer. Out: whether another try makes sense, and how
//! long to wait before it. Never: waits, or asks for a budget.

use std::time::Duration;

use mesh_model::{snapshot::Retry as Policy, time};

use super::{
    fields::Fields,
    grpc,
    message::{self, Request, Response},
    octet, reply,
};
use crate::failure::{Code, Failure, Retry};

/// Tries before this one, towards a gRPC server (gRFC A6).
const PREVIOUS: &[u8] = b"grpc-previous-rpc-attempts";
/// What a gRPC server says about further tries (gRFC A6).
const PUSHBACK: &[u8] = b"grpc-retry-pushback-ms";

/// What the other end itself asks of the next try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Again {
    /// Nothing: the usual pause.
    Usual,
    /// At least so long (`retry-after`).
    Later(Duration),
    /// Exactly so long (gRPC's pushback).
    In(Duration),
}

/// Whether a try that failed may be made again elsewhere.
pub(crate) fn after_failure(failure: &Failure, policy: &Policy, request: &Request) -> bool {
    match failure.retry {
        Retry::Never => false,
        Retry::Safe => true,
        Retry::IfRepeatable => broken(failure.code, failure.reply().status, policy, request),
    }
}

/// A try that broke without an answer: for every method where the route says so, always for idempotent ones.
fn broken(code: Code, status: u16, policy: &Policy, request: &Request) -> bool {
    let named = match code {
        Code::UpstreamReset | Code::BadResponse => policy.on.reset,
        Code::UpstreamTimeout => policy.on.timeout,
        _ => false,
    };
    named
        || request.is_idempotent()
        || (repeatable(policy, request) && policy.codes.contains(&status))
}

/// Whether an answer means that the request may be sent again; `from_daemon` when another daemon sent it,
/// `trailers` when they are known already.
pub(crate) fn after_answer(
    response: &Response,
    trailers: Option<&Fields>,
    from_daemon: bool,
    policy: &Policy,
    request: &Request,
) -> Option<Again> {
    let far = from_daemon.then(|| far_code(response)).flatten();
    let again = match far {
        Some(code) => {
            let documented = code.documented();
            match documented.retry {
                Retry::Safe => true,
                Retry::Never => false,
                Retry::IfRepeatable => {
                    left_out(response) || broken_far(code, response.status, policy, request)
                }
            }
        }
        None => listed(response, trailers, policy, request),
    };
    again.then(|| asked(response, trailers)).flatten()
}

/// As [`broken`], on the other host; a limit there asks for what the route lists.
fn broken_far(code: Code, status: u16, policy: &Policy, request: &Request) -> bool {
    if code == Code::RateLimited {
        repeatable(policy, request) && policy.codes.contains(&status)
    } else {
        broken(code, code.documented().reply.status, policy, request)
    }
}

fn listed(
    response: &Response,
    trailers: Option<&Fields>,
    policy: &Policy,
    request: &Request,
) -> bool {
    if response.grpc {
        let status = response
            .grpc_status()
            .or_else(|| trailers.and_then(message::grpc_status));
        if let Some(status) = status {
            let unavailable = status == grpc::UNAVAILABLE && policy.codes.contains(&503);
            return policy.grpc_codes.contains(&status)
                || (unavailable && repeatable(policy, request));
        }
    }
    let conflict = policy.on.conflict && response.status == 409;
    conflict || (policy.codes.contains(&response.status) && repeatable(policy, request))
}

/// What the answer says about when; `None`: that it must not be.
fn asked(response: &Response, trailers: Option<&Fields>) -> Option<Again> {
    let heads = [Some(&response.fields), trailers];
    let first = |name| {
        heads
            .iter()
            .flatten()
            .find_map(|fields| fields.named(name).next())
    };
    if let Some(pushback) = first(PUSHBACK).filter(|_| response.grpc) {
        // Negative, or not a number: no further try.
        return octet::number(pushback).map(|ms| Again::In(Duration::from_millis(ms)));
    }
    let later = first(b"retry-after").and_then(retry_after);
    Some(later.map_or(Again::Usual, Again::Later))
}

/// `retry-after`: seconds, or a date (RFC 9110 section 10.2.3).
fn retry_after(value: &[u8]) -> Option<Duration> {
    if let Some(seconds) = octet::number(value) {
        return Some(Duration::from_secs(seconds));
    }
    let text = std::str::from_utf8(value).ok()?;
    let at = time::http_date(text)?;
    Some(Duration::from_secs(
        at.saturating_sub(crate::clock::now_ms() / 1000),
    ))
}

/// True when trailers that come right behind the head may decide about another try.
pub(crate) fn looks_at_trailers(policy: &Policy, response: &Response) -> bool {
    response.grpc
        && response.grpc_status().is_none()
        && (!policy.grpc_codes.is_empty() || policy.codes.contains(&503))
}

/// The code of an answer that another daemon made.
pub(crate) fn far_code(response: &Response) -> Option<Code> {
    response
        .fields
        .named(super::convert::ERROR.as_bytes())
        .next()
        .and_then(reply::code_of)
}

/// Whether the `mesh-error` of another daemon says that nobody has looked at the request.
pub(crate) fn left_out(response: &Response) -> bool {
    let mut values = response.fields.named(super::convert::ERROR.as_bytes());
    values.next().is_some_and(reply::is_left_out)
}

/// The default repeats what HTTP calls idempotent; a route that says what to repeat means every method.
pub(crate) fn repeatable(policy: &Policy, request: &Request) -> bool {
    !policy.idempotent_only || request.is_idempotent()
}

/// The pause before the given further try, counted from 1: somewhere between the least and what doubles each
/// time, so that nobody keeps step. `None`: the other end asks for more than the request has `left`, or,
/// without a bound, more than the longest pause.
pub(crate) fn pause(
    policy: &Policy,
    tries: u32,
    again: Again,
    left: Option<Duration>,
) -> Option<Duration> {
    let least = policy.backoff.min(policy.max_backoff);
    let most = least
        .saturating_mul(1 << tries.min(20))
        .clamp(least, policy.max_backoff);
    let usual = least + most.saturating_sub(least).mul_f64(fastrand::f64());
    let pause = match again {
        Again::Usual => usual,
        Again::Later(asked) => asked.max(usual),
        Again::In(asked) => asked,
    };
    let fits = match left {
        Some(left) => pause < left || pause.is_zero(),
        None => pause <= policy.max_backoff,
    };
    fits.then_some(pause)
}

/// Tells a gRPC server how many tries came before this one.
pub(crate) fn tell_tries(request: &mut Request, before: u32) {
    if request.wishes.grpc && before > 0 {
        request.fields.drop_named(PREVIOUS);
        request.fields.push(PREVIOUS, before.to_string().as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use mesh_model::snapshot::RetryOn;

    use super::*;

    fn request(method: &str) -> Request {
        let mut request = Request::default();
        request.set_method(method.as_bytes());
        request
    }

    fn response(status: u16) -> Response {
        let mut response = Response::default();
        response.status = status;
        response
    }

    #[test]
    fn failures() {
        let default = Policy::default();
        let own = Policy {
            codes: vec![500],
            idempotent_only: false,
            ..Policy::default()
        };
        let safe = Failure::new(Code::ConnectFailed, "");
        let reset = Failure::new(Code::UpstreamReset, "");
        let late = Failure::new(Code::UpstreamTimeout, "");
        let never = Failure::new(Code::Denied, "");
        let on = Policy {
            on: RetryOn {
                reset: true,
                ..RetryOn::default()
            },
            ..own.clone()
        };
        for (failure, policy, method, wanted) in [
            (&safe, &default, "POST", true),
            (&safe, &own, "POST", true),
            (&reset, &default, "GET", true),
            (&reset, &default, "POST", false),
            (&reset, &own, "GET", true),
            (&reset, &own, "POST", false),
            (&reset, &on, "POST", true),
            (&late, &on, "POST", false),
            (&late, &default, "PUT", true),
            (&never, &default, "GET", false),
        ] {
            assert_eq!(
                after_failure(failure, policy, &request(method)),
                wanted,
                "{failure:?} {method}"
            );
        }
    }

    #[test]
    fn answers() {
        let default = Policy::default();
        let own = Policy {
            codes: vec![500, 503],
            idempotent_only: false,
            ..Policy::default()
        };
        for (status, policy, method, wanted) in [
            (503, &default, "GET", true),
            (503, &default, "POST", false),
            (500, &default, "GET", false),
            (500, &own, "POST", true),
            (200, &own, "GET", false),
        ] {
            let found = after_answer(&response(status), None, false, policy, &request(method));
            assert_eq!(found.is_some(), wanted, "{status} {method}");
        }
        let mut far = response(503);
        far.fields
            .push(b"mesh-error", b"connect-failed; host=b; id=0");
        assert!(after_answer(&far, None, true, &default, &request("POST")).is_some());
        assert!(after_answer(&far, None, false, &default, &request("POST")).is_none());
        let mut far = response(403);
        far.fields.push(b"mesh-error", b"denied; host=b; id=0");
        assert!(after_answer(&far, None, true, &own, &request("GET")).is_none());
        let mut grpc = response(200);
        grpc.grpc = true;
        grpc.fields.push(b"grpc-status", b"14");
        assert!(after_answer(&grpc, None, false, &own, &request("POST")).is_some());
        assert!(after_answer(&grpc, None, false, &default, &request("POST")).is_none());
    }

    #[test]
    fn conditions_of_a_route() {
        let policy = Policy {
            codes: Vec::new(),
            idempotent_only: false,
            on: RetryOn {
                conflict: true,
                ..RetryOn::default()
            },
            grpc_codes: vec![4, 14],
            ..Policy::default()
        };
        let post = request("POST");
        let again = |response: &Response, trailers: Option<&Fields>| {
            after_answer(response, trailers, false, &policy, &post)
        };
        assert_eq!(again(&response(409), None), Some(Again::Usual));
        assert_eq!(again(&response(503), None), None);
        let mut grpc = response(200);
        grpc.grpc = true;
        assert!(looks_at_trailers(&policy, &grpc));
        assert!(!looks_at_trailers(&policy, &response(200)));
        for (status, wanted) in [("14", true), ("4", true), ("0", false), ("8", false)] {
            let mut trailers = Fields::default();
            trailers.push(b"grpc-status", status.as_bytes());
            assert_eq!(again(&grpc, Some(&trailers)).is_some(), wanted, "{status}");
        }
    }

    #[test]
    fn the_other_end_says_when() {
        let policy = Policy::default();
        let get = request("GET");
        for (value, wanted) in [
            ("3", Some(Again::Later(Duration::from_secs(3)))),
            (
                "Thu, 01 Jan 1970 00:00:10 GMT",
                Some(Again::Later(Duration::ZERO)),
            ),
            ("soon", Some(Again::Usual)),
        ] {
            let mut busy = response(503);
            busy.fields.push(b"Retry-After", value.as_bytes());
            assert_eq!(
                after_answer(&busy, None, false, &policy, &get),
                wanted,
                "{value}"
            );
        }
        for (value, wanted) in [
            ("0", Some(Again::In(Duration::ZERO))),
            ("1500", Some(Again::In(Duration::from_millis(1500)))),
            ("-1", None),
            ("never", None),
        ] {
            let mut busy = response(200);
            busy.grpc = true;
            busy.fields.push(b"grpc-status", b"14");
            busy.fields.push(PUSHBACK, value.as_bytes());
            assert_eq!(
                after_answer(&busy, None, false, &policy, &get),
                wanted,
                "{value}"
            );
        }
        let mut request = request("POST");
        request.wishes.grpc = true;
        tell_tries(&mut request, 0);
        assert!(request.fields.is_empty());
        tell_tries(&mut request, 1);
        tell_tries(&mut request, 2);
        assert_eq!(request.fields.named(PREVIOUS).collect::<Vec<_>>(), [b"2"]);
    }

    proptest::proptest! {
        /// Between the least and the longest pause whatever the policy, and never beyond the request's end.
        #[test]
        fn pauses(least in 0u64..2000, longest in 0u64..5000, tries in 1u32..40, asked in 0u64..9000, left in 0u64..9000) {
            let ms = Duration::from_millis;
            let policy = Policy { backoff: ms(least), max_backoff: ms(longest), ..Policy::default() };
            let usual = pause(&policy, tries, Again::Usual, None).unwrap();
            proptest::prop_assert!(usual >= ms(least.min(longest)) && usual <= ms(longest));
            if tries == 1 {
                proptest::prop_assert!(usual <= ms(2 * least));
            }
            for again in [Again::Usual, Again::Later(ms(asked)), Again::In(ms(asked))] {
                let found = pause(&policy, tries, again, Some(ms(left)));
                let exact = again == Again::In(ms(asked));
                if let Some(found) = found {
                    proptest::prop_assert!(found < ms(left) || found.is_zero());
                    proptest::prop_assert!(!exact || found == ms(asked));
                    proptest::prop_assert!(again == Again::Usual || found >= ms(asked));
                } else if exact {
                    proptest::prop_assert!(asked >= left);
                }
            }
        }
    }
}
