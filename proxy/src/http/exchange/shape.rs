//! What policies do to a request before it is sent: cross-origin questions, faults, filters, copies.
//!
//! The order: a preflight is answered, faults act, filters act in their order, copies are prepared.

use std::{
    future::poll_fn,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use mesh_model::snapshot::{Backend, Caller, decide::Source, limit::Abort, rule::Mirror};
use smallvec::SmallVec;

use super::{Ended, Exchange, Stop, deliver, send};
use crate::{
    connection::Origin,
    http::{
        asked::Asked,
        cors::{self, Marks},
        fault,
        filters::{self, Filtered},
        replay::Replay,
        route::Way,
        wire::Wire,
    },
};

/// What policies ask of the rest of an exchange.
#[derive(Debug, Default)]
pub(crate) struct Acting {
    /// Marks of the answer.
    pub cors: Option<Marks>,
    /// Bytes per second of both bodies.
    pub rate: Option<u64>,
    /// `set-cookie` lines of the answer.
    pub cookies: SmallVec<[String; 1]>,
    /// Where copies go once the body has gone by, and as whom.
    copies: Option<(Arc<Caller>, Backends)>,
}

type Backends = SmallVec<[Arc<Backend>; 1]>;

/// Draws for each mirror; what is drawn is copied once the whole request is known.
pub(super) fn copy(exchange: &mut Exchange<'_>, way: &Way<'_>, mirrors: &[&Mirror]) {
    let drawn = |mirror: &&&Mirror| fault::is_drawn(mirror.share, &mut |n| fastrand::u64(..n));
    let backends = mirrors
        .iter()
        .filter(drawn)
        .map(|one| Arc::clone(&one.backend));
    let backends: Backends = backends.collect();
    let request = &exchange.messages.request;
    let Some(caller) = way.caller.filter(|_| request.upgrade.is_none()) else {
        return;
    };
    if backends.is_empty() {
        return;
    }
    if request.has_body() {
        exchange.replay.keep_copy();
        exchange.acting().copies = Some((Arc::clone(caller), backends));
    } else {
        let mut body = Replay::off();
        body.end(None);
        send::mirror(exchange, caller, backends, &body);
    }
}

/// Sends the copies that are due, once the body has gone by.
pub(super) fn send_copies(exchange: &mut Exchange<'_>) {
    if !exchange.replay.has_ended() {
        return;
    }
    let due = exchange
        .acting
        .as_mut()
        .and_then(|acting| acting.copies.take());
    let Some((caller, backends)) = due else {
        return;
    };
    if let Some(body) = exchange.replay.take_copy() {
        send::mirror(exchange, &caller, backends, &body);
    } else {
        let policies = exchange.session.worker.observe.policies();
        policies.unmirrored.add(backends.len() as u64);
    }
}

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

/// Who calls, as rules see it.
pub(super) fn source<'o>(origin: &'o Origin, caller: Option<&'o Caller>) -> Source<'o> {
    match origin {
        Origin::Outbound(origin) => {
            let caller = caller.unwrap_or(&origin.caller);
            Source::local(caller, Some(origin.peer.ip()))
        }
        Origin::Inbound(origin) => origin.source(),
    }
}

/// Injects the faults that hit the request.
async fn faults(exchange: &mut Exchange<'_>, way: &Way<'_>) -> Result<Option<Ended>, Stop> {
    let source = source(&exchange.session.origin, way.caller.map(|caller| &**caller));
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
