//! Waits for the head of an answer, and moves the request's body on meanwhile.

use std::{
    task::{Context, Poll},
    time::{Duration, Instant},
};

use mesh_model::cause::chain;

use super::{Up, copies};
use crate::{
    failure::{Code, Failure, Retry},
    http::{
        alarm,
        body::BodyError,
        buffers::Messages,
        exchange::{Exchange, Stop},
        h1::{
            ReadError,
            write::{self, ResponseExtras},
        },
        headers,
        malformed::HeadError,
        message::{Framing, Version},
        relay::RelayError,
        stream::AnswerError,
        wire::{HeadFault, Wire},
    },
};

/// Most interim answers to one request.
const INTERIM_LIMIT: u32 = 32;
/// Bytes of an announced body that buy its caller more time: drops do not hold a place for ever.
const BODY_PACE: u64 = 512;
/// How long a caller that has ended its direction still gets its answer.
const HALF_CLOSED: Duration = Duration::from_secs(10);

/// What went wrong while an answer was awaited.
pub(super) enum Wrong {
    Stop(Stop),
    /// The connection ended before the first byte of an answer.
    Dead(String),
    /// The other end ends the connection, and has not looked at the request.
    LeftOut(String),
}

impl From<Failure> for Wrong {
    fn from(failure: Failure) -> Self {
        Self::Stop(failure.into())
    }
}

/// Sends what can be sent, passes interim answers on, until the head of the answer is there.
pub(super) fn poll_answer(
    exchange: &mut Exchange<'_>,
    up: &mut Up,
    cx: &mut Context<'_>,
    by: Option<Instant>,
) -> Poll<Result<(), Wrong>> {
    if let Err(stop) = poll_upload(exchange, up, cx) {
        return Poll::Ready(Err(Wrong::Stop(stop)));
    }
    let head_request = exchange.messages.request.method_bytes() == b"HEAD";
    loop {
        match up
            .wire
            .poll_response(cx, head_request, &mut exchange.messages.response)
        {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(fault)) => return Poll::Ready(Err(wrong(fault, up))),
            Poll::Pending => break,
        }
        match exchange.messages.response.status {
            101 => return Poll::Ready(switched(exchange, up)),
            100..=199 => {
                up.interims += 1;
                if up.interims > INTERIM_LIMIT {
                    let failure = Failure::new(Code::BadResponse, "too many interim answers");
                    return Poll::Ready(Err(failure.into()));
                }
                interim(exchange, cx);
            }
            _ => return Poll::Ready(Ok(())),
        }
    }
    if let Err(stop) = poll_gone(exchange, cx) {
        return Poll::Ready(Err(Wrong::Stop(stop)));
    }
    let quiet = exchange.quiet_by(up.upload.bytes);
    let bound = exchange.bound(alarm::earlier(by, quiet));
    exchange
        .alarm
        .poll(cx, bound)
        .map(|()| Err(Wrong::Stop(exchange.late())))
}

/// Moves the request's body on; a fault of the caller ends the exchange, one of the other side waits.
pub(crate) fn poll_upload(
    exchange: &mut Exchange<'_>,
    up: &mut Up,
    cx: &mut Context<'_>,
) -> Result<(), Stop> {
    if up.upload.done || up.refused.is_some() {
        exchange.body_by = None;
        return Ok(());
    }
    let moved = up
        .upload
        .poll(cx, exchange.down, &mut up.wire, &mut exchange.replay);
    if exchange.acting.is_some() {
        copies::send_copies(exchange);
    }
    match moved {
        Poll::Ready(Err(RelayError::Write(error))) => {
            up.refused = Some(error);
            Ok(())
        }
        Poll::Ready(Err(RelayError::Read(fault))) => Err(match fault {
            BodyError::Malformed(HeadError::Truncated)
            | BodyError::Io(_)
            | BodyError::Stream(_) => Stop::Gone,
            BodyError::Malformed(fault) => Failure::new(Code::BadRequest, fault.to_string()).into(),
        }),
        Poll::Ready(Ok(())) => Ok(()),
        Poll::Pending => {
            // A body of announced length has no reason to wait; one in chunks may, and streams of HTTP/2 do.
            let limits = &exchange.session.worker.config.limits;
            let request = &exchange.messages.request;
            let patience = match (request.framing, request.version) {
                (Framing::Length(_), _) => Some((limits.first_bytes, BODY_PACE)),
                (Framing::Streamed, Version::Http10 | Version::Http11) => {
                    Some((limits.tcp_half_closed, 1))
                }
                _ => None,
            };
            let Some((limit, pace)) = patience.filter(|_| up.upload.starved) else {
                exchange.body_by = None;
                return Ok(());
            };
            let more = up.upload.bytes.saturating_sub(up.upload.marked);
            if exchange.body_by.is_none() || more >= pace {
                up.upload.marked = up.upload.bytes;
                exchange.body_by = Instant::now().checked_add(limit);
            }
            Ok(())
        }
    }
}

