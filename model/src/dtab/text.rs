//! Reads delegation tables from their text form and prints them.
//!
//! The grammar is Finagle's: `dtab ::= (prefix '=>' tree ';')*`, `tree ::= union ('|' union)*`,
//! `union ::= weighted ('&' weighted)*`, `weighted ::= [number '*'] simple`,
//! `simple ::= path | '(' tree ')' | '!' | '~' | '$'`. `#` begins a comment where no path can go on.
//! Never: recurses deeper than 64 parentheses or reads more than 64 KiB.

use std::{fmt, sync::Arc};

use super::{Dentry, Dtab, NameTree, Path, Weight};

/// Why a text is no delegation table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: {what}")]
pub struct DtabError {
    /// Position in the text, counted in characters from 1.
    pub column: usize,
    /// What is wrong and what would be right.
    pub what: String,
}

const MAX_TEXT: usize = 64 * 1024;
const MAX_ENTRIES: usize = 4096;
const MAX_NESTING: usize = 64;
const MAX_SEGMENTS: usize = 64;

impl Dtab {
    /// Parses `prefix => tree ; prefix => tree`, at most 64 KiB and 4,096 entries.
    pub fn parse(text: &str) -> Result<Self, DtabError> {
        if text.len() > MAX_TEXT {
            return Err(DtabError {
                column: 1,
                what: format!("longer than {MAX_TEXT} bytes"),
            });
        }
        let mut reader = Reader { text, at: 0 };
        let mut entries = Vec::new();
        loop {
            while reader.eat(";") {}
            if reader.peek().is_none() {
                return Ok(Self(entries));
            }
            if entries.len() == MAX_ENTRIES {
                return Err(reader.error(format!("more than {MAX_ENTRIES} entries")));
            }
            let prefix = reader.prefix()?;
            if !reader.eat("=>") {
                return Err(reader.error("`=>` is missing behind the prefix"));
            }
            let destination = reader.tree(0)?;
            entries.push(Dentry {
                prefix,
                destination,
            });
            if reader.peek().is_some() && !reader.eat(";") {
                return Err(reader.error("`;`, `|` or `&` is missing between entries"));
            }
        }
    }
}

impl Path {
    /// Parses `/a/b`.
    pub fn parse(text: &str) -> Result<Self, DtabError> {
        let mut reader = Reader { text, at: 0 };
        let path = reader.path()?;
        match reader.peek() {
            None => Ok(path),
            Some(_) => Err(reader.error("nothing may follow the path")),
        }
    }
}

