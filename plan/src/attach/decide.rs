//! Of the routes that want to act at one place those of one kind do; the others are told why not.

use std::collections::{BTreeMap, BTreeSet};

use mesh_model::service::AppProtocol;

use super::{Body, Place, Route, RouteKind};
use crate::{
    findings::Findings,
    outcome::{ParentState, Refusal},
    services::Services,
};

/// Of the kinds at one place the first acts; the others are told.
pub(super) fn decide(
    routes: &[Route<'_>],
    wanted: BTreeMap<Place, Vec<(usize, usize)>>,
    parents: &mut [Vec<ParentState>],
    services: &Services,
    findings: &Findings,
) -> BTreeMap<Place, Vec<usize>> {
    let mut places = BTreeMap::new();
    let mut acts: BTreeSet<(usize, usize)> = BTreeSet::new();
    let mut refusals: BTreeMap<(usize, usize), Vec<Refusal>> = BTreeMap::new();
    for (place, all) in wanted {
        let judged: Vec<_> = all
            .into_iter()
            .filter_map(|(index, parent)| {
                let route = routes.get(index)?;
                Some((index, parent, route, unfit(route, &place, services)))
            })
            .collect();
        let fit = judged.iter().filter(|(.., unfit)| unfit.is_none());
        let winner = fit.map(|(_, _, route, _)| route.kind).min();
        let mut acting = Vec::new();
        for (index, parent, route, unfit) in judged {
            match unfit.or_else(|| beaten(route, winner, &place)) {
                None => {
                    acting.push(index);
                    acts.insert((index, parent));
                }
                Some(refusal) => refusals.entry((index, parent)).or_default().push(refusal),
            }
        }
        acting.dedup();
        if !acting.is_empty() {
            places.insert(place, acting);
        }
    }
    for ((index, parent), all) in refusals {
        let (Some(route), Some(state)) = (
            routes.get(index),
            parents.get_mut(index).and_then(|all| all.get_mut(parent)),
        ) else {
            continue;
        };
        tell(route, state, all, acts.contains(&(index, parent)), findings);
    }
    places
}

/// Keeps why a route does not act on some or all of the ports that a reference means.
fn tell(
    route: &Route<'_>,
    state: &mut ParentState,
    mut all: Vec<Refusal>,
    acts: bool,
    findings: &Findings,
) {
    for (reason, why) in &all {
        // A service's other ports speak something else: nothing is wrong while the route acts on the ones it can.
        if acts && *reason == UNSUPPORTED && state.reference.port.is_none() {
            continue;
        }
        findings.warning(
            "route-without-effect",
            &route.subject(),
            why.clone(),
            if *reason == UNSUPPORTED {
                "attach the route to ports on which it can act"
            } else {
                "remove one of the two, or attach them to different ports (parentRefs.port)"
            },
        );
    }
    if acts {
        let told: Vec<String> = all.into_iter().map(|(_, why)| why).collect();
        state.partly = told.join("; ");
    } else {
        // What can be mended is told before what can not.
        all.sort_by_key(|(reason, _)| *reason == UNSUPPORTED);
        state.refused = all.into_iter().next();
    }
}

/// Why another kind goes before the route at a place.
fn beaten(route: &Route<'_>, winner: Option<RouteKind>, place: &Place) -> Option<Refusal> {
    let winner = winner.filter(|winner| *winner != route.kind)?;
    let (id, port, _) = place;
    Some((
        "Conflicted",
        format!(
            "{} is attached to {id}:{port} and goes before",
            winner.name()
        ),
    ))
}

const UNSUPPORTED: &str = "UnsupportedProtocol";

/// Why a route cannot act there, whatever else is attached.
fn unfit(route: &Route<'_>, place: &Place, services: &Services) -> Option<Refusal> {
    let (id, number, _) = place;
    let protocol = services.by_id.get(id)?.ports.get(number)?.protocol;
    match route.kind {
        RouteKind::Tls if protocol.is_http() => Some((
            UNSUPPORTED,
            format!("{id}:{number} speaks {protocol}, so no TLS passes there unopened"),
        )),
        RouteKind::Http | RouteKind::Grpc if protocol == AppProtocol::Tcp => Some((
            UNSUPPORTED,
            format!("{id}:{number} speaks tcp, in which there are no requests to route"),
        )),
        RouteKind::Virtual if !has_part(&route.body, protocol) => Some((
            UNSUPPORTED,
            format!("{id}:{number} speaks {protocol}, for which the VirtualService has no rule"),
        )),
        RouteKind::Virtual
        | RouteKind::Tcp
        | RouteKind::Tls
        | RouteKind::Http
        | RouteKind::Grpc => None,
    }
}

/// Whether a VirtualService says something of a port that speaks so.
fn has_part(body: &Body<'_>, protocol: AppProtocol) -> bool {
    let Body::Virtual(spec) = body else {
        return true;
    };
    let requests = !spec.http.is_empty() && protocol != AppProtocol::Tcp;
    let said = !spec.tcp.is_empty() || !spec.tls.is_empty();
    let connections = said && !protocol.is_http();
    requests || connections
}
