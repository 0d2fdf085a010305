//! Rules by who calls and by which name: services, namespaces, labels, addresses, authorities.

use std::{collections::BTreeMap, sync::Arc};

use mesh_model::{
    name::ServiceId,
    service::AppProtocol,
    snapshot::{
        Caller, RequestMatch, SourceMatch, Target,
        rule::{Regex, ValueCondition},
    },
};

use super::{
    Path, Talk,
    routes::{attach, rule, versions},
};
use crate::trial::run;

#[test]
fn callers_choose_the_rule() {
    let none = SourceMatch::default;
    let service = |name| SourceMatch {
        services: vec![ServiceId::parse(name).unwrap()],
        ..none()
    };
    let labels = |value: &str| SourceMatch {
        labels: BTreeMap::from([("track".to_owned(), value.to_owned())]),
        ..none()
    };
    let address = |text: &str, length| SourceMatch {
        addresses: vec![(text.parse().unwrap(), length)],
        ..none()
    };
    let table = [
        (service("shop/cart"), true),
        (service("shop/web"), false),
        (
            SourceMatch {
                namespaces: vec!["shop".parse().unwrap()],
                ..none()
            },
            true,
        ),
        (
            SourceMatch {
                namespaces: vec!["other".parse().unwrap()],
                ..service("shop/cart")
            },
            false,
        ),
        (labels("canary"), true),
        (labels("stable"), false),
        (address("127.0.0.0", 8), true),
        (address("10.0.0.0", 8), false),
        (address("::", 0), false),
    ];
    run(async move {
        let (stage, one, two) = versions(Path::Straight).await;
        let caller = Arc::new(Caller {
            labels: Arc::new(BTreeMap::from([("track".to_owned(), "canary".to_owned())])),
            ..(*stage.world.caller()).clone()
        });
        for (source, fits) in table {
            let told = format!("{source:?}");
            let snapshot = attach(stage.calling(AppProtocol::Http, []), |_| {
                let mine = rule(Target::Backend(Arc::clone(&two)));
                let mine = mesh_model::snapshot::Rule {
                    matches: RequestMatch {
                        source: Some(Arc::new(source)),
                        ..RequestMatch::default()
                    },
                    ..mine
                };
                vec![mine, rule(Target::Backend(Arc::clone(&one)))]
            });
            stage.a.publish(snapshot);
            let stream = stage.world.dial_as(&stage.a, Arc::clone(&caller)).await;
            let heard = Talk::new(stream).get("/", "").await;
            assert_eq!(heard.text().starts_with("v2"), fits, "{told}");
        }
    });
}

#[test]
fn authorities_choose_the_rule() {
    let regex = |text| ValueCondition::Regex(Regex::new(text).unwrap());
    let table = [
        (ValueCondition::Exact("web".into()), "web", true),
        (ValueCondition::Exact("web".into()), "WEB:80", true),
        (ValueCondition::Exact("web".into()), "web.shop", false),
        (ValueCondition::Prefix("web.".into()), "Web.shop:8080", true),
        (regex("v[0-9]+\\.web"), "v2.web", true),
        (regex("v[0-9]+\\.web"), "v2.web.shop", false),
        (
            ValueCondition::Not(Box::new(ValueCondition::Exact("web".into()))),
            "other",
            true,
        ),
    ];
    run(async move {
        let (stage, one, two) = versions(Path::Straight).await;
        for (authority, said, fits) in table {
            let told = format!("{authority:?} {said}");
            let snapshot = attach(stage.calling(AppProtocol::Http, []), |_| {
                let mine = mesh_model::snapshot::Rule {
                    matches: RequestMatch {
                        authority: Some(authority),
                        ..RequestMatch::default()
                    },
                    ..rule(Target::Backend(Arc::clone(&two)))
                };
                vec![mine, rule(Target::Backend(Arc::clone(&one)))]
            });
            stage.a.publish(snapshot);
            let mut client = stage.dial().await;
            let heard = client
                .ask(&format!("GET / HTTP/1.1\r\nHost: {said}\r\n\r\n"))
                .await;
            assert_eq!(heard.text().starts_with("v2"), fits, "{told}");
        }
    });
}
