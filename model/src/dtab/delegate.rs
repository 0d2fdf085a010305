//! Follows delegation tables from a name to backends.
//!
//! In: tables, a path, and who knows the backends. Out: a target, or that the name leads nowhere. Pure and
//! bounded: at most 100 steps deep and 1,000 lookups, since tables come from callers' headers too.

use std::sync::Arc;

use super::{Dtab, NameTree, Path, Weight};
use crate::{
    name::{Namespace, ServiceId, ServiceName},
    snapshot::{Target, WeightedTarget},
};

/// Deepest chain of rewrites (Finagle's `MaxDepth`).
const MAX_DEPTH: usize = 100;
/// Most lookups for one name.
const MAX_LOOKUPS: usize = 1000;

/// Where a name leads.
#[derive(Debug, Clone, PartialEq)]
pub struct Delegated {
    /// The target; when the name leads nowhere, a [`Target::Fail`] that says so.
    pub target: Target,
    /// True when an entry of the last table took part.
    pub last_used: bool,
    /// True when any entry of any table took part.
    pub used: bool,
}

/// Follows `path` through `tables` (entries of later tables first). `backend` gives the target of a
/// service and port that are known; without a port, of the port that the caller dialled or the only one.
pub fn delegate(
    tables: &[&Dtab],
    path: &Path,
    backend: &dyn Fn(&ServiceId, Option<u16>) -> Option<Target>,
) -> Delegated {
    let mut walk = Walk {
        tables,
        backend,
        lookups: 0,
        last_used: false,
        used: false,
    };
    let bound = walk.path(path, 0);
    let nowhere = |why: &str| Target::Fail {
        status: 503,
        code: "no-backend",
        reason: Arc::from(format!("the delegation of {path} {why}")),
    };
    let target = match bound {
        Bound::Target(target, _) => target,
        Bound::Negative => nowhere("leads to no service of the mesh"),
        Bound::Fail => nowhere("ends in a failure (`!`)"),
        Bound::Empty => nowhere("ends in nothing (`$`)"),
        Bound::TooMuch => nowhere("does not end within 100 steps"),
    };
    Delegated {
        target,
        last_used: walk.last_used,
        used: walk.used,
    }
}

/// The path of a service in tables: `/svc/<name>`.
pub fn service_path(service: &ServiceName) -> Path {
    Path(vec![Arc::from("svc"), Arc::from(service.as_str())])
}

/// The table below all others for a service's namespace: `/svc => /#/mesh/<namespace>`.
pub fn base(namespace: &Namespace) -> Dtab {
    let destination = ["#", "mesh", namespace.as_str()].map(Arc::from).to_vec();
    Dtab(vec![super::Dentry {
        prefix: vec![Some(Arc::from("svc"))],
        destination: NameTree::Leaf(Path(destination)),
    }])
}

enum Bound {
    /// A target, and whether `!` or `$` behind it forbids to look further when it is not usable.
    Target(Target, Last),
    Negative,
    Fail,
    Empty,
    TooMuch,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    Open,
    Final,
}

struct Walk<'a> {
    tables: &'a [&'a Dtab],
    backend: &'a dyn Fn(&ServiceId, Option<u16>) -> Option<Target>,
    lookups: usize,
    last_used: bool,
    used: bool,
}

