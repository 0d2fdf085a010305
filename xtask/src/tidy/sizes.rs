//! The largest files and functions: advice, so that a reader asks of each whether it is one subject.

use std::path::PathBuf;

use syn::{spanned::Spanned, visit::Visit};

use super::{House, circles::is_test};

/// How many are shown.
const SHOWN: usize = 20;

pub(super) fn advice(house: &House) -> Vec<String> {
    let mut sizes = Sizes {
        path: PathBuf::new(),
        tests: 0,
        functions: Vec::new(),
    };
    let mut files = Vec::new();
    for source in &house.sources {
        sizes.path.clone_from(&source.path);
        sizes.tests = 0;
        if let Some(syntax) = &source.syntax {
            sizes.visit_file(syntax);
        }
        if source.path.file_stem().is_some_and(|stem| stem != "tests") {
            let lines = source.text.lines().count();
            files.push((
                lines.saturating_sub(sizes.tests),
                source.path.display().to_string(),
            ));
        }
    }
    let mut lines = top("largest files (lines without tests)", files);
    lines.extend(top("longest functions (lines)", sizes.functions));
    lines
}

fn top(title: &str, mut all: Vec<(usize, String)>) -> Vec<String> {
    all.sort_by(|one, other| other.cmp(one));
    let rows = all
        .into_iter()
        .take(SHOWN)
        .map(|(size, name)| format!("  {size:5}  {name}"));
    std::iter::once(format!("{title}:")).chain(rows).collect()
}

struct Sizes {
    path: PathBuf,
    tests: usize,
    functions: Vec<(usize, String)>,
}

fn length(node: &impl Spanned) -> usize {
    let span = node.span();
    span.end().line.saturating_sub(span.start().line) + 1
}

impl<'ast> Visit<'ast> for Sizes {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if is_test(&item.attrs) {
            self.tests += length(item);
            return;
        }
        syn::visit::visit_item_mod(self, item);
    }
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        let name = format!("{} {}", self.path.display(), item.sig.ident);
        self.functions.push((length(item), name));
    }
    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        let name = format!("{} {}", self.path.display(), item.sig.ident);
        self.functions.push((length(item), name));
    }
}
