//! `join`: takes a token from a file or standard input and shows each step as it happens.

use std::{io::Read as _, path::Path};

use mesh_model::admin::{Join, JoinStep};
use zeroize::Zeroizing;

use super::Session;
use crate::{
    args::JoinArgs,
    failure::{Exit, Failure},
    print::{Printer, Put as _},
    wait,
};

/// A token is a few hundred bytes; this is more than any.
const MAX_TOKEN: u64 = 64 << 10;

/// Joins.
pub(crate) async fn run(session: &Session, args: &JoinArgs) -> Result<Exit, Failure> {
    let token = read_token(&args.token_file)?;
    if args.change.dry_run {
        crate::print::text("would join with this token: it looks like one\n")?;
        return Ok(Exit::Done);
    }
    let wish = Join {
        token: token.to_string(),
        fresh: args.fresh,
    };
    let printer = session.printer;
    let mut last: Option<JoinStep> = None;
    session
        .client
        .lines("/v1/join", &wish, &args.change.reason, |step: JoinStep| {
            show(printer, &step)?;
            last = Some(step);
            Ok(())
        })
        .await?;
    end(last)?;
    if args.change.wait.is_some() {
        let phases = ["running", "bypassed"];
        wait::phase(&session.client, &phases, args.change.wait_timeout).await?;
    }
    if printer.is_table() {
        crate::print::text(
            "\nnext\n  meshctl members   who is in the mesh\n  meshctl check     what is missing\n",
        )?;
    }
    Ok(Exit::Done)
}

fn show(printer: Printer, step: &JoinStep) -> Result<(), Failure> {
    if !printer.is_table() {
        // One JSON object a line, whatever the form: steps are a stream.
        let line = serde_json::to_string(step).unwrap_or_default();
        return crate::print::text(&(line + "\n"));
    }
    let mut text = format!("{} {}\n", printer.mark(&step.state), step.what);
    if !step.remedy.is_empty() && step.error.is_empty() {
        writeln!(text, "    {}", step.remedy);
    }
    crate::print::text(&text)
}

fn end(last: Option<JoinStep>) -> Result<(), Failure> {
    match last {
        Some(step) if step.done => Ok(()),
        Some(step) if !step.error.is_empty() => Err(Failure::new(
            Exit::Finding,
            &step.error,
            "join",
            step.what,
            step.remedy,
        )),
        _ => Err(Failure::new(
            Exit::Finding,
            "join-interrupted",
            "join",
            "the daemon stopped before the join was complete",
            "see `journalctl -u meshd`, then try again: a join that did not end changes nothing",
        )),
    }
}

fn read_token(path: &Path) -> Result<Zeroizing<String>, Failure> {
    let mut text = Zeroizing::new(String::new());
    let place = path.display().to_string();
    let read = if path == Path::new("-") {
        std::io::stdin()
            .lock()
            .take(MAX_TOKEN)
            .read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(MAX_TOKEN).read_to_string(&mut text))
    };
    read.map_err(|error| Failure::local(&place, &error))?;
    let token = text.trim();
    if !token.starts_with("meshd1.") || token.contains(char::is_whitespace) {
        return Err(Failure::new(
            Exit::Usage,
            "bad-token",
            place,
            "it holds no join token: one line that begins with meshd1.",
            "make one with `meshctl token create` on a host of the mesh",
        ));
    }
    Ok(Zeroizing::new(token.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(done: bool, error: &str) -> JoinStep {
        JoinStep {
            done,
            error: error.into(),
            what: "w".into(),
            ..JoinStep::default()
        }
    }

    #[test]
    fn a_join_ends_well_badly_or_not_at_all() {
        assert_eq!(end(Some(step(true, ""))), Ok(()));
        assert_eq!(
            end(Some(step(false, "token-used"))).unwrap_err().code,
            "token-used"
        );
        assert_eq!(
            end(Some(step(false, ""))).unwrap_err().code,
            "join-interrupted"
        );
        assert_eq!(end(None).unwrap_err().code, "join-interrupted");
    }

    #[test]
    fn tokens_come_from_files() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("t");
        assert_eq!(read_token(&file).unwrap_err().exit, Exit::Finding);
        std::fs::write(&file, "  meshd1.abc\n").unwrap();
        assert_eq!(read_token(&file).unwrap().as_str(), "meshd1.abc");
        for bad in ["", "abc", "meshd1.a b", "meshd1.a\nmeshd1.b"] {
            std::fs::write(&file, bad).unwrap();
            assert_eq!(read_token(&file).unwrap_err().code, "bad-token", "{bad}");
        }
    }
}
