//! Documents from files: read, parsed here, then planned by the daemon against what is in force.

use std::{
    collections::BTreeMap,
    io::Read as _,
    path::{Path, PathBuf},
};

use mesh_model::{
    admin::{PlannedChange, Validate, Validated},
    catalog::ResourceKey,
    document::{Document, DocumentError, parse_documents},
    finding::{Finding, Severity},
};

use crate::{
    client::Client,
    failure::{Exit, Failure},
};

/// More than any set of documents that a daemon accepts.
const MAX_TEXT: u64 = 8 << 20;

/// What files hold.
#[derive(Debug)]
pub(crate) struct Documents {
    /// Names of the files, for messages.
    pub(crate) origin: String,
    /// The text of all of them as one stream of documents.
    pub(crate) text: String,
    /// The documents in order; no resource twice.
    pub(crate) all: Vec<Document>,
}

impl Documents {
    /// Reads files (`-` is standard input) and parses them. Every fault is told with file and line.
    pub(crate) fn read(files: &[PathBuf]) -> Result<Self, Failure> {
        let texts = texts(files)?;
        let parsed = Self::parse(&texts).map_err(|findings| {
            let places: Vec<&str> = texts.iter().map(|(origin, _)| origin.as_str()).collect();
            Failure::findings(&places.join(", "), &findings)
        })?;
        if parsed.all.is_empty() {
            return Err(Self::none(parsed.origin));
        }
        Ok(parsed)
    }

    /// There is nothing in the files.
    pub(crate) fn none(origin: String) -> Failure {
        Failure::new(
            Exit::Finding,
            "no-documents",
            origin,
            "it holds no document",
            "write apiVersion, kind, metadata and spec",
        )
    }

    /// Parses texts, each with the name of its file.
    pub(crate) fn parse(texts: &[(String, String)]) -> Result<Self, Vec<Finding>> {
        let (mut all, mut findings) = (Vec::new(), Vec::new());
        for (origin, text) in texts {
            match parse_documents(text, origin) {
                Ok(documents) => {
                    all.extend(
                        documents
                            .into_iter()
                            .map(|document| (origin.clone(), document)),
                    );
                }
                Err(faults) => findings.extend(faults.iter().map(finding)),
            }
        }
        let mut seen: BTreeMap<ResourceKey, &str> = BTreeMap::new();
        for (origin, document) in &all {
            if let Some(first) = seen.insert(document.key(), origin) {
                findings.push(Finding::new(
                    "duplicate-document",
                    Severity::Error,
                    format!("{origin}: {}", document.key()),
                    format!("the resource is in {first} already"),
                    "keep one of them",
                ));
            }
        }
        if !findings.is_empty() {
            return Err(findings);
        }
        let names: Vec<&str> = texts.iter().map(|(origin, _)| origin.as_str()).collect();
        let bodies: Vec<&str> = texts.iter().map(|(_, text)| text.as_str()).collect();
        Ok(Self {
            origin: names.join(", "),
            text: bodies.join("\n---\n"),
            all: all.into_iter().map(|(_, document)| document).collect(),
        })
    }

    /// What the daemon says of them: findings, and for each what applying it would do.
    pub(crate) async fn ask(&self, client: &Client) -> Result<Validated, Failure> {
        let question = Validate {
            text: self.text.clone(),
            origin: self.origin.clone(),
        };
        client.post("/v1/validate", &question).await
    }

    /// As [`Self::ask`], and an error finding is a failure.
    pub(crate) async fn plan(&self, client: &Client) -> Result<Validated, Failure> {
        let validated = self.ask(client).await?;
        let errors: Vec<Finding> = validated
            .findings
            .iter()
            .filter(|finding| finding.severity == Severity::Error)
            .cloned()
            .collect();
        if errors.is_empty() {
            Ok(validated)
        } else {
            Err(Failure::findings(&self.origin, &errors))
        }
    }
}

/// The plan for a resource.
pub(crate) fn planned<'a>(
    validated: &'a Validated,
    key: &ResourceKey,
) -> Option<&'a PlannedChange> {
    validated.plan.iter().find(|planned| {
        planned.kind == key.kind && planned.namespace == key.namespace && planned.name == key.name
    })
}

/// A fault of a document, as everything is told.
pub(crate) fn finding(fault: &DocumentError) -> Finding {
    let line = if fault.line == 0 {
        String::new()
    } else {
        format!("{}: ", fault.line)
    };
    let separator = if line.is_empty() { ": " } else { ":" };
    Finding::new(
        "invalid-document",
        Severity::Error,
        format!("{}{separator}{line}{}", fault.origin, fault.subject),
        fault.what.as_str(),
        fault.remedy.as_str(),
    )
}

/// What files hold, each with its name; `-` is standard input.
pub(crate) fn texts(files: &[PathBuf]) -> Result<Vec<(String, String)>, Failure> {
    files.iter().map(|file| read_one(file)).collect()
}

fn read_one(file: &Path) -> Result<(String, String), Failure> {
    let mut text = String::new();
    if file == Path::new("-") {
        std::io::stdin()
            .lock()
            .take(MAX_TEXT)
            .read_to_string(&mut text)
            .map_err(|error| Failure::local("<stdin>", &error))?;
        return Ok(("<stdin>".to_owned(), text));
    }
    let origin = file.display().to_string();
    std::fs::File::open(file)
        .and_then(|file| file.take(MAX_TEXT).read_to_string(&mut text))
        .map_err(|error| Failure::local(&origin, &error))?;
    Ok((origin, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_one_stream_and_faults_name_their_file() {
        let directory = tempfile::tempdir().unwrap();
        let (a, b) = (
            directory.path().join("a.yaml"),
            directory.path().join("b.json"),
        );
        std::fs::write(
            &a,
            "apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec: {ports: [{port: 80}]}\n",
        )
        .unwrap();
        std::fs::write(&b, r#"{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "y"}, "spec": {"ports": [{"port": 80}]}}"#).unwrap();
        let both = Documents::read(&[a.clone(), b]).unwrap();
        let names: Vec<String> = both.all.iter().map(|d| d.key().to_string()).collect();
        assert_eq!(names, ["Service/default/x", "Service/default/y"]);
        assert_eq!(
            parse_documents(&both.text, "both").unwrap().len(),
            2,
            "{}",
            both.text
        );
        let twice = Documents::read(&[a.clone(), a]).unwrap_err();
        assert_eq!(twice.code, "duplicate-document");
        let none = Documents::read(&[directory.path().join("none")]).unwrap_err();
        assert_eq!(none.code, "local-io");
    }
}
