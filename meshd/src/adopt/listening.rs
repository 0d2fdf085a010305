//! Who listens on this host: port, user, unit; without rights over other processes.
//!
//! `/proc/net/tcp` tells the user of each listening socket, `ss --cgroup` its cgroup, which names the unit. A host
//! without `ss`, or with an older kernel, has users only.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    process::Stdio,
    time::Duration,
};

use tokio::{process::Command, time::timeout};

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
    let units = units().await;
    let mut found = Vec::new();
    for table in ["/proc/self/net/tcp", "/proc/self/net/tcp6"] {
        let text = std::fs::read_to_string(table).unwrap_or_default();
        found.extend(in_table(&text));
    }
    for one in &mut found {
        one.unit = units.get(&one.port).cloned();
    }
    found
}

fn in_table(text: &str) -> impl Iterator<Item = Listener> {
    text.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (local, state, uid) = (fields.get(1)?, fields.get(3)?, fields.get(7)?);
        if *state != "0A" {
            return None;
        }
        let (address, port) = local.rsplit_once(':')?;
        Some(Listener {
            address: address_of(address)?.to_canonical(),
            port: u16::from_str_radix(port, 16).ok()?,
            uid: uid.parse().ok()?,
            unit: None,
        })
    })
}

/// Words of 32 bit as the kernel prints them, in this machine's order.
fn address_of(text: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let digits = text.get(at * 8..at * 8 + 8)?;
        u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes)
    };
    if text.len() == 8 {
        return Some(IpAddr::V4(Ipv4Addr::from(word(0)?)));
    }
    let mut bytes = [0; 16];
    for (at, part) in bytes.chunks_exact_mut(4).enumerate() {
        part.copy_from_slice(&word(at)?);
    }
    Some(IpAddr::V6(Ipv6Addr::from(bytes)))
}

/// Units by port; a port of several units has none.
async fn units() -> BTreeMap<u16, String> {
    let mut command = Command::new("ss");
    command
        .args(["-Hltn", "--cgroup"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    match timeout(Duration::from_secs(2), command.output()).await {
        Ok(Ok(output)) => in_cgroups(&String::from_utf8_lossy(&output.stdout)),
        Ok(Err(_)) | Err(_) => BTreeMap::new(),
    }
}

fn in_cgroups(text: &str) -> BTreeMap<u16, String> {
    let mut found: BTreeMap<u16, Option<String>> = BTreeMap::new();
    for line in text.lines() {
        let Some((head, path)) = line.rsplit_once("cgroup:") else {
            continue;
        };
        let local = head.split_whitespace().nth(3);
        let port = local.and_then(|local| local.rsplit_once(':')?.1.parse().ok());
        let Some(port) = port else { continue };
        let path = path.split_whitespace().next().unwrap_or_default();
        let unit = unit_of(path).map(str::to_owned);
        let known = found.entry(port).or_insert_with(|| unit.clone());
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
    fn tables_of_the_kernel() {
        let text = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1001        0 123 1 0 100\n\
            1: 0100007F:1F91 0100007F:9999 01 00000000:00000000 00:00000000 00000000  1001        0 124 1 0 100\n";
        let found: Vec<Listener> = in_table(text).collect();
        let wanted = Listener {
            address: "127.0.0.1".parse().unwrap(),
            port: 8080,
            uid: 1001,
            unit: None,
        };
        assert_eq!(found, [wanted]);
        let six = "x\n 0: 00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 0A 0:0 0:0 0 7 0 5\n";
        let found: Vec<Listener> = in_table(six).collect();
        assert_eq!(
            (found[0].address, found[0].port, found[0].uid),
            ("::1".parse().unwrap(), 80, 7)
        );
    }

    #[test]
    fn units_by_port() {
        let text = "LISTEN 0 128 0.0.0.0:8080 0.0.0.0:* cgroup:/system.slice/web.service <->\n\
            LISTEN 0 128 [::]:8080 [::]:* cgroup:/system.slice/web.service <->\n\
            LISTEN 0 128 *:81 *:* cgroup:/user.slice/user-1000.slice/user@1000.service/app.slice/x.service\n\
            LISTEN 0 128 *:82 *:* cgroup:/system.slice/a.service\n\
            LISTEN 0 128 *:82 *:* cgroup:/system.slice/b.service\n\
            LISTEN 0 128 *:83 *:* cgroup:/\n";
        let wanted = BTreeMap::from([(8080, "web.service".to_owned())]);
        assert_eq!(in_cgroups(text), wanted);
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
