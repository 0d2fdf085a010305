//! Ports that a running sshd listens on: never intercepted, so that nobody is locked out.
//!
//! Asked in three ways, because each can fail: what sshd's configuration says, which sockets the processes
//! named sshd hold (needs rights), which cgroup the kernel gives listening sockets. Port 22 always counts.

use std::{
    collections::{BTreeSet, HashSet},
    fs,
    path::Path,
    process::Stdio,
    time::Duration,
};

use tokio::{process::Command, time::timeout};

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
    for table in ["/proc/self/net/tcp", "/proc/self/net/tcp6"] {
        let text = fs::read_to_string(table).unwrap_or_default();
        ports.extend(
            listening(&text)
                .filter(|(_, inode)| sockets.contains(inode))
                .map(|(port, _)| port),
        );
    }
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

/// Ports and inodes of listening sockets, from the text of `/proc/net/tcp`.
fn listening(text: &str) -> impl Iterator<Item = (u16, u64)> {
    text.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
        if *state != "0A" {
            return None;
        }
        let (_, port) = local.rsplit_once(':')?;
        Some((u16::from_str_radix(port, 16).ok()?, inode.parse().ok()?))
    })
}

/// Ports of listening sockets whose cgroup is sshd's unit: this needs no rights over the process.
async fn by_unit() -> Vec<u16> {
    let mut command = Command::new("ss");
    command
        .args(["-Hltn", "--cgroup"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    match timeout(Duration::from_secs(2), command.output()).await {
        Ok(Ok(output)) => in_cgroups(&String::from_utf8_lossy(&output.stdout)),
        Ok(Err(_)) | Err(_) => Vec::new(),
    }
}

fn in_cgroups(text: &str) -> Vec<u16> {
    text.lines()
        .filter(|line| {
            line.rsplit_once("cgroup:").is_some_and(|(_, path)| {
                path.trim()
                    .rsplit('/')
                    .next()
                    .is_some_and(|unit| UNITS.contains(&unit))
            })
        })
        .filter_map(|line| {
            line.split_whitespace()
                .nth(3)?
                .rsplit_once(':')?
                .1
                .parse()
                .ok()
        })
        .collect()
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
    fn listening_sockets_are_told_from_others() {
        let text = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
   0: 00000000:08AE 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0\n\
   1: 0100007F:08AF 00000000:0000 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 100 0 0 10 0\n\
   2: garbage\n";
        assert_eq!(listening(text).collect::<Vec<_>>(), [(2222, 4711)]);
    }

    #[test]
    fn units_are_recognised_by_their_cgroup() {
        let text = "LISTEN 0 128 0.0.0.0:2222 0.0.0.0:* cgroup:/system.slice/ssh.service\n\
                    LISTEN 0 128 [::]:2223 [::]:* cgroup:/system.slice/sshd.service \n\
                    LISTEN 0 128 0.0.0.0:80 0.0.0.0:* cgroup:/system.slice/nginx.service\nx\n";
        assert_eq!(in_cgroups(text), [2222, 2223]);
    }
}
