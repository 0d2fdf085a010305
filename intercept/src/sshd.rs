//! Ports that a running sshd listens on: never intercepted, so that nobody is locked out.
//!
//! Asked in three ways, because each can fail: what sshd's configuration says, which sockets the processes
//! named sshd hold (needs rights), which cgroup the kernel gives listening sockets. Port 22 always counts.

use std::{
    collections::{BTreeSet, HashSet},
    fs,
    path::Path,
};

use crate::listening;

/// Names of processes that let people in.
const NAMES: [&str; 4] = ["sshd", "sshd-session", "sshd-auth", "dropbear"];
/// Systemd units of the same.
const UNITS: [&str; 4] = [
    "ssh.service",
    "sshd.service",
    "ssh.socket",
    "dropbear.service",
];

/// The ports, 22 among them.
pub async fn ports() -> BTreeSet<u16> {
    let mut ports = BTreeSet::from([22]);
    ports.extend(configured(Path::new("/etc/ssh")));
    let mut sockets = HashSet::new();
    for process in processes() {
        sockets.extend(sockets_of(&process));
    }
    let held = listening::sockets().into_iter();
    ports.extend(
        held.filter(|one| sockets.contains(&one.inode))
            .map(|one| one.port),
    );
    ports.extend(by_unit().await);
    ports
}

/// `Port` and `ListenAddress` of sshd's configuration files.
fn configured(folder: &Path) -> BTreeSet<u16> {
    let more = fs::read_dir(folder.join("sshd_config.d"))
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .map(|entry| entry.path());
    std::iter::once(folder.join("sshd_config"))
        .chain(more)
        .filter_map(|file| fs::read_to_string(file).ok())
        .flat_map(|text| in_configuration(&text))
        .collect()
}

fn in_configuration(text: &str) -> Vec<u16> {
    text.lines()
        .filter_map(|line| {
            let mut words = line
                .split(|c: char| c.is_whitespace() || c == '=')
                .filter(|word| !word.is_empty());
            let (key, value) = (words.next()?, words.next()?);
            if key.eq_ignore_ascii_case("port") {
                return value.parse().ok();
            }
            if key.eq_ignore_ascii_case("listenaddress") {
                // A bare IPv6 address has colons too, but no port.
                return value.parse::<std::net::Ipv6Addr>().map_or_else(
                    |_name| {
                        value
                            .rsplit_once(':')
                            .and_then(|(_, port)| port.parse().ok())
                    },
                    |_bare| None,
                );
            }
            None
        })
        .collect()
}

fn processes() -> Vec<std::path::PathBuf> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| {
            fs::read_to_string(path.join("comm")).is_ok_and(|name| NAMES.contains(&name.trim()))
        })
        .collect()
}

/// Inodes of a process's sockets; none when we may not look.
fn sockets_of(process: &Path) -> Vec<u64> {
    fs::read_dir(process.join("fd"))
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .filter_map(|target| {
            target
                .to_str()?
                .strip_prefix("socket:[")?
                .strip_suffix(']')?
                .parse()
                .ok()
        })
        .collect()
}

/// Ports of listening sockets whose cgroup is sshd's unit: this needs no rights over the process.
async fn by_unit() -> Vec<u16> {
    let all = listening::cgroups().await.into_iter();
    all.filter(|(_, cgroup)| is_of_sshd(cgroup))
        .map(|(port, _)| port)
        .collect()
}

fn is_of_sshd(cgroup: &str) -> bool {
    let unit = cgroup.rsplit('/').next();
    unit.is_some_and(|unit| UNITS.contains(&unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration_names_ports() {
        let text = "# Port 1\nPort 2222\n  port=2223\nListenAddress 10.0.0.1:2224\n\
                    ListenAddress [::1]:2225\nListenAddress ::\nListenAddress 0.0.0.0\nUsePAM yes\nPort x\n";
        assert_eq!(in_configuration(text), [2222, 2223, 2224, 2225]);
    }

    #[test]
    fn units_are_recognised_by_their_cgroup() {
        assert!(is_of_sshd("/system.slice/ssh.service"));
        assert!(is_of_sshd("/system.slice/sshd.service"));
        assert!(!is_of_sshd("/system.slice/nginx.service"));
        assert!(!is_of_sshd("/"));
    }
}
