//! Which requests are copied, and when: once the whole body has gone by.

use std::sync::Arc;

use mesh_model::snapshot::{Caller, rule::Mirror};

use super::aside;
use crate::http::{
    exchange::{Exchange, acting::Backends},
    fault,
    replay::Replay,
    route::Way,
};

/// Draws for each mirror; what is drawn is copied once the whole request is known.
pub(in crate::http::exchange) fn copy(
    exchange: &mut Exchange<'_>,
    way: &Way<'_>,
    mirrors: &[&Mirror],
) {
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
        aside::mirror(exchange, caller, backends, &body);
    }
}

/// Sends the copies that are due, once the body has gone by.
pub(super) fn send_copies(exchange: &mut Exchange<'_>) {
    if !exchange.replay.has_ended() {
        return;
    }
    let Some((caller, backends)) = due(exchange) else {
        return;
    };
    if let Some(body) = exchange.replay.take_copy() {
        aside::mirror(exchange, &caller, backends, &body);
    } else {
        count_unsent(exchange, &backends);
    }
}

/// The request is over: copies whose body never came to its end are not sent any more.
pub(in crate::http::exchange) fn give_up(exchange: &mut Exchange<'_>) {
    if let Some((_, backends)) = due(exchange) {
        count_unsent(exchange, &backends);
    }
}

fn due(exchange: &mut Exchange<'_>) -> Option<(Arc<Caller>, Backends)> {
    exchange.acting.as_mut()?.copies.take()
}

fn count_unsent(exchange: &Exchange<'_>, backends: &Backends) {
    let policies = exchange.session.worker.observe.policies();
    policies.unmirrored.add(backends.len() as u64);
}
