//! Nodes out of TOML text, with the line of every key and value.

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{Faults, Key, Node, Place, Value};

/// Reads one file; syntax faults are noted, and what could be read is returned.
pub(crate) fn parse(text: &str, file: usize, faults: &Faults) -> Node {
    let lines = Lines::of(text);
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let line = error.span().map_or(0, |span| lines.at(span.start));
        let what = error
            .message()
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned();
        let place = Place { file, line };
        faults.add(
            place,
            "",
            format!("is no TOML here: {what}"),
            "correct the syntax",
        );
    }
    Reader {
        lines: &lines,
        file,
    }
    .table(table.get_ref(), Place { file, line: 1 })
}

/// Starts of lines, to find the line of an offset.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        let starts = text
            .bytes()
            .enumerate()
            .filter(|(_, byte)| *byte == b'\n')
            .map(|(at, _)| at + 1);
        Self(std::iter::once(0).chain(starts).collect())
    }
    fn at(&self, offset: usize) -> usize {
        self.0.partition_point(|start| *start <= offset)
    }
}

struct Reader<'a> {
    lines: &'a Lines,
    file: usize,
}

impl Reader<'_> {
    fn place(&self, offset: usize) -> Place {
        Place {
            file: self.file,
            line: self.lines.at(offset),
        }
    }

    fn table(&self, table: &DeTable<'_>, place: Place) -> Node {
        let mut entries: Vec<(Key, Node)> = table
            .iter()
            .map(|(key, value)| {
                let place = self.place(key.span().start);
                let text = key.get_ref().to_string();
                (Key { place, text }, self.value(value, 0))
            })
            .collect();
        entries.sort_by_key(|(key, _)| key.place);
        Node {
            place,
            index: 0,
            value: Value::Table(entries),
        }
    }

    fn value(&self, value: &Spanned<DeValue<'_>>, index: usize) -> Node {
        let place = self.place(value.span().start);
        let value = match value.get_ref() {
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Integer(number) => {
                match i64::from_str_radix(number.as_str(), number.radix()) {
                    Ok(number) => Value::Integer(number),
                    Err(_too_large) => Value::Text(number.to_string()),
                }
            }
            DeValue::Float(number) => number
                .as_str()
                .parse()
                .map_or_else(|_| Value::Text(number.to_string()), Value::Float),
            DeValue::Boolean(flag) => Value::Bool(*flag),
            DeValue::Datetime(time) => Value::Text(time.to_string()),
            DeValue::Array(list) => Value::List(
                list.iter()
                    .enumerate()
                    .map(|(at, item)| self.value(item, at))
                    .collect(),
            ),
            DeValue::Table(table) => {
                return Node {
                    index,
                    ..self.table(table, place)
                };
            }
        };
        Node {
            place,
            index,
            value,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let faults = Faults::default();
        let text = "a = 1\n\n[b]\nc = \"x\"\nd = [\n 1,\n 0x10,\n]\n\n[[s]]\nn = 1\n[[s]]\nn = 2\n";
        let node = parse(text, 3, &faults);
        assert!(faults.is_empty());
        let at = super::super::At::root(&node, "", &faults);
        assert_eq!(at.key("b").key("c").place(), Place { file: 3, line: 4 });
        let element = at.key("b").key("d").index(1);
        assert_eq!((element.path(), element.place().line), ("b.d[1]", 7));
        assert!(matches!(element.node().unwrap().value, Value::Integer(16)));
        assert_eq!(at.key("s").index(1).key("n").place().line, 13);
    }

    #[test]
    fn syntax_faults_have_lines() {
        let faults = Faults::default();
        parse("a = 1\nb = = 2\n", 0, &faults);
        assert_eq!(faults.into_sorted()[0].place.line, 2);
    }
}
