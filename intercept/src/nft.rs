//! The `nft` program: the child that owns our table, and one-shot commands.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, ChildStderr, ChildStdin, Command},
    time::{Instant, sleep, timeout},
};

/// Where `nft` is looked for when it is not in `PATH`: daemons often lack the `sbin` directories.
const PLACES: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/local/sbin"];
/// Time for one transaction, and for one listing.
const LIMIT: Duration = Duration::from_secs(10);
/// The most error text that is kept.
const MAX_ERROR: usize = 4096;

/// A failed `nft` command.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NftError {
    /// No program.
    #[error("nft is not installed")]
    Missing,
    /// It cannot be started or talked to.
    #[error("nft cannot be run")]
    Run(#[source] io::Error),
    /// It refused; nothing changed.
    #[error("nft refused: {text}")]
    Refused {
        /// What it said, shortened.
        text: String,
    },
    /// It did not answer in time.
    #[error("nft did not answer in {} s", LIMIT.as_secs())]
    Slow,
    /// The child that owns the table has ended.
    #[error("the nft that owns the table has ended")]
    Ended,
}

/// The program.
#[derive(Debug, Clone)]
pub(crate) struct Nft {
    program: PathBuf,
}

impl Nft {
    /// The given program, or the one in `PATH` and the usual places.
    pub(crate) fn find(given: Option<&Path>) -> Result<Self, NftError> {
        if let Some(program) = given {
            return Ok(Self {
                program: program.to_owned(),
            });
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path)
            .chain(PLACES.iter().map(PathBuf::from))
            .map(|folder| folder.join("nft"))
            .find(|program| program.is_file())
            .map(|program| Self { program })
            .ok_or(NftError::Missing)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        // Its own group: Ctrl-C on a terminal must not take the table away before the drain.
        command
            .env("LC_ALL", "C")
            .env("HOME", "/nonexistent")
            .process_group(0)
            .kill_on_drop(true);
        command
    }

