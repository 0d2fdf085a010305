//! Documents name only what exists: paths in backticks, links, and the tests of the invariants.

use std::path::Path;

use super::{House, files};

pub(super) fn breaches(house: &House) -> Vec<String> {
    files(&house.root, "md")
        .iter()
        .flat_map(|paper| of_paper(&house.root, paper))
        .collect()
}

fn of_paper(root: &Path, paper: &Path) -> Vec<String> {
    let Ok(text) = std::fs::read_to_string(root.join(paper)) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    let mut fenced = false;
    for (at, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        let place = format!("{}:{}", paper.display(), at + 1);
        let ticked: Vec<&str> = line.split('`').skip(1).step_by(2).collect();
        for path in ticked
            .iter()
            .filter(|token| is_path(root, token))
            .flat_map(|token| expand(token))
        {
            if !exists(root, &path) {
                found.push(format!("{place}: names {path}, which does not exist"));
            }
        }
        for target in links(line) {
            let base = root.join(paper).parent().map(|folder| folder.join(target));
            if !base.is_some_and(|path| path.exists()) {
                found.push(format!("{place}: links to {target}, which does not exist"));
            }
        }
        found.extend(
            named_tests(root, line, &ticked)
                .into_iter()
                .map(|what| format!("{place}: {what}")),
        );
    }
    found
}

/// True for a token that claims to be a path of this repository: it starts with one of its folders.
fn is_path(root: &Path, token: &str) -> bool {
    let plain = token
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "_-./{},*".contains(c));
    let Some((first, rest)) = token.split_once('/') else {
        return plain && ends(token, "md") && !token.contains('*');
    };
    let folder = !first.is_empty() && first != "target" && root.join(first).is_dir();
    plain && folder && !first.starts_with("..") && !rest.contains("//")
}

/// True for a file name with the extension.
fn ends(token: &str, extension: &str) -> bool {
    Path::new(token)
        .extension()
        .is_some_and(|found| found == extension)
}

/// `a/{b,c}.rs` is two paths.
fn expand(token: &str) -> Vec<String> {
    let Some((before, rest)) = token.split_once('{') else {
        return vec![token.to_owned()];
    };
    let Some((inside, after)) = rest.split_once('}') else {
        return vec![token.to_owned()];
    };
    inside
        .split(',')
        .flat_map(|part| expand(&format!("{before}{part}{after}")))
        .collect()
}

/// A star is checked by the folder before it.
fn exists(root: &Path, path: &str) -> bool {
    let fixed = path.split('*').next().unwrap_or_default();
    if fixed.len() == path.len() {
        return root.join(path).exists() || root.join("docs").join(path).exists();
    }
    let folder = fixed.rsplit_once('/').map_or("", |(folder, _)| folder);
    root.join(folder).is_dir()
}

/// Targets of markdown links to files.
fn links(line: &str) -> Vec<&str> {
    line.split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')').map(|(target, _)| target))
        .map(|target| target.split('#').next().unwrap_or_default())
        .filter(|target| !target.is_empty() && !target.contains("://") && !target.contains(' '))
        .collect()
}

/// After `Test:` a line names a file and functions in it.
fn named_tests(root: &Path, line: &str, ticked: &[&str]) -> Vec<String> {
    if !line.contains("Test:") {
        return Vec::new();
    }
    let mut file: Option<(&str, String)> = None;
    let mut found = Vec::new();
    for token in ticked {
        if ends(token, "rs") {
            file = std::fs::read_to_string(root.join(token))
                .ok()
                .map(|text| (*token, text));
            continue;
        }
        match &file {
            Some((_, text)) if text.contains(&format!("fn {token}(")) => {}
            Some((path, _)) => {
                found.push(format!("names the test {token}, which is not in {path}"));
            }
            None => found.push(format!("names the test {token} without a file before it")),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_links() {
        let root = crate::command::root();
        assert!(is_path(&root, "model/src/lib.rs"));
        assert!(!is_path(&root, "/etc/meshd"));
        assert!(!is_path(&root, "ns/name"));
        assert_eq!(expand("a/{b,c}.rs"), ["a/b.rs", "a/c.rs"]);
        assert!(exists(&root, "model/src/*.rs") && !exists(&root, "model/nowhere/*.rs"));
        assert_eq!(
            links("see [x](docs/a.md#b) and [y](https://z)"),
            ["docs/a.md"]
        );
    }
}
