//! Who listens on this host: port, user, unit; without rights over other processes.
//!
//! The kernel tells the user of each listening socket, and its cgroup, which names the unit. A host without `ss`, or
//! with an older kernel, has users only.

use std::{collections::BTreeMap, net::IpAddr};

use mesh_intercept::listening;

/// A listening socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listener {
    /// Where; unspecified: all addresses.
    pub(crate) address: IpAddr,
    /// Port.
    pub(crate) port: u16,
    /// User of whoever made it.
    pub(crate) uid: u32,
    /// Its unit of the system manager.
    pub(crate) unit: Option<String>,
}

/// All listening sockets.
pub(crate) async fn listeners() -> Vec<Listener> {
    let units = units(&listening::cgroups().await);
    let all = listening::sockets().into_iter();
    all.map(|one| Listener {
        address: one.address,
        port: one.port,
        uid: one.uid,
        unit: units.get(&one.port).cloned(),
    })
    .collect()
}

/// Units by port; a port of several units has none.
fn units(cgroups: &[(u16, String)]) -> BTreeMap<u16, String> {
    let mut found: BTreeMap<u16, Option<String>> = BTreeMap::new();
    for (port, path) in cgroups {
        let unit = unit_of(path).map(str::to_owned);
        let known = found.entry(*port).or_insert_with(|| unit.clone());
        if *known != unit {
            *known = None;
        }
    }
    let all = found.into_iter();
    all.filter_map(|(port, unit)| Some((port, unit?))).collect()
}

/// The outermost unit on a path is the system manager's; what users' managers name is not believed.
fn unit_of(path: &str) -> Option<&str> {
    let mut parts = path.split('/');
    let kind = |part: &str| part.rsplit_once('.').map(|(_, kind)| kind == "service");
    let unit = parts.find(|part| {
        part.rsplit('.')
            .next()
            .is_some_and(|kind| matches!(kind, "service" | "scope"))
    })?;
    (kind(unit) == Some(true) && !unit.starts_with("user@")).then_some(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_by_port() {
        let cgroups = [
            (8080, "/system.slice/web.service"),
            (8080, "/system.slice/web.service"),
            (
                81,
                "/user.slice/user-1000.slice/user@1000.service/app.slice/x.service",
            ),
            (82, "/system.slice/a.service"),
            (82, "/system.slice/b.service"),
            (83, "/"),
        ]
        .map(|(port, path)| (port, path.to_owned()));
        let wanted = BTreeMap::from([(8080, "web.service".to_owned())]);
        assert_eq!(units(&cgroups), wanted);
    }

    #[tokio::test]
    async fn this_process_is_found() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let all = listeners().await;
        let own = all.iter().find(|one| one.port == port).unwrap();
        assert_eq!(own.uid, nix::unistd::getuid().as_raw());
    }
}
