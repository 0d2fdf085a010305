//! `why`: what did happen to a request that failed, as every host that saw it tells it.

use mesh_model::{
    admin::{FailureRecord, Why},
    time::rfc3339,
};

use super::Session;
use crate::{
    args::WhyArgs,
    failure::{Exit, Failure},
    print::{Paint, Printer, Put as _},
    time,
};

/// Tells the story. Exit 1 when nobody remembers the id.
pub(crate) async fn run(session: &Session, args: &WhyArgs) -> Result<Exit, Failure> {
    if args.id.is_empty() || !args.id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Failure::usage(
            &args.id,
            "this is no request id: those are 32 hexadecimal digits",
            "take it from the header mesh-error or mesh-request-id",
        ));
    }
    let why: Why = session.client.get(&format!("/v1/why/{}", args.id)).await?;
    if why.records.is_empty() {
        let silent = if why.silent.is_empty() {
            String::new()
        } else {
            format!(" ({} could not be asked)", why.silent.join(", "))
        };
        return Err(Failure::new(
            Exit::Finding,
            "unknown-request",
            args.id.as_str(),
            format!("no host remembers this request{silent}"),
            "only failures are remembered, and the newest push out the oldest",
        ));
    }
    session.printer.show(&why, |printer| text(printer, &why))?;
    Ok(Exit::Done)
}

fn text(printer: Printer, why: &Why) -> String {
    let mut out = String::new();
    for record in &why.records {
        if !out.is_empty() {
            out.push('\n');
        }
        out.push_str(&one(printer, record));
    }
    if !why.silent.is_empty() {
        writeln!(out, "\ncould not be asked: {}", why.silent.join(", "));
    }
    out
}

fn one(printer: Printer, record: &FailureRecord) -> String {
    let title = format!(
        "{} on {}, {}",
        rfc3339(record.time_ms),
        record.host,
        record.side
    );
    let mut out = printer.paint(Paint::Strong, &title) + "\n";
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            writeln!(out, "  {name:<9} {value}");
        }
    };
    let status = if record.status == 0 {
        String::new()
    } else {
        record.status.to_string()
    };
    line("error", &record.code);
    line("status", &status);
    line("from", &record.source);
    line("to", &record.destination);
    line("request", &record.request);
    line("route", &record.route);
    for (number, attempt) in record.attempts.iter().enumerate() {
        line(&format!("try {}", number + 1), attempt);
    }
    line("took", &time::millis(record.duration_us));
    line("cause", &record.what);
    line("remedy", &record.remedy);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::print::Format;

    #[test]
    fn both_sides_are_told() {
        let record = |host: &str, side: &str| FailureRecord {
            host: host.into(),
            side: side.into(),
            code: "connect-failed".into(),
            attempts: vec!["a: refused".into(), "b: refused".into()],
            duration_us: 1500,
            ..FailureRecord::default()
        };
        let why = Why {
            id: "00".into(),
            records: vec![record("a", "outbound"), record("b", "inbound")],
            silent: vec!["c".into()],
        };
        let text = text(Printer::plain(Format::Table), &why);
        assert!(
            text.contains("on a, outbound\n  error     connect-failed\n  try 1     a: refused\n"),
            "{text}"
        );
        assert!(text.contains("on b, inbound\n"), "{text}");
        assert!(text.ends_with("could not be asked: c\n"), "{text}");
    }
}
