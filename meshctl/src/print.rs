//! What a command shows: tables for people, JSON and YAML for machines; colour only on a terminal.

use std::{
    io::{IsTerminal as _, Write as _},
    process::ExitCode,
};

use mesh_model::finding::{Finding, Severity};
use serde::Serialize;
use serde_json::Value;

use crate::failure::{Exit, Failure};

mod put;
mod table;

pub(crate) use put::Put;
pub(crate) use table::Table;

/// The form of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people
    #[default]
    Table,
    /// One JSON value
    Json,
    /// YAML
    Yaml,
    /// JSON, one object a line
    Jsonl,
}

/// A colour by meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Paint {
    /// Fine.
    Good,
    /// Worth a look.
    Warn,
    /// Wrong.
    Bad,
    /// A heading.
    Strong,
    /// Less important.
    Faint,
}

/// Where and how a command shows its results.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Printer {
    format: Format,
    colour: bool,
}

impl Printer {
    /// A printer for this process: colour on a terminal unless `NO_COLOR` is set.
    pub(crate) fn new(format: Format) -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        Self {
            format,
            colour: std::io::stdout().is_terminal() && !unwanted && !dumb,
        }
    }

    /// A printer without colour, for tests and documents.
    #[cfg(test)]
    pub(crate) fn plain(format: Format) -> Self {
        Self {
            format,
            colour: false,
        }
    }

    /// True when a person reads.
    pub(crate) fn is_table(self) -> bool {
        self.format == Format::Table
    }

    /// True when YAML is wanted.
    pub(crate) fn is_yaml(self) -> bool {
        self.format == Format::Yaml
    }

    /// Shows a value: as `table` says for people, itself for machines.
    pub(crate) fn show<T: Serialize>(
        self,
        value: &T,
        table: impl FnOnce(Self) -> String,
    ) -> Result<(), Failure> {
        let text = if self.is_table() {
            harmless(&table(self))
        } else {
            self.machine(value)?
        };
        crate::print::text(&text)
    }

    /// The value in the machine's form, with a newline at the end.
    pub(crate) fn machine<T: Serialize>(self, value: &T) -> Result<String, Failure> {
        let value = serde_json::to_value(value).map_err(|error| unprintable(&error))?;
        match self.format {
            Format::Yaml => yaml(&value),
            Format::Jsonl => match &value {
                Value::Array(rows) => Ok(rows
                    .iter()
                    .flat_map(|row| [row.to_string(), "\n".to_owned()])
                    .collect()),
                one => Ok(format!("{one}\n")),
            },
            Format::Table | Format::Json => serde_json::to_string_pretty(&value)
                .map(|text| text + "\n")
                .map_err(|error| unprintable(&error)),
        }
    }

    /// Text in a colour, or as it is.
    pub(crate) fn paint(self, paint: Paint, text: &str) -> String {
        if !self.colour {
            return text.to_owned();
        }
        let code = match paint {
            Paint::Good => "32",
            Paint::Warn => "33",
            Paint::Bad => "31",
            Paint::Strong => "1",
            Paint::Faint => "2",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// `√`, `‼` or `×` for `ok`, `warning`, and everything else.
    pub(crate) fn mark(self, state: &str) -> String {
        match state {
            "ok" => self.paint(Paint::Good, "√"),
            "warning" => self.paint(Paint::Warn, "‼"),
            _ => self.paint(Paint::Bad, "×"),
        }
    }

    /// Findings, worst first, one line each.
    pub(crate) fn findings(self, findings: &[Finding]) -> String {
        let mut sorted: Vec<&Finding> = findings.iter().collect();
        sorted.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        let mut out = String::new();
        for finding in sorted {
            writeln!(out, "{} {finding}", self.severity(finding.severity));
        }
        out
    }

    fn severity(self, severity: Severity) -> String {
        match severity {
            Severity::Error => self.mark("error"),
            Severity::Warning => self.mark("warning"),
            Severity::Note => self.paint(Paint::Faint, "·"),
        }
    }
}

/// Text without control characters except our own colours: names and reasons come from other hosts and
/// people, and must not steer the terminal of whoever reads them.
fn harmless(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        let ahead = rest.as_str();
        let colour = ahead
            .strip_prefix('[')
            .and_then(|code| code.split_once('m'));
        let colour =
            colour.filter(|(code, _)| matches!(*code, "0" | "1" | "2" | "31" | "32" | "33"));
        match c {
            '\x1b' if colour.is_some() => out.push(c),
            '\n' | '\t' => out.push(c),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// Writes text to standard output as it is. A reader that went away is no failure.
pub(crate) fn text(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::local("standard output", &error))
        }
        _ => Ok(()),
    }
}