/// An HTTP/1 caller that has ended its direction may still read; after a while it counts as gone.
pub(crate) fn poll_gone(exchange: &mut Exchange<'_>, cx: &mut Context<'_>) -> Result<(), Stop> {
    let watch = match &*exchange.down {
        Wire::H1(down) => down.is_read() && !down.has_ended(),
        Wire::H2(_) => true,
    };
    if !watch {
        return Ok(());
    }
    match exchange.down.poll_gone(cx) {
        Poll::Ready(Err(_gone)) => Err(Stop::Gone),
        Poll::Ready(Ok(())) => {
            exchange.gone_by = Instant::now().checked_add(HALF_CLOSED);
            Ok(())
        }
        Poll::Pending => Ok(()),
    }
}

fn wrong(fault: HeadFault, up: &Up) -> Wrong {
    match fault {
        HeadFault::H1(ReadError::Closed) => Wrong::Dead("closed without an answer".to_owned()),
        HeadFault::H1(ReadError::Io(error)) => {
            let untouched = matches!(&up.wire, Wire::H1(wire) if wire.is_idle());
            let what = chain(&error);
            if untouched {
                Wrong::Dead(what)
            } else {
                Failure::new(Code::UpstreamReset, what).into()
            }
        }
        HeadFault::H1(ReadError::Head(HeadError::Truncated)) => {
            Failure::new(Code::UpstreamReset, "closed in the head of its answer").into()
        }
        HeadFault::H1(ReadError::Head(fault)) | HeadFault::H2(AnswerError::Head(fault)) => {
            Failure::new(Code::BadResponse, fault.to_string()).into()
        }
        HeadFault::H2(AnswerError::Stream(error)) if error.is_left_out() => {
            Wrong::LeftOut(chain(&error))
        }
        HeadFault::H2(AnswerError::Stream(error)) => {
            let unprocessed = error.is_unprocessed();
            let failure = Failure::new(Code::UpstreamReset, chain(&error));
            if unprocessed {
                failure.with_retry(Retry::Safe).into()
            } else {
                failure.into()
            }
        }
    }
}

/// A 101 that was asked for and names what was asked for; everything else is an error.
fn switched(exchange: &Exchange<'_>, up: &Up) -> Result<(), Wrong> {
    let Messages { request, response } = &*exchange.messages;
    let fits = match (request.upgrade_name(), response.upgrade_name(), &up.wire) {
        (Some(wanted), Some(found), Wire::H1(_)) => wanted.eq_ignore_ascii_case(found),
        _ => false,
    };
    if fits {
        Ok(())
    } else {
        Err(Failure::new(Code::BadResponse, "an upgrade that was not asked for").into())
    }
}

/// Passes an interim answer on; never to an HTTP/1.0 caller.
fn interim(exchange: &mut Exchange<'_>, cx: &mut Context<'_>) {
    let Messages { request, response } = &mut *exchange.messages;
    headers::clean_response(response, false);
    match &mut *exchange.down {
        Wire::H1(_) if request.version == Version::Http10 => {}
        Wire::H1(down) => {
            let extras = ResponseExtras {
                framing: Framing::None,
                version: request.version,
                persistent: true,
            };
            down.interject(|out| write::response(out, response, &extras));
            if let Poll::Ready(Err(error)) = down.poll_flush(cx) {
                tracing::trace!(%error, "an interim answer was not sent");
            }
        }
        Wire::H2(down) => down.send_interim(response),
    }
}
