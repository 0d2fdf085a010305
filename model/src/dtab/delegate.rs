//! Follows delegation tables from a name to backends.
//!
//! In: tables, a path, and who knows the backends. Out: a target, or that the name leads nowhere. Pure and
//! bounded: at most 100 steps deep and 1,000 lookups, since tables come from callers' headers too.

use std::sync::Arc;

use super::{Dtab, NameTree, Path, Weight};
use crate::name::{Namespace, ServiceId, ServiceName};

/// Deepest chain of rewrites (Finagle's `MaxDepth`).
const MAX_DEPTH: usize = 100;
/// Most lookups for one name.
const MAX_LOOKUPS: usize = 1000;

/// What a name is bound to, by whoever knows the backends.
#[derive(Debug, Clone, PartialEq)]
pub enum Bound<T> {
    /// One thing.
    One(T),
    /// A share of each; never empty, no weight is 0.
    Weighted(Vec<(Weight, Self)>),
    /// The first that is usable; at least two.
    Failover(Vec<Self>),
    /// Nothing, and why.
    Nothing(String),
}

/// Where a name leads.
#[derive(Debug, Clone, PartialEq)]
pub struct Delegated<T> {
    /// What it is bound to.
    pub bound: Bound<T>,
    /// True when an entry of the last table took part.
    pub last_used: bool,
}

/// Who knows the backends.
pub trait Names<T> {
    /// What a service of the mesh and its port are bound to, when they are known; without a port it chooses one.
    fn service(&self, service: &ServiceId, port: Option<u16>) -> Option<T>;
    /// What the segments behind `/#/` of any other namer are bound to, or why they are not.
    fn named(&self, path: &[Arc<str>]) -> Result<T, String>;
}

