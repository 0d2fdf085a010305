//! Requests and answers between `meshctl` and `meshd`: JSON over HTTP/1.1 on the unix socket.
//!
//! Everybody who may open the socket (group `meshd`) may ask. `init`, `join`, `token`, `leave`,
//! `operator`, `bypass`, `enrol`, `adopt`, `reload`, `curl` and `backup` are for root and the daemon's own user, by the
//! kernel's word on the caller (`SO_PEERCRED`). Edits need an operator's signature, whoever sends them.
//!
//! | method and path | request | answer |
//! |---|---|---|
//! | `GET /v1/status` | | `Status` |
//! | `GET /v1/members` | | `Vec<Member>` |
//! | `GET /v1/services` | | `Vec<ServiceRow>` |
//! | `GET /v1/endpoints?service=NS/NAME` | | `Vec<EndpointRow>` |
//! | `GET /v1/operators` | | `Vec<Operator>` |
//! | `GET /v1/resources?kind=&namespace=&name=` | | `Vec<ResourceRow>` |
//! | `GET /v1/history?kind=&namespace=&name=&limit=` | | `Vec<HistoryRow>` newest first |
//! | `GET /v1/commits/{id or prefix}` | | `HistoryRow` |
//! | `POST /v1/validate` | `Validate` | `Validated` |
//! | `POST /v1/commits?dry_run=` | `SubmitCommit` | `CommitAccepted`; 409 `Conflict`; 422 `Vec<Finding>` |
//! | `GET /v1/converged?commits=N&fingerprint=` | | `Converged` |
//! | `GET /v1/check` | | `Vec<CheckRow>` |
//! | `POST /v1/explain` | `Explain` | `Explanation` |
//! | `GET /v1/why/{id}` | | `Why` |
//! | `POST /v1/curl` | `Curl` | `CurlAnswer` |
//! | `GET /v1/stat` | | `Vec<StatRow>` |
//! | `GET /v1/edges?over=MS` | | `live::Edges` of the whole mesh, counted over so long |
//! | `GET /v1/cost?source=&destination=&over=MS` | | `live::Cost` |
//! | `GET /v1/registry` | | `Vec<registry::SourceRow>` |
//! | `GET /v1/registry/views?source=&service=` | | `Vec<registry::ViewRow>` |
//! | `GET /v1/adopt` | | `adopt::Adoption` |
//! | `POST /v1/adopt/try` | `adopt::Try` | `{}` |
//! | `POST /v1/adopt/confirm` | `{}` | `{}`: what is tried is given up; its files were written before |
//! | `POST /v1/adopt/release` | `adopt::Release` | `{}` when every caller can know |
//! | `POST /v1/reload` | `{}` | `{}`; 422 `Refusal` |
//! | `POST /v1/tap` | `live::TapFilter` | stream of `live::TapRecord`, one JSON object a line |
//! | `POST /v1/init` | `Init` | `InitAnswer` |
//! | `POST /v1/join` | `Join` | stream of `JoinStep`, one JSON object a line |
//! | `POST /v1/token` | `CreateToken` | `Token` |
//! | `POST /v1/leave` | `Leave` | `{}` |
//! | `POST /v1/leave/dry-run` | `Leave` | `{}`, or why it is refused |
//! | `POST /v1/operator` | `AddOperator` | `Operator` with `grant` |
//! | `POST /v1/bypass`, `POST /v1/unbypass` | `{}` | `{}` |
//! | `POST /v1/enrol` | `Enrol` | `{}` |
//! | `GET /v1/enrol?unit=` | | `Enrolled` |
//! | `POST /v1/backup` | `{}` | `Backup` |
//!
//! Every refusal is `Refusal` with the matching HTTP status.

use serde::{Deserialize, Serialize};

use crate::{catalog::Liveness, commit::CommitId, endpoint::Health, finding::Finding};

/// Programs that could be services.
pub mod adopt;
/// What is seen of traffic while it runs.
pub mod live;
/// Discovery sources.
pub mod registry;

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Stable word for machines.
    pub code: String,
    /// What, and where.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

