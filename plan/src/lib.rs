//! Facts and configuration become a snapshot: pure and deterministic.
//!
//! In: the catalog (all facts merged), this host's configuration, what was compiled before. Out: the
//! snapshot that the proxy obeys, what the kernel and the names process are told, findings, and the state
//! of every route. The same inputs give the same snapshot on every machine. Never: a clock, randomness,
//! files, sockets.
//!
//! The recipe, in order: facts about one thing become one truth (`world`); services get ports and
//! endpoints (`services`), virtual addresses (`addresses`), traffic policies (`destination`) and backends
//! (`backends`); routes and tables are attached and compiled (`attach`, `routes`, `tables`, `frontends`); then
//! what comes in (`inbound`, `policies`, `limits`), who calls and whom we believe (`people`).

mod addresses;
mod attach;
mod backends;
mod breath;
mod compiled;
mod destination;
mod digest;
mod doubts;
mod endpoints;
/// What would happen to this request, and because of which fact.
pub mod explain;
mod faults;
mod findings;
mod frontends;
mod hosts;
mod inbound;
mod input;
mod key;
mod labelled;
mod limits;
mod locality;
mod matches;
mod merge;
mod namers;
mod names;
mod outcome;
mod overview;
mod people;
mod percent;
mod policies;
mod proposal;
/// Who reads the sources of the whole mesh.
pub mod readers;
mod revocations;
mod routes;
mod services;
mod share;
mod sources;
mod status;
mod tables;
mod targets;
mod world;

use mesh_model::snapshot::{Inbound, MeshView, Outbound, Snapshot};

pub use breath::Breath;
pub use compiled::{Candidate, Compiled, VirtualPort};
pub use input::{Allocations, CompileError, Input};
pub use proposal::{CONTRADICTIONS, Proposal, UNKNOWN_REFERENCES, validate};

use findings::Findings;
use world::World;

/// Compiles everything. Before the host is in a mesh the snapshot is the empty one.
pub fn compile(input: &Input<'_>) -> Result<Compiled, CompileError> {
    let Some(mesh) = &input.catalog.mesh else {
        return Ok(Compiled {
            allocations: input.allocations.clone(),
            ..Compiled::default()
        });
    };
    let findings = Findings::default();
    let world = World::build(input, mesh, &findings);
    let sources = merge::Sources::gather(&world);
    let services = services::build(&world, &sources, &findings);
    let allocations = addresses::allocate(&services, input)?;
    let rules = destination::gather(&world, &services, &findings);
    let backends = backends::build(&services, &rules, input, &findings);
    let attached = attach::attach(&world, &services, &findings);
    doubts::ports(&world, &services, &attached.routes, &findings);
    let named = namers::build(&world, &sources, &services, &backends, input.previous);
    let tables = tables::gather(&world, &named, &findings);
    let faults = faults::gather(&world, &services, &findings);
    let limits = limits::gather(&world, &services, &findings);
    let routed = frontends::Room {
        world: &world,
        services: &services,
        allocations: &allocations,
        backends: &backends,
        attached: &attached,
        tables: &tables,
        named: &named,
        faults: &faults,
        findings: &findings,
    }
    .build();
    let inbound = inbound::build(&world, &rules, &limits, &findings);
    let outbound = Outbound {
        by_address: names::by_address(&routed.frontends),
        by_host: names::by_host(&routed.frontends, &mesh.domain),
        direct: backends.direct.clone(),
        backends: backends.by_service.clone(),
        subsets: backends.subsets.clone(),
        delegations: tables.by_namespace,
        sources: named,
        frontends: routed.frontends,
    };
    let mut snapshot = Snapshot {
        generation: 0,
        version: 0,
        mesh: Some(MeshView {
            trust_domain: mesh.trust_domain.clone(),
            domain: std::sync::Arc::clone(&mesh.domain),
            host: mesh.host,
            host_name: world.own_name(),
        }),
        outbound,
        inbound: Inbound {
            by_address: inbound.by_address,
            by_server_name: inbound.by_server_name,
            identities: inbound.identities,
        },
        callers: people::callers(&world),
        trust: people::trust(&world),
    };
    share::share(&mut snapshot, input.previous);
    snapshot.version = digest::of(&snapshot, input.breath);
    overview::tell(&world, &services, &findings);
    let mut outcomes = attached.outcomes(routed.resolved);
    outcomes.extend(rules.outcomes);
    outcomes.extend(faults.outcomes);
    outcomes.extend(limits.outcomes);
    let callable = names::names(
        &services,
        &snapshot.outbound.frontends,
        &backends,
        input,
        &mesh.domain,
    );
    services.free(input.breath);
    Ok(Compiled {
        findings: findings.into_sorted(),
        names: callable,
        virtuals: names::virtuals(&snapshot.outbound.frontends, &backends, input),
        direct: names::direct(&snapshot.outbound),
        inbound: inbound.captured,
        candidates: backends.candidates,
        statuses: status::statuses(outcomes),
        allocations,
        snapshot,
    })
}
