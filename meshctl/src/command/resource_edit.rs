//! `edit`: a resource in an editor, applied when it was changed.

use std::{
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use mesh_identity::key::random;

use super::{Session, apply};
use crate::{
    args::EditResourceArgs,
    documents::Documents,
    failure::{Exit, Failure},
    print::yaml,
    resource,
};

/// Edits. The revision is part of the text, so a change made meanwhile by somebody else is a conflict.
pub(crate) async fn run(session: &Session, args: &EditResourceArgs) -> Result<Exit, Failure> {
    let key = resource::key(&args.resource, args.namespace.as_deref())?;
    let row = resource::demand(&session.client, &key).await?;
    let mut document = row.document.clone();
    if let Some(object) = document.as_object_mut() {
        object.shift_remove("status");
    }
    let before = yaml(&document)?;
    let file = Scratch::write(&before)?;
    open_editor(&file.0)?;
    let after = std::fs::read_to_string(&file.0)
        .map_err(|error| Failure::local(file.0.display().to_string(), &error))?;
    let editor = session.editor(&args.edit)?;
    if after == before {
        return editor.commit(&[], &[key]).await;
    }
    let edited = vec![("your text".to_owned(), after)];
    let done = commit(session, &edited, &row, args).await;
    if done.is_err() {
        let kept = file.keep();
        crate::print::note(&format!("your text is in {}", kept.display()));
    }
    done
}

async fn commit(
    session: &Session,
    edited: &[(String, String)],
    row: &mesh_model::admin::ResourceRow,
    args: &EditResourceArgs,
) -> Result<Exit, Failure> {
    let documents =
        Documents::parse(edited).map_err(|findings| Failure::findings("your text", &findings))?;
    let key = crate::edit::row_key(row);
    let [document] = documents.all.as_slice() else {
        return Err(Failure::usage(
            "your text",
            "it is not one document",
            "edit one resource at a time",
        ));
    };
    if document.key() != key {
        return Err(Failure::usage(
            "your text",
            format!("it is {} now", document.key()),
            "kind, namespace and name stay; use `meshctl apply` for a new resource",
        ));
    }
    documents.plan(&session.client).await?;
    let editor = session.editor(&args.edit)?;
    match apply::wish(session, document, Some(row), false).await? {
        Some(wish) => editor.commit(&[wish], &[]).await,
        None => editor.commit(&[], &[key]).await,
    }
}

fn open_editor(file: &Path) -> Result<(), Failure> {
    let named = ["VISUAL", "EDITOR"]
        .iter()
        .filter_map(std::env::var_os)
        .find(|value| !value.is_empty())
        .unwrap_or_else(|| "vi".into());
    let words = named.to_string_lossy().into_owned();
    let mut words = words.split_whitespace();
    let program = words.next().unwrap_or("vi");
    let status = Command::new(program)
        .args(words)
        .arg(file)
        .status()
        .map_err(|error| Failure::local(program, &error))?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::new(
        Exit::Finding,
        "editor-failed",
        program,
        format!("the editor ended with {status}"),
        "nothing was changed; set EDITOR",
    ))
}

/// A private file that goes away with the command.
struct Scratch(PathBuf);

impl Scratch {
    fn write(text: &str) -> Result<Self, Failure> {
        let number =
            random::<8>().map_or_else(|_none| std::process::id().into(), u64::from_ne_bytes);
        let path = std::env::temp_dir().join(format!("meshctl-{number:016x}.yaml"));
        let place = path.display().to_string();
        std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(|error| Failure::local(place, &error))?;
        Ok(Self(path))
    }

    fn keep(mut self) -> PathBuf {
        std::mem::take(&mut self.0)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.0.as_os_str().is_empty() {
            // A scratch file that stays is no harm: it is private and in the temporary directory.
            drop(std::fs::remove_file(&self.0));
        }
    }
}
