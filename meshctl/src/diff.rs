//! What changed between two documents, as people read it: a unified diff of their YAML.

use serde_json::Value;
use similar::{ChangeTag, TextDiff};

use crate::{
    failure::Failure,
    print::{Paint, Printer, yaml},
    resource::bare,
};

/// The difference from `old` to `new`; empty when they say the same. `None` is an absent document.
pub(crate) fn documents(
    printer: Printer,
    old: (&str, Option<&Value>),
    new: (&str, Option<&Value>),
) -> Result<String, Failure> {
    let text = |document: Option<&Value>| document.map_or(Ok(String::new()), |d| yaml(&bare(d)));
    Ok(texts(
        printer,
        (old.0, &text(old.1)?),
        (new.0, &text(new.1)?),
    ))
}

fn texts(printer: Printer, old: (&str, &str), new: (&str, &str)) -> String {
    if old.1 == new.1 {
        return String::new();
    }
    let diff = TextDiff::from_lines(old.1, new.1);
    let mut out = printer.paint(Paint::Strong, &format!("--- {}\n+++ {}", old.0, new.0)) + "\n";
    for group in diff.grouped_ops(3) {
        for change in group.iter().flat_map(|op| diff.iter_changes(op)) {
            let line = change.value().trim_end_matches('\n');
            let shown = match change.tag() {
                ChangeTag::Delete => printer.paint(Paint::Bad, &format!("-{line}")),
                ChangeTag::Insert => printer.paint(Paint::Good, &format!("+{line}")),
                ChangeTag::Equal => format!(" {line}"),
            };
            out.push_str(&shown);
            out.push('\n');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::print::Format;

    #[test]
    fn only_what_differs() {
        let printer = Printer::plain(Format::Table);
        let old = json!({"spec": {"a": 1, "b": 2}, "metadata": {"resourceVersion": "1"}});
        let new = json!({"spec": {"a": 1, "b": 3}, "metadata": {"resourceVersion": "2"}});
        let text = documents(printer, ("old", Some(&old)), ("new", Some(&new))).unwrap();
        assert!(text.starts_with("--- old\n+++ new\n"), "{text}");
        assert!(text.contains("\n-  b: 2\n+  b: 3\n"), "{text}");
        assert!(!text.contains("resourceVersion"), "{text}");
        assert_eq!(
            documents(printer, ("a", Some(&old)), ("b", Some(&old))).unwrap(),
            ""
        );
        let created = documents(printer, ("none", None), ("new", Some(&new))).unwrap();
        assert!(created.contains("+spec:"), "{created}");
    }
}
