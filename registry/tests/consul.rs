//! Consul's source and registrar against the real agent.

/// The agent.
#[cfg(test)]
#[path = "consul/agent.rs"]
mod agent;
/// What is announced to it.
#[cfg(test)]
#[path = "consul/announced.rs"]
mod announced;

#[cfg(test)]
mod tests {
    use mesh_registry::contract::{Setup, laws, matrix, server::needed};

    use crate::agent::Agent;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_agent_passes_every_case() {
        let Some(root) = needed("consul", "consul") else {
            return;
        };
        matrix("consul", |setup| Ok(Agent::start(&root, setup))).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_agent_obeys() {
        let Some(root) = needed("consul", "consul-laws") else {
            return;
        };
        laws(|| Agent::start(&root, Setup::Plain)).await;
    }
}
