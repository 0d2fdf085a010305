//! `enrol`: a drop-in that binds a unit's cgroup to its service before the unit's first process starts.
//!
//! In: a unit. Out: a drop-in file, or (from the drop-in) the binding itself.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use mesh_model::admin::{Enrol, Enrolled};
use serde_json::{Value, json};

use super::Session;
use crate::{
    args::EnrolArgs,
    failure::{Exit, Failure},
    print::Put as _,
};

const DROP_IN: &str = "50-meshd.conf";

/// Enrols, or binds, or takes the drop-in away.
pub(crate) async fn run(session: &Session, args: &EnrolArgs) -> Result<Exit, Failure> {
    let unit = unit_name(&args.unit)?;
    if args.starting {
        return starting(session, args, &unit).await;
    }
    let file = args.units.join(format!("{unit}.d")).join(DROP_IN);
    let place = file.display().to_string();
    if !args.remove {
        there_is(&unit, args.change.dry_run)?;
    }
    if args.change.dry_run {
        let verb = if args.remove { "remove" } else { "write" };
        session
            .printer
            .show(&json!({"would": verb, "file": place}), |_| {
                format!("would {verb} {place}\n")
            })?;
        return Ok(Exit::Done);
    }
    if args.remove {
        remove(&file).map_err(|error| Failure::local(&place, &error))?;
    } else {
        let program =
            std::env::current_exe().unwrap_or_else(|_unknown| PathBuf::from("/usr/bin/meshctl"));
        write(&file, &drop_in(&program)).map_err(|error| Failure::local(&place, &error))?;
    }
    let systemd = systemctl(&["daemon-reload"]).is_some();
    let mut bound = None;
    if !args.remove
        && let Some(cgroup) = running_cgroup(&unit)
    {
        match bind(session, &unit, &cgroup, &args.change.reason).await {
            Ok(()) => bound = Some(cgroup),
            // The drop-in does it at the unit's next start.
            Err(failure) if failure.exit == Exit::Unreachable || failure.code == "not-joined" => {
                crate::print::note(&format!("it runs and is not bound yet: {failure}"));
            }
            Err(failure) => return Err(failure),
        }
    }
    let named = if args.remove {
        None
    } else {
        named_by(session, &unit).await
    };
    session.printer.show(
        &json!({"unit": unit, "file": place, "reloaded": systemd, "cgroup": bound, "services": named}),
        |printer| {
            let ok = printer.mark("ok");
            let mut text = if args.remove {
                format!("{ok} {place} is gone\n")
            } else {
                format!("{ok} {place}: recognised from its first packet on\n")
            };
            if let Some(cgroup) = &bound {
                writeln!(text, "{ok} it runs: {cgroup} is bound now");
            }
            if named.as_ref().is_some_and(Vec::is_empty) {
                writeln!(
                    text,
                    "‼ no service is recognised by it: write `unit = \"{unit}\"` into its [[service]], then \
                     `systemctl reload meshd`"
                );
            }
            if !systemd {
                text.push_str("‼ systemd was not told: run `systemctl daemon-reload`\n");
            }
            text
        },
    )?;
    Ok(Exit::Done)
}

/// What the drop-in runs, inside the unit's own cgroup.
async fn starting(session: &Session, args: &EnrolArgs, unit: &str) -> Result<Exit, Failure> {
    let text = std::fs::read_to_string("/proc/self/cgroup")
        .map_err(|error| Failure::local("/proc/self/cgroup", &error))?;
    let Some(cgroup) = own_cgroup(&text) else {
        return Err(Failure::new(
            Exit::Finding,
            "no-cgroup",
            unit,
            "this system has no unified cgroup hierarchy",
            "recognise the service by uid instead",
        ));
    };
    if !args.change.dry_run {
        bind(session, unit, &cgroup, &args.change.reason).await?;
    }
    if !session.printer.is_table() {
        session
            .printer
            .show(&json!({"unit": unit, "cgroup": cgroup}), |_| String::new())?;
    }
    Ok(Exit::Done)
}

/// Refuses a unit that systemd does not know; without systemd nobody can say.
fn there_is(unit: &str, dry_run: bool) -> Result<(), Failure> {
    let state = || systemctl(&["show", "--property=LoadState", "--value", "--", unit]);
    let mut found = state();
    if is_missing(found.as_deref()) && !dry_run && systemctl(&["daemon-reload"]).is_some() {
        // Its file may be newer than what systemd has read.
        found = state();
    }
    if is_missing(found.as_deref()) {
        return Err(Failure::new(
            Exit::Finding,
            "no-such-unit",
            unit,
            "systemd knows no such unit",
            "install it first, or correct the name: `systemctl list-unit-files`",
        ));
    }
    Ok(())
}

