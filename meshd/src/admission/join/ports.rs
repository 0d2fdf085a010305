//! Ports are tried both ways, and the missing one is named with the direction in which to open it.

use std::net::{IpAddr, SocketAddr};

use super::{Door, JoinError, Told};
use crate::admission::{
    Site,
    probe::{self, Answering},
    wire::{Greeting, Kind, Probe, Probed},
};

/// Tries 7947 by UDP and TCP and the tunnel's port, to the far host and back. A missing port is a warning: the
/// host works without it, in the way that the warning says.
pub(super) async fn try_all(
    site: &Site,
    door: &mut Door,
    greeting: &Greeting,
    session: [u8; 16],
    told: &Told,
) -> Result<(), JoinError> {
    let with_udp = site.udp && greeting.udp;
    let answering = Answering::open(site.cluster, site.tunnel, with_udp, session).await?;
    let there = Far {
        at: door.at,
        name: &greeting.host_name,
    };
    outward(&answering, &there, greeting, session, told).await;
    let asked = Probe {
        session: session.to_vec(),
        address: advertised(site)
            .map(|ip| ip.to_string())
            .unwrap_or_default(),
        tcp_port: site.cluster.port().into(),
        udp_port: if with_udp {
            site.cluster.port().into()
        } else {
            0
        },
        tunnel_port: site.tunnel.port().into(),
    };
    let probed = tokio::select! {
        probed = door.ask::<Probed>(Kind::Probe, &asked) => probed,
        () = answering.answer_udp(session) => Ok(Probed::default()),
    };
    answering.close().await;
    inward(site, &there, &probed?, with_udp, told).await;
    Ok(())
}

/// The far host, for messages.
struct Far<'a> {
    at: SocketAddr,
    name: &'a str,
}

async fn outward(
    answering: &Answering,
    there: &Far<'_>,
    greeting: &Greeting,
    session: [u8; 16],
    told: &Told,
) {
    let Far { at, name } = there;
    let (ip, port) = (at.ip(), at.port());
    told.ok(format!("TCP {port} to {name} ({ip}) is open"))
        .await;
    if let Some(socket) = &answering.udp {
        if probe::udp(Some(socket), *at, session).await {
            told.ok(format!("UDP {port} to {name} ({ip}) is open"))
                .await;
        } else {
            told.warn(
                format!(
                    "UDP {port} to {name} ({ip}) does not pass: membership runs over TCP alone"
                ),
                format!("open UDP {port} from this host to {ip}"),
            )
            .await;
        }
    }
    let tunnel = u16::try_from(greeting.tunnel_port).unwrap_or(0);
    if probe::opens(SocketAddr::new(ip, tunnel)).await {
        told.ok(format!("TCP {tunnel} to {name} ({ip}) is open"))
            .await;
    } else {
        told.warn(
            format!(
                "TCP {tunnel} to {name} ({ip}) does not open: this host cannot call services there"
            ),
            format!("open TCP {tunnel} from this host to {ip}"),
        )
        .await;
    }
}

async fn inward(site: &Site, there: &Far<'_>, probed: &Probed, with_udp: bool, told: &Told) {
    let Far { at, name } = there;
    let from = at.ip();
    let address = &probed.address;
    let (cluster, tunnel) = (site.cluster.port(), site.tunnel.port());
    let mut found = vec![
        (
            probed.tcp,
            "TCP",
            cluster,
            "links stand only while this host dials",
        ),
        (
            probed.tunnel,
            "TCP",
            tunnel,
            "programs there cannot call services of this host",
        ),
    ];
    if with_udp {
        found.push((probed.udp, "UDP", cluster, "membership runs over TCP alone"));
    }
    for (open, kind, port, consequence) in found {
        if open {
            told.ok(format!(
                "{kind} {port} from {name} to this host ({address}) is open"
            ))
            .await;
        } else {
            told.warn(
                format!("{kind} {port} from {name} to this host ({address}) does not pass: {consequence}"),
                format!("open {kind} {port} from {from} to this host ({address})"),
            )
            .await;
        }
    }
}

/// The address that others will dial: the one bound to, else the preferred one.
fn advertised(site: &Site) -> Option<IpAddr> {
    let bound = site.cluster.ip();
    if bound.is_unspecified() {
        site.addresses.first().copied()
    } else {
        Some(bound)
    }
}
