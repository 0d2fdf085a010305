//! `backup` and `restore` of what makes this host an authority: a secret, in files of mode 0600.

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Seek as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    process::Stdio,
};

use mesh_model::admin::Backup;
use serde_json::json;
use zeroize::Zeroizing;

use super::{Session, daemon::become_daemon};
use crate::{
    args::{BackupArgs, RestoreArgs},
    failure::{Exit, Failure},
};

const MAX_ARCHIVE: u64 = 16 << 20;

/// Saves a backup. Never replaces a file.
pub(crate) async fn save(session: &Session, args: &BackupArgs) -> Result<Exit, Failure> {
    let backup: Backup = session.client.change("/v1/backup", &json!({}), "").await?;
    let text = Zeroizing::new(serde_json::to_string(&backup).map_err(|error| {
        Failure::new(
            Exit::Finding,
            "unprintable",
            "backup",
            error.to_string(),
            "",
        )
    })?);
    if args.file == Path::new("-") {
        crate::print::text(&text)?;
        return Ok(Exit::Done);
    }
    let place = args.file.display().to_string();
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&args.file)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())
                .and_then(|()| file.sync_all())
        })
        .map_err(|error| Failure::local(&place, &error))?;
    session.printer.show(
        &json!({"file": place, "files": backup.files.len()}),
        |printer| {
            format!(
                "{} {place}: a secret; `meshctl restore --file` makes an authority of it\n",
                printer.mark("ok")
            )
        },
    )?;
    Ok(Exit::Done)
}

/// Restores: hands the archive to `meshd restore`, which refuses a directory that is not empty.
pub(crate) fn restore(session: &Session, args: &RestoreArgs) -> Result<Exit, Failure> {
    if args.file == Path::new("-") {
        if args.change.dry_run {
            return checked(session, &mut std::io::stdin().lock(), "<stdin>");
        }
        return Err(become_daemon(args.config.as_deref(), "restore", None));
    }
    let place = args.file.display().to_string();
    let mut file = File::open(&args.file).map_err(|error| Failure::local(&place, &error))?;
    if args.change.dry_run {
        return checked(session, &mut file, &place);
    }
    parse(&mut file, &place)?;
    file.rewind()
        .map_err(|error| Failure::local(&place, &error))?;
    Err(become_daemon(
        args.config.as_deref(),
        "restore",
        Some(Stdio::from(file)),
    ))
}

fn checked(
    session: &Session,
    input: &mut impl std::io::Read,
    place: &str,
) -> Result<Exit, Failure> {
    let backup = parse(input, place)?;
    let names: Vec<&str> = backup.files.iter().map(|(name, _)| name.as_str()).collect();
    session
        .printer
        .show(&json!({"would_restore": names}), |_| {
            format!("would restore {}\n", names.join(", "))
        })?;
    Ok(Exit::Done)
}

fn parse(input: &mut impl std::io::Read, place: &str) -> Result<Backup, Failure> {
    let mut text = Zeroizing::new(Vec::new());
    input
        .take(MAX_ARCHIVE)
        .read_to_end(&mut text)
        .map_err(|error| Failure::local(place, &error))?;
    let backup: Backup = serde_json::from_slice(&text).map_err(|error| {
        Failure::new(
            Exit::Finding,
            "bad-backup",
            place,
            format!("it is no backup: {error}"),
            "give the file that `meshctl backup` wrote",
        )
    })?;
    if backup.files.is_empty() {
        return Err(Failure::new(
            Exit::Finding,
            "bad-backup",
            place,
            "it holds nothing",
            "take another one",
        ));
    }
    Ok(backup)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use clap::Parser as _;

    use super::*;
    use crate::{args::Arguments, client::script::Script};

    #[tokio::test]
    async fn a_backup_is_private_and_never_replaces() {
        let answer = json!({"files": [["ca.key", "c2VjcmV0"]]}).to_string();
        let script = Script::start(vec![(200, answer.clone()), (200, answer)]);
        let global = Arguments::parse_from(["meshctl", "-o", "json"]).global;
        let session = Session {
            client: script.client(),
            ..Session::new(global)
        };
        let directory = tempfile::tempdir().unwrap();
        let args = BackupArgs {
            file: directory.path().join("b"),
        };
        assert_eq!(save(&session, &args).await.unwrap(), Exit::Done);
        let mode = std::fs::metadata(&args.file).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        assert_eq!(save(&session, &args).await.unwrap_err().exit, Exit::Finding);
        let mut file = File::open(&args.file).unwrap();
        assert_eq!(parse(&mut file, "b").unwrap().files.len(), 1);
    }

    #[test]
    fn what_is_no_backup_is_refused_before_anything_runs() {
        assert_eq!(
            parse(&mut "{}".as_bytes(), "x").unwrap_err().code,
            "bad-backup"
        );
        assert_eq!(
            parse(&mut "{\"files\":[]}".as_bytes(), "x")
                .unwrap_err()
                .code,
            "bad-backup"
        );
    }
}
