//! The source obeys the law against the scripted server; what only Kubernetes can do wrong.

use std::{fs, time::Duration};

use serde_json::json;

use super::{
    fake::{Fake, Mood, slice},
    *,
};
use crate::contract::{Hook, ID, Na, Registered, Setup, Watched, World, laws, matrix, up};

struct Far {
    fake: Fake,
    folder: tempfile::TempDir,
    namespaces: Vec<String>,
}

impl Far {
    fn new() -> Self {
        let far = Self {
            fake: Fake::start(),
            folder: tempfile::tempdir().unwrap(),
            namespaces: Vec::new(),
        };
        far.login("{}");
        far
    }
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
    /// The kubeconfig with this user, written whole at once.
    fn login(&self, user: &str) {
        let text = format!(
            "current-context: x\ncontexts: [{{name: x, context: {{cluster: x, user: x}}}}]\nclusters: [{{name: x, cluster: {{server: '{}'}}}}]\nusers: [{{name: x, user: {user}}}]\n",
            self.fake.address
        );
        fs::write(self.path("new"), text).unwrap();
        fs::rename(self.path("new"), self.path("config")).unwrap();
    }
    fn with_token(token: &str) -> Self {
        let far = Self::new();
        far.login("{tokenFile: token}");
        fs::write(far.path("token"), token).unwrap();
        far.fake.token(token);
        far
    }
    fn put_ports(&mut self, service: &str, ports: &[u16]) {
        let all: Vec<_> = ports.iter().copied().map(up).collect();
        self.put(service, &all);
    }
}

impl World for Far {
    fn put(&mut self, service: &str, endpoints: &[Registered]) {
        let all: Vec<_> = endpoints
            .iter()
            .map(|one| (one.port, one.healthy))
            .collect();
        self.fake.put(service, &all);
    }
    fn remove(&mut self, service: &str) {
        self.fake.remove(service);
    }
    fn garbage(&mut self) {
        self.fake.mood(Mood::Garbage);
    }
    fn break_off(&mut self) {
        self.fake.mood(Mood::Broken);
    }
    fn repair(&mut self) {
        self.fake.mood(Mood::Good);
    }
    fn opener(&self) -> Arc<dyn Fn() -> Box<dyn Source> + Send + Sync> {
        let config = SourceConfig {
            id: ID.to_owned(),
            publish: true,
            kind: SourceKind::Kubernetes {
                kubeconfig: Some(self.path("config")),
                context: None,
                namespaces: self.namespaces.clone(),
                selector: String::new(),
                pod_labels: false,
            },
            services: None,
        };
        Arc::new(move || crate::open::open(&config))
    }
    fn change(&mut self, service: &str, port: u16) -> Hook {
        let one = json!({"addresses": ["10.0.0.1"], "zone": "b"});
        let name = format!("{service}-{port}");
        self.fake
            .set(true, "default", &name, slice(service, "IPv4", &[one], port));
        Ok(())
    }
    fn put_addresses(&mut self, service: &str) -> Hook<Vec<String>> {
        self.fake.put(service, &[]);
        let one = |host: &str| json!({"addresses": [host]});
        let v6 = slice(service, "IPv6", &[one("fd00::1")], 80);
        self.fake.set(true, "default", &format!("{service}-6"), v6);
        let name = slice(service, "FQDN", &[one("db.test")], 5432);
        self.fake
            .set(true, "default", &format!("{service}-7"), name);
        Ok(vec!["[fd00::1]:80".into(), "db.test:5432".into()])
    }
    fn fill(&mut self, endpoints: usize) -> Hook {
        for service in 0..endpoints / 10 {
            let name = format!("s{service}");
            let spec = json!({"ports": [{"port": 80}]});
            self.fake
                .set(false, "default", &name, json!({"spec": spec}));
            let all: Vec<_> = (0..10)
                .map(|at| json!({"addresses": [format!("10.1.0.{at}")], "conditions": {"ready": true}, "zone": "a"}))
                .collect();
            self.fake.set(
                true,
                "default",
                &format!("{name}-x"),
                slice(&name, "IPv4", &all, 80),
            );
        }
        Ok(())
    }
    fn cut(&mut self) -> Hook {
        self.fake.mood(Mood::Cut);
        Ok(())
    }
    fn kill(&mut self) -> Hook {
        Err(Na::Twin)
    }
    fn start_again(&mut self, _keep: bool) -> Hook {
        Err(Na::Twin)
    }
    fn freeze(&mut self) -> Hook {
        self.fake.mood(Mood::Silent);
        Ok(())
    }
    fn thaw(&mut self) {
        self.fake.mood(Mood::Good);
    }
    fn revoke_token(&mut self) -> Hook {
        self.fake.token("second");
        Ok(())
    }
    fn rotate_token(&mut self) -> Hook {
        fs::write(self.path("token"), "second").unwrap();
        Ok(())
    }
    fn rotate_certificate(&mut self) -> Hook {
        Err(Na::Twin)
    }
}

