//! Reads the corpus: blocks of text, one or more cases each. The format is told in `tests/corpus/README.md`.

use std::collections::BTreeMap;

/// A block with one of its values filled in.
#[derive(Debug, Clone)]
pub struct Case {
    /// `file: name [value]`
    pub name: String,
    /// The rules of `docs/wire.md` that it is about.
    pub rules: Vec<String>,
    /// Lines of the form `word rest`, in order; `|` and `.` lines among them.
    pub lines: Vec<(String, String)>,
}

impl Case {
    /// The rest of the first line with this word.
    pub fn word(&self, word: &str) -> Option<&str> {
        self.lines
            .iter()
            .find(|(found, _)| found == word)
            .map(|(_, rest)| rest.as_str())
    }

    /// The bytes of all `|` and `.` lines.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (word, rest) in &self.lines {
            match word.as_str() {
                "|" => {
                    out.extend(unescape(rest));
                    out.extend_from_slice(b"\r\n");
                }
                "." => out.extend(unescape(rest)),
                _ => {}
            }
        }
        out
    }
}

/// Every case of the files under `tests/corpus/<folder>`.
pub fn load(folder: &str) -> Vec<Case> {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(folder);
    let mut files: Vec<_> = std::fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "txt"))
        .collect();
    files.sort();
    let mut cases = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let stem = file.file_stem().unwrap().to_string_lossy().into_owned();
        for block in text.split("\n=== ").skip(1) {
            cases.extend(expand(&stem, block));
        }
    }
    let mut seen = BTreeMap::new();
    for case in &cases {
        *seen.entry(case.name.clone()).or_insert(0) += 1;
        assert!(!case.rules.is_empty(), "{}: no rule", case.name);
    }
    let twice: Vec<_> = seen.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "cases of the same name: {twice:?}");
    cases
}

fn expand(stem: &str, block: &str) -> Vec<Case> {
    let mut lines = block.lines();
    let name = lines.next().unwrap_or_default().trim();
    let (mut rules, mut rest, mut values) = (Vec::new(), Vec::new(), Vec::new());
    for line in lines {
        let (word, tail) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "" | "#" => {}
            "rule" => rules = tail.split_whitespace().map(str::to_owned).collect(),
            "-" => values.push(tail.to_owned()),
            word => rest.push((word.to_owned(), tail.to_owned())),
        }
    }
    // A `{}` alone, or within the word, is a line of its own.
    let case = |value: Option<&str>| Case {
        name: match value {
            Some(value) => format!(
                "{stem}: {name} [{}]",
                value.chars().take(150).collect::<String>()
            ),
            None => format!("{stem}: {name}"),
        },
        rules: rules.clone(),
        lines: rest
            .iter()
            .map(|(word, text)| {
                let word = fill(word, value);
                (word, fill(text, value))
            })
            .collect(),
    };
    if values.is_empty() {
        return vec![case(None)];
    }
    values.iter().map(|value| case(Some(value))).collect()
}

/// `{}` becomes the value, `{=}` what stands behind ` => ` in it.
fn fill(text: &str, value: Option<&str>) -> String {
    let Some(value) = value else {
        return text.to_owned();
    };
    let (sent, expected) = value.split_once(" => ").unwrap_or((value, value));
    text.replace("{}", sent).replace("{=}", expected)
}

/// `\r \n \t \0 \s \\ \xHH`, and `\{N*text}` for text N times.
pub fn unescape(text: &str) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::new(), text);
    while let Some(at) = rest.find('\\') {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        rest = &rest[at + 1..];
        let next = rest
            .chars()
            .next()
            .unwrap_or_else(|| panic!("a lone backslash in {text:?}"));
        match next {
            'r' => out.push(b'\r'),
            'n' => out.push(b'\n'),
            't' => out.push(b'\t'),
            '0' => out.push(0),
            's' => out.push(b' '),
            '\\' => out.push(b'\\'),
            'x' => {
                out.push(u8::from_str_radix(&rest[1..3], 16).unwrap());
                rest = &rest[2..];
            }
            '{' => {
                let end = rest.find('}').unwrap();
                let (count, piece) = rest[1..end].split_once('*').unwrap();
                let piece = unescape(&piece.replace('/', "\\"));
                out.extend(piece.repeat(count.parse().unwrap()));
                rest = &rest[end..];
            }
            other => panic!("\\{other} in {text:?}"),
        }
        rest = &rest[next.len_utf8()..];
    }
    out.extend_from_slice(rest.as_bytes());
    out
}

#[test]
fn escapes() {
    assert_eq!(unescape(r"a\r\n\x7f\s\\"), b"a\r\n\x7f \\");
    assert_eq!(unescape(r"\{3*ab}c"), b"abababc");
    assert_eq!(unescape(r"\{2*a: b/r/n}"), b"a: b\r\na: b\r\n");
}