/// Shows a line of a stream, harmless for the terminal.
pub(crate) fn line(line: &str) -> Result<(), Failure> {
    text(&harmless(line))
}

/// A remark for people, on standard error so that it never mixes with a machine's output.
pub(crate) fn note(text: &str) {
    write_error(&format!("{text}\n"));
}

/// A JSON value as YAML text.
pub(crate) fn yaml(value: &Value) -> Result<String, Failure> {
    let text = serde_saphyr::to_string(value).map_err(|error| unprintable(&error))?;
    Ok(if text.ends_with('\n') {
        text
    } else {
        text + "\n"
    })
}

/// Reports a failure on standard error; the exit code of the process.
pub(crate) fn complain(format: Format, failure: &Failure) -> ExitCode {
    if !failure.details.is_empty() {
        write_error(&harmless(&format!("{}\n", failure.details.trim_end())));
    }
    match format {
        Format::Table => write_error(&harmless(&format!("meshctl: {failure}\n"))),
        Format::Json | Format::Jsonl | Format::Yaml => {
            let object = serde_json::json!({"error": {
                "code": failure.code, "where": failure.place, "what": failure.what,
                "remedy": failure.remedy, "exit": failure.exit as u8,
            }});
            write_error(&format!("{object}\n"));
        }
    }
    ExitCode::from(failure.exit as u8)
}

fn write_error(text: &str) {
    // Standard error may be closed; there is nobody left to tell.
    drop(std::io::stderr().lock().write_all(text.as_bytes()));
}

fn unprintable(error: &dyn std::error::Error) -> Failure {
    Failure::new(
        Exit::Finding,
        "unprintable",
        "meshctl",
        error.to_string(),
        "try -o json",
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn other_peoples_names_do_not_steer_the_terminal() {
        let evil = "\x1b]0;title\x07\x1b[2J\u{9b}31mweb\r\n\x1b[32m√\x1b[0m\n";
        assert_eq!(
            harmless(evil),
            "\u{fffd}]0;title\u{fffd}\u{fffd}[2J\u{fffd}31mweb\u{fffd}\n\x1b[32m√\x1b[0m\n"
        );
    }

    #[test]
    fn machine_forms() {
        let rows = json!([{"b": 1, "a": "x"}, {"b": 2, "a": "y: z"}]);
        let text = |format| Printer::plain(format).machine(&rows).unwrap();
        assert_eq!(
            text(Format::Jsonl),
            "{\"b\":1,\"a\":\"x\"}\n{\"b\":2,\"a\":\"y: z\"}\n"
        );
        assert_eq!(
            serde_json::from_str::<Value>(&text(Format::Json)).unwrap(),
            rows
        );
        let back: Value = serde_saphyr::from_str(&text(Format::Yaml)).unwrap();
        assert_eq!(back, rows);
    }

    #[test]
    fn yaml_keeps_strings_strings() {
        let tricky = json!({"a": "yes", "b": "1", "c": "", "d": "null", "e": "multi\nline", "f": "0x1f", "g": []});
        let back: Value = serde_saphyr::from_str(&yaml(&tricky).unwrap()).unwrap();
        assert_eq!(back, tricky);
    }

    #[test]
    fn no_colour_without_a_terminal() {
        let printer = Printer::plain(Format::Table);
        assert_eq!(printer.mark("ok"), "√");
        assert_eq!(printer.mark("error"), "×");
        assert_eq!(printer.paint(Paint::Bad, "x"), "x");
        let colourful = Printer {
            format: Format::Table,
            colour: true,
        };
        assert_eq!(colourful.mark("ok"), "\x1b[32m√\x1b[0m");
    }

    #[test]
    fn worst_findings_first() {
        let finding = |severity, code: &str| Finding::new(code, severity, "s", "w", "r");
        let text = Printer::plain(Format::Table)
            .findings(&[finding(Severity::Note, "n"), finding(Severity::Error, "e")]);
        assert_eq!(text, "× s: w; r (e)\n· s: w; r (n)\n");
    }
}
