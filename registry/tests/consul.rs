//! Consul's source and registrar against the real agent.

/// The agent.
#[cfg(test)]
#[path = "consul/agent.rs"]
mod agent;
/// What is announced to it.
#[cfg(test)]
#[path = "consul/announced.rs"]
mod announced;
/// Many services.
#[cfg(test)]
#[path = "consul/many.rs"]
mod many;

#[cfg(test)]
mod tests {
    use mesh_registry::contract::{Setup, Watched, World, laws, matrix, server::needed, up};

    use crate::{agent::Agent, many};

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

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_agents_socket_is_read_too() {
        let Some(root) = needed("consul", "consul-socket") else {
            return;
        };
        let mut agent = Agent::start(&root, Setup::Plain);
        agent.unix = true;
        agent.put("web", &[up(1), up(2)]);
        let run = Watched::new(&agent);
        run.has("web", &[1, 2]).await;
        agent.put("web", &[up(1), up(2), up(3)]);
        run.has("web", &[1, 2, 3]).await;
        agent.server.kill();
        run.is("degraded").await;
        agent.server.start_again(true);
        run.is("synced").await;
        run.has("web", &[1, 2, 3]).await;
        run.end().await;
    }

    /// Names with capitals, dots and underscores are followed as those that the mesh can have.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn names_are_made_fit() {
        let Some(root) = needed("consul", "consul-names") else {
            return;
        };
        for max_watches in [160, 1] {
            let mut agent = Agent::start(&root, Setup::Plain);
            agent.max_watches = max_watches;
            agent.put("Web_API.v2", &[up(1), up(2)]);
            agent.put("web", &[up(9)]);
            let run = Watched::new(&agent);
            run.has("web-api-v2", &[1, 2]).await;
            run.has("web", &[9]).await;
            run.is("synced").await;
            agent.put("Web_API.v2", &[up(1), up(2), up(3)]);
            run.has("web-api-v2", &[1, 2, 3]).await;
            agent.remove("Web_API.v2");
            run.routes("web-api-v2", &[]).await;
            run.is("synced").await;
            run.end().await;
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn many_services_share_connections_inside_tls() {
        let Some(root) = needed("consul", "consul-many-tls") else {
            return;
        };
        // A hundred questions on each, the reads in turn, and the sign of life.
        many::follow(&root, Setup::Tls, 220, 4).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn many_services_are_followed_over_few_plain_connections() {
        let Some(root) = needed("consul", "consul-many") else {
            return;
        };
        // Each question its own, sixteen reads in turn, two that tell of changes, the sign of life.
        many::follow(&root, Setup::Plain, 20, 40).await;
    }
}
