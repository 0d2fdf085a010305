//! Which injected faults hit a request, and what an injected failure looks like.
//!
//! Never: waits, or acts by itself.

use std::time::Duration;

use mesh_model::snapshot::{
    Fault,
    decide::RequestView,
    limit::{Abort, Share},
};

use crate::failure::{Code, Failure};

/// What hits a request: of each kind the first fault that does, with its name.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Hits<'s> {
    /// Held back.
    pub delay: Option<(&'s str, Duration)>,
    /// Answered with a failure.
    pub abort: Option<(&'s str, Abort)>,
    /// Slowed to bytes per second.
    pub bandwidth: Option<(&'s str, u64)>,
}

/// Draws for each fault that fits the request. `draw(n)` gives a number below `n`.
pub(crate) fn hits<'s>(
    faults: &[&'s [Fault]],
    request: &impl RequestView,
    draw: &mut impl FnMut(u64) -> u64,
) -> Hits<'s> {
    let mut hits = Hits::default();
    for fault in faults.iter().copied().flatten() {
        let fits = fault.matches.is_empty() || fault.matches.iter().any(|one| one.fits(request));
        if !fits {
            continue;
        }
        let name = &*fault.name;
        take(&mut hits.delay, name, fault.delay, draw);
        take(&mut hits.abort, name, fault.abort, draw);
        take(&mut hits.bandwidth, name, fault.bandwidth, draw);
    }
    hits
}

fn take<'s, T>(
    place: &mut Option<(&'s str, T)>,
    name: &'s str,
    asked: Option<(Share, T)>,
    draw: &mut impl FnMut(u64) -> u64,
) {
    if place.is_none()
        && let Some((share, what)) = asked
        && is_drawn(share, draw)
    {
        *place = Some((name, what));
    }
}

/// True for the given share of calls.
pub(crate) fn is_drawn(share: Share, draw: &mut impl FnMut(u64) -> u64) -> bool {
    share >= Share::ALL || draw(u64::from(Share::ALL.0)) < u64::from(share.0)
}

/// The failure that an abort asks for; none for a reset, which answers nothing.
pub(crate) fn failure(name: &str, abort: Abort) -> Failure {
    let (status, grpc) = match abort {
        Abort::Http(status) => (status, grpc_of(status)),
        Abort::Grpc(grpc) => (http_of(grpc), grpc),
        Abort::Reset => (503, 14),
    };
    Failure::new(
        Code::FaultInjected,
        match abort {
            Abort::Http(status) => format!("{name} answers {status}"),
            Abort::Grpc(grpc) => format!("{name} answers grpc-status {grpc}"),
            Abort::Reset => format!("{name} resets"),
        },
    )
    .with_status(status)
    .with_grpc(grpc)
}

/// The gRPC status of an HTTP status ("HTTP to gRPC Status Code Mapping").
fn grpc_of(status: u16) -> u8 {
    match status {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

/// The HTTP status of a gRPC status (`google.rpc.Code`).
fn http_of(grpc: u8) -> u16 {
    match grpc {
        3 | 9 | 11 => 400,
        16 => 401,
        7 => 403,
        5 => 404,
        6 | 10 => 409,
        8 => 429,
        1 => 499,
        12 => 501,
        14 => 503,
        4 => 504,
        _ => 500,
    }
}

#[cfg(test)]
mod tests {
    use mesh_model::snapshot::{RequestMatch, rule::PathMatch};

    use super::*;
    use crate::http::message::Request;

    fn fault(name: &str, delay: Option<u32>, abort: Option<u32>) -> Fault {
        Fault {
            name: name.into(),
            matches: Vec::new(),
            delay: delay.map(|share| (Share(share), Duration::from_secs(1))),
            abort: abort.map(|share| (Share(share), Abort::Http(500))),
            bandwidth: None,
        }
    }

    #[test]
    fn the_first_of_each_kind_hits() {
        let mut request = Request::default();
        request.set_target(b"/a").unwrap();
        let faults = [
            fault("one", Some(0), None),
            fault("two", Some(500_000), Some(1_000_000)),
            fault("three", Some(1_000_000), Some(1_000_000)),
        ];
        let hit = |drawn| hits(&[&faults[..1], &faults[1..]], &request, &mut |_| drawn);
        assert_eq!(hit(499_999).delay.unwrap().0, "two");
        assert_eq!(hit(500_000).delay.unwrap().0, "three");
        assert_eq!(hit(999_999).abort.unwrap().0, "two");
        let other = Fault {
            matches: vec![RequestMatch {
                path: PathMatch::Exact("/b".into()),
                ..RequestMatch::default()
            }],
            ..fault("other", Some(1_000_000), None)
        };
        assert_eq!(hits(&[&[other]], &request, &mut |_| 0), Hits::default());
    }

    #[test]
    fn shares_are_exact() {
        let hit = |share, drawn| is_drawn(Share(share), &mut |_| drawn);
        assert!(hit(1, 0) && !hit(1, 1) && !hit(0, 0));
        assert!(hit(1_000_000, 999_999));
        let counted = (0..1_000_000).filter(|drawn| hit(250_000, *drawn)).count();
        assert_eq!(counted, 250_000);
    }

    #[test]
    fn failures_speak_both_languages() {
        let told = |abort| {
            let failure = failure("shop/f", abort);
            (failure.reply().status, failure.reply().grpc)
        };
        assert_eq!(told(Abort::Http(503)), (503, 14));
        assert_eq!(told(Abort::Http(418)), (418, 2));
        assert_eq!(told(Abort::Grpc(8)), (429, 8));
    }
}
