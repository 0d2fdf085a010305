//! Changes of protocol: after a 101 plain bytes go both ways, over the hop too.

use std::{
    future::poll_fn,
    task::Poll,
    time::{Duration, Instant},
};

use super::{Ended, Exchange, Stop, send::Up};
use crate::http::{
    buffers::Messages,
    convert,
    h1::write::{self, ResponseExtras},
    headers,
    message::Framing,
    relay::{Flow, RelayError},
    replay::Replay,
    upgrade,
    wire::Wire,
};

/// True when the other side agreed to change protocols.
pub(super) fn is_agreed(exchange: &Exchange<'_>, up: &Up) -> bool {
    let Messages { request, response } = &*exchange.messages;
    match &up.wire {
        Wire::H1(_) => response.status == 101,
        Wire::H2(_) if up.daemon => {
            let agreed = response.fields.named(convert::UPGRADE.as_bytes()).next();
            response.status == 200 && agreed.is_some() && request.upgrade.is_some()
        }
        // The wish went out as extended CONNECT, or it was taken back.
        Wire::H2(_) => request.upgrade.is_some() && (200..300).contains(&response.status),
    }
}

/// Changes protocols: from here on plain bytes go both ways.
pub(super) async fn switch(exchange: &mut Exchange<'_>, mut up: Box<Up>) -> Result<Ended, Stop> {
    let Messages { request, response } = &mut *exchange.messages;
    let name = request.upgrade_name().unwrap_or_default();
    headers::clean_response(response, false);
    let by_extended = matches!(up.wire, Wire::H2(_)) && !up.daemon;
    upgrade::settle_key(request, response, by_extended)?;
    exchange.story.status = 101;
    match &mut *exchange.down {
        Wire::H1(down) => {
            response.status = 101;
            response.upgrade = Some(response.fields.store(name.as_bytes()));
            let extras = ResponseExtras {
                framing: Framing::None,
                version: request.version,
                persistent: true,
            };
            down.interject(|out| write::response(out, response, &extras));
            down.become_raw();
        }
        Wire::H2(down) => {
            response.status = 200;
            response.framing = Framing::Streamed;
            if !request.extended {
                response
                    .fields
                    .push(convert::UPGRADE.as_bytes(), name.as_bytes());
            }
            down.send_response(response, false);
        }
    }
    if let Wire::H1(wire) = &mut up.wire {
        wire.become_raw();
    }
    Ok(bytes_both_ways(exchange, up).await)
}

/// Copies until both directions have ended, one broke, or nothing moved for too long.
async fn bytes_both_ways(exchange: &mut Exchange<'_>, mut up: Box<Up>) -> Ended {
    let limits = exchange.session.worker.config.limits.clone();
    let own = exchange.idle;
    let (mut there, mut back) = (Flow::default(), Flow::default());
    let (mut kept_there, mut kept_back) = (Replay::off(), Replay::off());
    let (mut moved, mut by) = (0, None);
    let whole = poll_fn(|cx| {
        let mut broken = false;
        // Who ended its direction may take the other back.
        if !back.done
            && let Wire::H2(down) = &mut *exchange.down
        {
            broken |= down.poll_gone(cx).is_ready();
        }
        if !there.done {
            broken |= is_broken(&there.poll(cx, exchange.down, &mut up.wire, &mut kept_there));
        }
        if !back.done {
            broken |= is_broken(&back.poll(cx, &mut up.wire, exchange.down, &mut kept_back));
        }
        if broken || (there.done && back.done) {
            return Poll::Ready(!broken);
        }
        let half = there.done || back.done;
        let idle: Duration = if half {
            limits.tcp_half_closed
        } else {
            own.unwrap_or(limits.tcp_idle)
        };
        let now_moved = there.bytes + back.bytes + u64::from(half);
        if by.is_none() || now_moved != moved {
            moved = now_moved;
            by = Instant::now().checked_add(idle);
        }
        exchange.alarm.poll(cx, by).map(|()| false)
    })
    .await;
    exchange.story.received += there.bytes;
    exchange.story.sent = back.bytes;
    if whole {
        return Ended::Close;
    }
    // The other end must see a break too, not an end.
    match up.wire {
        Wire::H1(wire) => wire.into_parts().0.reset(),
        Wire::H2(mut stream) => stream.reset(h2::Reason::CANCEL),
    }
    if let Wire::H2(down) = &mut *exchange.down {
        down.reset(h2::Reason::CANCEL);
    }
    Ended::Broken
}

fn is_broken(state: &Poll<Result<(), RelayError>>) -> bool {
    matches!(state, Poll::Ready(Err(_)))
}
