//! Which endpoints of a backend may be used, and how the first of them is reached.

use std::sync::Arc;

use mesh_model::snapshot::{Backend, BackendEndpoint};

use super::{Far, Question, State, Story, choice::name, policy::algorithm};
use crate::{Candidate, namers::OF_SOURCE};

impl Story<'_> {
    /// Tells every endpoint of a backend, and TLS to the first that can be used.
    pub(super) fn backend(&mut self, backend: &Arc<Backend>) -> Option<Far> {
        self.tell_policy(backend);
        let key = (backend.service.clone(), backend.port);
        let candidates = self.view.compiled.candidates.get(&key);
        let subset = &backend.subset;
        let meant = |one: &&Candidate| subset.is_empty() || one.subsets.contains(subset);
        let candidates = candidates.map(Vec::as_slice).unwrap_or_default();
        for candidate in candidates.iter().filter(meant) {
            self.candidate(backend, candidate);
        }
        if subset.starts_with(OF_SOURCE) {
            self.of_source(backend);
        }
        let usable = |one: &&Arc<BackendEndpoint>| !self.view.ejected.contains(&one.key);
        let best = backend
            .endpoints
            .iter()
            .filter(usable)
            .min_by_key(|one| (!one.preferred, one.priority, one.distance));
        let best = best.or_else(|| backend.endpoints.first()).cloned();
        match best {
            None => {
                self.steps.add(
                    "endpoint",
                    State::Refused,
                    format!("none of {}: 503 no-endpoint", name(backend)),
                    "every endpoint is left out",
                );
                None
            }
            Some(endpoint) => self.tls(&endpoint),
        }
    }

    /// The endpoints that one source alone says; what it leaves out stands with the whole service.
    fn of_source(&mut self, backend: &Backend) {
        for one in &backend.endpoints {
            let ejected = self.view.ejected.contains(&one.key);
            let (state, word) = if ejected {
                (State::Warning, "kept out for now")
            } else {
                (State::Ok, "eligible")
            };
            let security = match &one.tunnel {
                _ if one.local => "local",
                Some(_) => "mtls",
                None => "plain",
            };
            self.steps.add(
                "endpoint",
                state,
                format!("{} at {} ({security}): {word}", one.id, one.address),
                format!("weight {}{}", one.weight, place(one)),
            );
        }
    }

    pub(super) fn candidate(&mut self, backend: &Backend, candidate: &Candidate) {
        let what = format!(
            "{} at {} ({})",
            candidate.id,
            candidate.address,
            candidate.security()
        );
        let endpoint = backend.endpoints.iter().find(|one| one.id == candidate.id);
        let ejected = endpoint.is_some_and(|one| self.view.ejected.contains(&one.key));
        match &candidate.left_out {
            Some(why) => self.steps.add(
                "endpoint",
                State::Refused,
                format!("{what}: left out"),
                why.to_string(),
            ),
            None if ejected => {
                self.steps.add(
                    "endpoint",
                    State::Warning,
                    format!("{what}: kept out for now"),
                    "it failed just now",
                );
            }
            None if !candidate.reluctant.is_empty() => {
                self.steps.add(
                    "endpoint",
                    State::Warning,
                    format!("{what}: last resort"),
                    candidate.reluctant,
                );
            }
            None => {
                let weight = endpoint.map_or(1, |one| one.weight);
                self.steps.add(
                    "endpoint",
                    State::Ok,
                    format!("{what}: eligible"),
                    format!(
                        "{}, weight {weight}{}; {}",
                        crate::endpoints::word(candidate.health),
                        endpoint.map(|one| place(one)).unwrap_or_default(),
                        algorithm(&backend.policy.balance)
                    ),
                );
            }
        }
    }

    /// Tells TLS to an endpoint, and whom to ask for the rest.
    pub(super) fn tls(&mut self, endpoint: &Arc<BackendEndpoint>) -> Option<Far> {
        let Some(tunnel) = &endpoint.tunnel else {
            let (state, because) = if endpoint.local {
                (State::Ok, "the program runs on this host")
            } else {
                (State::Warning, "no daemon of the mesh is known there")
            };
            self.steps.add(
                "tls",
                state,
                format!("none: plaintext to {}", endpoint.address),
                because,
            );
            return None;
        };
        let peers: Vec<String> = tunnel.sans.iter().map(ToString::to_string).collect();
        let server_name = tunnel.server_name.as_deref().unwrap_or_default().to_owned();
        self.steps.add(
            "tls",
            State::Ok,
            format!(
                "mTLS to {} as {}, peer {}",
                tunnel.address,
                self.caller.principal,
                peers.join(" or ")
            ),
            format!(
                "server name {server_name}; the certificate of {} and its grant are checked",
                endpoint.host_name
            ),
        );
        Some(Far {
            host: endpoint.host?,
            host_name: endpoint.host_name.to_string(),
            question: Question {
                caller: self.caller.principal.clone(),
                server_name,
                address: endpoint.address,
                method: if self.asked.http {
                    self.asked.method.to_owned()
                } else {
                    String::new()
                },
                path: self.asked.path.to_owned(),
                query: self.asked.query.to_owned(),
                headers: self.asked.headers.to_vec(),
            },
        })
    }
}

/// Its priority and where it is, as far as they count.
fn place(endpoint: &BackendEndpoint) -> String {
    let mut text = String::new();
    if endpoint.priority > 0 {
        text = format!(", priority {}", endpoint.priority);
    }
    if let Some(at) = &endpoint.locality {
        let parts: Vec<&str> = [&at.region, &at.zone, &at.sub_zone]
            .into_iter()
            .filter_map(|part| part.as_deref())
            .collect();
        let (place, far) = (parts.join("/"), endpoint.distance.to_string());
        text.extend([", in ", &place, " (distance ", &far, ")"]);
    }
    text
}
