//! What is announced, against the scripted server: its breaks, its endings, its loss of memory.

use std::{collections::BTreeMap, net::SocketAddr};

use mesh_model::{
    endpoint::Locality,
    name::{Namespace, ServiceId, ServiceName},
    service::AppProtocol,
};

use super::*;
use crate::zookeeper::scripted::{Mood, Server};

/// Members that carry the id alone.
struct Ids;

impl Writing for Ids {
    fn directory(&self, of: &Registration) -> String {
        of.service.name.as_str().to_owned()
    }
    fn name(&self, _of: &Registration) -> (String, bool) {
        ("member_".to_owned(), true)
    }
    fn data(&self, of: &Registration, state: State) -> Vec<u8> {
        format!("{} {state:?}", of.id).into_bytes()
    }
    fn is_of(&self, data: &[u8], id: &str) -> bool {
        data.starts_with(format!("{id} ").as_bytes())
    }
}

fn registration(port: u16) -> Arc<Registration> {
    let name = ServiceName::new("web").unwrap();
    let service = ServiceId::new(Namespace::default(), name);
    Arc::new(Registration {
        id: Registration::id_of("h", &service, port),
        service,
        address: SocketAddr::from(([10, 0, 0, 1], port)),
        protocol: AppProtocol::Http,
        weight: 1,
        locality: Locality::default(),
        labels: BTreeMap::new(),
    })
}

fn registrar(server: &Server) -> ZookeeperRegistrar {
    let ensemble = Ensemble {
        addresses: vec!["127.0.0.1:9".to_owned(), format!("{}/lab", server.address)],
        ..Ensemble::default()
    };
    ZookeeperRegistrar::new(&ensemble, "/sets", Duration::from_secs(6), Arc::new(Ids))
}

async fn holds(server: &Server, wanted: &[&str]) {
    let end = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let there = server.below("/lab/sets/web");
        if there
            .values()
            .map(String::as_str)
            .eq(wanted.iter().copied())
        {
            return;
        }
        assert!(
            tokio::time::Instant::now() < end,
            "{there:?} is not {wanted:?}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Renews until a break is over; it is never lost.
async fn kept(ours: &ZookeeperRegistrar, lease: &Lease, health: Health) {
    let end = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        match ours.renew(lease, health).await {
            Ok(how) => return assert_eq!(how, Renewal::Kept),
            Err(error) => assert!(tokio::time::Instant::now() < end, "{error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn an_instance_stands_through_breaks_and_endings() {
    let server = Server::start();
    let ours = registrar(&server);
    let lease = ours
        .register(&registration(1), Health::Healthy)
        .await
        .unwrap();
    holds(&server, &["h-web-1 Well"]).await;
    kept(&ours, &lease, Health::Unhealthy).await;
    holds(&server, &["h-web-1 Ill"]).await;
    // A break: the session goes on and the node stands.
    let (path, _) = server.below("/lab/sets/web").pop_first().unwrap();
    server.mood(Mood::Good);
    kept(&ours, &lease, Health::Healthy).await;
    assert!(server.resumed() > 0 && server.below("/lab/sets/web").contains_key(&path));
    // The session ends: the node is made again, unasked.
    server.expire();
    holds(&server, &[]).await;
    holds(&server, &["h-web-1 Well"]).await;
    kept(&ours, &lease, Health::Healthy).await;
    // The server forgets everything, its history too.
    server.empty();
    holds(&server, &["h-web-1 Well"]).await;
    // Somebody removes the node.
    let (path, _) = server.below("/lab/sets/web").pop_first().unwrap();
    server.remove(&path);
    let lost = ours.renew(&lease, Health::Healthy).await;
    assert!(matches!(lost, Ok(Renewal::Lost)), "{lost:?}");
    let lease = ours
        .register(&registration(1), Health::Healthy)
        .await
        .unwrap();
    ours.drain(&lease).await.unwrap();
    holds(&server, &["h-web-1 Leaving"]).await;
    ours.deregister(lease).await.unwrap();
    holds(&server, &[]).await;
}

#[tokio::test]
async fn the_node_of_a_process_before_is_taken_over() {
    let server = Server::start();
    let before = registrar(&server);
    let _lease = before
        .register(&registration(1), Health::Healthy)
        .await
        .unwrap();
    let other = before
        .register(&registration(2), Health::Healthy)
        .await
        .unwrap();
    let after = registrar(&server);
    let lease = after
        .register(&registration(1), Health::Unhealthy)
        .await
        .unwrap();
    holds(&server, &["h-web-2 Well", "h-web-1 Ill"]).await;
    before.deregister(other).await.unwrap();
    let moved = after
        .replace(lease, &registration(3), Health::Healthy)
        .await
        .unwrap();
    holds(&server, &["h-web-3 Well"]).await;
    server.mood(Mood::Broken);
    assert!(after.deregister(moved).await.is_err(), "bounded in time");
}
