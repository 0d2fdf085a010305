//! May a request be sent again?

use std::time::Duration;

use mesh_model::snapshot::Retry as Policy;

use super::{
    grpc,
    message::{Request, Response},
    reply,
};
use crate::failure::{Failure, Retry};

/// Longest pause between two tries.
const PAUSE_LIMIT: Duration = Duration::from_secs(5);

/// Whether a try that failed may be made again elsewhere.
pub(crate) fn after_failure(failure: &Failure, policy: &Policy, request: &Request) -> bool {
    match failure.retry {
        Retry::Never => false,
        Retry::Safe => true,
        Retry::IfRepeatable => {
            repeatable(policy, request) && policy.codes.contains(&failure.reply().status)
        }
    }
}

/// Whether an answer means that the request may be sent again; `from_daemon` when another daemon sent it.
pub(crate) fn after_answer(
    response: &Response,
    from_daemon: bool,
    policy: &Policy,
    request: &Request,
) -> bool {
    if from_daemon && let Some(code) = far_code(response) {
        return match code.documented().retry {
            Retry::Safe => true,
            Retry::IfRepeatable => {
                repeatable(policy, request)
                    && policy.codes.contains(&code.documented().reply.status)
            }
            Retry::Never => false,
        };
    }
    let unavailable = response.grpc && response.grpc_status() == Some(grpc::UNAVAILABLE);
    let listed =
        policy.codes.contains(&response.status) || (unavailable && policy.codes.contains(&503));
    listed && repeatable(policy, request)
}

/// The code of an answer that another daemon made.
pub(crate) fn far_code(response: &Response) -> Option<crate::failure::Code> {
    response
        .fields
        .named(super::convert::ERROR.as_bytes())
        .next()
        .and_then(reply::code_of)
}

/// The default repeats what HTTP calls idempotent; a route that says what to repeat means every method.
fn repeatable(policy: &Policy, request: &Request) -> bool {
    !policy.idempotent_only || request.is_idempotent()
}

/// The pause before the given further try, counted from 1: it doubles, and nobody keeps step.
pub(crate) fn pause(policy: &Policy, tries: u32) -> Duration {
    let least = policy.backoff;
    let doubled = least
        .saturating_mul(1 << tries.saturating_sub(1).min(6))
        .min(PAUSE_LIMIT);
    least.max(doubled.mul_f64(0.5 + fastrand::f64() / 2.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Code;

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
        let never = Failure::new(Code::Denied, "");
        for (failure, policy, method, wanted) in [
            (&safe, &default, "POST", true),
            (&safe, &own, "POST", true),
            (&reset, &default, "GET", true),
            (&reset, &default, "POST", false),
            (&reset, &own, "GET", false),
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
            let found = after_answer(&response(status), false, policy, &request(method));
            assert_eq!(found, wanted, "{status} {method}");
        }
        let mut far = response(503);
        far.fields
            .push(b"mesh-error", b"connect-failed; host=b; id=0");
        assert!(after_answer(&far, true, &default, &request("POST")));
        assert!(!after_answer(&far, false, &default, &request("POST")));
        let mut far = response(403);
        far.fields.push(b"mesh-error", b"denied; host=b; id=0");
        assert!(!after_answer(&far, true, &own, &request("GET")));
        let mut grpc = response(200);
        grpc.grpc = true;
        grpc.fields.push(b"grpc-status", b"14");
        assert!(after_answer(&grpc, false, &own, &request("POST")));
        assert!(!after_answer(&grpc, false, &default, &request("POST")));
    }

    #[test]
    fn pauses() {
        let policy = Policy {
            backoff: Duration::from_millis(10),
            ..Policy::default()
        };
        for tries in 1..20 {
            let pause = pause(&policy, tries);
            assert!(pause >= policy.backoff && pause <= PAUSE_LIMIT);
        }
    }
}
