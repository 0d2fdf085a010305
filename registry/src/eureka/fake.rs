//! A scripted Eureka server: full answers, deltas with the true hash, leases, and what servers do wrong.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write as _,
    io::Write as _,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::http::stage::{Asked, Reply, Stage};

/// What is wrong with its content, beside the moods of its stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quirk {
    None,
    /// Hashes are those of another moment.
    WrongHash,
    /// No deltas: 403, as where they are switched off.
    NoDeltas,
    /// Deltas leave everything out that happened.
    LosesDeltas,
    /// 403 to everything: its peers have not told it anything yet.
    Starting,
}

/// An instance: its fields as JSON without the braces, and its status.
#[derive(Debug, Clone)]
struct One {
    fields: String,
    status: String,
    overridden: String,
}

#[derive(Debug)]
struct State {
    apps: BTreeMap<String, BTreeMap<String, One>>,
    recent: VecDeque<(String, String, One, &'static str)>,
    quirk: Quirk,
    said: Vec<String>,
}

/// The server.
#[derive(Clone)]
pub(crate) struct Fake {
    pub(crate) stage: Stage,
    state: Arc<Mutex<State>>,
}

impl Fake {
    pub(crate) fn start(secured: Option<PathBuf>) -> Self {
        let state = Arc::new(Mutex::new(State {
            apps: BTreeMap::new(),
            recent: VecDeque::new(),
            quirk: Quirk::None,
            said: Vec::new(),
        }));
        let play = Arc::clone(&state);
        let server = Stage::open(secured, move |asked| answer(&mut lock(&play), asked));
        Self {
            stage: server,
            state,
        }
    }

    pub(crate) fn quirk(&self, quirk: Quirk) {
        lock(&self.state).quirk = quirk;
    }

    /// Registers an instance; `fields` are those of its JSON beside id, application and status.
    pub(crate) fn put(&self, app: &str, id: &str, status: &str, fields: &str) {
        let one = One {
            fields: fields.to_owned(),
            status: status.to_owned(),
            overridden: "UNKNOWN".to_owned(),
        };
        lock(&self.state).put(app, id, one);
    }

    pub(crate) fn remove(&self, app: &str, id: &str) {
        lock(&self.state).remove(app, id);
    }

    pub(crate) fn ids(&self, app: &str) -> Vec<String> {
        let state = lock(&self.state);
        let all = state.apps.get(&app.to_uppercase());
        all.map(|all| all.keys().cloned().collect())
            .unwrap_or_default()
    }

    /// It forgets everything, as by a restart.
    pub(crate) fn forget(&self) {
        let mut state = lock(&self.state);
        state.apps.clear();
        state.recent.clear();
    }

    /// What clients wrote: method, path and query of all but GET.
    pub(crate) fn said(&self) -> Vec<String> {
        lock(&self.state).said.clone()
    }

    /// Status and override of an instance.
    pub(crate) fn status(&self, app: &str, id: &str) -> Option<(String, String)> {
        let state = lock(&self.state);
        let one = state.apps.get(&app.to_uppercase())?.get(id)?;
        Some((one.status.clone(), one.overridden.clone()))
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn put(&mut self, app: &str, id: &str, one: One) {
        let app = app.to_uppercase();
        let all = self.apps.entry(app.clone()).or_default();
        let known = all.insert(id.to_owned(), one.clone()).is_some();
        let action = if known { "MODIFIED" } else { "ADDED" };
        self.recent.push_back((app, id.to_owned(), one, action));
    }

    fn remove(&mut self, app: &str, id: &str) -> bool {
        let app = app.to_uppercase();
        let Some(all) = self.apps.get_mut(&app) else {
            return false;
        };
        let Some(one) = all.remove(id) else {
            return false;
        };
        if all.is_empty() {
            self.apps.remove(&app);
        }
        self.recent.push_back((app, id.to_owned(), one, "DELETED"));
        true
    }

    fn hash(&self) -> String {
        if self.quirk == Quirk::WrongHash {
            return "UP_4711_".into();
        }
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for one in self.apps.values().flat_map(BTreeMap::values) {
            *counts.entry(&one.status).or_default() += 1;
        }
        let mut text = String::new();
        for (status, count) in &counts {
            write!(text, "{status}_{count}_").unwrap();
        }
        text
    }

    fn page<'i>(
        &self,
        all: impl Iterator<Item = (&'i str, Vec<(&'i String, &'i One, &'static str)>)>,
    ) -> String {
        let mut text = format!(
            "{{\"applications\":{{\"versions__delta\":\"1\",\"apps__hashcode\":\"{}\",\"application\":[",
            self.hash()
        );
        let mut first = true;
        for (app, instances) in all {
            let comma = if std::mem::take(&mut first) { "" } else { "," };
            write!(text, "{comma}{{\"name\":\"{app}\",\"instance\":[").unwrap();
            for (at, (id, one, action)) in instances.iter().enumerate() {
                let comma = if at == 0 { "" } else { "," };
                write!(
                    text,
                    "{comma}{{\"instanceId\":\"{id}\",\"app\":\"{app}\",{},\"status\":\"{}\",\"overriddenStatus\":\"{}\",\
                     \"dataCenterInfo\":{{\"@class\":\"com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo\",\"name\":\"MyOwn\"}},\
                     \"actionType\":\"{action}\"}}",
                    one.fields, one.status, one.overridden
                )
                .unwrap();
            }
            text.push_str("]}");
        }
        text.push_str("]}}");
        text
    }
}

