//! Who reads the sources of the whole mesh: a few hosts for all, the same by every host's reckoning.
//!
//! In: the catalog. Out: of each `ServiceSource` the hosts that should read it, best first, by rendezvous hashing over
//! the hosts that live, carry the labels asked for and may tell of any service. A host that reads already goes on until
//! those that take over have read everything. Never: a clock beyond the given time.

use std::collections::{BTreeMap, BTreeSet};

use mesh_model::{
    catalog::{Catalog, HostFacts},
    config::SourceConfig,
    document::{Spec, service_source::ServiceSourceSpec},
    grant::covers,
    name::HostId,
};

use crate::{key::Stable, revocations::revoked};

/// A source of the whole mesh and who reads it.
#[derive(Debug, Clone, PartialEq)]
pub struct Elected {
    /// The source, under its id.
    pub source: SourceConfig,
    /// Hosts that should read it, best first.
    pub readers: Vec<HostId>,
    /// Of these the ones that say that they have read everything.
    pub synced: Vec<HostId>,
}

/// Of each source of the whole mesh who reads it.
pub fn readers(catalog: &Catalog, now_ms: u64) -> Vec<Elected> {
    let gone = revoked(catalog);
    let all = catalog.of_kind("ServiceSource");
    all.filter_map(|(key, resource)| {
        let Spec::ServiceSource(spec) = &resource.document.spec else {
            return None;
        };
        let source = spec.named(&key.name);
        let mut able: Vec<HostId> = catalog
            .hosts
            .iter()
            .filter(|(id, host)| !gone.contains(id) && able(host, spec, now_ms))
            .map(|(id, _)| *id)
            .collect();
        able.sort_by_key(|host| (std::cmp::Reverse(rank(&source.id, *host)), *host));
        able.truncate(spec.readers.into());
        let synced = able
            .iter()
            .filter(|host| says_synced(catalog, **host, &source.id));
        Some(Elected {
            synced: synced.copied().collect(),
            source,
            readers: able,
        })
    })
    .collect()
}

/// The sources of the whole mesh that `host` reads now, when it read `reading` before.
pub fn read_here(
    elected: &[Elected],
    host: HostId,
    reading: &BTreeSet<String>,
) -> Vec<SourceConfig> {
    let mine = |one: &&Elected| {
        let taken_over = !one.synced.is_empty();
        one.readers.contains(&host) || (reading.contains(&one.source.id) && !taken_over)
    };
    elected
        .iter()
        .filter(mine)
        .map(|one| one.source.clone())
        .collect()
}

fn able(host: &HostFacts, spec: &ServiceSourceSpec, now_ms: u64) -> bool {
    let Some(grant) = &host.grant else {
        return false;
    };
    let labels = host.info.as_ref().map(|info| &info.labels);
    let carried = spec
        .hosts
        .iter()
        .all(|(key, value)| labels.is_some_and(|labels| labels.get(key) == Some(value)));
    let lives = host.is_living()
        && (host.lease_until_ms == 0 || host.lease_until_ms > now_ms)
        && (grant.not_after_ms == 0 || grant.not_after_ms > now_ms);
    // What it may not tell of would be missing for everybody.
    lives && carried && covers(&grant.may_register, "*", "*")
}

fn rank(source: &str, host: HostId) -> u64 {
    let mut hash = Stable::new();
    hash.text("reader").text(source).bytes(&host.0);
    hash.finish()
}

fn says_synced(catalog: &Catalog, host: HostId, source: &str) -> bool {
    let info = catalog.hosts.get(&host).and_then(|host| host.info.as_ref());
    info.is_some_and(|info| {
        let mut all = info.sources.iter();
        all.any(|terms| terms.id == source && terms.synced)
    })
}

