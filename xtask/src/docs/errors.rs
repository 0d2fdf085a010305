//! The error codes, from the table in `proxy/src/failure.rs`.

use std::path::Path;

use anyhow::Context;
use syn::{Expr, Lit, visit::Visit};

use super::head;

const TABLE: &str = "proxy/src/failure.rs";

pub(super) fn page(root: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(root.join(TABLE)).context(TABLE)?;
    let syntax = syn::parse_file(&text).context(TABLE)?;
    let mut rows = Rows(Vec::new());
    rows.visit_file(&syntax);
    anyhow::ensure!(!rows.0.is_empty(), "{TABLE} has no table DOCUMENTED");
    let mut page = head("Error codes", &format!("`{TABLE}`"));
    page.push_str(concat!(
        "Every answer that the mesh makes itself carries `mesh-error: <code>; host=<host name>; id=<id>` ",
        "(gRPC: in the metadata of the trailers-only answer); between daemons the word `unprocessed` may stand behind ",
        "the code: the program certainly did nothing with the request. The same code and id are in the access log, and ",
        "`meshctl why <id>` tells the story from both hosts. The list is closed: a code is never reused for ",
        "another meaning. Answers without the header are the application's own.\n\n",
        "*Tried again*: `no`; `idempotent` (only methods that may be repeated, or when the route says so); ",
        "`yes` (the request was certainly not processed). A further try never goes to an endpoint already ",
        "tried while another is left.\n\n",
        "| code | HTTP | gRPC | fault of | tried again | meaning | what to do |\n",
        "|---|---|---|---|---|---|---|\n",
    ));
    for row in rows.0 {
        page.push_str(&["| ", &row.join(" | "), " |\n"].concat());
    }
    Ok(page)
}

/// The calls of `entry(…)` in the static `DOCUMENTED`.
struct Rows(Vec<[String; 7]>);

impl<'ast> Visit<'ast> for Rows {
    fn visit_item_static(&mut self, item: &'ast syn::ItemStatic) {
        if item.ident != "DOCUMENTED" {
            return;
        }
        let Expr::Array(array) = &*item.expr else {
            return;
        };
        self.0.extend(array.elems.iter().filter_map(row));
    }
}

fn row(expression: &Expr) -> Option<[String; 7]> {
    let Expr::Call(call) = expression else {
        return None;
    };
    let arguments: Vec<&Expr> = call.args.iter().collect();
    let [
        _,
        word,
        Expr::Tuple(status),
        blame,
        retry,
        Expr::Tuple(texts),
    ] = arguments.as_slice()
    else {
        return None;
    };
    let [http, grpc] = status.elems.iter().collect::<Vec<_>>()[..] else {
        return None;
    };
    let [meaning, remedy] = texts.elems.iter().collect::<Vec<_>>()[..] else {
        return None;
    };
    let blame = match variant(blame)?.as_str() {
        "Downstream" => "the caller",
        "Upstream" => "the endpoint",
        _ => "the mesh",
    };
    let retry = match variant(retry)?.as_str() {
        "Never" => "no",
        "IfRepeatable" => "idempotent",
        _ => "yes",
    };
    Some([
        format!("`{}`", literal(word)?),
        literal(http)?,
        literal(grpc)?,
        blame.to_owned(),
        retry.to_owned(),
        literal(meaning)?,
        literal(remedy)?,
    ])
}

fn literal(expression: &Expr) -> Option<String> {
    let Expr::Lit(literal) = expression else {
        return None;
    };
    match &literal.lit {
        Lit::Str(text) => Some(text.value().replace('|', "\\|")),
        Lit::Int(number) => Some(number.base10_digits().to_owned()),
        _ => None,
    }
}

fn variant(expression: &Expr) -> Option<String> {
    let Expr::Path(path) = expression else {
        return None;
    };
    path.path.segments.last().map(|last| last.ident.to_string())
}
