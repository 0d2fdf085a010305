//! A scripted Marathon, after its published API: applications with tasks, events, leaders, rights.
#![cfg_attr(
    not(test),
    expect(dead_code, reason = "tests do more with it than other crates")
)]
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a scripted server that cannot be set up fails its test"
)]

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde_json::{Value, json};
use tokio::sync::broadcast;

use crate::http::stage::{Asked, Reply, Stage};

#[derive(Debug)]
struct State {
    apps: BTreeMap<String, Value>,
    leader: String,
    /// Applications are left out of the list, and refused alone: the token may not see them.
    hidden: bool,
    /// Nothing is told of changes.
    mute: bool,
}

/// The server.
#[derive(Clone)]
pub(crate) struct Fake {
    pub(crate) stage: Stage,
    state: Arc<Mutex<State>>,
    events: broadcast::Sender<String>,
}

impl Fake {
    pub(crate) fn start(secured: Option<PathBuf>) -> Self {
        let events = broadcast::channel(1_024).0;
        let state = Arc::new(Mutex::new(State {
            apps: BTreeMap::new(),
            leader: "elsewhere:8080".into(),
            hidden: false,
            mute: false,
        }));
        let (play, stream) = (Arc::clone(&state), events.clone());
        let server = Stage::open(secured, move |asked| answer(&lock(&play), &stream, asked));
        Self {
            stage: server,
            state,
            events,
        }
    }

    /// Sets an application, whole, and tells of it.
    pub(crate) fn put(&self, app: Value) {
        let id = app["id"].as_str().unwrap().to_owned();
        lock(&self.state).apps.insert(id.clone(), app);
        self.tell(
            "status_update_event",
            &json!({"appId": id, "taskStatus": "TASK_RUNNING"}),
        );
    }

    pub(crate) fn remove(&self, id: &str) {
        lock(&self.state).apps.remove(id);
        self.tell("app_terminated_event", &json!({"appId": id}));
    }

    pub(crate) fn tell(&self, kind: &str, data: &Value) {
        if !lock(&self.state).mute {
            let _nobody = self
                .events
                .send(format!("event: {kind}\r\ndata: {data}\r\n\r\n"));
        }
    }

    pub(crate) fn hide(&self, hidden: bool) {
        lock(&self.state).hidden = hidden;
    }

    pub(crate) fn mute(&self, mute: bool) {
        lock(&self.state).mute = mute;
    }

    pub(crate) fn lead(&self, leader: &str) {
        leader.clone_into(&mut lock(&self.state).leader);
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is embedded only when it is asked for, as the documentation says.
fn embedded(app: &Value, query: &str, of: &str) -> Value {
    let mut app = app.clone();
    for (word, field) in [
        ("tasks", "tasks"),
        ("deployments", "deployments"),
        ("readiness", "readinessCheckResults"),
    ] {
        let asked = query
            .split('&')
            .any(|part| part == format!("embed={of}.{word}"));
        if !asked && let Some(fields) = app.as_object_mut() {
            fields.remove(field);
        }
    }
    app
}

fn answer(state: &State, events: &broadcast::Sender<String>, asked: &Asked) -> Reply {
    let missing = |id: &str| {
        Reply::Whole(
            404,
            "content-type: application/json\r\n",
            json!({"message": format!("App '{id}' does not exist")})
                .to_string()
                .into_bytes(),
        )
    };
    match asked.path.as_str() {
        "/v2/leader" if state.leader.is_empty() => missing("leader"),
        "/v2/leader" => Reply::json(json!({"leader": state.leader}).to_string()),
        "/v2/events" if asked.fields.contains("accept: text/event-stream\r\n") => {
            Reply::Stream(events.subscribe())
        }
        "/v2/apps" => {
            let all = state.apps.values().filter(|_| !state.hidden);
            // Piece by piece: there may be very many.
            let all: Vec<String> = all
                .map(|app| embedded(app, &asked.query, "apps").to_string())
                .collect();
            Reply::json(format!("{{\"apps\":[{}]}}", all.join(",")))
        }
        path => {
            let id = path.strip_prefix("/v2/apps").unwrap_or_default();
            match state.apps.get(id) {
                Some(_) if state.hidden => Reply::status(
                    403,
                    "{\"message\":\"Not Authorized to perform this action!\"}",
                ),
                Some(app) => {
                    let app = embedded(app, &asked.query, "app");
                    Reply::json(json!({"app": app}).to_string())
                }
                None => missing(id),
            }
        }
    }
}

/// A task as an application lists it.
pub(crate) fn task(app: &str, host: &str, port: u16, healthy: bool) -> Value {
    json!({"id": format!("{app}.{port}"), "appId": format!("/{app}"), "host": host, "ports": [port],
        "state": "TASK_RUNNING", "startedAt": "2026-01-01T00:00:00.000Z", "version": "2026-01-01T00:00:00.000Z",
        "healthCheckResults": [{"alive": healthy, "taskId": format!("{app}.{port}")}]})
}

/// An application of tasks with health checks, in the network of its hosts.
pub(crate) fn app(name: &str, tasks: &[Value]) -> Value {
    json!({"id": format!("/{name}"), "version": "2026-01-01T00:00:00.000Z", "labels": {},
        "healthChecks": [{"protocol": "HTTP"}], "deployments": [], "readinessChecks": [], "readinessCheckResults": [],
        "networks": [{"mode": "host"}], "portDefinitions": [{"port": 0, "name": "http"}], "tasks": tasks})
}