#[tokio::test]
async fn it_obeys() {
    laws(Far::new).await;
}

#[tokio::test]
async fn the_fake_passes_every_case() {
    matrix("kubernetes-fake", |setup| {
        Ok(match setup {
            Setup::Token => Far::with_token("first"),
            Setup::Plain | Setup::Large | Setup::Tls => Far::new(),
        })
    })
    .await;
}

#[tokio::test]
async fn no_misbehaviour_removes_anything() {
    let mut far = Far::new();
    far.fake.page(1);
    far.put_ports("web", &[1, 2]);
    let run = Watched::new(&far);
    run.has("web", &[1, 2]).await;
    run.is("synced").await;
    for (mood, word) in [
        (Mood::Failing, "degraded"),
        (Mood::Forbidding, "auth-failed"),
        (Mood::Hasty, "degraded"),
        (Mood::Cut, "degraded"),
        (Mood::Garbage, "degraded"),
        (Mood::HalfLists, "degraded"),
    ] {
        far.fake.mood(mood);
        far.fake.compact();
        if mood == Mood::HalfLists {
            far.fake.say(&forgotten());
        }
        run.is(word).await;
        run.stays("web", &[1, 2]).await;
        far.fake.mood(Mood::Good);
        run.is("synced").await;
    }
    far.put_ports("web", &[1, 2, 3]);
    run.has("web", &[1, 2, 3]).await;
    run.end().await;
}

/// What a stream says whose past is forgotten.
fn forgotten() -> serde_json::Value {
    json!({"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired"}})
}

/// How often everything was listed: first pages of slices that are no question whether the server lives.
fn lists(far: &Far) -> usize {
    let is_list =
        |path: &&String| path.contains("/endpointslices?limit=500") && !path.contains("continue=");
    far.fake.asked().iter().filter(is_list).count()
}

#[tokio::test]
async fn a_broken_stream_is_resumed_without_a_list() {
    let mut far = Far::new();
    far.put_ports("web", &[1, 2]);
    let run = Watched::new(&far);
    run.has("web", &[1, 2]).await;
    run.is("synced").await;
    far.fake.bookmark();
    far.fake.mood(Mood::Broken);
    run.is("degraded").await;
    far.put_ports("web", &[1, 3]);
    far.fake.mood(Mood::Good);
    run.has("web", &[1, 3]).await;
    run.is("synced").await;
    assert_eq!(lists(&far), 1, "{:?}", far.fake.asked());
    run.end().await;
}

#[tokio::test]
async fn a_forgotten_history_is_listed_again_and_swept() {
    let mut far = Far::new();
    far.put_ports("web", &[1, 2, 3]);
    let run = Watched::new(&far);
    run.has("web", &[1, 2, 3]).await;
    run.is("synced").await;
    far.fake.mood(Mood::Broken);
    run.is("degraded").await;
    far.put_ports("web", &[1, 3, 4]);
    far.fake.compact();
    far.fake.mood(Mood::Good);
    run.has("web", &[1, 3, 4]).await;
    run.is("synced").await;
    // The same in the middle of a stream, and a list whose pages expire once.
    far.fake.page(1);
    far.fake.expire_pages(1);
    far.fake
        .secretly(|fake| fake.put("web", &[(1, true), (4, true), (5, true)]));
    far.fake.say(&forgotten());
    run.has("web", &[1, 4, 5]).await;
    run.is("synced").await;
    run.end().await;
}

#[tokio::test]
async fn another_cluster_behind_the_address_is_recognised() {
    let mut far = Far::new();
    far.put_ports("web", &[1, 2]);
    let run = Watched::new(&far);
    // Its clock is behind, or ahead: a resumed stream would be silent, or would lack what went.
    for version in [3, 5_000] {
        run.has("web", &[1, 2]).await;
        run.is("synced").await;
        far.fake.mood(Mood::Broken);
        run.is("degraded").await;
        far.fake.rebuild(version);
        far.put_ports("web", &[2, 7]);
        far.fake.mood(Mood::Good);
        run.has("web", &[2, 7]).await;
        run.is("synced").await;
        far.put_ports("web", &[1, 2]);
    }
    run.end().await;
}

