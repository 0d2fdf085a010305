//! The reference of every configuration key, as `docs/config.md`.

use std::fmt::Write as _;

use super::file::{SECTIONS, Section};

const HEAD: &str = "\
# Configuration of meshd

*Generated from the code (`model/src/config/file.rs`); do not edit.*

`/etc/meshd/meshd.toml` is read first, then `conf.d/*.toml` and `services.d/*.toml` beside it, each by
name. Of a key that several files set, the last one counts; `[[service]]`, `[[source]]`,
`[[merge]]` and `[[registration]]` tables add up.
A file in `services.d` may hold `[[service]]` tables, or the keys of one service.

Spans of time are written `2s`, `500ms`, `1m30s`. Unknown keys are refused. `meshd --check` tests
everything and names file, line and key of each fault; a reload (`systemctl reload meshd`) takes
everything but what is marked \"needs a restart\".
";

/// The text of `docs/config.md`.
pub fn reference() -> String {
    let mut text = HEAD.to_owned();
    for section in &SECTIONS {
        write_section(&mut text, section);
    }
    text
}

fn write_section(text: &mut String, section: &Section) {
    let title = if section.header.is_empty() {
        "Top level".to_owned()
    } else {
        format!("`{}`", section.header)
    };
    let _infallible = write!(text, "\n## {title}\n\n{}\n\n", section.about.trim());
    text.push_str("| key | default | range | meaning |\n|---|---|---|---|\n");
    for field in section.fields {
        let code = |value: &str| {
            if value.is_empty() {
                "see below".to_owned()
            } else {
                value.to_owned()
            }
        };
        let _infallible = writeln!(
            text,
            "| `{}` | {} | {} | {} |",
            field.key,
            code(field.default),
            field.range,
            field.meaning.trim()
        );
    }
}
