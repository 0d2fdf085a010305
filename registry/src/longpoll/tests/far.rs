//! A scripted server as the world of the contract, and the source that reads it.

use std::{fs, path::PathBuf, sync::Arc};

use mesh_model::config::{Access, SourceConfig, SourceKind};

use crate::{
    contract::{HOST, Hook, ID, Na, Registered, Setup, World, matrix},
    longpoll::fake::{Fake, Kind, Mood},
    source::Source,
};

/// The server, and how it is read.
pub(crate) struct Far {
    pub(crate) fake: Fake,
    pub(crate) token: Option<PathBuf>,
    /// The setting.
    pub(crate) max_watches: u16,
}

impl Far {
    pub(crate) fn new(kind: Kind) -> Self {
        Self {
            fake: Fake::start(kind),
            token: None,
            max_watches: 160,
        }
    }

    /// Runs the extended matrix; without TLS for the reason `no_tls`.
    pub(crate) async fn pass(name: &'static str, kind: Kind, no_tls: fn() -> Na) {
        let dir = tempfile::tempdir().unwrap();
        matrix(name, |setup| {
            let mut far = Self::new(kind);
            match setup {
                Setup::Plain | Setup::Large => {}
                Setup::Token => {
                    let file = dir.path().join("token");
                    fs::write(&file, "first").unwrap();
                    far.fake.token("first");
                    far.token = Some(file);
                }
                Setup::Tls => return Err(no_tls()),
            }
            Ok(far)
        })
        .await;
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
    fn tells_health(&self) -> bool {
        self.fake.kind == Kind::Consul
    }
    fn opener(&self) -> Arc<dyn Fn() -> Box<dyn Source> + Send + Sync> {
        let access = Access {
            addresses: vec![self.fake.address.clone()],
            token_file: self.token.clone(),
            ..Access::default()
        };
        let max_watches = self.max_watches;
        let kind = match self.fake.kind {
            Kind::Consul => SourceKind::Consul {
                access,
                datacenter: None,
                namespace: None,
                partition: None,
                tags: Vec::new(),
                passing: false,
                max_watches,
            },
            Kind::Nomad => SourceKind::Nomad {
                access,
                region: None,
                namespace: "*".into(),
                max_watches,
            },
        };
        let config = SourceConfig {
            id: ID.to_owned(),
            publish: true,
            kind,
            services: None,
        };
        Arc::new(move || crate::open::open(&config))
    }
    fn change(&mut self, service: &str, port: u16) -> Hook {
        self.fake.tag(service, port, "v2");
        Ok(())
    }
    fn put_addresses(&mut self, service: &str) -> Hook<Vec<String>> {
        self.fake.host(service, 80, "fd00::1");
        self.fake.host(service, 5432, HOST);
        self.fake.put(service, &[(80, true), (5432, true)]);
        Ok(vec!["[fd00::1]:80".into(), format!("{HOST}:5432")])
    }
    fn fill(&mut self, endpoints: usize) -> Hook {
        self.fake.fill(endpoints);
        Ok(())
    }
    fn cut(&mut self) -> Hook {
        self.fake.mood(Mood::Cut);
        Ok(())
    }
    fn kill(&mut self) -> Hook {
        self.fake.mood(Mood::Broken);
        Ok(())
    }
    fn start_again(&mut self, keep: bool) -> Hook {
        if !keep {
            self.fake.empty();
        }
        self.fake.mood(Mood::Good);
        Ok(())
    }
    fn freeze(&mut self) -> Hook {
        self.fake.mood(Mood::Silent);
        Ok(())
    }
    fn thaw(&mut self) {
        self.fake.mood(Mood::Good);
    }
    fn revoke_token(&mut self) -> Hook {
        self.fake.token("nobody has it");
        Ok(())
    }
    fn rotate_token(&mut self) -> Hook {
        self.fake.token("second");
        let file = self.token.as_ref().unwrap();
        fs::write(file, "second").unwrap();
        Ok(())
    }
}