#[tokio::test]
async fn a_broken_object_keeps_what_is_known_of_it_alone() {
    let mut far = Far::new();
    far.put_ports("web", &[1, 2]);
    let run = Watched::new(&far);
    run.has("web", &[1, 2]).await;
    let mut broken = slice("web", "IPv4", &[], 1);
    broken["ports"] = json!("none");
    far.fake.set(true, "default", "web-1", broken);
    far.put_ports("api", &[9]);
    run.has("api", &[9]).await;
    run.is("degraded").await;
    run.stays("web", &[1, 2]).await;
    // Nor does a whole list take it away.
    far.fake.mood(Mood::Broken);
    far.fake.compact();
    far.fake.mood(Mood::Good);
    far.put_ports("api", &[9, 10]);
    run.has("api", &[9, 10]).await;
    run.stays("web", &[1, 2]).await;
    far.fake
        .set(true, "default", "web-1", slice("web", "IPv4", &[], 1));
    run.has("web", &[2]).await;
    run.is("synced").await;
    run.end().await;
}

#[tokio::test]
async fn namespaces_are_read_apart_and_one_that_is_refused_hides_no_other() {
    let mut far = Far::new();
    far.namespaces = vec!["default".into(), "other".into()];
    far.put_ports("web", &[1]);
    let spec = json!({"spec": {"ports": [{"port": 80}]}});
    for namespace in ["other", "third"] {
        far.fake.set(false, namespace, "api", spec.clone());
        let one = json!({"addresses": ["10.0.0.1"]});
        far.fake
            .set(true, namespace, "api-1", slice("api", "IPv4", &[one], 5));
    }
    let run = Watched::new(&far);
    run.has("web", &[1]).await;
    run.has("api", &[5]).await;
    run.is("synced").await;
    let asked = far.fake.asked();
    assert!(
        asked
            .iter()
            .any(|path| path.starts_with("/api/v1/namespaces/other/services?limit=500")),
        "{asked:?}"
    );
    assert!(
        asked.iter().all(|path| path.contains("/namespaces/")),
        "{asked:?}"
    );
    run.end().await;
}

#[tokio::test]
async fn a_token_in_the_kubeconfig_and_a_plugin_are_followed() {
    let mut far = Far::new();
    far.put_ports("web", &[1]);
    far.fake.token("first");
    far.login("{token: first}");
    let run = Watched::new(&far);
    run.has("web", &[1]).await;
    run.is("synced").await;
    far.fake.token("second");
    run.is("auth-failed").await;
    far.login("{token: second}");
    run.is("synced").await;
    // A plugin, asked again when what it said is refused.
    fs::write(far.path("said"), "third").unwrap();
    let plugin = r#"{exec: {apiVersion: client.authentication.k8s.io/v1, command: sh, args: [-c, 'printf ''{"kind":"ExecCredential","status":{"token":"%s"}}'' "$(cat SAID)"']}}"#;
    let plugin = plugin.replace("SAID", far.path("said").to_str().unwrap());
    far.fake.token("third");
    far.login(&plugin);
    run.is("synced").await;
    far.put_ports("web", &[1, 2]);
    run.has("web", &[1, 2]).await;
    far.fake.token("fourth");
    run.is("auth-failed").await;
    fs::write(far.path("said"), "fourth").unwrap();
    run.is("synced").await;
    far.put_ports("web", &[1, 2, 3]);
    run.has("web", &[1, 2, 3]).await;
    run.end().await;
}

#[tokio::test]
async fn a_change_without_an_event_is_found_by_a_doubted_removal() {
    let mut far = Far::new();
    far.put_ports("web", &[1, 2]);
    far.put_ports("api", &[9]);
    let run = Watched::new(&far);
    run.has("web", &[1, 2]).await;
    run.is("synced").await;
    far.fake
        .secretly(|fake| fake.put("web", &[(1, true), (2, true), (3, true)]));
    // A whole service goes: the view wants to be sure, and everything is listed again.
    far.fake.remove("api");
    run.has("web", &[1, 2, 3]).await;
    run.end().await;
}

#[tokio::test]
async fn a_pod_uses_its_account_and_without_one_the_settings_are_wrong() {
    let pod = |name: &str| match name {
        "KUBERNETES_SERVICE_HOST" => Some("fd00::1".to_owned()),
        "KUBERNETES_SERVICE_PORT" => Some("6443".to_owned()),
        _ => None,
    };
    let place = Place::new(None, None, pod).unwrap();
    let wanted = Place::Pod {
        server: "https://[fd00::1]:6443".into(),
        folder: "/var/run/secrets/kubernetes.io/serviceaccount".into(),
    };
    assert_eq!(place, wanted);
    let outside = Place::new(None, None, |_| None);
    assert!(matches!(outside, Err(SourceError::Config(what)) if what.contains("kubeconfig")));
    assert_eq!(RECHECK, Duration::from_secs(10));
}
