//! Against the scripted server; the real one is in `tests/eureka.rs`.

use mesh_model::config::{Access, SourceConfig};

use super::*;
use crate::{eureka::fake::Fake, http::stage::Mood, registrar::tests::registration};

fn registrar(fake: &Fake) -> EurekaRegistrar {
    let access = Access {
        addresses: vec![format!("http://{}/eureka", fake.stage.address)],
        ..Access::default()
    };
    let kind = SourceKind::Eureka {
        access,
        zone: None,
        poll: Duration::from_secs(30),
        secure_port: false,
    };
    EurekaRegistrar::new(&RegistrationConfig {
        source: SourceConfig {
            id: "eureka/1".into(),
            publish: true,
            kind,
            services: None,
        },
        services: None,
        ttl: Duration::from_secs(15),
        address: None,
        tags: Vec::new(),
    })
    .unwrap()
}

fn word(fake: &Fake) -> Option<String> {
    fake.status("web", "h1-example-web-80")
        .map(|(status, _)| status)
}

#[tokio::test]
async fn an_instance_from_its_first_word_to_its_last() {
    let fake = Fake::start(None);
    let registrar = registrar(&fake);
    let of = Arc::new(registration(80));
    let lease = registrar.register(&of, Health::Healthy).await.unwrap();
    assert_eq!(word(&fake).as_deref(), Some("UP"));
    assert_eq!(
        registrar.renew(&lease, Health::Healthy).await.unwrap(),
        Renewal::Kept
    );
    assert_eq!(
        registrar.renew(&lease, Health::Unhealthy).await.unwrap(),
        Renewal::Kept
    );
    assert_eq!(word(&fake).as_deref(), Some("DOWN"), "health is passed on");
    registrar.renew(&lease, Health::Unknown).await.unwrap();
    assert_eq!(word(&fake).as_deref(), Some("UP"));
    registrar.drain(&lease).await.unwrap();
    assert_eq!(word(&fake).as_deref(), Some("OUT_OF_SERVICE"));
    assert_eq!(
        registrar.renew(&lease, Health::Healthy).await.unwrap(),
        Renewal::Kept
    );
    assert_eq!(
        word(&fake).as_deref(),
        Some("OUT_OF_SERVICE"),
        "a heartbeat changes nothing"
    );
    fake.forget();
    assert_eq!(
        registrar.renew(&lease, Health::Healthy).await.unwrap(),
        Renewal::Lost
    );
    registrar.drain(&lease).await.unwrap();
    registrar.register(&of, Health::Healthy).await.unwrap();
    assert_eq!(word(&fake).as_deref(), Some("UP"), "in service again");
    registrar.deregister(lease.clone()).await.unwrap();
    assert_eq!(word(&fake), None);
    registrar.deregister(lease).await.unwrap();
    assert!(
        fake.said().iter().any(|line| {
            line.starts_with("PUT /eureka/apps/WEB/h1-example-web-80?status=UP&lastDirtyTimestamp=")
        }),
        "{:?}",
        fake.said()
    );
}

#[tokio::test]
async fn an_error_is_no_loss() {
    let fake = Fake::start(None);
    let registrar = registrar(&fake);
    let of = Arc::new(registration(80));
    let lease = registrar.register(&of, Health::Healthy).await.unwrap();
    for mood in [Mood::Ill, Mood::Broken] {
        fake.stage.mood(mood);
        assert!(
            registrar.renew(&lease, Health::Healthy).await.is_err(),
            "{mood:?}"
        );
        assert!(
            registrar.deregister(lease.clone()).await.is_err(),
            "{mood:?}"
        );
    }
    fake.stage.mood(Mood::Good);
    assert_eq!(
        registrar.renew(&lease, Health::Healthy).await.unwrap(),
        Renewal::Kept
    );
}

#[test]
fn times_and_names_are_what_eureka_takes() {
    let fake = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let _inside = fake.enter();
    let registrar = registrar(&Fake::start(None));
    let mut of = registration(80);
    of.labels = [("ok-1.x", "v"), ("9no", "v"), ("no/slash", "v"), ("", "v")]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
    of.locality.zone = Some("a".into());
    let body = registrar.body(&of, "UP", 7);
    let instance = &body["instance"];
    assert_eq!(
        instance["leaseInfo"]["durationInSecs"], 8,
        "half of the life"
    );
    assert_eq!(instance["leaseInfo"]["renewalIntervalInSecs"], 5);
    assert_eq!(instance["app"], "WEB");
    assert_eq!(instance["vipAddress"], "web");
    assert_eq!(instance["lastDirtyTimestamp"], "7");
    assert_eq!(
        instance["metadata"],
        json!({"ok-1.x": "v", "zone": "a", "protocol": "detect", "weight": "1"})
    );
    registrar.known_as(
        &of.id,
        Some(Told {
            status: "UP",
            dirty_ms: u64::MAX - 1,
        }),
    );
    assert_eq!(registrar.dirty_after(&of.id), u64::MAX, "never older");
}