/// What the daemon is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the daemon.
    pub version: String,
    /// `idle`, `running`, `bypassed`, `draining`.
    pub phase: String,
    /// Milliseconds since the epoch.
    pub started_ms: u64,
    /// The mesh, once joined.
    pub mesh: Option<MeshStatus>,
    /// Generation of the snapshot that the proxy obeys; and the hash of its inputs.
    pub generation: u64,
    /// `mesh` or `off`.
    pub capture: String,
    /// Problems, worst first.
    pub findings: Vec<Finding>,
    /// Commands worth trying next, each with what it does.
    pub next: Vec<(String, String)>,
}

/// The mesh as this host sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeshStatus {
    /// Mesh id.
    pub id: String,
    /// Name for people.
    pub name: String,
    /// Trust domain.
    pub trust_domain: String,
    /// DNS domain.
    pub domain: String,
    /// This host's id.
    pub host: String,
    /// This host's name.
    pub host_name: String,
    /// True when this host holds an authority.
    pub authority: bool,
    /// True when the mesh was made strict.
    pub strict: bool,
    /// Hosts known, and of them alive.
    pub hosts: (usize, usize),
    /// Services known.
    pub services: usize,
    /// Commits known.
    pub commits: u64,
    /// Fingerprint of the commits known, hexadecimal.
    pub fingerprint: String,
    /// Hosts that have all commits that this one has.
    pub converged: usize,
}

/// A host of the mesh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Host id.
    pub id: String,
    /// Host name.
    pub name: String,
    /// Whether it answers.
    pub liveness: Liveness,
    /// True for this host.
    pub own: bool,
    /// True when it holds an authority.
    pub authority: bool,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// Its zone.
    pub zone: String,
    /// Its daemon's version.
    pub version: String,
    /// Number of services that it offers.
    pub services: usize,
    /// Commits that it has.
    pub commits: u64,
    /// Milliseconds since the epoch of its last head.
    pub lease_until_ms: u64,
}

/// A service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceRow {
    /// `namespace/name`.
    pub service: String,
    /// Ports, as `name:port/protocol`.
    pub ports: Vec<String>,
    /// Virtual addresses.
    pub virtual_addresses: Vec<String>,
    /// Endpoints that are routable, and all.
    pub endpoints: (usize, usize),
    /// Routes attached, `kind/namespace/name`.
    pub routes: Vec<String>,
    /// Where it comes from: `document`, `workload`, `registry`.
    pub origins: Vec<String>,
    /// True when an instance runs on this host.
    pub local: bool,
}

/// An endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointRow {
    /// `namespace/name`.
    pub service: String,
    /// Service port.
    pub port: u16,
    /// Endpoint id.
    pub id: String,
    /// Address of the program.
    pub address: String,
    /// `mtls`, `hbone`, `plain` or `local`.
    pub security: String,
    /// Its health by its host or source.
    pub health: Health,
    /// Whether this host would use it now, and why not.
    pub usable: bool,
    /// Reason when not usable; empty otherwise.
    pub reason: String,
    /// Host name.
    pub host: String,
    /// Labels.
    pub labels: std::collections::BTreeMap<String, String>,
}

/// An operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operator {
    /// Name.
    pub name: String,
    /// Ed25519 public key, hexadecimal.
    pub key: String,
    /// Namespaces it may write.
    pub namespaces: Vec<String>,
    /// Milliseconds since the epoch.
    pub not_after_ms: u64,
    /// True when revoked.
    pub revoked: bool,
    /// The signed grant (base64url of [`crate::grant::Signed`]).
    pub grant: String,
}

/// A resource.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResourceRow {
    /// The document as JSON, with `metadata.creationTimestamp`, `metadata.resourceVersion` and `status`.
    pub document: serde_json::Value,
    /// Revision.
    pub revision: CommitId,
    /// Author of the revision.
    pub author: String,
    /// Milliseconds since the epoch.
    pub changed_ms: u64,
    /// Revisions that were made on the same base and are not merged.
    pub conflicts: Vec<CommitId>,
    /// When it undoes itself unless confirmed; 0: never.
    pub confirm_by_ms: u64,
}

/// A change in history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HistoryChange {
    /// Kind.
    pub kind: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// `put`, `delete`, `confirm`.
    pub op: String,
    /// Revisions that it was based on.
    pub bases: Vec<CommitId>,
    /// The document, for `put`.
    pub document: Option<serde_json::Value>,
}

