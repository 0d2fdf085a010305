//! Modules of a crate never need each other in a circle.
//!
//! In: paths that begin with `crate::` or `super::` in product code, tests left out. At every level of the
//! module tree the siblings, each with all that is inside it, must form no circle. Edges between a module
//! and its own inside are not counted: a parent is the face of its children.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use syn::visit::Visit;

use super::{House, ROOMS};

/// A module as the names from the crate's root.
type Module = Vec<String>;

/// Under one parent: who needs whom, with one file as the witness.
type Level = BTreeMap<String, BTreeMap<String, String>>;

pub(super) fn breaches(house: &House) -> Vec<String> {
    ROOMS.iter().flat_map(|room| of_room(house, room)).collect()
}

fn of_room(house: &House, room: &str) -> Vec<String> {
    let start = Path::new(room).join("src");
    let files: Vec<(Module, &super::Source)> = house
        .sources
        .iter()
        .filter_map(|source| Some((module(source.path.strip_prefix(&start).ok()?)?, source)))
        .collect();
    let modules: BTreeSet<Module> = files.iter().map(|(module, _)| module.clone()).collect();
    let mut levels: BTreeMap<Module, Level> = BTreeMap::new();
    for (module, source) in &files {
        let Some(syntax) = &source.syntax else {
            continue;
        };
        let mut paths = Paths {
            here: module.clone(),
            found: BTreeSet::new(),
        };
        paths.visit_file(syntax);
        for target in paths
            .found
            .iter()
            .filter_map(|path| resolve(path, &modules))
        {
            let Some((parent, from, to)) = siblings(module, &target) else {
                continue;
            };
            let witness = source.path.display().to_string();
            levels
                .entry(parent)
                .or_default()
                .entry(from)
                .or_default()
                .entry(to)
                .or_insert(witness);
        }
    }
    levels
        .iter()
        .filter_map(|(parent, level)| Some(tell(room, parent, &circle(level)?, level)))
        .collect()
}

/// `a/b.rs` is `a::b`; the crate's root is no module among others.
fn module(path: &Path) -> Option<Module> {
    let path = path.with_extension("");
    let names: Module = path
        .iter()
        .map(|part| part.to_str().map(str::to_owned))
        .collect::<Option<_>>()?;
    let root = matches!(names.as_slice(), [only] if only == "lib" || only == "main");
    let outside = names.first().is_some_and(|first| first == "bin");
    let tests = names.iter().any(|name| name == "tests");
    (!root && !outside && !tests).then_some(names)
}

/// The longest module that begins the path.
fn resolve(path: &[String], modules: &BTreeSet<Module>) -> Option<Module> {
    (1..=path.len())
        .rev()
        .map(|length| path.iter().take(length).cloned().collect::<Module>())
        .find(|prefix| modules.contains(prefix))
}

/// The common parent and its two children that hold the modules; none when one holds the other.
fn siblings(from: &Module, to: &Module) -> Option<(Module, String, String)> {
    let common = from
        .iter()
        .zip(to)
        .take_while(|(one, other)| one == other)
        .count();
    let (one, other) = (from.get(common)?, to.get(common)?);
    Some((
        from.iter().take(common).cloned().collect(),
        one.clone(),
        other.clone(),
    ))
}

/// Some circle of the level, or none.
fn circle(level: &Level) -> Option<Vec<String>> {
    let mut done = BTreeSet::new();
    level.keys().find_map(|start| {
        let mut path = Vec::new();
        search(start, level, &mut path, &mut done)
    })
}

fn search(
    at: &str,
    level: &Level,
    path: &mut Vec<String>,
    done: &mut BTreeSet<String>,
) -> Option<Vec<String>> {
    if let Some(position) = path.iter().position(|seen| seen == at) {
        return Some(path.split_off(position));
    }
    if done.contains(at) {
        return None;
    }
    path.push(at.to_owned());
    for next in level.get(at).into_iter().flat_map(BTreeMap::keys) {
        if let Some(found) = search(next, level, path, done) {
            return Some(found);
        }
    }
    path.pop();
    done.insert(at.to_owned());
    None
}

fn tell(room: &str, parent: &Module, circle: &[String], level: &Level) -> String {
    let steps: Vec<String> = circle
        .iter()
        .zip(circle.iter().cycle().skip(1))
        .map(|(from, to)| {
            let witness = level
                .get(from)
                .and_then(|all| all.get(to))
                .map_or("", String::as_str);
            format!("{from} needs {to} ({witness})")
        })
        .collect();
    let place = if parent.is_empty() {
        room.to_owned()
    } else {
        format!("{room}::{}", parent.join("::"))
    };
    format!("circle among modules of {place}: {}", steps.join(", "))
}

