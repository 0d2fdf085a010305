//! A kubeconfig's text to one login: pure.
//!
//! In: YAML, the folder that its paths start from, the context that is meant. Out: a server, roots, credentials.
//! Never: a login that does not check the server's certificate, or quotes of the file in an error.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use data_encoding::BASE64;
use serde::Deserialize;

/// How a server is reached, and as whom.
#[derive(Clone, Default)]
pub(crate) struct Login {
    /// `https://host:port[/path]`.
    pub(crate) server: String,
    /// The name that its certificate must have; `None`: the host.
    pub(crate) server_name: Option<String>,
    /// Roots; `None`: the system's.
    pub(crate) ca: Option<Text>,
    /// Certificate chain and key.
    pub(crate) certificate: Option<(Text, Text)>,
    pub(crate) who: Who,
}

/// PEM in the kubeconfig itself or in another file.
#[derive(Clone)]
pub(crate) enum Text {
    Inline(String),
    File(PathBuf),
}

/// Who is calling, beside a certificate.
#[derive(Clone, Default)]
pub(crate) enum Who {
    /// The certificate says it.
    #[default]
    Certificate,
    Token(String),
    TokenFile(PathBuf),
    Basic {
        user: String,
        password: String,
    },
    Plugin(Plugin),
}

/// A program that prints a credential.
#[derive(Clone)]
pub(crate) struct Plugin {
    pub(crate) command: PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) version: String,
    /// What it is told of the server, as JSON; `None`: nothing.
    pub(crate) cluster: Option<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct File {
    #[serde(default)]
    current_context: String,
    #[serde(default)]
    clusters: Option<Vec<NamedCluster>>,
    #[serde(default)]
    contexts: Option<Vec<NamedContext>>,
    #[serde(default)]
    users: Option<Vec<NamedUser>>,
}

#[derive(Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Deserialize, Clone)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: String,
    #[serde(default)]
    certificate_authority: Option<PathBuf>,
    #[serde(default)]
    certificate_authority_data: Option<String>,
    #[serde(default)]
    insecure_skip_tls_verify: bool,
    #[serde(default)]
    tls_server_name: Option<String>,
    #[serde(default)]
    proxy_url: Option<String>,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Deserialize)]
struct Context {
    cluster: String,
    #[serde(default)]
    user: String,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    #[serde(default)]
    user: Option<User>,
}

#[derive(Deserialize, Default, Clone)]
#[serde(rename_all = "kebab-case", default)]
struct User {
    client_certificate: Option<PathBuf>,
    client_certificate_data: Option<String>,
    client_key: Option<PathBuf>,
    client_key_data: Option<String>,
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<PathBuf>,
    username: Option<String>,
    password: Option<String>,
    exec: Option<Exec>,
    auth_provider: Option<serde_json::Value>,
    r#as: Option<String>,
}

#[derive(Deserialize, Clone)]
#[serde(rename_all = "camelCase")]
struct Exec {
    command: String,
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    args: Option<Vec<String>>,
    #[serde(default)]
    env: Option<Vec<Variable>>,
    #[serde(default)]
    interactive_mode: String,
    #[serde(default)]
    provide_cluster_info: bool,
}

#[derive(Deserialize, Clone)]
struct Variable {
    name: String,
    value: String,
}

/// The login of `context`, or of the file's current one. Errors say what to change.
pub(crate) fn read(text: &str, folder: &Path, context: Option<&str>) -> Result<Login, String> {
    let file = yaml(text)?;
    let name = context.unwrap_or(&file.current_context);
    if name.is_empty() {
        return Err("it has no current-context: set context".into());
    }
    let contexts = file.contexts.unwrap_or_default();
    let context = contexts
        .into_iter()
        .find(|one| one.name == name)
        .ok_or_else(|| format!("it has no context {name:?}"))?
        .context;
    let clusters = file.clusters.unwrap_or_default();
    let cluster = clusters
        .into_iter()
        .find(|one| one.name == context.cluster)
        .ok_or_else(|| format!("it has no cluster {:?}", context.cluster))?
        .cluster;
    let users = file.users.unwrap_or_default();
    let user = match users.into_iter().find(|one| one.name == context.user) {
        Some(user) => user.user.unwrap_or_default(),
        None if context.user.is_empty() => User::default(),
        None => return Err(format!("it has no user {:?}", context.user)),
    };
    login(cluster, user, folder)
}

fn yaml(text: &str) -> Result<File, String> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: 16,
            max_documents: 1,
            max_aliases: 100,
            max_anchors: 100,
        },
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        // The reader's sentence could quote a credential: only the place is told.
        let line = error.location().map_or(0, |at| at.line());
        format!("line {line} cannot be understood")
    })
}

