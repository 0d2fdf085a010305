//! Two hosts: the first offers what a test says, the second calls it as a program of its own.

use std::time::Duration;

use crate::{Mesh, host::Kind};

/// User id of the calling program on the second host.
pub const CLIENT: u32 = 5004;
/// User id of the programs that serve on the first.
pub const SERVER: u32 = 5030;

/// One port of one service of the first host.
#[derive(Debug, Clone, Copy)]
pub struct Offer {
    /// The service.
    pub name: &'static str,
    /// The port that callers dial, and where the program listens.
    pub port: u16,
    /// What is spoken, in the words of the configuration.
    pub protocol: &'static str,
}

/// Makes the mesh; `start` begins the programs before the daemons look for them, and may change the files.
pub fn mesh(
    offers: &[Offer],
    start: impl FnOnce(&mut Mesh) -> anyhow::Result<()>,
) -> anyhow::Result<Mesh> {
    let mut mesh = Mesh::new(Kind::Users, 2)?;
    for host in &mesh.hosts {
        host.configure("meshd.toml", &host.default_config(""))?;
    }
    for (index, offer) in offers.iter().enumerate() {
        let Offer {
            name,
            port,
            protocol,
        } = offer;
        let uid = SERVER + u32::try_from(index)?;
        let text = format!(
            "[[service]]\nname = \"{name}\"\nuser = {uid}\n\
             ports = [{{ port = {port}, target = {port}, protocol = \"{protocol}\" }}]\n"
        );
        mesh.host(0)
            .configure(&format!("services.d/{name}.toml"), &text)?;
    }
    let client = format!("[[service]]\nname = \"client\"\nuser = {CLIENT}\n");
    mesh.host(1).configure("services.d/client.toml", &client)?;
    start(&mut mesh)?;
    mesh.form(1, &[])?;
    for offer in offers {
        mesh.wait_endpoints(1, offer.name, 1, Duration::from_secs(30))?;
    }
    Ok(mesh)
}