/// Collects the paths of a file, resolved against its own module.
struct Paths {
    here: Module,
    found: BTreeSet<Vec<String>>,
}

impl Paths {
    fn add(&mut self, path: &[String]) {
        match path.split_first() {
            Some((first, rest)) if first == "crate" => {
                self.found.insert(rest.to_vec());
            }
            Some((first, _)) if first == "super" => {
                let ups = path.iter().take_while(|part| *part == "super").count();
                let Some(keep) = self.here.len().checked_sub(ups) else {
                    return;
                };
                let whole = self.here.iter().take(keep).chain(path.iter().skip(ups));
                self.found.insert(whole.cloned().collect());
            }
            _ => {}
        }
    }

    fn tree(&mut self, tree: &syn::UseTree, before: &[String]) {
        let with = |ident: &syn::Ident| {
            let mut path = before.to_vec();
            path.push(ident.to_string());
            path
        };
        match tree {
            syn::UseTree::Path(path) => self.tree(&path.tree, &with(&path.ident)),
            syn::UseTree::Group(group) => {
                for item in &group.items {
                    self.tree(item, before);
                }
            }
            syn::UseTree::Name(name) => self.add(&with(&name.ident)),
            syn::UseTree::Rename(rename) => self.add(&with(&rename.ident)),
            syn::UseTree::Glob(_) => self.add(before),
        }
    }
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if is_test(&item.attrs) {
            return;
        }
        // Inline modules: `super::` inside them starts one deeper.
        if item.content.is_some() {
            self.here.push(item.ident.to_string());
            syn::visit::visit_item_mod(self, item);
            self.here.pop();
        }
    }
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.tree(&item.tree, &[]);
    }
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        if !is_test(&item.attrs) {
            syn::visit::visit_item_fn(self, item);
        }
    }
    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<String> = path
            .segments
            .iter()
            .map(|part| part.ident.to_string())
            .collect();
        self.add(&names);
        syn::visit::visit_path(self, path);
    }
}

/// True for `#[cfg(test)]` and the like, and for `#[test]`.
pub(super) fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let test = attribute.path().is_ident("test");
        let list = attribute.meta.require_list().ok();
        let cfg = attribute.path().is_ident("cfg")
            && list.is_some_and(|list| {
                list.tokens
                    .clone()
                    .into_iter()
                    .any(|token| names_test(&token.to_string()))
            });
        test || cfg
    })
}

fn names_test(token: &str) -> bool {
    token
        .split(|c: char| !c.is_alphanumeric() && c != '_')
        .any(|word| word == "test")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(edges: &[(&str, &str)]) -> Level {
        let mut level = Level::new();
        for (from, to) in edges {
            level
                .entry((*from).to_owned())
                .or_default()
                .insert((*to).to_owned(), String::new());
        }
        level
    }

    #[test]
    fn circles_are_found() {
        assert_eq!(circle(&level(&[("a", "b"), ("b", "c")])), None);
        assert_eq!(
            circle(&level(&[("a", "b"), ("b", "c"), ("c", "b")])),
            Some(vec!["b".into(), "c".into()])
        );
    }

    #[test]
    fn paths_are_resolved() {
        let file = syn::parse_file(
            "use crate::{a::X, b}; use super::c::Y; fn f() { crate::d::g(); }
             #[cfg(test)] mod tests { use crate::never::Z; }",
        )
        .unwrap();
        let mut paths = Paths {
            here: vec!["m".into(), "n".into()],
            found: BTreeSet::new(),
        };
        paths.visit_file(&file);
        let found: Vec<String> = paths.found.iter().map(|path| path.join("::")).collect();
        assert_eq!(found, ["a::X", "b", "d::g", "m::c::Y"]);
    }

    #[test]
    fn a_parent_and_its_child_are_no_circle() {
        let at = |text: &str| text.split("::").map(str::to_owned).collect::<Module>();
        assert_eq!(siblings(&at("a::b"), &at("a")), None);
        assert_eq!(
            siblings(&at("a::b"), &at("c::d")),
            Some((vec![], "a".into(), "c".into()))
        );
        assert_eq!(
            siblings(&at("a::b"), &at("a::c")),
            Some((at("a"), "b".into(), "c".into()))
        );
    }
}
