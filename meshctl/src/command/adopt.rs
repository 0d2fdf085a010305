//! `adopt`: what a registry knows on this host becomes local services; tried, kept, switched off again.
//!
//! In: the daemon's proposals. Out: files in `services.d`, each written whole or not at all. Never: touches a file
//! that it did not write.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use mesh_model::admin::adopt::{AdoptedFile, Adoption, MARK, Proposal, Release, Try};
use serde_json::{Value, json};

use super::{Session, full_name};
use crate::{
    args::AdoptArgs,
    failure::{Exit, Failure},
    print::{Paint, Printer, Put as _, Table},
    time::{now_ms, until},
};

/// Adopts, tries, or undoes.
pub(crate) async fn run(session: &Session, args: &AdoptArgs) -> Result<Exit, Failure> {
    let adoption: Adoption = session.client.get("/v1/adopt").await?;
    let wanted: Vec<String> = args.services.iter().map(|name| full_name(name)).collect();
    let chosen: Vec<&Proposal> = adoption
        .proposals
        .iter()
        .filter(|one| wanted.is_empty() || wanted.contains(&one.service))
        .collect();
    let unknown = wanted
        .iter()
        .find(|name| !chosen.iter().any(|one| one.service == **name));
    if let Some(name) = unknown {
        return Err(Failure::new(
            Exit::Finding,
            "unknown-service",
            name,
            "no source has it at an address of this host",
            "see `meshctl adopt --dry-run` and `meshctl registry status`",
        ));
    }
    if args.undo {
        return undo(session, args, &adoption, &chosen).await;
    }
    if args.change.dry_run {
        show(session, &adoption, &chosen, "would adopt")?;
        return Ok(Exit::Done);
    }
    let files: Vec<&AdoptedFile> = chosen.iter().filter_map(|one| one.file.as_ref()).collect();
    if files.is_empty() {
        show(session, &adoption, &chosen, "")?;
        crate::print::note("nothing here is ready to be adopted");
        return Ok(Exit::Done);
    }
    if let Some(time) = args.for_time {
        let asked = Try {
            files: files.into_iter().cloned().collect(),
            for_ms: u64::try_from(time.as_millis()).unwrap_or(u64::MAX),
        };
        let path = "/v1/adopt/try";
        let _empty: Value = session
            .client
            .change(path, &asked, &args.change.reason)
            .await?;
        show(session, &adoption, &chosen, "tried")?;
        crate::print::note("`meshctl confirm` keeps them; without it they go by themselves");
        return Ok(Exit::Done);
    }
    let directory = Path::new(&adoption.directory);
    let mut written = Vec::new();
    for file in files {
        written.push(write(directory, file)?);
    }
    if let Err(failure) = reload(session, &args.change.reason).await {
        for path in &written {
            drop(std::fs::remove_file(path));
        }
        return Err(failure);
    }
    show(session, &adoption, &chosen, "adopted")?;
    crate::print::note(
        "who reaches them how: `meshctl endpoints`; back out: `meshctl adopt --undo SERVICE`",
    );
    Ok(Exit::Done)
}

async fn reload(session: &Session, reason: &str) -> Result<(), Failure> {
    let _empty: Value = session
        .client
        .change("/v1/reload", &json!({}), reason)
        .await?;
    Ok(())
}

/// Writes a file whole; one that is there and is not ours stays.
fn write(directory: &Path, file: &AdoptedFile) -> Result<PathBuf, Failure> {
    let path = directory.join(&file.name);
    let place = path.display().to_string();
    let failed = |error: std::io::Error| Failure::local(&place, &error);
    if !ours(&path).unwrap_or(true) {
        return Err(Failure::new(
            Exit::Finding,
            "not-ours",
            place,
            "the file is there and was not written by `meshctl adopt`",
            "move it away",
        ));
    }
    let fresh = directory.join(format!(".{}.new", file.name));
    let saved = std::fs::create_dir_all(directory)
        .and_then(|()| std::fs::File::create(&fresh))
        .and_then(|mut out| {
            out.write_all(file.text.as_bytes())?;
            // The daemon is another user than whoever adopts.
            out.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
            out.sync_all()
        })
        .and_then(|()| std::fs::rename(&fresh, &path));
    saved.map_err(failed)?;
    Ok(path)
}

/// Whether the file is one that `adopt` wrote; `None`: there is none.
fn ours(path: &Path) -> Option<bool> {
    let text = std::fs::read_to_string(path).ok()?;
    Some(text.starts_with(MARK))
}