struct Reader<'a> {
    text: &'a str,
    /// Offset in bytes, always at the start of a character.
    at: usize,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }
    fn error(&self, what: impl Into<String>) -> DtabError {
        let before = self.text.get(..self.at).unwrap_or_default();
        DtabError {
            column: before.chars().count() + 1,
            what: what.into(),
        }
    }
    fn skip_blank(&mut self) {
        loop {
            let rest = self.rest();
            let blank = rest.len() - rest.trim_start().len();
            self.at += blank;
            let rest = self.rest();
            if !rest.starts_with('#') {
                return;
            }
            self.at += rest.find('\n').unwrap_or(rest.len());
        }
    }
    /// The next character that is no blank.
    fn peek(&mut self) -> Option<char> {
        self.skip_blank();
        self.rest().chars().next()
    }
    fn eat(&mut self, token: &str) -> bool {
        self.skip_blank();
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn prefix(&mut self) -> Result<Vec<Option<Arc<str>>>, DtabError> {
        self.segments(|reader| {
            if reader.rest().starts_with('*') {
                reader.at += 1;
                Ok(None)
            } else {
                reader.segment().map(Some)
            }
        })
    }
    fn path(&mut self) -> Result<Path, DtabError> {
        self.segments(Self::segment).map(Path)
    }
    fn segments<T>(
        &mut self,
        mut one: impl FnMut(&mut Self) -> Result<T, DtabError>,
    ) -> Result<Vec<T>, DtabError> {
        if !self.eat("/") {
            return Err(self.error("a path begins with `/`"));
        }
        let next = self.rest().chars().next();
        if !next.is_some_and(|c| is_plain(c) || matches!(c, '\\' | '*')) {
            return Ok(Vec::new());
        }
        let mut found = vec![one(self)?];
        while self.rest().starts_with('/') {
            self.at += 1;
            if found.len() == MAX_SEGMENTS {
                return Err(self.error(format!("more than {MAX_SEGMENTS} segments")));
            }
            found.push(one(self)?);
        }
        Ok(found)
    }
    fn segment(&mut self) -> Result<Arc<str>, DtabError> {
        let mut bytes = Vec::new();
        while let Some(c) = self.rest().chars().next() {
            if is_plain(c) {
                self.at += 1;
                bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            } else if c == '\\' {
                bytes.push(self.escape()?);
            } else {
                break;
            }
        }
        let text =
            String::from_utf8(bytes).map_err(|_error| self.error("the escapes are no UTF-8"))?;
        if text.is_empty() {
            return Err(self.error(
                "a segment is empty: use letters, digits and _:.#$%- or escapes like \\x2f",
            ));
        }
        Ok(Arc::from(text))
    }
    fn escape(&mut self) -> Result<u8, DtabError> {
        let digits = self
            .rest()
            .strip_prefix("\\x")
            .and_then(|rest| rest.get(..2));
        let byte = digits
            .filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        let byte =
            byte.ok_or_else(|| self.error("an escape is written \\x and two hexadecimal digits"))?;
        self.at += 4;
        Ok(byte)
    }

    fn tree(&mut self, depth: usize) -> Result<NameTree, DtabError> {
        let mut alternatives = vec![self.union(depth)?];
        while self.eat("|") {
            alternatives.push(self.union(depth)?);
        }
        match (alternatives.len(), alternatives.pop()) {
            (1, Some(only)) => Ok(only),
            (_, last) => {
                alternatives.extend(last);
                Ok(NameTree::Alternatives(alternatives))
            }
        }
    }
    fn union(&mut self, depth: usize) -> Result<NameTree, DtabError> {
        let mut shares = vec![self.weighted(depth)?];
        while self.eat("&") {
            shares.push(self.weighted(depth)?);
        }
        match (shares.len(), shares.pop()) {
            (1, Some((_, only))) => Ok(only),
            (_, last) => {
                shares.extend(last);
                Ok(NameTree::Union(shares))
            }
        }
    }
    fn weighted(&mut self, depth: usize) -> Result<(Weight, NameTree), DtabError> {
        let weight = match self.peek() {
            Some(c) if c.is_ascii_digit() || c == '.' => {
                let weight = self.number()?;
                if !self.eat("*") {
                    return Err(self.error("`*` is missing behind the weight"));
                }
                weight
            }
            _ => Weight(1000),
        };
        Ok((weight, self.simple(depth)?))
    }
    fn number(&mut self) -> Result<Weight, DtabError> {
        let rest = self.rest();
        let length = rest
            .bytes()
            .take_while(|b| b.is_ascii_digit() || *b == b'.')
            .count();
        let text = rest.get(..length).unwrap_or_default();
        let weight = thousandths(text).ok_or_else(|| {
            self.error(format!(
                "{text:?} is no weight: write 0 to 4000000 with at most three decimals"
            ))
        })?;
        self.at += length;
        Ok(weight)
    }
    fn simple(&mut self, depth: usize) -> Result<NameTree, DtabError> {
        for (token, tree) in [
            ("~", NameTree::Negative),
            ("!", NameTree::Fail),
            ("$", NameTree::Empty),
        ] {
            if self.eat(token) {
                return Ok(tree);
            }
        }
        if self.eat("(") {
            if depth == MAX_NESTING {
                return Err(
                    self.error(format!("more than {MAX_NESTING} parentheses in each other"))
                );
            }
            let tree = self.tree(depth + 1)?;
            return if self.eat(")") {
                Ok(tree)
            } else {
                Err(self.error("`)` is missing"))
            };
        }
        match self.peek() {
            Some('/') => self.path().map(NameTree::Leaf),
            _ => Err(self.error("a path, `(`, `~`, `!` or `$` is missing")),
        }
    }
}

/// Characters that stand for themselves in a segment (Finagle's `Path.showable`).
fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '.' | '#' | '$' | '%' | '-')
}

fn thousandths(text: &str) -> Option<Weight> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 3 || fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    let whole: u32 = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    let fraction: u32 = format!("{fraction:0<3}").parse().ok()?;
    (whole <= 4_000_000).then(|| Weight(whole * 1000 + fraction))
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, fraction) = (self.0 / 1000, self.0 % 1000);
        if fraction == 0 {
            return write!(f, "{whole}");
        }
        let digits = format!("{fraction:03}");
        write!(f, "{whole}.{}", digits.trim_end_matches('0'))
    }
}

fn write_segment(f: &mut fmt::Formatter<'_>, segment: &str) -> fmt::Result {
    f.write_str("/")?;
    for byte in segment.bytes() {
        if is_plain(char::from(byte)) {
            write!(f, "{}", char::from(byte))?;
        } else {
            write!(f, "\\x{byte:02x}")?;
        }
    }
    Ok(())
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("/");
        }
        self.0
            .iter()
            .try_for_each(|segment| write_segment(f, segment))
    }
}

impl fmt::Display for Dentry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.prefix.is_empty() {
            f.write_str("/")?;
        }
        for segment in &self.prefix {
            match segment {
                Some(segment) => write_segment(f, segment)?,
                None => f.write_str("/*")?,
            }
        }
        write!(f, " => {}", self.destination)
    }
}