fn packed(asked: &Asked, text: String) -> Reply {
    if !asked.fields.contains("gzip") {
        return Reply::json(text);
    }
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    Reply::Whole(200, "content-encoding: gzip\r\n", encoder.finish().unwrap())
}

fn answer(state: &mut State, asked: &Asked) -> Reply {
    if asked.method != "GET" {
        let line = format!("{} {}?{}", asked.method, asked.path, asked.query);
        state.said.push(line.trim_end_matches('?').to_owned());
    }
    if state.quirk == Quirk::Starting {
        return Reply::status(403, "");
    }
    let parts: Vec<&str> = asked
        .path
        .trim_start_matches("/eureka/apps")
        .split('/')
        .skip(1)
        .collect();
    match (asked.method.as_str(), parts.as_slice()) {
        ("GET", []) => {
            let all = state.apps.iter().map(|(app, all)| {
                let all = all.iter().map(|(id, one)| (id, one, "ADDED"));
                (app.as_str(), all.collect())
            });
            packed(asked, state.page(all))
        }
        ("GET", ["delta"]) if state.quirk == Quirk::NoDeltas => Reply::status(403, ""),
        ("GET", ["delta"]) => {
            let lost = state.quirk == Quirk::LosesDeltas;
            let all = state.recent.iter().filter(|_| !lost);
            let all = all.map(|(app, id, one, action)| (app.as_str(), vec![(id, one, *action)]));
            packed(asked, state.page(all))
        }
        ("POST", [app]) => register(state, app, &asked.body),
        ("PUT", [app, id]) => match state
            .apps
            .get(&app.to_uppercase())
            .and_then(|all| all.get(*id))
        {
            Some(_) => Reply::status(200, ""),
            None => Reply::status(404, ""),
        },
        ("PUT", [app, id, "status"]) => {
            let word = asked
                .query
                .split('&')
                .find_map(|part| part.strip_prefix("value="));
            let known = state
                .apps
                .get(&app.to_uppercase())
                .and_then(|all| all.get(*id))
                .cloned();
            match (word, known) {
                (Some(word), Some(mut one)) => {
                    one.status = word.to_owned();
                    one.overridden = word.to_owned();
                    state.put(app, id, one);
                    Reply::status(200, "")
                }
                _ => Reply::status(404, ""),
            }
        }
        ("DELETE", [app, id, "status"]) => {
            let word = asked
                .query
                .split('&')
                .find_map(|part| part.strip_prefix("value="));
            let known = state
                .apps
                .get(&app.to_uppercase())
                .and_then(|all| all.get(*id))
                .cloned();
            let Some(mut one) = known else {
                return Reply::status(404, "");
            };
            if one.overridden != "UNKNOWN" {
                one.overridden = "UNKNOWN".to_owned();
                one.status = word.unwrap_or("UNKNOWN").to_owned();
                state.put(app, id, one);
            }
            Reply::status(200, "")
        }
        ("DELETE", [app, id]) => {
            let there = state.remove(app, id);
            Reply::status(if there { 200 } else { 404 }, "")
        }
        _ => Reply::status(404, ""),
    }
}

/// As the real server: an instance without these is refused.
fn register(state: &mut State, app: &str, body: &str) -> Reply {
    let Ok(document) = serde_json::from_str::<serde_json::Value>(body) else {
        return Reply::status(400, "no JSON");
    };
    let instance = &document["instance"];
    for field in ["instanceId", "hostName", "ipAddr", "app"] {
        if instance[field].as_str().is_none_or(str::is_empty) {
            return Reply::status(400, field);
        }
    }
    if instance["dataCenterInfo"]["@class"].as_str().is_none() {
        return Reply::status(400, "dataCenterInfo");
    }
    let fields = [
        "hostName",
        "ipAddr",
        "port",
        "securePort",
        "vipAddress",
        "metadata",
    ];
    let fields = fields.iter().filter(|field| !instance[**field].is_null());
    let fields: Vec<String> = fields
        .map(|field| format!("\"{field}\":{}", instance[*field]))
        .collect();
    let one = One {
        fields: fields.join(","),
        status: instance["status"].as_str().unwrap_or("UP").to_owned(),
        overridden: "UNKNOWN".to_owned(),
    };
    state.put(app, instance["instanceId"].as_str().unwrap(), one);
    Reply::status(204, "")
}
