//! Listening sockets of this host as the kernel tells them, without rights over other processes.
//!
//! In: `/proc/self/net/tcp`, `tcp6`, and `ss --cgroup`. Out: address, port, user and inode; ports with the cgroup of
//! who made the socket. Both are empty where they cannot be read.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    process::Stdio,
    time::Duration,
};

use tokio::{process::Command, time::timeout};

/// A listening socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Socket {
    /// Where, IPv4 in its own form; unspecified: all addresses.
    pub address: IpAddr,
    /// Port.
    pub port: u16,
    /// User of whoever made it.
    pub uid: u32,
    /// Its inode, as the links in `/proc/PID/fd` name it.
    pub inode: u64,
}

/// All listening TCP sockets.
#[must_use]
pub fn sockets() -> Vec<Socket> {
    ["/proc/self/net/tcp", "/proc/self/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|text| in_table(&text).collect::<Vec<_>>())
        .collect()
}

/// Ports with the cgroup of their socket, one pair per socket; older kernels and hosts without `ss` tell none.
pub async fn cgroups() -> Vec<(u16, String)> {
    let mut command = Command::new("ss");
    command
        .args(["-Hltn", "--cgroup"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    match timeout(Duration::from_secs(2), command.output()).await {
        Ok(Ok(output)) => in_lines(&String::from_utf8_lossy(&output.stdout)).collect(),
        Ok(Err(_)) | Err(_) => Vec::new(),
    }
}

fn in_table(text: &str) -> impl Iterator<Item = Socket> {
    text.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (local, state) = (fields.get(1)?, fields.get(3)?);
        if *state != "0A" {
            return None;
        }
        let (address, port) = local.rsplit_once(':')?;
        Some(Socket {
            address: address_of(address)?.to_canonical(),
            port: u16::from_str_radix(port, 16).ok()?,
            uid: fields.get(7)?.parse().ok()?,
            inode: fields.get(9)?.parse().ok()?,
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

fn in_lines(text: &str) -> impl Iterator<Item = (u16, String)> {
    text.lines().filter_map(|line| {
        let (head, path) = line.rsplit_once("cgroup:")?;
        let port = head.split_whitespace().nth(3)?.rsplit_once(':')?.1;
        let path = path.split_whitespace().next().unwrap_or_default();
        Some((port.parse().ok()?, path.to_owned()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listening_sockets_are_told_from_others() {
        let text = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1001        0 123 1 0 100\n\
            1: 0100007F:1F91 0100007F:9999 01 00000000:00000000 00:00000000 00000000  1001        0 124 1 0 100\n\
            2: garbage\n";
        let wanted = Socket {
            address: "127.0.0.1".parse().unwrap(),
            port: 8080,
            uid: 1001,
            inode: 123,
        };
        assert_eq!(in_table(text).collect::<Vec<_>>(), [wanted]);
        let six = "x\n 0: 00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 0A 0:0 0:0 0 7 0 5\n";
        let found: Vec<Socket> = in_table(six).collect();
        assert_eq!(
            (
                found[0].address,
                found[0].port,
                found[0].uid,
                found[0].inode
            ),
            ("::1".parse().unwrap(), 80, 7, 5)
        );
    }

    #[test]
    fn cgroups_of_ports() {
        let text = "LISTEN 0 128 0.0.0.0:2222 0.0.0.0:* cgroup:/system.slice/ssh.service\n\
            LISTEN 0 128 [::]:2223 [::]:* cgroup:/system.slice/sshd.service <->\nx\n";
        let wanted = [
            (2222, "/system.slice/ssh.service".to_owned()),
            (2223, "/system.slice/sshd.service".to_owned()),
        ];
        assert_eq!(in_lines(text).collect::<Vec<_>>(), wanted);
    }

    #[test]
    fn a_socket_of_this_process_is_found() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let found = sockets()
            .into_iter()
            .find(|one| one.port == address.port() && one.address == address.ip());
        assert!(found.is_some_and(|one| one.inode > 0));
    }
}