/// Follows `path` through `tables` (entries of later tables first).
pub fn delegate<T>(tables: &[&Dtab], path: &Path, names: &dyn Names<T>) -> Delegated<T> {
    let mut walk = Walk {
        tables,
        names,
        unnamed: Vec::new(),
        lookups: 0,
        last_used: false,
    };
    let found = walk.path(path, 0);
    let unnamed = walk.unnamed.join("; ");
    let nowhere = |why: &str| {
        let because = if unnamed.is_empty() {
            String::new()
        } else {
            format!(" ({unnamed})")
        };
        Bound::Nothing(format!("the delegation of {path} {why}{because}"))
    };
    let bound = match found {
        Found::Bound(bound, _) => bound,
        Found::Negative => nowhere("leads to no service of the mesh"),
        Found::Fail => nowhere("ends in a failure (`!`)"),
        Found::Empty => nowhere("ends in nothing (`$`)"),
        Found::TooMuch => nowhere("does not end within 100 steps"),
    };
    Delegated {
        bound,
        last_used: walk.last_used,
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

enum Found<T> {
    /// Bound, and whether `!` or `$` behind it forbids to look further when it is not usable.
    Bound(Bound<T>, Last),
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

struct Walk<'a, T> {
    tables: &'a [&'a Dtab],
    names: &'a dyn Names<T>,
    /// Why paths of namers were bound to nothing; a few of them.
    unnamed: Vec<String>,
    lookups: usize,
    last_used: bool,
}

impl<T> Walk<'_, T> {
    fn path(&mut self, path: &Path, depth: usize) -> Found<T> {
        if path.0.first().is_some_and(|segment| &**segment == "#") {
            return self.namer(path);
        }
        self.lookups += 1;
        if depth >= MAX_DEPTH || self.lookups > MAX_LOOKUPS {
            return Found::TooMuch;
        }
        let last = self.tables.len().saturating_sub(1);
        let mut alternatives = Vec::new();
        for (number, table) in self.tables.iter().enumerate().rev() {
            for tree in table.lookup(path) {
                self.last_used |= number == last;
                alternatives.push(tree);
            }
        }
        self.alternatives(&alternatives, depth + 1)
    }

    fn tree(&mut self, tree: &NameTree, depth: usize) -> Found<T> {
        match tree {
            NameTree::Leaf(path) => self.path(path, depth),
            NameTree::Alternatives(trees) => self.alternatives(trees, depth),
            NameTree::Union(shares) => self.union(shares, depth),
            NameTree::Negative => Found::Negative,
            NameTree::Fail => Found::Fail,
            NameTree::Empty => Found::Empty,
        }
    }

    /// The bound alternatives in order, up to the first that ends the search.
    fn alternatives(&mut self, trees: &[NameTree], depth: usize) -> Found<T> {
        let mut found = Vec::new();
        let mut end = Found::Negative;
        for tree in trees {
            match self.tree(tree, depth) {
                Found::Bound(target, last) => {
                    match target {
                        Bound::Failover(targets) => found.extend(targets),
                        target => found.push(target),
                    }
                    if last == Last::Final {
                        end = Found::Fail;
                        break;
                    }
                }
                Found::Negative => {}
                Found::TooMuch => return Found::TooMuch,
                other => {
                    end = other;
                    break;
                }
            }
        }
        let last = if matches!(end, Found::Negative) {
            Last::Open
        } else {
            Last::Final
        };
        match (found.len(), found.pop()) {
            (_, None) => end,
            (1, Some(only)) => Found::Bound(only, last),
            (_, Some(behind)) => {
                found.push(behind);
                Found::Bound(Bound::Failover(found), last)
            }
        }
    }

    /// A share of each; those that lead nowhere leave their share to the others, those that fail keep it.
    fn union(&mut self, shares: &[(Weight, NameTree)], depth: usize) -> Found<T> {
        let mut found = Vec::new();
        for (weight, tree) in shares.iter().filter(|(weight, _)| weight.0 > 0) {
            let target = match self.tree(tree, depth) {
                Found::Bound(target, _) => target,
                Found::Negative => continue,
                Found::TooMuch => return Found::TooMuch,
                Found::Fail | Found::Empty => {
                    Bound::Nothing("this share of the union fails (`!` or `$`)".to_owned())
                }
            };
            found.push((*weight, target));
        }
        if found.is_empty() {
            Found::Negative
        } else {
            Found::Bound(Bound::Weighted(found), Last::Open)
        }
    }

    /// `/#/mesh/<namespace>/<service>[:port]`, or a path of another namer.
    fn namer(&mut self, path: &Path) -> Found<T> {
        let behind = path.0.get(1..).unwrap_or_default();
        if behind.first().is_none_or(|namer| &**namer != "mesh") {
            self.lookups += 1;
            if self.lookups > MAX_LOOKUPS {
                return Found::TooMuch;
            }
            return match self.names.named(behind) {
                Ok(one) => Found::Bound(Bound::One(one), Last::Open),
                Err(why) => {
                    if self.unnamed.len() < 3 && !self.unnamed.contains(&why) {
                        self.unnamed.push(why);
                    }
                    Found::Negative
                }
            };
        }
        let [_, namespace, service, ..] = behind else {
            return Found::Negative;
        };
        let (name, port) = match service.split_once(':') {
            Some((name, port)) => match port.parse::<u16>() {
                Ok(port) => (name, Some(port)),
                Err(_) => return Found::Negative,
            },
            None => (&**service, None),
        };
        let (Ok(namespace), Ok(name)) = (Namespace::new(namespace), ServiceName::new(name)) else {
            return Found::Negative;
        };
        let service = ServiceId::new(namespace, name);
        self.names
            .service(&service, port)
            .map_or(Found::Negative, |one| {
                Found::Bound(Bound::One(one), Last::Open)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Known;

    impl Names<String> for Known {
        fn service(&self, service: &ServiceId, port: Option<u16>) -> Option<String> {
            let port = port.unwrap_or(80);
            (service.name.as_str() != "unknown").then(|| format!("{service}:{port}"))
        }
        fn named(&self, path: &[Arc<str>]) -> Result<String, String> {
            match path {
                [fs, name, ..] if &**fs == "io.l5d.fs" => Ok(format!("file {name}")),
                _ => Err("who is that".to_owned()),
            }
        }
    }

    fn shown(bound: &Bound<String>) -> String {
        match bound {
            Bound::One(name) => name.clone(),
            Bound::Weighted(shares) => {
                let all: Vec<_> = shares
                    .iter()
                    .map(|(weight, one)| format!("{}*{}", weight.0, shown(one)))
                    .collect();
                format!("({})", all.join(" & "))
            }
            Bound::Failover(all) => {
                let all: Vec<_> = all.iter().map(shown).collect();
                format!("({})", all.join(" | "))
            }
            Bound::Nothing(reason) => format!("fail: {reason}"),
        }
    }

    fn follow(table: &str, extra: &str) -> (String, bool) {
        let base = base(&Namespace::default());
        let (table, extra) = (Dtab::parse(table).unwrap(), Dtab::parse(extra).unwrap());
        let path = Path::parse("/svc/words").unwrap();
        let delegated = delegate(&[&base, &table, &extra], &path, &Known);
        (shown(&delegated.bound), delegated.last_used)
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
            ("/svc/words => /#/io.l5d.other/words", "default/words:80"),
            ("/svc => /#/io.l5d.fs | !", "file words"),
            (
                "/svc/words => /#/io.l5d.fs/v1 | /#/mesh/shop/words | !",
                "(file v1 | shop/words:80)",
            ),
            (
                "/svc/words => /svc/unknown; /svc/unknown => /#/io.l5d.other/x | !",
                "fail: the delegation of /svc/words ends in a failure (`!`) (who is that)",
            ),
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
    fn an_unknown_namer_is_told() {
        let table = Dtab::parse("/svc => /#/io.l5d.other").unwrap();
        let path = Path::parse("/svc/words").unwrap();
        let found = shown(&delegate(&[&table], &path, &Known).bound);
        assert!(found.ends_with("of the mesh (who is that)"), "{found}");
    }

    #[test]
    fn floods_end() {
        let flood = "/svc/words => /x & /x & /x; /x => /x/a & /x/b & /x/c";
        assert!(follow(flood, "").0.contains("does not end"));
    }
}