/// A commit in history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HistoryRow {
    /// Id.
    pub id: CommitId,
    /// Author.
    pub author: String,
    /// Why.
    pub reason: String,
    /// Milliseconds since the epoch.
    pub time_ms: u64,
    /// `effective`, `superseded`, `tentative`, `reverted`, `conflict`, `void`.
    pub state: String,
    /// When it undoes itself unless confirmed; 0: never.
    pub confirm_by_ms: u64,
    /// What it changed.
    pub changes: Vec<HistoryChange>,
}

/// Documents to be checked against this host's view: schema, references, compile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Validate {
    /// YAML or JSON text.
    pub text: String,
    /// File name for messages.
    pub origin: String,
}

/// The result of a check.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Validated {
    /// Problems; an error among them means it would be refused.
    pub findings: Vec<Finding>,
    /// For each document: key, current revision if it exists, current and new JSON, what would happen.
    pub plan: Vec<PlannedChange>,
}

/// What applying a document would do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedChange {
    /// Kind.
    pub kind: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// `create`, `change`, `unchanged`.
    pub what: String,
    /// Revision in force.
    pub revision: Option<CommitId>,
    /// Document in force.
    pub current: Option<serde_json::Value>,
    /// The new document.
    pub new: serde_json::Value,
}

/// A signed commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubmitCommit {
    /// base64url of [`crate::grant::Signed`] over a [`crate::commit::Commit`].
    pub commit: String,
}

/// A commit that was stored (fsynced here) and is being spread.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitAccepted {
    /// Its id.
    pub id: CommitId,
    /// Commits known here now.
    pub commits: u64,
    /// Fingerprint of them: ask `converged` for it.
    pub fingerprint: String,
    /// Warnings.
    pub findings: Vec<Finding>,
}

/// An edit on a stale base.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Conflict {
    /// Code, what, remedy.
    pub refusal: Refusal,
    /// The resources that have moved on, each with the document in force and its revision and author.
    pub current: Vec<ResourceRow>,
}

/// Which hosts have at least these commits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Converged {
    /// Hosts that count: alive.
    pub hosts: usize,
    /// Of them, those that have it.
    pub have: usize,
    /// Names of the others.
    pub lagging: Vec<String>,
}

/// One line of `meshctl check`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckRow {
    /// Heading, such as `certificates`.
    pub section: String,
    /// `ok`, `warning`, `error`.
    pub state: String,
    /// What was checked and what was seen.
    pub what: String,
    /// What to do; empty when ok.
    pub remedy: String,
}

/// What would happen to this request?
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Explain {
    /// Calling service; the host itself when empty.
    pub from: String,
    /// Method.
    pub method: String,
    /// URL.
    pub url: String,
    /// Headers.
    pub headers: Vec<(String, String)>,
}

/// The answer, step by step.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Explanation {
    /// Steps in order.
    pub steps: Vec<ExplainStep>,
}

/// One step of an explanation.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ExplainStep {
    /// `caller`, `capture`, `name`, `route`, `fault`, `persistence`, `filter`, `mirror`, `backend`, `policy`, `endpoint`,
    /// `tls`, `far-policy`, `far-limit`, `far-target`.
    pub step: String,
    /// Host that decides it.
    pub host: String,
    /// What happens.
    pub what: String,
    /// Because of which fact: rule, resource with revision and author, record.
    pub because: String,
    /// `ok`, `warning`, `refused`.
    pub state: String,
}

/// What did happen to a request.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Why {
    /// The id.
    pub id: String,
    /// Records of every host that has any, in time order.
    pub records: Vec<FailureRecord>,
    /// Hosts that could not be asked.
    pub silent: Vec<String>,
}

/// What one host knows of a failed request.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FailureRecord {
    /// The id.
    pub id: String,
    /// Host name.
    pub host: String,
    /// `outbound` or `inbound`.
    pub side: String,
    /// Milliseconds since the epoch.
    pub time_ms: u64,
    /// Documented error code; empty when the answer was the application's own.
    pub code: String,
    /// Status sent to the caller; 0 for opaque connections.
    pub status: u16,
    /// Calling identity or address.
    pub source: String,
    /// Destination service and port.
    pub destination: String,
    /// Method and path without its query; empty for opaque connections.
    pub request: String,
    /// Route with revision.
    pub route: String,
    /// Each try: endpoint, host, what happened, duration.
    pub attempts: Vec<String>,
    /// The cause in words.
    pub what: String,
    /// What to do.
    pub remedy: String,
    /// Microseconds from first byte to the end.
    pub duration_us: u64,
}