impl fmt::Display for NameTree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Leaf(path) => write!(f, "{path}"),
            Self::Negative => f.write_str("~"),
            Self::Fail => f.write_str("!"),
            Self::Empty => f.write_str("$"),
            Self::Alternatives(trees) => {
                for (index, tree) in trees.iter().enumerate() {
                    f.write_str(if index == 0 { "" } else { " | " })?;
                    match tree {
                        Self::Alternatives(_) => write!(f, "({tree})")?,
                        tree => write!(f, "{tree}")?,
                    }
                }
                Ok(())
            }
            Self::Union(shares) => {
                for (index, (weight, tree)) in shares.iter().enumerate() {
                    f.write_str(if index == 0 { "" } else { " & " })?;
                    match tree {
                        Self::Alternatives(_) | Self::Union(_) => write!(f, "{weight} * ({tree})")?,
                        tree => write!(f, "{weight} * {tree}")?,
                    }
                }
                Ok(())
            }
        }
    }
}

impl fmt::Display for Dtab {
    /// One entry a line, each ended by `;`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, dentry) in self.0.iter().enumerate() {
            f.write_str(if index == 0 { "" } else { "\n" })?;
            write!(f, "{dentry};")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads() {
        for (text, printed) in [
            ("", ""),
            (" ; ;", ""),
            (
                "/svc/words => /svc/words-v1",
                "/svc/words => /svc/words-v1;",
            ),
            (
                "/svc/words => 9 * /svc/words-v1 & 1 * /svc/words-v2 ;",
                "/svc/words => 9 * /svc/words-v1 & 1 * /svc/words-v2;",
            ),
            ("/a=>0.9*/b&.1*/c", "/a => 0.9 * /b & 0.1 * /c;"),
            ("/a => /b | /c | ~ ;", "/a => /b | /c | ~;"),
            ("/a => (/b | /c) & /d;", "/a => 1 * (/b | /c) & 1 * /d;"),
            ("/a/*/c => ! ; / => $", "/a/*/c => !;\n/ => $;"),
            (
                "# all of it\n/a => /b ; # and\n/c => /d # end",
                "/a => /b;\n/c => /d;",
            ),
            ("/svc => /#/io.l5d.fs/x:80%", "/svc => /#/io.l5d.fs/x:80%;"),
            ("/a\\x2fb => /c", "/a\\x2fb => /c;"),
            ("/a => 0 * /b & 12.345 * /c", "/a => 0 * /b & 12.345 * /c;"),
            ("/svc => /$/inet", "/svc => /$/inet;"),
        ] {
            let read = Dtab::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(read.to_string(), printed, "{text}");
        }
    }

    #[test]
    fn refuses_with_column() {
        for (text, column) in [
            ("/a", 3),
            ("a => /b", 1),
            ("/a => ", 7),
            ("/a => /b /c", 10),
            ("/a => 1.2345 * /b", 7),
            ("/a => 2 /b", 9),
            ("/a => (/b", 10),
            ("/ä => /b", 2),
            ("/a/ => /b", 4),
            ("/a => /b\\xzz", 9),
            ("/a => /\\xff", 12),
            ("/a => 99999999 * /b", 7),
        ] {
            assert_eq!(Dtab::parse(text).unwrap_err().column, column, "{text}");
        }
        assert!(Dtab::parse(&format!("/a => {}/b", "(".repeat(10_000))).is_err());
        assert!(Dtab::parse(&"x".repeat(100_000)).is_err());
    }

    #[test]
    fn paths() {
        assert_eq!(Path::parse("/a/b").unwrap().to_string(), "/a/b");
        assert_eq!(Path::parse("/").unwrap(), Path::default());
        assert!(Path::parse("/a b").is_err());
        assert!(Path::parse("a").is_err());
    }

    fn segment() -> impl Strategy<Value = Arc<str>> {
        "[a-zA-Z0-9_:.#$%/ *ä-]{1,6}".prop_map(Arc::from)
    }
    fn tree() -> impl Strategy<Value = NameTree> {
        let leaf = prop_oneof![
            4 => proptest::collection::vec(segment(), 0..4).prop_map(|all| NameTree::Leaf(Path(all))),
            1 => Just(NameTree::Negative),
            1 => Just(NameTree::Fail),
            1 => Just(NameTree::Empty),
        ];
        leaf.prop_recursive(4, 24, 3, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 2..4).prop_map(NameTree::Alternatives),
                proptest::collection::vec((0u32..20_000, inner), 2..4).prop_map(|all| {
                    NameTree::Union(all.into_iter().map(|(w, tree)| (Weight(w), tree)).collect())
                }),
            ]
        })
    }
    fn table() -> impl Strategy<Value = Dtab> {
        let prefix = proptest::collection::vec(proptest::option::of(segment()), 0..4);
        let dentry = (prefix, tree()).prop_map(|(prefix, destination)| Dentry {
            prefix,
            destination,
        });
        proptest::collection::vec(dentry, 0..5).prop_map(Dtab)
    }

    proptest! {
        #[test]
        fn printed_text_reads_back(table in table()) {
            let text = table.to_string();
            prop_assert_eq!(Dtab::parse(&text).unwrap(), table, "{}", text);
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[/a*=>|&~!$;()#\\\\x0-9. ä\n]{0,60}") {
            if let Ok(table) = Dtab::parse(&text) {
                prop_assert_eq!(Dtab::parse(&table.to_string()).unwrap(), table);
            }
        }
    }
}