impl Walk<'_> {
    fn path(&mut self, path: &Path, depth: usize) -> Bound {
        if path.0.first().is_some_and(|segment| &**segment == "#") {
            return self.namer(path);
        }
        self.lookups += 1;
        if depth >= MAX_DEPTH || self.lookups > MAX_LOOKUPS {
            return Bound::TooMuch;
        }
        let last = self.tables.len().saturating_sub(1);
        let mut alternatives = Vec::new();
        for (number, table) in self.tables.iter().enumerate().rev() {
            for tree in table.lookup(path) {
                self.used = true;
                self.last_used |= number == last;
                alternatives.push(tree);
            }
        }
        self.alternatives(&alternatives, depth + 1)
    }

    fn tree(&mut self, tree: &NameTree, depth: usize) -> Bound {
        match tree {
            NameTree::Leaf(path) => self.path(path, depth),
            NameTree::Alternatives(trees) => self.alternatives(trees, depth),
            NameTree::Union(shares) => self.union(shares, depth),
            NameTree::Negative => Bound::Negative,
            NameTree::Fail => Bound::Fail,
            NameTree::Empty => Bound::Empty,
        }
    }

    /// The bound alternatives in order, up to the first that ends the search.
    fn alternatives(&mut self, trees: &[NameTree], depth: usize) -> Bound {
        let mut found = Vec::new();
        let mut end = Bound::Negative;
        for tree in trees {
            match self.tree(tree, depth) {
                Bound::Target(target, last) => {
                    match target {
                        Target::Failover(targets) => found.extend(targets),
                        target => found.push(target),
                    }
                    if last == Last::Final {
                        end = Bound::Fail;
                        break;
                    }
                }
                Bound::Negative => {}
                Bound::TooMuch => return Bound::TooMuch,
                other => {
                    end = other;
                    break;
                }
            }
        }
        let last = if matches!(end, Bound::Negative) {
            Last::Open
        } else {
            Last::Final
        };
        match (found.len(), found.pop()) {
            (_, None) => end,
            (1, Some(only)) => Bound::Target(only, last),
            (_, Some(behind)) => {
                found.push(behind);
                Bound::Target(Target::Failover(found), last)
            }
        }
    }

    /// A share of each; those that lead nowhere leave their share to the others, those that fail keep it.
    fn union(&mut self, shares: &[(Weight, NameTree)], depth: usize) -> Bound {
        let mut found = Vec::new();
        for (weight, tree) in shares.iter().filter(|(weight, _)| weight.0 > 0) {
            let target = match self.tree(tree, depth) {
                Bound::Target(target, _) => target,
                Bound::Negative => continue,
                Bound::TooMuch => return Bound::TooMuch,
                Bound::Fail | Bound::Empty => Target::Fail {
                    status: 503,
                    code: "no-backend",
                    reason: Arc::from("this share of the union fails (`!` or `$`)"),
                },
            };
            found.push(WeightedTarget {
                weight: weight.0,
                target,
                filters: Arc::from([]),
            });
        }
        if found.is_empty() {
            Bound::Negative
        } else {
            Bound::Target(Target::Weighted(found), Last::Open)
        }
    }

    /// `/#/mesh/<namespace>/<service>[:port]`; other namers are not known.
    fn namer(&self, path: &Path) -> Bound {
        let [_, mesh, namespace, service, ..] = path.0.as_slice() else {
            return Bound::Negative;
        };
        if &**mesh != "mesh" {
            return Bound::Negative;
        }
        let (name, port) = match service.split_once(':') {
            Some((name, port)) => match port.parse::<u16>() {
                Ok(port) => (name, Some(port)),
                Err(_) => return Bound::Negative,
            },
            None => (&**service, None),
        };
        let (Ok(namespace), Ok(name)) = (Namespace::new(namespace), ServiceName::new(name)) else {
            return Bound::Negative;
        };
        (self.backend)(&ServiceId::new(namespace, name), port)
            .map_or(Bound::Negative, |target| Bound::Target(target, Last::Open))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        service::AppProtocol,
        snapshot::{Backend, BackendKey},
    };

    fn known(service: &ServiceId, port: Option<u16>) -> Option<Target> {
        (service.name.as_str() != "unknown").then(|| {
            Target::Backend(Arc::new(Backend {
                key: BackendKey(0),
                service: service.clone(),
                port: port.unwrap_or(80),
                protocol: AppProtocol::Detect,
                endpoints: Vec::new(),
            }))
        })
    }

    fn shown(target: &Target) -> String {
        match target {
            Target::Backend(backend) => format!("{}:{}", backend.service, backend.port),
            Target::Weighted(shares) => {
                let all: Vec<_> = shares
                    .iter()
                    .map(|s| format!("{}*{}", s.weight, shown(&s.target)))
                    .collect();
                format!("({})", all.join(" & "))
            }
            Target::Failover(targets) => {
                let all: Vec<_> = targets.iter().map(shown).collect();
                format!("({})", all.join(" | "))
            }
            Target::Fail { reason, .. } => format!("fail: {reason}"),
        }
    }

    fn follow(table: &str, extra: &str) -> (String, bool) {
        let base = base(&Namespace::default());
        let (table, extra) = (Dtab::parse(table).unwrap(), Dtab::parse(extra).unwrap());
        let path = Path::parse("/svc/words").unwrap();
        let delegated = delegate(&[&base, &table, &extra], &path, &known);
        (shown(&delegated.target), delegated.last_used)
    }

    #[test]
    fn names_lead_to_backends() {
        // What the base says stays the last resort, as in Finagle, unless `!` or `$` ends the search.
        for (table, wanted) in [
            ("", "default/words:80"),
            (
                "/svc/words => /svc/words-v1",
                "(default/words-v1:80 | default/words:80)",
            ),
            ("/svc/words => /svc/words-v1 | !", "default/words-v1:80"),
            (
                "/svc/words => /#/mesh/shop/words:8080 | !",
                "shop/words:8080",
            ),
            ("/svc => /#/mesh/shop", "(shop/words:80 | default/words:80)"),
            (
                "/svc/words => 9 * /svc/words-v1 & 1 * /svc/words-v2 | !",
                "(9000*default/words-v1:80 & 1000*default/words-v2:80)",
            ),
            ("/svc/words => /svc/unknown | /svc/b | !", "default/b:80"),
            (
                "/svc/words => /svc/a | /svc/b | !",
                "(default/a:80 | default/b:80)",
            ),
            (
                "/svc/words => 1 * /svc/unknown & 1 * /svc/b | !",
                "(1000*default/b:80)",
            ),
            (
                "/svc/words => 1 * ! & 1 * /svc/b | !",
                "(1000*fail: this share of the union fails (`!` or `$`) & 1000*default/b:80)",
            ),
            ("/svc/words => ~", "default/words:80"),
            (
                "/svc/words => !",
                "fail: the delegation of /svc/words ends in a failure (`!`)",
            ),
            (
                "/svc/words => $",
                "fail: the delegation of /svc/words ends in nothing (`$`)",
            ),
            ("/svc/words => /#/io.l5d.fs/words", "default/words:80"),
            (
                "/svc/words => /svc/words",
                "fail: the delegation of /svc/words does not end within 100 steps",
            ),
            (
                "/svc/words => /a ; /a => /b ; /b => /svc/words-v1 | !",
                "default/words-v1:80",
            ),
            ("/svc/words => /a ; /*/words => /svc/b | !", "default/b:80"),
        ] {
            assert_eq!(follow(table, "").0, wanted, "{table}");
        }
    }

    #[test]
    fn a_later_table_comes_first() {
        let (found, used) = follow(
            "/svc/words => /svc/words-v1 | !",
            "/svc/words => /svc/words-v2",
        );
        let wanted = "(default/words-v2:80 | default/words-v1:80)";
        assert_eq!((found.as_str(), used), (wanted, true));
        let (_, used) = follow("/svc/words => /svc/words-v1", "/svc/other => /svc/x");
        assert!(!used);
        let (found, used) = follow("/svc/words => /srv/words", "/srv => /#/mesh/canary");
        assert!(found.contains("canary/words:80") && used, "{found}");
    }

    #[test]
    fn floods_end() {
        let flood = "/svc/words => /x & /x & /x; /x => /x/a & /x/b & /x/c";
        assert!(follow(flood, "").0.contains("does not end"));
    }
}
