//! The source obeys the law against the scripted server; what only etcd can do wrong.

use std::{collections::BTreeMap, fs, path::PathBuf};

use mesh_model::config::EtcdLayout;

use super::{
    fake::{Fake, Mood},
    *,
};
use crate::contract::{Hook, ID, Na, Registered, Setup, Watched, World, laws, matrix, up};

struct Far {
    fake: Fake,
    password: Option<(tempfile::TempDir, PathBuf)>,
    /// The file is a token's, not a user's password.
    by_token: bool,
    known: BTreeMap<String, Vec<String>>,
}

impl Far {
    fn new() -> Self {
        Self {
            fake: Fake::start(),
            password: None,
            by_token: false,
            known: BTreeMap::new(),
        }
    }
    fn with_password() -> Self {
        let far = Self::new();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        fs::write(&file, "first").unwrap();
        far.fake.password("first");
        Self {
            password: Some((folder, file)),
            ..far
        }
    }
    fn set(&mut self, service: &str, all: Vec<(String, String)>) {
        let keys: Vec<String> = all.iter().map(|(key, _)| key.clone()).collect();
        let old = self
            .known
            .insert(service.to_owned(), keys.clone())
            .unwrap_or_default();
        let gone = old
            .into_iter()
            .filter(|key| !keys.contains(key))
            .map(|key| (key, None));
        let all: Vec<_> = all
            .into_iter()
            .map(|(key, value)| (key, Some(value)))
            .chain(gone)
            .collect();
        self.fake.change(&all);
    }
}

fn key(service: &str, id: impl std::fmt::Display) -> String {
    format!("/meshd/v1/services/default/{service}/{id}")
}

fn value(one: Registered) -> String {
    let health = if one.healthy { "unknown" } else { "unhealthy" };
    format!(
        r#"{{"address":"10.0.0.1:{}","health":"{health}"}}"#,
        one.port
    )
}