    /// Runs one command to its end and yields its standard output.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Result<String, NftError> {
        let mut command = self.command();
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let output = timeout(LIMIT, command.output())
            .await
            .map_err(|_elapsed| NftError::Slow)?
            .map_err(NftError::Run)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(NftError::Refused {
            text: shortened(&output.stderr),
        })
    }

    /// Names of our family's tables.
    pub(crate) async fn tables(&self) -> Result<Vec<String>, NftError> {
        let listing = self.run(&["-j", "list", "tables"]).await?;
        Ok(objects(&listing)
            .iter()
            .filter_map(|object| object.get("table"))
            .filter(|table| table.get("family").and_then(Value::as_str) == Some("inet"))
            .filter_map(|table| Some(table.get("name")?.as_str()?.to_owned()))
            .collect())
    }

    /// The version that a table carries; none when there is no such table.
    pub(crate) async fn version_of(&self, table: &str) -> Result<Option<u32>, NftError> {
        let listing = match self
            .run(&["-j", "list", "set", "inet", table, "version"])
            .await
        {
            Ok(listing) => listing,
            Err(NftError::Refused { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(objects(&listing)
            .iter()
            .filter_map(|object| object.get("set")?.get("elem")?.get(0)?.as_u64())
            .find_map(|version| u32::try_from(version).ok()))
    }

    /// A hash of all that a table holds, without handles; none when there is no such table.
    pub(crate) async fn fingerprint(&self, table: &str) -> Result<Option<u64>, NftError> {
        let listing = match self.run(&["-j", "list", "table", "inet", table]).await {
            Ok(listing) => listing,
            Err(NftError::Refused { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut hasher = DefaultHasher::new();
        for mut object in objects(&listing) {
            settle(&mut object);
            object.to_string().hash(&mut hasher);
        }
        Ok(Some(hasher.finish()))
    }

    /// Removes a table; true when it was there.
    pub(crate) async fn delete_table(&self, table: &str) -> Result<bool, NftError> {
        if !self.stands(table).await? {
            return Ok(false);
        }
        match self.run(&["delete", "table", "inet", table]).await {
            Ok(_output) => Ok(true),
            // A daemon that sees the same bypass marker may be faster.
            Err(NftError::Refused { .. }) if !self.stands(table).await? => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn stands(&self, table: &str) -> Result<bool, NftError> {
        Ok(self.tables().await?.iter().any(|name| name == table))
    }
}

/// The child that owns the table: when its standard input ends, it ends, and the table with it.
#[derive(Debug)]
pub(crate) struct Owner {
    child: Child,
    input: ChildStdin,
    errors: ChildStderr,
}

impl Owner {
    pub(crate) fn start(nft: &Nft) -> Result<Self, NftError> {
        let mut command = nft.command();
        command
            .arg("-i")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().map_err(NftError::Run)?;
        match (child.stdin.take(), child.stderr.take()) {
            (Some(input), Some(errors)) => Ok(Self {
                child,
                input,
                errors,
            }),
            _ => Err(NftError::Ended),
        }
    }

    /// True while it runs.
    pub(crate) fn alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self) {
        if let Err(error) = self.child.wait().await {
            tracing::debug!(%error, "the nft that owns the table cannot be waited for");
        }
    }

    /// Runs the transaction in `file`; done when `table` carries `version`.
    pub(crate) async fn submit(
        &mut self,
        nft: &Nft,
        file: &Path,
        (table, version): (&str, u32),
    ) -> Result<(), NftError> {
        let line = format!("include \"{}\"\n", file.display());
        self.input
            .write_all(line.as_bytes())
            .await
            .map_err(|_closed| NftError::Ended)?;
        self.input
            .flush()
            .await
            .map_err(|_closed| NftError::Ended)?;
        let deadline = Instant::now() + LIMIT;
        let mut pause = Duration::from_millis(2);
        loop {
            if let Some(text) = self.complaint(pause).await? {
                return Err(NftError::Refused { text });
            }
            if nft.version_of(table).await? == Some(version) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(NftError::Slow);
            }
            pause = (pause * 2).min(Duration::from_millis(100));
        }
    }

    /// What the child says within `pause`. Its standard error is not buffered and is empty when all is well.
    async fn complaint(&mut self, pause: Duration) -> Result<Option<String>, NftError> {
        let mut text = Vec::new();
        let mut chunk = [0_u8; 1024];
        let mut patience = pause;
        while let Ok(read) = timeout(patience, self.errors.read(&mut chunk)).await {
            let read = read.map_err(NftError::Run)?;
            if read == 0 {
                return Err(NftError::Ended);
            }
            text.extend(chunk.iter().take(read));
            if text.len() > MAX_ERROR {
                break;
            }
            // A complaint comes in several writes.
            patience = Duration::from_millis(30);
        }
        Ok((!text.is_empty()).then(|| shortened(&text)))
    }

    /// Ends it; the table is gone when this returns.
    pub(crate) async fn close(mut self) {
        drop(self.input);
        if timeout(Duration::from_secs(1), self.child.wait())
            .await
            .is_err()
            && let Err(error) = self.child.kill().await
        {
            tracing::warn!(%error, "the nft that owns the table cannot be ended");
        }
    }
}

/// Waits until `table` is gone: the child of a daemon that has just died ends a moment after it.
pub(crate) async fn gone(nft: &Nft, table: &str, patience: Duration) -> Result<bool, NftError> {
    let deadline = Instant::now() + patience;
    while nft.tables().await?.iter().any(|name| name == table) {
        if Instant::now() > deadline {
            return Ok(false);
        }
        sleep(Duration::from_millis(20)).await;
    }
    Ok(true)
}

fn objects(listing: &str) -> Vec<Value> {
    let parsed: Value = serde_json::from_str(listing).unwrap_or(Value::Null);
    match parsed.get("nftables") {
        Some(Value::Array(objects)) => objects
            .iter()
            .filter(|object| object.get("metainfo").is_none())
            .cloned()
            .collect(),
        _ => Vec::new(),
    }
}

/// Takes out what says nothing: handles, and the order of a set's elements.
fn settle(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.remove("handle");
            for (key, inner) in map.iter_mut() {
                settle(inner);
                if key == "elem"
                    && let Value::Array(list) = inner
                {
                    list.sort_by_cached_key(Value::to_string);
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(settle),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn shortened(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut joined = words.join(" ");
    if let Some((end, _)) = joined.char_indices().nth(400) {
        joined.truncate(end);
    }
    joined
}