fn login(cluster: Cluster, user: User, folder: &Path) -> Result<Login, String> {
    if cluster.insecure_skip_tls_verify {
        return Err(
            "insecure-skip-tls-verify is not done here: set certificate-authority, and tls-server-name where the name differs"
                .into(),
        );
    }
    if cluster
        .proxy_url
        .as_ref()
        .is_some_and(|url| !url.is_empty())
    {
        return Err("proxy-url is not known here: name a server that is reached directly".into());
    }
    if user.auth_provider.is_some() {
        return Err("auth-provider was removed from Kubernetes: use exec".into());
    }
    if user.r#as.is_some() {
        return Err("as is not known here: name a user with the rights themselves".into());
    }
    let certificate = text(
        user.client_certificate.clone(),
        user.client_certificate_data.clone(),
        folder,
    )?;
    let key = text(
        user.client_key.clone(),
        user.client_key_data.clone(),
        folder,
    )?;
    let certificate = match (certificate, key) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        _ => return Err("a client certificate needs its key, and a key its certificate".into()),
    };
    let info = user
        .exec
        .as_ref()
        .is_some_and(|exec| exec.provide_cluster_info);
    let info = info.then(|| told(&cluster));
    Ok(Login {
        ca: text(
            cluster.certificate_authority,
            cluster.certificate_authority_data,
            folder,
        )?,
        server: cluster.server,
        server_name: cluster.tls_server_name.filter(|name| !name.is_empty()),
        certificate,
        who: who(user, info, folder)?,
    })
}

/// The same order as Kubernetes' own clients: the plugin, a token's file, a token, a password.
fn who(user: User, cluster: Option<serde_json::Value>, folder: &Path) -> Result<Who, String> {
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    if let Some(exec) = user.exec {
        return plugin(exec, cluster, folder).map(Who::Plugin);
    }
    if let Some(path) = user.token_file {
        return Ok(Who::TokenFile(folder.join(path)));
    }
    if let Some(token) = given(user.token) {
        return Ok(Who::Token(token));
    }
    if let Some(name) = given(user.username) {
        let password = user.password.unwrap_or_default();
        return Ok(Who::Basic {
            user: name,
            password,
        });
    }
    Ok(Who::Certificate)
}

fn plugin(exec: Exec, cluster: Option<serde_json::Value>, folder: &Path) -> Result<Plugin, String> {
    let known = [
        "client.authentication.k8s.io/v1",
        "client.authentication.k8s.io/v1beta1",
    ];
    if !known.contains(&&*exec.api_version) {
        return Err(format!(
            "exec of version {:?} is not known: use {}",
            exec.api_version, known[0]
        ));
    }
    if exec.interactive_mode == "Always" {
        return Err("exec wants a terminal, and a daemon has none".into());
    }
    // A bare name is looked for in PATH, anything else starts at the file's folder.
    let command = if exec.command.contains('/') {
        folder.join(&exec.command)
    } else {
        PathBuf::from(&exec.command)
    };
    let environment = exec.env.unwrap_or_default();
    Ok(Plugin {
        command,
        arguments: exec.args.unwrap_or_default(),
        environment: environment
            .into_iter()
            .map(|one| (one.name, one.value))
            .collect(),
        version: exec.api_version,
        cluster,
    })
}

fn told(cluster: &Cluster) -> serde_json::Value {
    let mut told: BTreeMap<&str, &str> = BTreeMap::from([("server", &*cluster.server)]);
    if let Some(name) = &cluster.tls_server_name {
        told.insert("tls-server-name", name);
    }
    if let Some(roots) = &cluster.certificate_authority_data {
        told.insert("certificate-authority-data", roots);
    }
    serde_json::json!(told)
}

/// Data goes before a file.
fn text(
    file: Option<PathBuf>,
    data: Option<String>,
    folder: &Path,
) -> Result<Option<Text>, String> {
    if let Some(data) = data.filter(|data| !data.is_empty()) {
        let plain: String = data.split_ascii_whitespace().collect();
        let bytes = BASE64
            .decode(plain.as_bytes())
            .map_err(|_cause| "data is no base64".to_owned())?;
        let pem = String::from_utf8(bytes).map_err(|_cause| "data is no PEM".to_owned())?;
        return Ok(Some(Text::Inline(pem)));
    }
    let file = file.filter(|path| !path.as_os_str().is_empty());
    Ok(file.map(|path| Text::File(folder.join(path))))
}

#[cfg(test)]
#[path = "kubeconfig/tests.rs"]
mod tests;