impl World for Far {
    fn put(&mut self, service: &str, endpoints: &[Registered]) {
        let all = endpoints
            .iter()
            .map(|one| (key(service, one.port), value(*one)))
            .collect();
        self.set(service, all);
    }
    fn remove(&mut self, service: &str) {
        self.set(service, Vec::new());
    }
    fn garbage(&mut self) {
        self.fake.mood(Mood::Garbage);
    }
    fn break_off(&mut self) {
        self.fake.mood(Mood::Closed);
    }
    fn repair(&mut self) {
        self.fake.mood(Mood::Good);
    }
    fn opener(&self) -> Arc<dyn Fn() -> Box<dyn Source> + Send + Sync> {
        let addresses = vec![self.fake.address.clone()];
        let file = self.password.as_ref().map(|(_, file)| file.clone());
        let access = if self.by_token {
            Access {
                addresses,
                token_file: file,
                ..Access::default()
            }
        } else {
            Access {
                addresses,
                username: file.as_ref().map(|_| "meshd".to_owned()),
                password_file: file,
                ..Access::default()
            }
        };
        let layout = EtcdLayout::Meshd;
        let config = SourceConfig {
            id: ID.to_owned(),
            publish: true,
            services: None,
            kind: SourceKind::Etcd {
                access,
                layout,
                prefix: layout.prefix().to_owned(),
            },
        };
        Arc::new(move || crate::open::open(&config))
    }
    fn change(&mut self, service: &str, port: u16) -> Hook {
        let heavy = format!(r#"{{"address":"10.0.0.1:{port}","weight":7}}"#);
        self.fake.change(&[(key(service, port), Some(heavy))]);
        Ok(())
    }
    fn put_addresses(&mut self, service: &str) -> Hook<Vec<String>> {
        let all = ["[fd00::10]:80", "db.test:5432"];
        let written = all.map(|at| (key(service, at.len()), format!(r#"{{"address":"{at}"}}"#)));
        self.set(service, written.to_vec());
        Ok(all.map(str::to_owned).to_vec())
    }
    fn fill(&mut self, endpoints: usize) -> Hook {
        let one = |at: usize| {
            let port = u16::try_from(at % 10).unwrap() + 1;
            (key(&format!("s{:06}", at / 10), port), value(up(port)))
        };
        self.fake.fill((0..endpoints).map(one));
        Ok(())
    }
    fn cut(&mut self) -> Hook {
        self.fake.mood(Mood::Cut);
        Ok(())
    }
    fn kill(&mut self) -> Hook {
        Err(Na::Twin)
    }
    fn freeze(&mut self) -> Hook {
        // Pings are answered still: only a question without an answer tells.
        self.fake.mood(Mood::Silent);
        Ok(())
    }
    fn thaw(&mut self) {
        self.fake.mood(Mood::Good);
    }
    fn revoke_token(&mut self) -> Hook {
        self.fake.password("second");
        Ok(())
    }
    fn rotate_token(&mut self) -> Hook {
        let Some((_, file)) = &self.password else {
            return Err(Na::NoCredentials);
        };
        fs::write(file, "second").unwrap();
        Ok(())
    }
}

#[tokio::test]
async fn it_obeys() {
    laws(Far::new).await;
}

#[tokio::test]
async fn it_passes_every_case() {
    matrix("etcd-fake", |setup| match setup {
        Setup::Plain | Setup::Large => Ok(Far::new()),
        Setup::Token => Ok(Far::with_password()),
        Setup::Tls => Err(Na::Twin),
    })
    .await;
}

async fn opened(far: &mut Far) -> Watched {
    far.put("web", &[up(1), up(2)]);
    let run = Watched::new(far);
    run.has("web", &[1, 2]).await;
    run.is("synced").await;
    run
}

#[tokio::test]
async fn a_lost_connection_goes_on_where_it_was() {
    let mut far = Far::new();
    let run = opened(&mut far).await;
    far.fake.progress(40);
    far.put("web", &[up(1), up(2), up(3)]);
    run.has("web", &[1, 2, 3]).await;
    far.fake.asked();
    far.fake.mood(Mood::Closed);
    run.is("degraded").await;
    far.put("web", &[up(1), up(2), up(3), up(4)]);
    far.fake.mood(Mood::Good);
    run.has("web", &[1, 2, 3, 4]).await;
    run.is("synced").await;
    assert_eq!(
        far.fake.asked(),
        ["watch from 42"],
        "nothing was read as a whole"
    );
    run.end().await;
}

#[tokio::test]
async fn progress_counts_without_events() {
    let mut far = Far::new();
    let run = opened(&mut far).await;
    far.fake.progress(500);
    // An event of another prefix is none for this watch; what follows proves that the progress was seen.
    far.fake.asked();
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        far.fake.mood(Mood::Closed);
        run.is("degraded").await;
        far.fake.mood(Mood::Good);
        run.is("synced").await;
        if far.fake.asked().iter().any(|line| line == "watch from 501") {
            run.end().await;
            return;
        }
    }
    panic!("the watch never went on from 501");
}

#[tokio::test]
async fn a_compaction_leads_to_a_whole_read() {
    let mut far = Far::new();
    let run = opened(&mut far).await;
    far.fake.mood(Mood::Closed);
    run.is("degraded").await;
    far.put("web", &[up(2), up(3)]);
    far.put("web", &[up(2), up(3), up(4)]);
    far.fake.compact();
    far.fake.mood(Mood::Good);
    run.has("web", &[2, 3, 4]).await;
    run.end().await;
}

#[tokio::test]
async fn a_watch_that_is_cancelled_by_a_compaction_is_made_again() {
    let mut far = Far::new();
    far.put("web", &[up(1), up(2)]);
    far.fake.compact_in_between();
    let run = Watched::new(&far);
    run.has("web", &[1, 2]).await;
    run.is("synced").await;
    far.put("web", &[up(1), up(2), up(3)]);
    run.has("web", &[1, 2, 3]).await;
    let asked = far.fake.asked();
    let pages = asked.iter().filter(|line| line.starts_with("page")).count();
    assert_eq!(pages, 2, "read once more: {asked:?}");
    run.end().await;
}

#[tokio::test]
async fn a_new_history_under_the_same_id_is_noticed() {
    for revision in [2, 900] {
        let mut far = Far::new();
        let run = opened(&mut far).await;
        far.fake.mood(Mood::Closed);
        run.is("degraded").await;
        far.fake.rebuild(revision);
        far.known.clear();
        far.put("web", &[up(1), up(2), up(3)]);
        far.fake.mood(Mood::Good);
        run.has("web", &[1, 2, 3]).await;
        far.put("web", &[up(1), up(2), up(3), up(4)]);
        run.has("web", &[1, 2, 3, 4]).await;
        run.end().await;
    }
}

#[tokio::test]
async fn another_cluster_is_read_as_a_whole() {
    let mut far = Far::new();
    let run = opened(&mut far).await;
    far.fake.other_cluster();
    far.put("web", &[up(1), up(2), up(3)]);
    run.has("web", &[1, 2, 3]).await;
    run.is("synced").await;
    run.end().await;
}

#[tokio::test]
async fn refusals_and_kinds_that_nobody_knows() {
    let mut far = Far::new();
    let run = opened(&mut far).await;
    for (mood, word) in [
        (Mood::Forbidding, "auth-failed"),
        (Mood::Leaderless, "degraded"),
    ] {
        far.fake.mood(mood);
        run.is(word).await;
        run.stays("web", &[1, 2]).await;
        far.fake.mood(Mood::Good);
        run.is("synced").await;
    }
    far.fake.strange();
    far.put("web", &[up(1), up(2), up(3)]);
    run.has("web", &[1, 2, 3]).await;
    run.end().await;
}

#[tokio::test]
async fn pages_are_of_one_revision() {
    let mut far = Far::new();
    far.fill(2_500).unwrap();
    let run = Watched::new(&far);
    run.is("synced").await;
    let asked = far.fake.asked();
    let revision = far.fake.revision();
    let later = format!("page at {revision}");
    assert_eq!(
        asked.iter().filter(|line| **line == "page at 0").count(),
        1,
        "{asked:?}"
    );
    assert_eq!(
        asked.iter().filter(|line| **line == later).count(),
        2,
        "{asked:?}"
    );
    run.end().await;
}

/// A token that etcd did not make, from a file: it is presented as it is, and read again when it is refused.
#[tokio::test]
async fn a_token_of_a_file_is_presented_and_read_again() {
    let mut far = Far::with_password();
    far.by_token = true;
    let run = opened(&mut far).await;
    far.fake.password("second");
    run.is("auth-failed").await;
    run.stays("web", &[1, 2]).await;
    far.rotate_token().unwrap();
    run.is("synced").await;
    far.put("web", &[up(1), up(2), up(3)]);
    run.has("web", &[1, 2, 3]).await;
    run.end().await;
}
