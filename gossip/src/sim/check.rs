//! The laws that hold after every step, and whether machines agree.

use super::World;

impl World {
    /// What must hold after every step.
    pub(super) fn check_invariants(&mut self, index: usize) {
        let Some(node) = &self.machines[index].node else {
            return;
        };
        let own = self.machines[index].host;
        // A head that has not left its host yet may still be withdrawn.
        for (host, incarnation, seq, id) in node.hosts().versions() {
            if host == own {
                continue;
            }
            let number = (host, incarnation, seq);
            let known = *self.heads.entry(number).or_insert(id);
            assert!(
                known == id || self.machines.iter().any(|m| m.host == host && m.cloned),
                "a number of host {host} stands for two heads: {incarnation}.{seq}"
            );
        }
        let commits = node.commits().count();
        let machine = &mut self.machines[index];
        assert!(
            commits >= machine.commits,
            "commits were lost while running"
        );
        machine.commits = commits;
    }

    /// Why the running machines do not agree; `None` when they do.
    pub fn disagreement(&mut self) -> Option<String> {
        let running: Vec<usize> = (0..self.machines.len())
            .filter(|index| self.machines[*index].node.is_some())
            .collect();
        let mut states = Vec::new();
        for index in running {
            let Some(node) = &mut self.machines[index].node else {
                continue;
            };
            let catalog = node.catalog();
            let resources = catalog.resources.clone();
            let hosts: Vec<_> = catalog
                .hosts
                .iter()
                .map(|(host, facts)| (*host, facts.version, facts.workloads.clone()))
                .collect();
            let rights = (catalog.authorities.clone(), catalog.operators.clone());
            states.push((
                index,
                (catalog.commits, catalog.commit_count),
                resources,
                hosts,
                rights,
            ));
        }
        let (first, rest) = states.split_first()?;
        for state in rest {
            let pair = (first.0, state.0);
            if state.1 != first.1 {
                return Some(format!(
                    "commits of {pair:?} differ: {} {}",
                    first.1.1, state.1.1
                ));
            }
            if state.2 != first.2 {
                return Some(format!("resources of {pair:?} differ"));
            }
            if state.3 != first.3 {
                return Some(format!("hosts of {pair:?} differ"));
            }
            if state.4 != first.4 {
                return Some(format!("rights of {pair:?} differ"));
            }
        }
        None
    }
}
