//! Hedging: a second try runs beside the first when that is slow, and the first good answer wins.
//!
//! In: a request that may be sent again. Out: what the better of both gave. Never: sends what has not been
//! kept whole, or a second try without a permit.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use mesh_model::snapshot::Snapshot;

use super::{
    Course, Tried, announce,
    aside::{Answered, Copied},
    budgeted, copies, may_repeat, pick, poll_gone,
};
use crate::{
    http::{
        body::{BodyError, BodyEvent},
        exchange::{Exchange, Stop},
        retry,
        route::Way,
        session::Session,
    },
    upstream::{Picked, RetryPermit},
};

type Running<'r> = Pin<Box<dyn Future<Output = Answered> + 'r>>;

/// One try, and after a while a second one beside it.
pub(super) async fn attempt(
    exchange: &mut Exchange<'_>,
    snapshot: &Snapshot,
    way: &Way<'_>,
    course: &mut Course,
    picked: Option<Picked>,
    by: Option<Instant>,
    after: Duration,
) -> Result<Tried, Stop> {
    let begun = Instant::now();
    let until = begun.checked_add(after);
    let whole = is_whole(exchange, way, until).await?;
    exchange.replay.rewind();
    if !whole {
        return super::attempt(exchange, way, picked, by, Instant::now()).await;
    }
    copies::send_copies(exchange);
    let session = exchange.session;
    let first = Copied::of(exchange, exchange.replay.clone());
    let mut first: Option<Running<'_>> = Some(Box::pin(first.send(session, way, picked, by)));
    let mut second: Option<(Running<'_>, RetryPermit)> = None;
    let mut due = until;
    let mut better: Option<Box<Answered>> = None;
    let answered = loop {
        let next = poll_fn(|cx| poll_either(exchange, &mut first, &mut second, due, cx)).await?;
        match next {
            Next::Due => {
                due = None;
                second = beside(exchange, session, snapshot, way, course);
            }
            Next::Answered(answered, is_second) => {
                if is_second {
                    course.permit = second.take().map(|(_, permit)| permit);
                } else {
                    first = None;
                }
                if is_good(&answered, way) {
                    if is_second {
                        session.worker.observe.policies().hedges_won.add(1);
                    }
                    break answered;
                }
                // An answer that nobody likes is better than none; the other try may do better still.
                let best = match better.take() {
                    Some(before) if !matches!(answered.tried, Ok(Ok(_))) => before,
                    _ => answered,
                };
                if first.is_none() && second.is_none() {
                    break best;
                }
                better = Some(best);
            }
        }
    };
    drop((first, second));
    take(exchange, *answered)
}

/// True once the whole body is kept, so that two tries may have it.
async fn is_whole(
    exchange: &mut Exchange<'_>,
    way: &Way<'_>,
    until: Option<Instant>,
) -> Result<bool, Stop> {
    let request = &exchange.messages.request;
    // Both tries may be processed.
    let harmless = retry::repeatable(way.retry, request);
    if request.upgrade.is_some() || !harmless || !may_repeat(exchange) {
        return Ok(false);
    }
    if !request.has_body() {
        return Ok(true);
    }
    // Whoever waits to be asked for his body does not send it first.
    if request.wishes.expects_continue {
        return Ok(false);
    }
    poll_fn(|cx| match poll_gather(exchange, cx) {
        Poll::Ready(whole) => Poll::Ready(whole),
        Poll::Pending => {
            let by = exchange.bound(until);
            exchange.alarm.poll(cx, by).map(|()| Ok(false))
        }
    })
    .await
}

fn poll_gather(exchange: &mut Exchange<'_>, cx: &mut Context<'_>) -> Poll<Result<bool, Stop>> {
    loop {
        if exchange.replay.has_ended() {
            return Poll::Ready(Ok(true));
        }
        match exchange.down.poll_body(cx) {
            Poll::Ready(Ok(BodyEvent::Data { length, last })) => {
                if !exchange.replay.has_room(length) {
                    return Poll::Ready(Ok(false));
                }
                exchange.replay.record(exchange.down.front(length));
                exchange.down.consume(length);
                exchange.story.received += length as u64;
                if last {
                    exchange.replay.end(None);
                }
            }
            Poll::Ready(Ok(BodyEvent::End)) => {
                let trailers = exchange.down.take_trailers();
                exchange.replay.end(trailers);
            }
            Poll::Ready(Err(BodyError::Malformed(fault))) => {
                let code = crate::failure::Code::BadRequest;
                let failure = crate::failure::Failure::new(code, fault.to_string());
                return Poll::Ready(Err(failure.into()));
            }
            Poll::Ready(Err(_)) => return Poll::Ready(Err(Stop::Gone)),
            Poll::Pending => return Poll::Pending,
        }
    }
}

enum Next {
    /// The time for a second try has come.
    Due,
    /// The first or the second try has ended.
    Answered(Box<Answered>, bool),
}

fn poll_either(
    exchange: &mut Exchange<'_>,
    first: &mut Option<Running<'_>>,
    second: &mut Option<(Running<'_>, RetryPermit)>,
    due: Option<Instant>,
    cx: &mut Context<'_>,
) -> Poll<Result<Next, Stop>> {
    if let Some(running) = first
        && let Poll::Ready(answered) = running.as_mut().poll(cx)
    {
        return Poll::Ready(Ok(Next::Answered(Box::new(answered), false)));
    }
    if let Some((running, _)) = second
        && let Poll::Ready(answered) = running.as_mut().poll(cx)
    {
        return Poll::Ready(Ok(Next::Answered(Box::new(answered), true)));
    }
    poll_gone(exchange, cx)?;
    let by = exchange.bound(due);
    exchange.alarm.poll(cx, by).map(|()| {
        if due.is_some() && by == due {
            Ok(Next::Due)
        } else {
            Err(exchange.late())
        }
    })
}

/// A second try, when the backend's budget allows one and there is somebody to ask.
fn beside<'r>(
    exchange: &mut Exchange<'_>,
    session: &'r Session,
    snapshot: &Snapshot,
    way: &'r Way<'_>,
    course: &mut Course,
) -> Option<(Running<'r>, RetryPermit)> {
    let permit = budgeted(exchange, way)?;
    let first = exchange.story.endpoint.take();
    let picked = pick(exchange, snapshot, way, course);
    let second = std::mem::replace(&mut exchange.story.endpoint, first);
    let picked = picked.ok()??;
    course.tried.push(picked.endpoint.key);
    course.left = course.left.saturating_sub(1);
    exchange.story.retries += 1;
    exchange.session.worker.observe.policies().hedged.add(1);
    let place = second.as_ref().map_or("", |endpoint| &endpoint.id);
    let note = format!("slow: {place} is asked beside it");
    exchange.story.note(note);
    let by = announce(exchange, way, Instant::now());
    let mut copied = Copied::of(exchange, exchange.replay.clone());
    copied.is_at(second);
    Some((
        Box::pin(copied.send(session, way, Some(picked), by)),
        permit,
    ))
}

/// True for an answer that nobody would try again for.
fn is_good(answered: &Answered, way: &Way<'_>) -> bool {
    let Ok(Ok(up)) = &answered.tried else {
        return false;
    };
    let (request, response) = (&answered.messages.request, &answered.messages.response);
    retry::after_answer(response, None, up.daemon, way.retry, request).is_none()
}

/// The exchange goes on with what a copy has got.
fn take(exchange: &mut Exchange<'_>, mut answered: Answered) -> Result<Tried, Stop> {
    std::mem::swap(
        &mut exchange.messages.response,
        &mut answered.messages.response,
    );
    exchange.story.join(answered.story);
    // An answer may come before the other end has taken the whole body: the rest goes on from there.
    exchange.replay = answered.replay;
    crate::http::buffers::put_messages(answered.messages);
    answered.tried
}
