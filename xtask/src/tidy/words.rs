//! First lines, forbidden names, ignored tests, and the bans of the pure rooms.

use std::path::Path;

use syn::visit::Visit;

use super::{House, PURE, floors};

/// Words that say nothing; never a file or a type.
const EMPTY_WORDS: [&str; 18] = [
    "util", "utils", "common", "helper", "helpers", "misc", "base", "core", "types", "manager",
    "managers", "handler", "handlers", "data", "info", "impl", "impl_", "mod",
];
/// Endings of type names that say nothing.
const EMPTY_ENDINGS: [&str; 5] = ["Manager", "Helper", "Util", "Utils", "Impl"];

pub(super) fn breaches(house: &House) -> Vec<String> {
    let mut found: Vec<String> = house.sources.iter().flat_map(of_file).collect();
    found.extend(PURE.iter().flat_map(|room| bans(&house.root, room)));
    found
}

fn of_file(source: &super::Source) -> Vec<String> {
    let path = source.path.display();
    let mut found = Vec::new();
    match source
        .text
        .lines()
        .next()
        .and_then(|line| line.strip_prefix("//! "))
    {
        None => found.push(format!(
            "{path}: the first line must say its purpose: `//! One sentence.`"
        )),
        Some(line) if line.starts_with("Placeholder") => {
            found.push(format!("{path}: still a placeholder"));
        }
        Some(_) => {}
    }
    let stem = source
        .path
        .file_stem()
        .and_then(|stem| stem.to_str())
        .unwrap_or_default();
    if EMPTY_WORDS.contains(&stem) {
        found.push(format!(
            "{path}: {stem:?} says nothing; name the file after what is in it"
        ));
    }
    if let Some(syntax) = &source.syntax {
        let mut names = Names { found: Vec::new() };
        names.visit_file(syntax);
        found.extend(
            names
                .found
                .into_iter()
                .map(|what| format!("{path}: {what}")),
        );
    }
    found
}

struct Names {
    found: Vec<String>,
}

impl Names {
    fn judge(&mut self, ident: &syn::Ident) {
        let name = ident.to_string();
        let empty = EMPTY_WORDS.contains(&name.to_lowercase().as_str())
            || EMPTY_ENDINGS.iter().any(|ending| name.ends_with(ending));
        if empty {
            self.found
                .push(format!("type {name}: the name says nothing"));
        }
    }
}

impl<'ast> Visit<'ast> for Names {
    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        self.judge(&item.ident);
    }
    fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
        self.judge(&item.ident);
    }
    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        self.judge(&item.ident);
    }
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        if item
            .attrs
            .iter()
            .any(|attribute| attribute.path().is_ident("ignore"))
        {
            self.found.push(format!(
                "test {} is ignored; repair or delete it",
                item.sig.ident
            ));
        }
        syn::visit::visit_item_fn(self, item);
    }
}

/// The nearest `clippy.toml` replaces the root's, so a pure room repeats the root's entries.
fn bans(house: &Path, room: &str) -> Vec<String> {
    let read = |path: &Path| {
        std::fs::read_to_string(path)
            .ok()
            .and_then(|text| text.parse::<toml::Table>().ok())
    };
    let manifest = read(&house.join(room).join("Cargo.toml")).unwrap_or_default();
    let known = floors::dependencies(&manifest, "dependencies");
    let (Some(all), Some(own)) = (
        read(&house.join("clippy.toml")),
        read(&house.join(room).join("clippy.toml")),
    ) else {
        return vec![format!("{room}/clippy.toml: cannot be read")];
    };
    let mut found = Vec::new();
    for (key, value) in &all {
        if key != "disallowed-methods" && own.get(key) != Some(value) {
            found.push(format!(
                "{room}/clippy.toml: must repeat {key} = {value} of the root"
            ));
        }
    }
    let own = banned(&own);
    for path in banned(&all) {
        let of = path.split("::").next().unwrap_or_default();
        let reachable = of == "std" || known.iter().any(|name| name.replace('-', "_") == of);
        if reachable && !own.contains(&path) {
            found.push(format!("{room}/clippy.toml: must repeat the ban of {path}"));
        }
    }
    for needed in [
        "std::time::SystemTime::now",
        "std::time::Instant::now",
        "std::env::var",
    ] {
        if !own.iter().any(|path| path == needed) {
            found.push(format!("{room}/clippy.toml: a pure room must ban {needed}"));
        }
    }
    found
}

fn banned(table: &toml::Table) -> Vec<String> {
    let list = table
        .get("disallowed-methods")
        .and_then(toml::Value::as_array);
    list.into_iter()
        .flatten()
        .filter_map(|entry| {
            entry
                .get("path")
                .and_then(toml::Value::as_str)
                .map(str::to_owned)
        })
        .collect()
}
