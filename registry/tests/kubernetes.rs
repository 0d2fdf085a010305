//! The Kubernetes source against a real API server and its etcd: every case of the contract, and its latency.

#[cfg(test)]
#[path = "kubernetes/cluster.rs"]
mod cluster;

#[cfg(test)]
mod tests {
    use std::{
        fs,
        io::Write,
        path::PathBuf,
        time::{Duration, Instant},
    };

    use data_encoding::BASE64;
    use mesh_registry::{
        Settings,
        contract::{
            Setup, Watched, World, laws, matrix,
            server::{
                http as plain,
                kubernetes::{ADMIN, applied},
                needed,
            },
            up,
        },
        start, start_with,
    };
    use serde_json::{Value, json};
    use tokio_util::sync::CancellationToken;

    use crate::cluster::Cluster;

    fn roots(test: &str) -> Option<(PathBuf, PathBuf)> {
        Some((needed("kubernetes", test)?, needed("etcd", test)?))
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_server_passes_every_case() {
        let Some(roots) = roots("kubernetes") else {
            return;
        };
        Box::pin(matrix("kubernetes", |setup| {
            Ok(Cluster::start(&roots, setup))
        }))
        .await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_server_obeys() {
        let Some(roots) = roots("kubernetes-laws") else {
            return;
        };
        laws(|| Cluster::start(&roots, Setup::Plain)).await;
    }

    /// What was compacted while nobody watched is listed again.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_compaction_in_the_gap_loses_nothing() {
        let Some(roots) = roots("kubernetes-compaction") else {
            return;
        };
        let mut cluster = Cluster::start(&roots, Setup::Plain);
        cluster.put("web", &[up(1), up(2)]);
        let run = Watched::new(&cluster);
        run.has("web", &[1, 2]).await;
        run.is("synced").await;
        cluster.break_off();
        run.is("degraded").await;
        cluster.put("web", &[up(2), up(3)]);
        // A restarted server has no watch cache of the past, and the past itself is compacted.
        cluster.api.kill();
        let at = cluster.store_at;
        let key = BASE64.encode(b"compact");
        let put = plain(
            at,
            "POST",
            "/v3/kv/put",
            &[],
            &json!({"key": key, "value": ""}).to_string(),
        )
        .unwrap();
        let put: Value = serde_json::from_str(&put.1).unwrap();
        let body = json!({"revision": put["header"]["revision"], "physical": true}).to_string();
        assert_eq!(
            plain(at, "POST", "/v3/kv/compaction", &[], &body)
                .unwrap()
                .0,
            200
        );
        cluster.api.start_again(true);
        cluster.repair();
        run.has("web", &[2, 3]).await;
        run.is("synced").await;
        cluster.put("web", &[up(2), up(3), up(4)]);
        run.has("web", &[2, 3, 4]).await;
        run.end().await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn every_login_is_taken_and_rights_may_be_narrow() {
        let Some(roots) = roots("kubernetes-logins") else {
            return;
        };
        let mut cluster = Cluster::start(&roots, Setup::Plain);
        cluster.put("web", &[up(1), up(2)]);
        let inline = |name: &str| json!(BASE64.encode(&fs::read(cluster.file(name)).unwrap()));
        let printed = json!({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": ADMIN}});
        let users = [
            json!({"client-certificate-data": inline("me.crt"), "client-key-data": inline("me.key")}),
            json!({"client-certificate": "me.crt", "client-key": "me.key"}),
            json!({"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "echo", "args": [printed.to_string()]}}),
        ];
        for user in users {
            cluster.user = Some(user);
            cluster.login();
            let run = Watched::new(&cluster);
            run.has("web", &[1, 2]).await;
            run.is("synced").await;
            run.end().await;
        }
        // One namespace is refused, the other is followed.
        let token = cluster.narrow_token();
        cluster.user = Some(json!({"token": token}));
        cluster.login();
        cluster.only = vec!["default".into(), "shop".into()];
        cluster.namespace = "shop";
        cluster.put("web", &[7].map(up));
        let run = Watched::new(&cluster);
        run.has("web", &[7]).await;
        run.is("auth-failed").await;
        cluster.put("web", &[7, 8].map(up));
        run.has("web", &[7, 8]).await;
        run.end().await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_selector_picks_services_as_their_labels_change() {
        let Some(roots) = roots("kubernetes-selector") else {
            return;
        };
        let mut cluster = Cluster::start(&roots, Setup::Plain);
        cluster.selector = "mesh in (on),!old".into();
        cluster.put("web", &[up(1)]);
        cluster.labels = json!({"mesh": "on"});
        cluster.put("api", &[up(9)]);
        let stop = CancellationToken::new();
        let settings = Settings {
            removal_hold: Duration::ZERO,
            ..Settings::default()
        };
        let (registry, _none) = start_with(
            &[cluster.config("kubernetes/selector")],
            None,
            settings,
            stop.clone(),
        );
        let mut views = registry.views();
        let mut until = async |wanted: &[&str]| {
            let seen = views.wait_for(|now| {
                let names: Vec<&str> = now
                    .views
                    .values()
                    .map(|one| one.view.service.as_str())
                    .collect();
                names == wanted
            });
            tokio::time::timeout(Duration::from_secs(20), seen)
                .await
                .unwrap()
                .unwrap();
        };
        until(&["api"]).await;
        cluster.put("web", &[up(1), up(2)]);
        until(&["api", "web"]).await;
        cluster.labels = json!({});
        cluster.put("api", &[up(9)]);
        until(&["web"]).await;
        stop.cancel();
        registry.ended().await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn labels_of_pods_come_along_and_their_refusal_holds_nothing_up() {
        let Some(roots) = roots("kubernetes-pods") else {
            return;
        };
        let mut cluster = Cluster::start(&roots, Setup::Token);
        cluster.pods = true;
        let pod = |version: &str| {
            let object = json!({"metadata": {"labels": {"version": version}},
                "spec": {"containers": [{"name": "web", "image": "web"}]}});
            applied(
                "/api/v1/namespaces/default/pods",
                "v1",
                "Pod",
                "web-a",
                object,
            )
        };
        cluster.admin.ask(&[pod("v1")], false);
        cluster.put("web", &[]);
        let reference = json!({"kind": "Pod", "namespace": "default", "name": "web-a"});
        let endpoint =
            json!([{"addresses": ["10.0.0.1"], "targetRef": reference, "nodeName": "n1"}]);
        let slice = cluster.slice("web", "web-1", "IPv4", &endpoint, 1);
        cluster.admin.ask(&[slice], false);
        let stop = CancellationToken::new();
        let registry = start(&[cluster.config("kubernetes/pods")], stop.clone());
        let mut views = registry.views();
        let mut until = async |status: &str, wanted: &str| {
            let seen = views.wait_for(|now| {
                let all = now.views.values().filter(|one| one.view.service == "web");
                let labels: Vec<_> = all
                    .flat_map(|one| &one.view.endpoints)
                    .map(|one| format!("{:?}", *one.labels))
                    .collect();
                labels == [wanted] && now.sources[0].status.as_str() == status
            });
            let seen = tokio::time::timeout(Duration::from_secs(20), seen).await;
            seen.unwrap_or_else(|_| panic!("{status} {wanted}: {:?}", registry.views().borrow()))
                .unwrap();
        };
        until("auth-failed", r#"{"node": "n1", "pod": "web-a"}"#).await;
        cluster.allow_pods();
        until(
            "synced",
            r#"{"node": "n1", "pod": "web-a", "version": "v1"}"#,
        )
        .await;
        cluster.admin.ask(&[pod("v2")], false);
        until(
            "synced",
            r#"{"node": "n1", "pod": "web-a", "version": "v2"}"#,
        )
        .await;
        stop.cancel();
        registry.ended().await;
    }

    /// From the moment before a write to its publication.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_write_is_published_soon() {
        let Some(roots) = roots("kubernetes-latency") else {
            return;
        };
        let mut cluster = Cluster::start(&roots, Setup::Plain);
        cluster.put("web", &[up(1)]);
        let stop = CancellationToken::new();
        let registry = start(&[cluster.config("kubernetes/latency")], stop.clone());
        let mut views = registry.views();
        let client = cluster.admin.client();
        let mut times = Vec::new();
        for round in 0..200_u16 {
            let wanted = format!("10.0.0.1:{}", 1_000 + round);
            let endpoint = json!([{"addresses": ["10.0.0.1"]}]);
            let slice = cluster.slice("web", "web-1", "IPv4", &endpoint, 1_000 + round);
            let began = Instant::now();
            let (method, path, body) = &slice;
            cluster.admin.one(&client, method, path, body, false).await;
            let seen = views.wait_for(|now| {
                let all = now.views.values().filter(|one| one.view.service == "web");
                all.flat_map(|one| &one.view.endpoints)
                    .any(|one| one.address == wanted)
            });
            tokio::time::timeout(Duration::from_secs(20), seen)
                .await
                .unwrap()
                .unwrap();
            times.push(began.elapsed());
        }
        times.sort();
        let (half, most, all) = (times[100], times[197], times[199]);
        let line = format!(
            "latency: kubernetes write to published p50 {half:.1?} p99 {most:.1?} max {all:.1?}\n"
        );
        let _unseen = std::io::stdout().lock().write_all(line.as_bytes());
        assert!(half < Duration::from_secs(1), "{line}");
        stop.cancel();
        registry.ended().await;
    }
}
