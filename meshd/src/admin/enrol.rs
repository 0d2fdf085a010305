//! Which services of this host are recognised by a systemd unit.

use mesh_model::{admin::Enrolled, config::Live};

use super::request::Query;
use crate::daemon::Daemon;

/// `GET /v1/enrol?unit=`. A host in no mesh can say it too: the settings are read already.
pub(super) fn enrolled(daemon: &Daemon, query: &Query) -> Enrolled {
    let unit = query.get("unit").map(String::as_str).unwrap_or_default();
    named_by(&daemon.ground.live.borrow(), unit)
}

fn named_by(live: &Live, unit: &str) -> Enrolled {
    let mut services: Vec<String> = live
        .services
        .iter()
        .filter(|one| {
            let named = one.recognise.unit.as_deref();
            named.is_some_and(|named| is_of(named, unit))
        })
        .map(|one| one.service.to_string())
        .collect();
    services.sort();
    services.dedup();
    Enrolled { services }
}

/// True when `named` is `unit`, or one of the instances of the template `unit`, such as `web@.service`.
fn is_of(named: &str, unit: &str) -> bool {
    named == unit
        || unit.split_once("@.").is_some_and(|(name, kind)| {
            named
                .strip_prefix(name)
                .and_then(|rest| rest.strip_prefix('@'))
                .and_then(|rest| rest.strip_suffix(kind))
                .and_then(|rest| rest.strip_suffix('.'))
                .is_some_and(|instance| !instance.is_empty())
        })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mesh_model::{
        config::LocalService,
        name::{Namespace, ServiceName},
    };

    use super::*;

    #[test]
    fn units_and_instances_of_templates() {
        let service = |name: &str, unit: Option<&str>| {
            let mut service = LocalService::named(
                Namespace::new("default").unwrap(),
                ServiceName::new(name).unwrap(),
            );
            service.recognise.unit = unit.map(str::to_owned);
            Arc::new(service)
        };
        let live = Live {
            services: vec![
                service("web", Some("web.service")),
                service("two", Some("work@2.service")),
                service("one", Some("work@1.service")),
                service("plain", None),
            ],
            ..Live::default()
        };
        let named = |unit| named_by(&live, unit).services;
        assert_eq!(named("web.service"), ["default/web"]);
        assert_eq!(named("work@2.service"), ["default/two"]);
        assert_eq!(named("work@.service"), ["default/one", "default/two"]);
        for nobodys in [
            "",
            "wrods.service",
            "work.service",
            "wor@.service",
            "web@.service",
        ] {
            assert!(named(nobodys).is_empty(), "{nobodys}");
        }
    }
}
