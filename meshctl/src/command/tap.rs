//! `tap`: this host's requests as they end, by filter.

use std::time::Duration;

use mesh_model::admin::live::{TapFilter, TapRecord};

use super::Session;
use crate::{
    args::TapArgs,
    failure::{Exit, Failure},
    print::{Format, Paint, Printer, Put as _},
    time,
};

/// A quiet service is no reason to end: a year between two requests.
const PATIENCE: Duration = Duration::from_hours(24 * 365);

/// Shows requests until interrupted, or until `-n` were shown.
pub(crate) async fn run(session: &Session, args: &TapArgs) -> Result<Exit, Failure> {
    let full = |name: &str| match name {
        "" | "host" | "unknown" => name.to_owned(),
        name => super::full_name(name),
    };
    let filter = TapFilter {
        direction: args.direction.clone().unwrap_or_default(),
        source: full(&args.from),
        destination: full(args.service.as_deref().unwrap_or_default()),
        route: args.route.clone(),
        method: args.method.clone(),
        path: args.path.clone(),
        status: args.status.clone(),
        failed: args.failed,
        limit: args.limit,
    };
    if !is_status(&filter.status) {
        return Err(Failure::usage(
            &filter.status,
            "this is no status",
            "write one, such as 503, or a class, such as 5xx",
        ));
    }
    let printer = session.printer;
    let each = |record: TapRecord| {
        let line = if printer.is_table() {
            line(printer, &record)
        } else if printer.is_yaml() {
            format!("---\n{}", printer.machine(&record)?)
        } else {
            Printer::new(Format::Jsonl).machine(&record)?
        };
        crate::print::line(&line)
    };
    let client = session.client.within(PATIENCE);
    client.lines("/v1/tap", &filter, "", each).await?;
    Ok(Exit::Done)
}

fn is_status(text: &str) -> bool {
    let class = text.strip_suffix("xx").map(str::parse::<u16>);
    text.is_empty()
        || matches!(class, Some(Ok(1..=5)))
        || matches!(text.parse::<u16>(), Ok(100..=599))
}

fn line(printer: Printer, record: &TapRecord) -> String {
    let mut out = String::new();
    if record.missed > 0 {
        let missed = format!("… {} requests were too fast to show", record.missed);
        writeln!(out, "{}", printer.paint(Paint::Faint, &missed));
    }
    let arrow = if record.direction == "inbound" {
        "←"
    } else {
        "→"
    };
    let what = match &*record.method {
        "" => format!(
            "{} {} B / {} B",
            record.protocol, record.received, record.sent
        ),
        method => format!(
            "{} {method} {}{}",
            record.protocol, record.authority, record.path
        ),
    };
    let failed = !record.code.is_empty() || record.status >= 500 || record.grpc_status > Some(0);
    let mut status = record.status.to_string();
    if let Some(grpc) = record.grpc_status {
        status.push_str(" grpc ");
        status.push_str(&grpc.to_string());
    }
    if !record.code.is_empty() {
        status.push(' ');
        status.push_str(&record.code);
    }
    let status = if failed {
        printer.paint(Paint::Bad, &status)
    } else {
        printer.paint(Paint::Good, &status)
    };
    let route = match &*record.route {
        "" => String::new(),
        route => format!(" by {route}"),
    };
    let security = if record.peer.is_empty() { "" } else { " mTLS" };
    let retries = match record.retries {
        0 => String::new(),
        count => format!(" after {count} retries"),
    };
    writeln!(
        out,
        "{arrow} {} to {}{route}: {what}: {status}{retries} in {}{security} {} id={}",
        record.source,
        record.destination,
        time::millis(record.duration_us),
        record.endpoint,
        record.id,
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_a_line() {
        let record = TapRecord {
            direction: "outbound".into(),
            id: "0123".into(),
            source: "shop/web".into(),
            destination: "shop/cart".into(),
            route: "shop/r".into(),
            protocol: "http/1.1".into(),
            method: "GET".into(),
            path: "/x".into(),
            authority: "cart".into(),
            status: 503,
            code: "no-endpoint".into(),
            retries: 2,
            duration_us: 1_500,
            missed: 7,
            ..TapRecord::default()
        };
        let text = line(Printer::plain(Format::Table), &record);
        for part in [
            "7 requests",
            "→ shop/web to shop/cart by shop/r",
            "GET cart/x",
            "503 no-endpoint",
            "after 2 retries",
            "1.5 ms",
            "id=0123",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert_eq!(text.lines().count(), 2);
    }

    #[test]
    fn statuses() {
        for good in ["", "200", "5xx", "599"] {
            assert!(is_status(good), "{good}");
        }
        for bad in ["x", "6xx", "99", "600", "xx"] {
            assert!(!is_status(bad), "{bad}");
        }
    }
}
