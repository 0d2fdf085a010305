//! `curl`: one call as a local service, and which way it took.

use std::io::Read as _;

use mesh_model::admin::{Curl, CurlAnswer};

use super::Session;
use crate::{
    args::CurlArgs,
    failure::{Exit, Failure},
    print::{Paint, Printer, Put as _},
    time,
};

const MAX_BODY: u64 = 1 << 20;

/// Calls. Exit 1 when the answer's status is 400 or above.
pub(crate) async fn run(session: &Session, args: CurlArgs) -> Result<Exit, Failure> {
    let body = body(args.data.as_deref())?;
    let method = match (&args.method, &args.data) {
        (Some(method), _) => method.to_ascii_uppercase(),
        (None, Some(_)) => "POST".to_owned(),
        (None, None) => "GET".to_owned(),
    };
    let wish = Curl {
        from: args.from,
        method,
        url: args.url,
        headers: args.headers,
        body,
    };
    let answer: CurlAnswer = session.client.post("/v1/curl", &wish).await?;
    session
        .printer
        .show(&answer, |printer| text(printer, &answer))?;
    Ok(if answer.status >= 400 {
        Exit::Finding
    } else {
        Exit::Done
    })
}

fn body(data: Option<&str>) -> Result<String, Failure> {
    let Some(data) = data else {
        return Ok(String::new());
    };
    let Some(file) = data.strip_prefix('@') else {
        return Ok(data.to_owned());
    };
    let mut text = String::new();
    let read = if file == "-" {
        std::io::stdin()
            .lock()
            .take(MAX_BODY)
            .read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(MAX_BODY).read_to_string(&mut text))
    };
    read.map_err(|error| Failure::local(file, &error))?;
    Ok(text)
}

fn text(printer: Printer, answer: &CurlAnswer) -> String {
    let paint = if answer.status < 400 {
        Paint::Good
    } else {
        Paint::Bad
    };
    let peer = match (&*answer.peer, &*answer.endpoint) {
        ("", "") => "none",
        ("", _) => "none: plaintext",
        (peer, _) => peer,
    };
    let mut out = printer.paint(paint, &format!("HTTP {}", answer.status)) + "\n";
    let mut line = |name: &str, value: &str| writeln!(out, "{name:<9} {value}");
    line(
        "endpoint",
        if answer.endpoint.is_empty() {
            "none"
        } else {
            &answer.endpoint
        },
    );
    line("tls peer", peer);
    line(
        "route",
        match (&*answer.route, &*answer.endpoint) {
            ("", "") => "none",
            ("", _) => "none: the service itself",
            (route, _) => route,
        },
    );
    line(
        "time",
        &format!(
            "{}, of it in the mesh {}",
            time::millis(answer.total_us),
            time::millis(answer.mesh_us)
        ),
    );
    for (name, value) in answer
        .headers
        .iter()
        .filter(|(name, _)| name.starts_with("mesh-error"))
    {
        line(name, value);
    }
    out.push('\n');
    out.push_str(&answer.body);
    if !answer.body.is_empty() && !answer.body.ends_with('\n') {
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::print::Format;

    #[test]
    fn the_way_and_the_answer() {
        let answer = CurlAnswer {
            status: 200,
            endpoint: "10.0.0.2:80".into(),
            peer: "spiffe://m/ns/default/sa/words".into(),
            total_us: 2_000,
            mesh_us: 300,
            body: "apple".into(),
            ..CurlAnswer::default()
        };
        assert_eq!(
            text(Printer::plain(Format::Table), &answer),
            "HTTP 200\nendpoint  10.0.0.2:80\ntls peer  spiffe://m/ns/default/sa/words\n\
             route     none: the service itself\ntime      2.0 ms, of it in the mesh 0.3 ms\n\napple\n"
        );
    }

    #[test]
    fn an_answer_of_the_mesh_itself_came_from_nowhere() {
        let answer = CurlAnswer {
            status: 404,
            ..CurlAnswer::default()
        };
        let told = text(Printer::plain(Format::Table), &answer);
        assert!(
            told.starts_with("HTTP 404\nendpoint  none\ntls peer  none\nroute     none\ntime"),
            "{told}"
        );
    }

    #[test]
    fn bodies() {
        assert_eq!(body(None).unwrap(), "");
        assert_eq!(body(Some("x")).unwrap(), "x");
        assert_eq!(
            body(Some("@/does/not/exist")).unwrap_err().exit,
            Exit::Finding
        );
    }
}