/// Callers learn first that the service is not offered any more; then its file goes.
async fn undo(
    session: &Session,
    args: &AdoptArgs,
    adoption: &Adoption,
    chosen: &[&Proposal],
) -> Result<Exit, Failure> {
    let adopted: Vec<&&Proposal> = chosen
        .iter()
        .filter(|one| matches!(one.state.as_str(), "adopted" | "tried"))
        .collect();
    if adopted.is_empty() {
        return Err(Failure::new(
            Exit::Finding,
            "not-adopted",
            chosen.first().map_or("", |one| &one.service),
            "`meshctl adopt` did not write it",
            "see `meshctl adopt --dry-run`",
        ));
    }
    if args.change.dry_run {
        show(session, adoption, chosen, "would switch off")?;
        return Ok(Exit::Done);
    }
    for one in &adopted {
        let release = Release {
            service: one.service.clone(),
        };
        let client = session.client.within(Duration::from_mins(1));
        let path = "/v1/adopt/release";
        let _empty: Value = client.change(path, &release, &args.change.reason).await?;
        if one.state == "adopted" {
            // The remark of what is configured is the file and line that it comes from.
            let file = one
                .remark
                .rsplit_once(':')
                .map_or(&*one.remark, |(file, _)| file);
            if ours(Path::new(file)) == Some(true) {
                std::fs::remove_file(file).map_err(|error| Failure::local(file, &error))?;
            }
        }
    }
    reload(session, &args.change.reason).await?;
    show(session, adoption, chosen, "switched off")?;
    Ok(Exit::Done)
}

/// Keeps what is tried.
pub(crate) async fn confirm(
    session: &Session,
    adoption: &Adoption,
    reason: &str,
) -> Result<Exit, Failure> {
    for file in &adoption.tried {
        write(Path::new(&adoption.directory), file)?;
    }
    let path = "/v1/adopt/confirm";
    let _empty: Value = session.client.change(path, &json!({}), reason).await?;
    let names: Vec<&str> = adoption
        .tried
        .iter()
        .map(|file| file.name.as_str())
        .collect();
    session.printer.show(&json!({"kept": names}), |printer| {
        let mut text = String::new();
        for name in &names {
            writeln!(text, "{} {}/{name}", printer.mark("ok"), adoption.directory);
        }
        text
    })?;
    Ok(Exit::Done)
}

fn show(
    session: &Session,
    adoption: &Adoption,
    chosen: &[&Proposal],
    done: &str,
) -> Result<(), Failure> {
    session
        .printer
        .show(&chosen, |printer| table(printer, adoption, chosen, done))
}

fn table(printer: Printer, adoption: &Adoption, chosen: &[&Proposal], done: &str) -> String {
    let mut table = Table::new(&[
        "SERVICE", "SOURCE", "LISTENS", "BY", "STATE", "CAPTURED", "REMARK",
    ]);
    for one in chosen {
        let by = match (one.unit.as_str(), one.user.as_str()) {
            ("", "") => String::new(),
            ("", user) => format!("user {user}"),
            (unit, _) => unit.to_owned(),
        };
        let state = match one.state.as_str() {
            "ready" if !done.is_empty() => printer.paint(Paint::Good, done),
            "adopted" | "tried"
                if done.ends_with("switched off") || done.ends_with("switch off") =>
            {
                printer.paint(Paint::Warn, done)
            }
            "missing" => printer.paint(Paint::Warn, "missing"),
            other => other.to_owned(),
        };
        table.row(vec![
            one.service.clone(),
            one.source.clone(),
            one.registered.clone(),
            by,
            state,
            one.captured.clone(),
            one.remark.clone(),
        ]);
    }
    let mut text = table.render(
        "no source has a service at an address of this host; `meshctl registry status` says how each source is",
    );
    if adoption.try_until_ms != 0 {
        let left = until(adoption.try_until_ms, now_ms());
        writeln!(
            text,
            "a trial of {} files ends {left}",
            adoption.tried.len()
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_somebody_else_stays() {
        let directory = tempfile::tempdir().unwrap();
        let file = |text: &str| AdoptedFile {
            name: "adopted-default-web.toml".to_owned(),
            text: text.to_owned(),
        };
        let path = write(
            directory.path(),
            &file(&format!("{MARK} …\nname = \"web\"\n")),
        )
        .unwrap();
        assert_eq!(ours(&path), Some(true));
        write(directory.path(), &file(&format!("{MARK} again\n"))).unwrap();
        std::fs::write(&path, "name = \"mine\"\n").unwrap();
        let refused = write(directory.path(), &file(MARK)).unwrap_err();
        assert_eq!(refused.code, "not-ours");
        let left: Vec<_> = std::fs::read_dir(directory.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "no remains");
    }
}