fn is_missing(load_state: Option<&str>) -> bool {
    load_state.is_some_and(|state| state.trim() == "not-found")
}

/// The services that the daemon recognises by the unit; `None` when it does not say.
async fn named_by(session: &Session, unit: &str) -> Option<Vec<String>> {
    let escaped = unit.replace('\\', "%5C");
    let client = session.client.within(Duration::from_secs(5));
    let told: Enrolled = client
        .get(&format!("/v1/enrol?unit={escaped}"))
        .await
        .ok()?;
    Some(told.services)
}

async fn bind(session: &Session, unit: &str, cgroup: &str, reason: &str) -> Result<(), Failure> {
    let wish = Enrol {
        unit: unit.to_owned(),
        cgroup: cgroup.to_owned(),
    };
    // A unit's start waits for this: rather unrecognised than late.
    let client = session.client.within(Duration::from_secs(5));
    let _empty: Value = client.change("/v1/enrol", &wish, reason).await?;
    Ok(())
}

/// The path under the v2 root, without the place where systemd puts control processes.
fn own_cgroup(text: &str) -> Option<String> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    let path = path.strip_suffix("/.control").unwrap_or(path);
    (path != "/").then(|| path.to_owned())
}

fn running_cgroup(unit: &str) -> Option<String> {
    let shown = systemctl(&["show", "--property=ControlGroup", "--value", "--", unit])?;
    let path = shown.trim();
    (path.starts_with('/') && path != "/").then(|| path.to_owned())
}

fn systemctl(words: &[&str]) -> Option<String> {
    let output = Command::new("systemctl").args(words).output().ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn drop_in(program: &Path) -> String {
    format!(
        "# Written by `meshctl enrol`; `meshctl enrol --remove UNIT` takes it away.\n\
         [Unit]\nAfter=meshd.service\n\n[Service]\n\
         ExecStartPre=-+{} enrol --starting %n\n",
        program.display()
    )
}

fn write(file: &Path, text: &str) -> std::io::Result<()> {
    if let Some(directory) = file.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let beside = file.with_extension("conf.new");
    std::fs::write(&beside, text)?;
    std::fs::rename(&beside, file)
}

fn remove(file: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    if let Some(directory) = file.parent() {
        // Other drop-ins keep the directory; that is no failure.
        drop(std::fs::remove_dir(directory));
    }
    Ok(())
}

/// A unit's full name: `.service` unless another suffix is given.
fn unit_name(text: &str) -> Result<String, Failure> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || ":_.@-\\".contains(c);
    if text.is_empty() || text.starts_with('.') || text.len() > 255 || !text.chars().all(allowed) {
        return Err(Failure::usage(
            text,
            "this is no name of a unit",
            "give one such as web.service",
        ));
    }
    match text.rsplit_once('.').map(|(_, suffix)| suffix) {
        Some("service") => Ok(text.to_owned()),
        Some("socket" | "timer" | "target" | "mount" | "path" | "slice" | "scope") => {
            Err(Failure::usage(
                text,
                "only services start processes of their own",
                "give the .service unit",
            ))
        }
        _ => Ok(format!("{text}.service")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units() {
        assert_eq!(unit_name("web").unwrap(), "web.service");
        assert_eq!(unit_name("web@1.service").unwrap(), "web@1.service");
        assert_eq!(unit_name("a.b").unwrap(), "a.b.service");
        for bad in ["", "../etc/x", "a b", "web.socket", ".service"] {
            assert!(unit_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_what_systemd_does_not_find_is_missing() {
        assert!(is_missing(Some("not-found\n")));
        for there in [None, Some("loaded\n"), Some("masked\n"), Some("")] {
            assert!(!is_missing(there), "{there:?}");
        }
    }

    #[test]
    fn cgroups() {
        let v2 = "0::/system.slice/web.service\n";
        assert_eq!(own_cgroup(v2).as_deref(), Some("/system.slice/web.service"));
        let hybrid = "4:cpu:/x\n1:name=systemd:/y\n0::/system.slice/web.service/.control\n";
        assert_eq!(
            own_cgroup(hybrid).as_deref(),
            Some("/system.slice/web.service")
        );
        assert_eq!(own_cgroup("4:cpu:/x\n"), None);
        assert_eq!(own_cgroup("0::/\n"), None);
    }

    #[test]
    fn the_drop_in_comes_and_goes() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("web.service.d").join(DROP_IN);
        write(&file, &drop_in(Path::new("/usr/bin/meshctl"))).unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(
            text.contains("\nExecStartPre=-+/usr/bin/meshctl enrol --starting %n\n"),
            "{text}"
        );
        remove(&file).unwrap();
        assert!(!directory.path().join("web.service.d").exists());
        remove(&file).unwrap();
    }
}
