//! `explain`: what would happen to a request, step by step, on both hosts.

use mesh_model::admin::{Explain, Explanation};

use super::Session;
use crate::{
    args::ExplainArgs,
    failure::{Exit, Failure},
    print::{Paint, Printer, Put as _},
};

/// Explains. Exit 1 when the request would be refused.
pub(crate) async fn run(session: &Session, args: ExplainArgs) -> Result<Exit, Failure> {
    let (method, url) = match args.request.as_slice() {
        [method, url] => (method.to_ascii_uppercase(), url.clone()),
        [url] => ("GET".to_owned(), url.clone()),
        _ => {
            return Err(Failure::usage(
                "explain",
                "one URL is needed",
                "explain [METHOD] URL",
            ));
        }
    };
    let question = Explain {
        from: args.from,
        method,
        url,
        headers: args.headers,
    };
    let answer: Explanation = session.client.post("/v1/explain", &question).await?;
    session
        .printer
        .show(&answer, |printer| text(printer, &question, &answer))?;
    let refused = answer.steps.iter().any(|step| step.state == "refused");
    Ok(if refused { Exit::Finding } else { Exit::Done })
}

fn text(printer: Printer, question: &Explain, answer: &Explanation) -> String {
    let from = if question.from.is_empty() {
        "this host"
    } else {
        &question.from
    };
    let title = format!("{} {} from {from}", question.method, question.url);
    let mut out = printer.paint(Paint::Strong, &title) + "\n";
    let width = answer
        .steps
        .iter()
        .map(|step| step.step.chars().count())
        .max()
        .unwrap_or(0);
    let mut host = "";
    for step in &answer.steps {
        if step.host != host {
            writeln!(out, "on {}", step.host);
            host = &step.host;
        }
        let mark = printer.mark(&step.state);
        writeln!(out, "{mark} {:width$}  {}", step.step, step.what);
        if !step.because.is_empty() {
            let because = printer.paint(Paint::Faint, &step.because);
            writeln!(out, "  {:width$}  because {because}", "");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use mesh_model::admin::ExplainStep;

    use super::*;
    use crate::print::Format;

    #[test]
    fn host_by_host() {
        let step = |step: &str, host: &str, because: &str| ExplainStep {
            step: step.into(),
            host: host.into(),
            what: "w".into(),
            because: because.into(),
            state: "ok".into(),
        };
        let answer = Explanation {
            steps: vec![
                step("caller", "a", "uid 5"),
                step("tls", "a", ""),
                step("far-policy", "b", ""),
            ],
        };
        let question = Explain {
            method: "GET".into(),
            url: "http://x/".into(),
            ..Explain::default()
        };
        assert_eq!(
            text(Printer::plain(Format::Table), &question, &answer),
            "GET http://x/ from this host\non a\n√ caller      w\n              because uid 5\n\
             √ tls         w\non b\n√ far-policy  w\n"
        );
    }
}
