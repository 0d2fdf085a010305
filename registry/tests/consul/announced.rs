//! Instances announced to the real agent: there with their health, out of use, expired, there again.

use std::{collections::BTreeMap, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use mesh_model::{
    config::{Access, RegistrationConfig, SourceConfig, SourceKind},
    endpoint::{Health, Locality},
    name::{Namespace, ServiceId, ServiceName},
    service::AppProtocol,
};
use mesh_registry::{
    contract::{
        Setup,
        server::{consul::MASTER, needed, told},
    },
    registrar::{Announced, Announcer, Registrar, Registration},
};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::agent::Agent;

const TTL: Duration = Duration::from_secs(5);

fn wanted(port: u16, health: Health) -> Announced {
    let service = ServiceId::new(Namespace::default(), ServiceName::new("web").unwrap());
    Announced {
        registration: Registration {
            id: Registration::id_of("h1", &service, port),
            service,
            address: SocketAddr::from(([192, 0, 2, 7], port)),
            protocol: AppProtocol::Http,
            weight: 3,
            locality: Locality {
                zone: Some("z1".into()),
                ..Locality::default()
            },
            labels: BTreeMap::from([("version".to_owned(), "v1".to_owned())]),
        },
        health,
        draining: false,
    }
}

fn registrar(agent: &Agent, token: Option<&Path>) -> Arc<dyn Registrar> {
    lasting(agent, token, TTL)
}

fn lasting(agent: &Agent, token: Option<&Path>, ttl: Duration) -> Arc<dyn Registrar> {
    let access = Access {
        addresses: vec![format!("http://{}", agent.admin)],
        token_file: token.map(Path::to_owned),
        ..Access::default()
    };
    let kind = SourceKind::Consul {
        access,
        datacenter: None,
        namespace: None,
        partition: None,
        tags: Vec::new(),
        passing: false,
        max_watches: SourceKind::CONSUL_WATCHES,
    };
    mesh_registry::open::registrar(&RegistrationConfig {
        source: SourceConfig {
            id: "consul/1".into(),
            publish: true,
            services: None,
            kind,
        },
        services: None,
        ttl,
        address: None,
        tags: vec!["mesh".into()],
    })
    .unwrap()
}

fn instances(agent: &Agent) -> Vec<Value> {
    let fields = [("X-Consul-Token", MASTER)];
    let text = told(agent.admin, "GET", "/v1/health/service/web", &fields, "");
    serde_json::from_str(&text).unwrap()
}

/// The status of the instance's own check, or what keeps it out of use.
fn status(agent: &Agent, port: u16) -> Option<String> {
    let all = instances(agent);
    let one = all.iter().find(|one| one["Service"]["Port"] == port)?;
    let checks = one["Checks"].as_array()?;
    if checks.iter().any(|check| {
        check["CheckID"]
            .as_str()
            .unwrap()
            .starts_with("_service_maintenance")
    }) {
        return Some("maintenance".to_owned());
    }
    let own = checks
        .iter()
        .find(|check| check["CheckID"].as_str().unwrap().ends_with("-meshd"))?;
    Some(own["Status"].as_str()?.to_owned())
}

async fn until(law: &str, longest: Duration, holds: impl Fn() -> bool) {
    let end = tokio::time::Instant::now() + longest;
    while !holds() {
        assert!(tokio::time::Instant::now() < end, "{law}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

const SOON: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_does_not_wait_for_the_next_renewal() {
    let Some(root) = needed("consul", "consul-registrar-health") else {
        return;
    };
    let agent = Agent::start(&root, Setup::Plain);
    // Renewed each minute and forty seconds.
    let lasting = lasting(&agent, None, Duration::from_mins(5));
    let mut announcer = Announcer::new("consul/1", lasting, CancellationToken::new());
    for (health, word) in [
        (Health::Healthy, "passing"),
        (Health::Unhealthy, "critical"),
        (Health::Degraded, "warning"),
        (Health::Healthy, "passing"),
    ] {
        announcer.want(&[wanted(80, health)]);
        until("health is passed on at once", SOON, || {
            status(&agent, 80).as_deref() == Some(word)
        })
        .await;
    }
    announcer.end(SOON).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_stand_with_their_health_until_they_are_taken_out() {
    let Some(root) = needed("consul", "consul-registrar") else {
        return;
    };
    let mut agent = Agent::start(&root, Setup::Plain);
    let stop = CancellationToken::new();
    let mut announcer = Announcer::new("consul/1", registrar(&agent, None), stop);
    announcer.want(&[wanted(80, Health::Healthy), wanted(81, Health::Unhealthy)]);
    let is = |agent: &Agent, port, wanted: &str| status(agent, port).as_deref() == Some(wanted);
    until("both stand with their health", SOON, || {
        is(&agent, 80, "passing") && is(&agent, 81, "critical")
    })
    .await;
    let first = &instances(&agent)[0]["Service"];
    assert_eq!(first["Meta"]["version"], "v1", "{first}");
    assert_eq!(first["Meta"]["zone"], "z1", "{first}");
    assert_eq!(first["Weights"]["Passing"], 3, "{first}");
    announcer.want(&[wanted(80, Health::Unhealthy), wanted(81, Health::Degraded)]);
    until("health is passed on", SOON, || {
        is(&agent, 80, "critical") && is(&agent, 81, "warning")
    })
    .await;
    announcer.want(&[wanted(80, Health::Healthy), wanted(81, Health::Healthy)]);
    let id = wanted(80, Health::Healthy).registration.id;
    told(
        agent.admin,
        "PUT",
        &format!("/v1/agent/service/deregister/{id}"),
        &[],
        "",
    );
    until("what somebody took out is there again", SOON, || {
        is(&agent, 80, "passing")
    })
    .await;
    tokio::time::sleep(TTL * 2).await;
    assert!(is(&agent, 80, "passing"), "renewed beyond its life");
    agent.server.kill();
    agent.server.start_again(true);
    until("an agent that comes back has both", SOON, || {
        is(&agent, 80, "passing") && is(&agent, 81, "passing")
    })
    .await;
    agent.server.kill();
    agent.server.start_again(false);
    until("an agent without memory is told again", SOON, || {
        is(&agent, 80, "passing") && is(&agent, 81, "passing")
    })
    .await;
    let mut leaving = wanted(80, Health::Healthy);
    leaving.draining = true;
    announcer.want(&[leaving, wanted(81, Health::Healthy)]);
    until("what drains is out of use", SOON, || {
        is(&agent, 80, "maintenance")
    })
    .await;
    let mut other = wanted(81, Health::Healthy);
    other
        .registration
        .labels
        .insert("version".into(), "v2".into());
    announcer.want(&[other]);
    until("a change replaces, what is not wanted goes", SOON, || {
        let all = instances(&agent);
        all.len() == 1 && all[0]["Service"]["Meta"]["version"] == "v2"
    })
    .await;
    announcer.end(SOON).await;
    assert!(instances(&agent).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_crash_leaves_behind_expires() {
    let Some(root) = needed("consul", "consul-registrar-crash") else {
        return;
    };
    let agent = Agent::start(&root, Setup::Plain);
    let stop = CancellationToken::new();
    let mut announcer = Announcer::new("consul/1", registrar(&agent, None), stop.clone());
    announcer.want(&[wanted(80, Health::Healthy)]);
    let is = |wanted: &str| status(&agent, 80).as_deref() == Some(wanted);
    until("it stands", SOON, || is("passing")).await;
    // Nothing is written from here on, as after SIGKILL.
    stop.cancel();
    until("it runs out", TTL * 3, || is("critical")).await;
    let checks = told(agent.admin, "GET", "/v1/agent/checks", &[], "");
    assert!(checks.contains("TTL expired"), "{checks}");
    drop(announcer);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_without_the_right_is_told_and_one_with_it_writes() {
    let Some(root) = needed("consul", "consul-registrar-token") else {
        return;
    };
    let agent = Agent::start(&root, Setup::Token);
    let file = agent.token_file();
    let mut announcer = Announcer::new(
        "consul/1",
        registrar(&agent, Some(&file)),
        CancellationToken::new(),
    );
    announcer.want(&[wanted(80, Health::Healthy)]);
    until("a refusal is told", SOON, || {
        let rows = announcer.rows();
        rows.iter().any(|row| {
            !row.registered && row.error.as_deref().is_some_and(|e| e.contains("refused"))
        })
    })
    .await;
    std::fs::write(&file, MASTER).unwrap();
    until("a token with the right is used", SOON, || {
        status(&agent, 80).as_deref() == Some("passing")
    })
    .await;
    announcer.end(SOON).await;
}
