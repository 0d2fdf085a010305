//! Logins as kubectl writes them, and those that are refused.

use super::*;

const BOTH: &str = "
apiVersion: v1
kind: Config
current-context: lab
preferences: {}
clusters:
- name: lab
  cluster:
    server: https://10.0.0.1:6443/k8s/clusters/c-1
    certificate-authority-data: LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCg==
    tls-server-name: kubernetes.default
- name: other
  cluster: {server: 'https://other', certificate-authority: pki/ca.crt}
contexts:
- name: lab
  context: {cluster: lab, user: reader, namespace: x}
- name: files
  context: {cluster: other, user: files}
- name: plugin
  context: {cluster: lab, user: plugin}
- name: nobody
  context: {cluster: other, user: ''}
- name: broken
  context: {cluster: other, user: gone}
users:
- name: reader
  user:
    token: secret
    client-certificate-data: QQ==
    client-key-data: Qg==
- name: files
  user: {tokenFile: /run/token, token: unused, client-certificate: me.crt, client-key: /abs/me.key}
- name: plugin
  user:
    exec:
      apiVersion: client.authentication.k8s.io/v1
      command: bin/login
      args: [--cluster, lab]
      env: [{name: A, value: b}]
      interactiveMode: IfAvailable
      provideClusterInfo: true
";

fn at(context: Option<&str>) -> Result<Login, String> {
    read(BOTH, Path::new("/etc/k"), context)
}

#[test]
fn the_current_context_with_everything_inline() {
    let login = at(None).unwrap();
    assert_eq!(login.server, "https://10.0.0.1:6443/k8s/clusters/c-1");
    assert_eq!(login.server_name.as_deref(), Some("kubernetes.default"));
    assert!(matches!(login.ca, Some(Text::Inline(pem)) if pem.starts_with("-----BEGIN CERT")));
    assert!(matches!(login.who, Who::Token(token) if token == "secret"));
    let own = login.certificate.unwrap();
    assert!(matches!(own, (Text::Inline(a), Text::Inline(b)) if a == "A" && b == "B"));
}

#[test]
fn files_are_found_from_the_folder_and_go_before_a_token() {
    let login = at(Some("files")).unwrap();
    assert!(matches!(login.ca, Some(Text::File(path)) if path == Path::new("/etc/k/pki/ca.crt")));
    assert!(matches!(login.who, Who::TokenFile(path) if path == Path::new("/run/token")));
    let own = login.certificate.unwrap();
    assert!(
        matches!(own, (Text::File(a), Text::File(b)) if a == Path::new("/etc/k/me.crt") && b == Path::new("/abs/me.key"))
    );
}

#[test]
fn a_plugin_is_told_of_the_cluster() {
    let login = at(Some("plugin")).unwrap();
    let Who::Plugin(plugin) = login.who else {
        panic!("no plugin")
    };
    assert_eq!(plugin.command, Path::new("/etc/k/bin/login"));
    assert_eq!(plugin.arguments, ["--cluster", "lab"]);
    assert_eq!(plugin.environment, [("A".to_owned(), "b".to_owned())]);
    let told = plugin.cluster.unwrap();
    assert_eq!(told["server"], "https://10.0.0.1:6443/k8s/clusters/c-1");
    assert_eq!(told["tls-server-name"], "kubernetes.default");
    assert!(matches!(at(Some("nobody")).unwrap().who, Who::Certificate));
}

#[test]
fn what_cannot_work_says_what_to_change() {
    let refused = |text: &str| read(text, Path::new("/"), None).err().unwrap();
    assert!(
        at(Some("none"))
            .err()
            .unwrap()
            .contains("no context \"none\"")
    );
    assert!(
        at(Some("broken"))
            .err()
            .unwrap()
            .contains("no user \"gone\"")
    );
    assert!(refused("{}").contains("current-context"));
    let small = |cluster: &str, user: &str| {
        format!(
            "current-context: a\ncontexts: [{{name: a, context: {{cluster: c, user: u}}}}]\nclusters: [{{name: c, cluster: {{server: 'https://h', {cluster}}}}}]\nusers: [{{name: u, user: {{{user}}}}}]\n"
        )
    };
    for (cluster, user, word) in [
        (
            "insecure-skip-tls-verify: true",
            "",
            "certificate-authority",
        ),
        ("proxy-url: 'http://p'", "", "proxy-url"),
        ("", "auth-provider: {name: gcp}", "exec"),
        ("", "as: root", "as is not known"),
        ("", "client-certificate: a", "needs its key"),
        ("", "client-key-data: A", "base64"),
        (
            "",
            "exec: {command: x, apiVersion: client.authentication.k8s.io/v1alpha1}",
            "v1alpha1",
        ),
        (
            "",
            "exec: {command: x, apiVersion: client.authentication.k8s.io/v1, interactiveMode: Always}",
            "terminal",
        ),
    ] {
        let said = refused(&small(cluster, user));
        assert!(said.contains(word), "{said}");
    }
    let secret = refused("users: [{name: my-secret, user: {token: [my-secret]}}]");
    assert!(
        secret.contains("line 1") && !secret.contains("my-secret"),
        "{secret}"
    );
}
