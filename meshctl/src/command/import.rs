//! `import`: rules of the first Istio become documents of today, printed for `apply`.

use mesh_model::document::{Document, import};

use super::Session;
use crate::{
    args::ImportArgs,
    documents::{Documents, finding, texts},
    failure::{Exit, Failure},
    print::yaml,
};

/// Imports. Nothing is asked of the daemon, and nothing is changed.
pub(crate) fn run(session: &Session, args: &ImportArgs) -> Result<Exit, Failure> {
    let texts = texts(&args.files)?;
    let names: Vec<&str> = texts.iter().map(|(origin, _)| origin.as_str()).collect();
    let origin = names.join(", ");
    let imported = import::import(&texts).map_err(|faults| {
        let findings: Vec<_> = faults.iter().map(finding).collect();
        Failure::findings(&origin, &findings)
    })?;
    if imported.documents.is_empty() {
        return Err(Documents::none(origin));
    }
    let mut findings = imported.findings;
    findings.extend(imported.documents.iter().flat_map(Document::reported));
    if !findings.is_empty() {
        crate::print::note(session.printer.findings(&findings).trim_end());
    }
    let documents: Vec<_> = imported.documents.iter().map(|one| &one.json).collect();
    if session.printer.is_table() || session.printer.is_yaml() {
        let texts: Vec<String> = documents
            .iter()
            .map(|document| yaml(document))
            .collect::<Result<_, _>>()?;
        crate::print::text(&texts.join("---\n"))?;
    } else {
        session.printer.show(&documents, |_printer| String::new())?;
    }
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use mesh_model::document::{import, parse_documents};

    use crate::print::yaml;

    #[test]
    fn what_is_printed_can_be_applied() {
        let rule = "apiVersion: config.istio.io/v1alpha2\nkind: RouteRule\nmetadata: {name: r}\nspec:\n  \
            destination: {name: words}\n  route:\n  - {labels: {version: v1}, weight: 9}\n  \
            - {labels: {version: 'on'}, weight: 1}\n";
        let imported = import::import(&[("f".to_owned(), rule.to_owned())]).unwrap();
        let texts: Vec<String> = imported
            .documents
            .iter()
            .map(|one| yaml(&one.json).unwrap())
            .collect();
        let again = parse_documents(&texts.join("---\n"), "again").unwrap();
        assert_eq!(again, imported.documents);
        assert_eq!(again.len(), 2);
    }
}