/// Which hosts' views of the sources of the whole mesh count: of the best reader that has read everything, or of all
/// while there is none.
pub(crate) fn believed(elected: &[Elected]) -> BTreeMap<&str, HostId> {
    let best = |one: &'_ Elected| one.synced.first().copied();
    elected
        .iter()
        .filter_map(|one| Some((one.source.id.as_str(), best(one)?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mesh_model::{
        catalog::{Liveness, Resource},
        commit::CommitId,
        document::parse_documents,
        fact::{HostInfo, SourceTerms},
        grant::HostGrant,
    };

    use super::*;

    const SOURCE: &str = "apiVersion: meshd.io/v1alpha1\nkind: ServiceSource\nmetadata: {name: consul}\nspec:\n  \
        readers: 3\n  source: {kind: consul, addresses: ['http://127.0.0.1:8500']}\n";

    fn catalog(hosts: u8, text: &str) -> Catalog {
        let mut catalog = Catalog::default();
        for number in 0..hosts {
            let grant = HostGrant {
                may_register: vec!["*".to_owned()],
                ..HostGrant::default()
            };
            let facts = HostFacts {
                grant: Some(Arc::new(grant)),
                liveness: Liveness::Alive,
                info: Some(Arc::new(HostInfo::default())),
                ..HostFacts::default()
            };
            catalog.hosts.insert(HostId([number; 16]), Arc::new(facts));
        }
        for document in parse_documents(text, "test").unwrap() {
            let resource = Resource {
                revision: CommitId([1; 32]),
                created_ms: 1,
                changed_ms: 1,
                author: Arc::from("alice"),
                conflicts: Vec::new(),
                confirm_by_ms: 0,
                document: Arc::new(document.clone()),
            };
            catalog.resources.insert(document.key(), Arc::new(resource));
        }
        catalog
    }

    fn edit(catalog: &mut Catalog, host: HostId, edit: impl FnOnce(&mut HostFacts)) {
        edit(Arc::make_mut(catalog.hosts.get_mut(&host).unwrap()));
    }

    #[test]
    fn a_few_read_for_all() {
        let mut catalog = catalog(100, SOURCE);
        let before = readers(&catalog, 1);
        let one = &before[0];
        assert_eq!(
            (one.source.id.as_str(), one.readers.len()),
            ("mesh/consul", 3)
        );
        assert_eq!(one.synced, []);
        let at = |host| read_here(&before, host, &BTreeSet::new()).len();
        let all: usize = catalog.hosts.keys().map(|host| at(*host)).sum();
        assert_eq!(all, 3, "and nobody else");

        // One dies: one takes its place, the others stay.
        let dead = one.readers[0];
        edit(&mut catalog, dead, |host| host.liveness = Liveness::Down);
        let after = readers(&catalog, 1);
        assert_eq!(after[0].readers[..2], one.readers[1..]);
        assert!(!after[0].readers.contains(&dead));
    }

    #[test]
    fn who_read_goes_on_until_others_have_read_everything() {
        let mut catalog = catalog(20, SOURCE);
        let elected = readers(&catalog, 1);
        let last = HostId([19; 16]);
        let other = if elected[0].readers.contains(&last) {
            *catalog
                .hosts
                .keys()
                .find(|host| !elected[0].readers.contains(host))
                .unwrap()
        } else {
            last
        };
        let reading = BTreeSet::from(["mesh/consul".to_owned()]);
        assert_eq!(read_here(&elected, other, &reading).len(), 1);
        assert!(believed(&elected).is_empty());
        let second = elected[0].readers[1];
        edit(&mut catalog, second, |host| {
            let terms = SourceTerms {
                id: "mesh/consul".to_owned(),
                synced: true,
                ..SourceTerms::default()
            };
            let info = HostInfo {
                sources: vec![terms],
                ..HostInfo::default()
            };
            host.info = Some(Arc::new(info));
        });
        let elected = readers(&catalog, 1);
        assert_eq!(read_here(&elected, other, &reading).len(), 0);
        assert_eq!(believed(&elected)["mesh/consul"], second);
    }

    #[test]
    fn labels_and_rights_decide() {
        let text = SOURCE.replace("  readers: 3", "  hosts: {rack: '7'}");
        let mut catalog = catalog(9, &text);
        assert_eq!(readers(&catalog, 1)[0].readers, []);
        for number in [2, 3, 4] {
            edit(&mut catalog, HostId([number; 16]), |host| {
                let info = HostInfo {
                    labels: [("rack".to_owned(), "7".to_owned())].into(),
                    ..HostInfo::default()
                };
                host.info = Some(Arc::new(info));
            });
        }
        edit(&mut catalog, HostId([3; 16]), |host| {
            let grant = HostGrant {
                may_register: vec!["web".to_owned()],
                ..HostGrant::default()
            };
            host.grant = Some(Arc::new(grant));
        });
        let mut found = readers(&catalog, 1)[0].readers.clone();
        found.sort();
        assert_eq!(found, [HostId([2; 16]), HostId([4; 16])]);
    }
}
