//! Where an ensemble is: servers as settings write them, and the path below which everything is.

use crate::source::SourceError;

/// One server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Server {
    /// As a person reads it.
    pub(super) text: String,
    pub(super) host: String,
    pub(super) port: u16,
    /// True when TLS is asked for by the address itself.
    pub(super) secured: bool,
}

/// Reads `[tls://]host:port[/chroot]`; the chroot may stand behind any of them, and is one.
pub(super) fn servers(addresses: &[String]) -> Result<(Vec<Server>, String), SourceError> {
    let mut chroot = String::new();
    let mut servers = Vec::new();
    for text in addresses {
        let wrong = || SourceError::Config(format!("{text:?} is no address of ZooKeeper"));
        let bare = text.strip_prefix("tls://");
        let (place, below) = split(bare.unwrap_or(text));
        let (host, port) = place.rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().ok().filter(|port| *port != 0);
        let host = host.trim_matches(['[', ']']);
        if host.is_empty() {
            return Err(wrong());
        }
        if !below.is_empty() {
            if !chroot.is_empty() && chroot != below {
                let what = "two addresses name different paths";
                return Err(SourceError::Config(what.into()));
            }
            below.clone_into(&mut chroot);
        }
        servers.push(Server {
            text: place.to_owned(),
            host: host.to_owned(),
            port: port.ok_or_else(wrong)?,
            secured: bare.is_some(),
        });
    }
    if servers.is_empty() {
        return Err(SourceError::Config("there is no address".into()));
    }
    Ok((servers, chroot))
}

fn split(address: &str) -> (&str, &str) {
    match address
        .find('/')
        .and_then(|at| address.split_at_checked(at))
    {
        Some((place, path)) => (place, path.trim_end_matches('/')),
        None => (address, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let read = |given: &[&str]| {
            let given: Vec<String> = given.iter().map(|text| (*text).to_owned()).collect();
            servers(&given)
        };
        let (all, chroot) = read(&["zk1:2181", "tls://[::1]:2281/mesh/"]).unwrap();
        assert_eq!(chroot, "/mesh");
        assert_eq!((all[0].host.as_str(), all[0].secured), ("zk1", false));
        assert_eq!((all[1].host.as_str(), all[1].port), ("::1", 2281));
        assert!(all[1].secured);
        assert!(read(&["zk1:1/a", "zk2:1/b"]).is_err());
        assert!(read(&["zk1"]).is_err());
        assert!(read(&["zk1:0"]).is_err());
        assert!(read(&[]).is_err());
    }
}
