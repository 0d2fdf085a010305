//! What should be intercepted: addresses, ports and marks, nothing of nftables.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use mesh_model::config::Mark;

/// The most endpoints of one virtual address that the fallback keeps.
pub const MAX_FALLBACK_ENDPOINTS: usize = 256;

/// What should be intercepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    /// Loopback port of the proxy for captured calls of local programs.
    pub outbound_port: u16,
    /// Port of the proxy's transparent sockets for captured calls to local programs.
    pub inbound_port: u16,
    /// The virtual addresses, IPv4: network and prefix length.
    pub virtual_v4: (Ipv4Addr, u8),
    /// The virtual addresses, IPv6: network and prefix length.
    pub virtual_v6: (Ipv6Addr, u8),
    /// Source address of calls to virtual addresses; loopback when `None`.
    pub host_v4: Option<Ipv4Addr>,
    /// Source address of calls to virtual addresses; loopback when `None`.
    pub host_v6: Option<Ipv6Addr>,
    /// The mark of the daemon's own sockets; `value + step` marks replies that go back to the proxy.
    pub mark: Mark,
    /// Virtual addresses and ports of services.
    pub virtuals: Vec<Virtual>,
    /// Own addresses of known endpoints: calls to them are captured too. This host's own are left alone.
    pub direct: Vec<SocketAddr>,
    /// Registered ports of local programs, by the address that other hosts dial.
    pub inbound: Vec<Inbound>,
    /// Ports that are never captured, beside 22 and those of a running sshd.
    pub skip_ports: Vec<u16>,
}

/// A virtual address and port, and where its calls go while no daemon runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Virtual {
    /// Virtual address and port.
    pub address: SocketAddr,
    /// Healthy endpoints that take plaintext; those of the other address family are left out. Empty: refused.
    pub endpoints: Vec<SocketAddr>,
    /// True: refused, whatever the endpoints, while no daemon runs.
    pub fail_closed: bool,
}

/// A registered port of a local program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inbound {
    /// Address of this host, and port.
    pub address: SocketAddr,
    /// True: connections from other hosts that do not pass the proxy are reset, also while no daemon runs.
    pub strict: bool,
}

impl Intent {
    /// An intent that captures nothing yet.
    pub fn empty(outbound_port: u16, inbound_port: u16, mark: Mark) -> Self {
        Self {
            outbound_port,
            inbound_port,
            virtual_v4: (Ipv4Addr::new(240, 240, 0, 0), 16),
            virtual_v6: (Ipv6Addr::new(0xfd6d, 0x6573, 0x6864, 0, 0, 0, 0, 0), 64),
            host_v4: None,
            host_v6: None,
            mark,
            virtuals: Vec::new(),
            direct: Vec::new(),
            inbound: Vec::new(),
            skip_ports: Vec::new(),
        }
    }

    /// Where the IPv4 route takes its source from.
    pub(crate) fn source_v4(&self) -> Ipv4Addr {
        self.host_v4.unwrap_or(Ipv4Addr::LOCALHOST)
    }

    /// Where the IPv6 route takes its source from.
    pub(crate) fn source_v6(&self) -> Ipv6Addr {
        self.host_v6.unwrap_or(Ipv6Addr::LOCALHOST)
    }
}

/// The mark of replies that are routed back to the proxy: the next value inside the mask above the daemon's own.
///
/// Never 0, which would mark every packet: the highest value takes the one below. `None` when the mask has
/// room for one value only, or the daemon's own is 0.
pub fn reply_mark(mark: Mark) -> Option<u32> {
    let own = mark.value & mark.mask;
    let step = mark.mask & mark.mask.wrapping_neg();
    // Ones outside the mask carry the step on to the mask's next bit.
    let above = (own | !mark.mask).wrapping_add(step) & mark.mask;
    let below = own.wrapping_sub(1) & mark.mask;
    let reply = if above == 0 { below } else { above };
    (own != 0 && reply != 0 && reply != own).then_some(reply)
}

/// An address as the kernel's rules see it: IPv4 inside IPv6 is IPv4.
pub(crate) fn plain(address: SocketAddr) -> SocketAddr {
    let ip: IpAddr = address.ip().to_canonical();
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reply_mark_is_another_one_inside_the_mask() {
        for (value, mask, reply) in [
            (0x004d_0000, 0x00ff_0000, Some(0x004e_0000)),
            (0x00ff_0000, 0x00ff_0000, Some(0x00fe_0000)),
            (0x2, 0x3, Some(0x3)),
            (0x0d00_0000, 0x0f00_0000, Some(0x0e00_0000)),
            (0x10, 0x1010, Some(0x1000)),
            (0x1010, 0x1010, Some(0x1000)),
            (0x10, 0x10, None),
            (0, 0xff, None),
            (0x100, 0xff, None),
        ] {
            assert_eq!(
                reply_mark(Mark { value, mask }),
                reply,
                "{value:#x}/{mask:#x}"
            );
        }
    }
}
