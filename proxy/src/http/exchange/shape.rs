//! What policies do to a request before it is sent: cross-origin questions, faults, filters.
//!
//! The order: a preflight is answered, faults act, filters act in their order. Out: where copies go, or how it
//! ended because the mesh answered itself.

use std::{
    future::poll_fn,
    task::Poll,
    time::{Duration, Instant},
};

use mesh_model::snapshot::{limit::Abort, rule::Mirror};
use smallvec::SmallVec;

use super::{Ended, Exchange, Stop, acting, deliver, send};
use crate::http::{
    asked::Asked,
    cors, fault,
    filters::{self, Filtered},
    route::Way,
    wire::Wire,
};

/// Applies everything that acts before the request is sent; how it ended, when the mesh answered itself.
pub(super) async fn shape<'s>(
    exchange: &mut Exchange<'_>,
    way: &Way<'s>,
) -> Result<Result<SmallVec<[&'s Mirror; 1]>, Ended>, Stop> {
    if !way.filters.is_empty() {
        let filters = &mut way.filters.iter().copied().flatten();
        if let Some(marks) = cors::marks(filters, &exchange.messages.request) {
            let asks = marks.is_preflight();
            exchange.acting().cors = Some(marks);
            if asks {
                return Ok(Err(deliver::preflight(exchange).await));
            }
        }
    }
    if way.faults.iter().any(|faults| !faults.is_empty())
        && let Some(ended) = faults(exchange, way).await?
    {
        return Ok(Err(ended));
    }
    if way.filters.is_empty() {
        return Ok(Ok(SmallVec::new()));
    }
    let filters = &mut way.filters.iter().copied().flatten();
    let filtered = filters::on_request(filters, &mut exchange.messages.request, way.port);
    Ok(match filtered {
        Filtered::Go(mirrors) => Ok(mirrors),
        Filtered::Redirect(status, location) => {
            Err(deliver::redirect(exchange, way, status, &location).await)
        }
        Filtered::Direct(answer) => Err(deliver::direct(exchange, way, answer).await),
    })
}

/// Injects the faults that hit the request.
async fn faults(exchange: &mut Exchange<'_>, way: &Way<'_>) -> Result<Option<Ended>, Stop> {
    let source = acting::source(&exchange.session.origin, way.caller.map(|caller| &**caller));
    let asked = Asked::new(&exchange.messages.request, source);
    let hits = fault::hits(&way.faults, &asked, &mut |below| fastrand::u64(..below));
    let worker = &exchange.session.worker;
    let policies = worker.observe.policies();
    if let Some((name, rate)) = hits.bandwidth {
        policies.slowed.add(1);
        exchange
            .story
            .note(format!("fault {name}: bodies slowed to {rate} bytes/s"));
        exchange.acting().rate = Some(rate);
    }
    if let Some((name, delay)) = hits.delay {
        policies.delayed.add(1);
        exchange
            .story
            .note(format!("fault {name}: held back for {delay:?}"));
        hold(exchange, delay).await?;
    }
    let Some((name, abort)) = hits.abort else {
        return Ok(None);
    };
    policies.aborted.add(1);
    let failure = fault::failure(name, abort);
    if abort != Abort::Reset {
        return Err(failure.into());
    }
    exchange.story.failure = Some(failure);
    if let Wire::H2(down) = &mut *exchange.down {
        down.reset(h2::Reason::INTERNAL_ERROR);
    }
    Ok(Some(Ended::Broken))
}

/// Waits, no longer than the request may take or its caller does.
async fn hold(exchange: &mut Exchange<'_>, delay: Duration) -> Result<(), Stop> {
    let until = Instant::now().checked_add(delay);
    poll_fn(|cx| {
        if let Err(stop) = send::poll_gone(exchange, cx) {
            return Poll::Ready(Err(stop));
        }
        let by = exchange.bound(until);
        exchange.alarm.poll(cx, by).map(|()| {
            if by < until {
                Err(exchange.late())
            } else {
                Ok(())
            }
        })
    })
    .await
}