/// One call as a local service.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Curl {
    /// The service to call as; the host when empty.
    pub from: String,
    /// Method.
    pub method: String,
    /// URL, `http://…`.
    pub url: String,
    /// Headers.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: String,
}

/// The answer and how it came about.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CurlAnswer {
    /// Status.
    pub status: u16,
    /// Headers.
    pub headers: Vec<(String, String)>,
    /// Body, at most 1 MiB of it, invalid UTF-8 replaced.
    pub body: String,
    /// Endpoint that answered.
    pub endpoint: String,
    /// Identity that it presented; empty for plaintext.
    pub peer: String,
    /// Route with revision.
    pub route: String,
    /// Microseconds in the mesh (total less upstream wait).
    pub mesh_us: u64,
    /// Microseconds in all.
    pub total_us: u64,
}

/// One row of `meshctl stat`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatRow {
    /// Source label.
    pub source: String,
    /// Destination service.
    pub destination: String,
    /// Route name; empty for none.
    pub route: String,
    /// Requests since start.
    pub requests: u64,
    /// Of them successful.
    pub successes: u64,
    /// Retries.
    pub retries: u64,
    /// Median, microseconds.
    pub p50_us: u64,
    /// 99th percentile, microseconds.
    pub p99_us: u64,
}

/// Make a mesh.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Init {
    /// Name for people.
    pub mesh_name: String,
    /// Trust domain.
    pub trust_domain: String,
    /// DNS domain.
    pub domain: String,
    /// STRICT mTLS, deny unless allowed.
    pub strict: bool,
    /// Seconds; 86400 unless set; at least 60.
    pub leaf_ttl_secs: u64,
    /// Name of the first operator.
    pub operator: String,
    /// Its Ed25519 public key, hexadecimal.
    pub operator_key: String,
}

/// What `init` made.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct InitAnswer {
    /// Mesh id.
    pub mesh_id: String,
    /// Host id.
    pub host_id: String,
    /// The operator's signed grant (base64url of [`crate::grant::Signed`]).
    pub operator_grant: String,
}

/// Join a mesh.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Join {
    /// The token.
    pub token: String,
    /// Accept that this state directory belonged to another machine: throw its identity away.
    pub fresh: bool,
}

/// Progress of a join. The last one has `done` or `error` set.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct JoinStep {
    /// What was done or tried.
    pub what: String,
    /// `ok`, `warning`, `error`.
    pub state: String,
    /// What to do; empty when ok.
    pub remedy: String,
    /// True on the last step of a join that worked.
    pub done: bool,
    /// Stable code when it failed.
    pub error: String,
}

/// Make a join token.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CreateToken {
    /// Seconds; 3600 unless set; at most a week.
    pub ttl_secs: u64,
    /// How many hosts may use it; 1 unless set.
    pub uses: u32,
    /// The joiner becomes an authority.
    pub authority: bool,
    /// Services that joiners may register; `*` unless set.
    pub services: Vec<String>,
}

/// A join token.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Token {
    /// `meshd1.…`: a secret.
    pub token: String,
    /// Milliseconds since the epoch.
    pub expires_ms: u64,
}

/// Leave the mesh.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Leave {
    /// Leave although this host holds the root or is the last authority.
    pub force: bool,
}

/// Certify an operator's key.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AddOperator {
    /// Name.
    pub name: String,
    /// Ed25519 public key, hexadecimal.
    pub key: String,
    /// Namespaces; `*` unless set.
    pub namespaces: Vec<String>,
    /// Seconds; a year unless set.
    pub ttl_secs: u64,
}

/// Bind a unit's cgroup to its service before its first process starts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Enrol {
    /// systemd unit.
    pub unit: String,
    /// Path of its cgroup under the v2 root.
    pub cgroup: String,
}

/// What a unit is recognised as.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Enrolled {
    /// Services whose settings name the unit, or an instance of it when it is a template: `namespace/name`, in order.
    pub services: Vec<String>,
}

/// Everything that an authority needs to be restored elsewhere: a secret.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Backup {
    /// File name and base64url content, keys included.
    pub files: Vec<(String, String)>,
}
