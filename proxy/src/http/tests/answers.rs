//! Answers that a rule asks the mesh for: direct ones, redirects, cross-origin questions.

use std::{sync::Arc, time::Duration};

use mesh_model::{
    service::AppProtocol,
    snapshot::{
        Filter, Rule, Target,
        rule::{Cors, DirectResponse, HeaderEdits, OriginMatch, Redirect},
    },
};

use super::{
    BOTH, Path, Stage, ok,
    routes::{attach, rule},
};
use crate::trial::{nowhere, run};

fn nothing() -> Target {
    Target::Fail {
        status: 500,
        code: "no-backend",
        reason: "the rule names no backend".into(),
    }
}

fn with(stage: &Stage, filters: impl IntoIterator<Item = Filter>, target: Option<Target>) {
    let filters: Arc<[Filter]> = filters.into_iter().collect();
    let endpoint = stage.endpoint(1, stage.address);
    let snapshot = attach(stage.calling(AppProtocol::Http, [endpoint]), |backend| {
        let target = target.unwrap_or_else(|| Target::Backend(Arc::clone(backend)));
        vec![Rule {
            filters,
            ..rule(target)
        }]
    });
    stage.a.publish(snapshot);
}

#[test]
fn the_mesh_answers_itself() {
    run(async {
        let stage = Stage::new(Path::Straight, AppProtocol::Http).await;
        let direct = |status, body: &str| {
            Filter::DirectResponse(Arc::new(DirectResponse {
                status,
                body: body.as_bytes().into(),
                headers: vec![("x-own".into(), "1".into())],
            }))
        };
        let later = Filter::ResponseHeaders(HeaderEdits {
            set: vec![("x-later".into(), "2".into())],
            ..HeaderEdits::default()
        });
        for (status, body, target) in [
            (418, "short and stout", None),
            (200, "", None),
            (503, "closed", Some(nothing())),
            (204, "ignored", None),
        ] {
            with(&stage, [direct(status, body), later.clone()], target);
            let mut client = stage.dial().await;
            let heard = client
                .ask("POST /x HTTP/1.1\r\nHost: web\r\nContent-Length: 2\r\n\r\nhi")
                .await;
            let wanted = if status == 204 { "" } else { body };
            assert_eq!((heard.status(), heard.text()), (status, wanted));
            assert_eq!(
                (heard.field("x-own"), heard.field("x-later"), heard.error()),
                (Some("1"), Some("2"), None)
            );
            // HEAD tells the length and sends nothing; the connection goes on.
            client.say("HEAD / HTTP/1.1\r\nHost: web\r\n\r\n").await;
            assert_eq!(client.head().await.unwrap().status(), status);
            assert_eq!(client.get("/", "").await.status(), status);
        }
        assert_eq!(stage.a.cells.policies.answered.get(), 12);
    });
}

/// A rule of only a redirect names no backend.
#[test]
fn redirects_need_no_backend() {
    run(async {
        let stage = Stage::new(Path::Straight, AppProtocol::Http).await;
        let redirect = Filter::Redirect(Redirect {
            scheme: Some("https".into()),
            hostname: None,
            port: None,
            path: None,
            status: 308,
        });
        with(&stage, [redirect], Some(nothing()));
        let heard = stage.dial().await.get("/a?b", "").await;
        assert_eq!(
            (heard.status(), heard.field("location")),
            (308, Some("https://web/a?b"))
        );
        with(&stage, [], Some(nothing()));
        let heard = stage.dial().await.get("/", "").await;
        assert_eq!(heard.error().unwrap().0, "no-backend");
    });
}

const ORIGIN: &str = "Origin: https://a.example\r\n";

fn cors() -> Filter {
    Filter::Cors(Arc::new(Cors {
        allow_origins: vec![OriginMatch::Exact("https://a.example".into())],
        allow_credentials: true,
        allow_methods: vec!["GET".into(), "PUT".into()],
        max_age: Some(Duration::from_mins(1)),
        ..Cors::default()
    }))
}

#[test]
fn cross_origin_questions_and_answers() {
    for path in BOTH {
        run(async move {
            let stage = Stage::new(path, AppProtocol::Http).await;
            let asked = stage.program(|_| {
                "HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nContent-Length: 0\r\n\r\n"
                    .to_owned()
            });
            with(&stage, [cors()], None);
            let mut client = stage.dial().await;
            let ask = format!(
                "OPTIONS /x HTTP/1.1\r\nHost: web\r\n{ORIGIN}Access-Control-Request-Method: PUT\r\n\r\n"
            );
            let heard = client.ask(&ask).await;
            assert_eq!(heard.status(), 204, "{path:?}");
            assert_eq!(
                (
                    heard.field("access-control-allow-origin"),
                    heard.field("access-control-allow-methods"),
                    heard.field("access-control-max-age"),
                ),
                (Some("https://a.example"), Some("GET, PUT"), Some("60"))
            );
            assert_eq!(asked.get(), 0, "the program hears no preflight");
            let heard = client.get("/", ORIGIN).await;
            assert_eq!(
                (
                    heard.field("access-control-allow-origin"),
                    heard.field("access-control-allow-credentials"),
                    heard.field("vary"),
                ),
                (Some("https://a.example"), Some("true"), Some("origin"))
            );
            // What the program allows beyond the policy is taken out.
            let heard = client.get("/", "Origin: https://evil\r\n").await;
            assert_eq!(
                (
                    heard.status(),
                    heard.field("access-control-allow-origin"),
                    heard.field("vary")
                ),
                (200, None, Some("origin"))
            );
            // An OPTIONS that asks nothing is the program's.
            let plain = format!("OPTIONS /x HTTP/1.1\r\nHost: web\r\n{ORIGIN}\r\n");
            assert_eq!(client.ask(&plain).await.status(), 200);
        });
    }
}

/// A script must be able to see that the mesh failed its request.
#[test]
fn failures_are_marked_too() {
    run(async {
        let stage = Stage::new(Path::Straight, AppProtocol::Http).await;
        let dead = stage.endpoint(1, nowhere().await);
        let snapshot = attach(stage.calling(AppProtocol::Http, [dead]), |backend| {
            vec![Rule {
                filters: Arc::from([cors()]),
                ..rule(Target::Backend(Arc::clone(backend)))
            }]
        });
        stage.a.publish(snapshot);
        let heard = stage.dial().await.get("/", ORIGIN).await;
        assert_eq!(
            (heard.status(), heard.field("access-control-allow-origin")),
            (503, Some("https://a.example"))
        );
    });
}

#[test]
fn nobody_asks_for_marks() {
    run(async {
        let stage = Stage::new(Path::Straight, AppProtocol::Http).await;
        stage.program(|_| ok("x"));
        with(&stage, [], None);
        let heard = stage.dial().await.get("/", ORIGIN).await;
        assert_eq!((heard.status(), heard.field("vary")), (200, None));
    });
}
