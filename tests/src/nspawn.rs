//! A machine with a real systemd as process 1: a Debian root, copied, changed, booted by systemd-nspawn.
//!
//! The root is made once by debootstrap and kept under `~/.cache/meshd-peers`, keyed by what is in it. The
//! machine has no network but its own, and leaves nothing behind: no cgroup, no mount, no file in `/run`.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};

use crate::process::Child;

const SUITE: &str = "bookworm";

/// What the root holds beside the essential packages: what the package under test needs, and what
/// the tests ask with.
const PACKAGES: &str = "systemd,systemd-sysv,systemd-resolved,dbus,nftables,iproute2,procps,\
    ca-certificates,curl,python3";

/// Runs inside private mounts, with `/run` of its own; the machine's cgroups go away with it.
/// Arguments: the root, the machine's name.
const LAUNCH: &str = r#"
set -u
root="$1" name="$2"
mount -t tmpfs tmpfs /run || exit 90
here() { sed -n "s,^$1,,p" /proc/self/cgroup | head -n 1; }
made=()
enter() {
    [ -e "$1/cgroup.procs" ] || return 0
    local old="$1$2" new="$1${2%/}/mesh-$name"
    mkdir "$new" && echo $BASHPID >"$new/cgroup.procs" && made+=("$old" "$new")
}
for tree in /sys/fs/cgroup/unified /sys/fs/cgroup; do
    if [ -e "$tree/cgroup.procs" ] && [ -e "$tree/cgroup.controllers" ]; then enter "$tree" "$(here '0::')"; break; fi
done
enter /sys/fs/cgroup/systemd "$(here '[0-9]*:name=systemd:')"
SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 systemd-nspawn --quiet --register=no --keep-unit --private-network \
    --machine="$name" --directory="$root" --boot --console=pipe </dev/null
code=$?
for ((i = 0; i < ${#made[@]}; i += 2)); do
    echo $BASHPID >"${made[i]}/cgroup.procs"
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        find "${made[i + 1]}" -depth -type d -exec rmdir {} + 2>/dev/null
        [ -d "${made[i + 1]}" ] || break
        sleep 0.2
    done
done
exit $code
"#;

/// The unit that runs the test's script and turns the machine off, whatever comes of it.
const UNIT: &str = "[Unit]\nDescription=The test\nAfter=multi-user.target\n\
    [Service]\nType=oneshot\nExecStart=-/bin/bash /test/script\n\
    ExecStopPost=/bin/systemctl poweroff --no-block\nStandardOutput=append:/test/log\nStandardError=append:/test/log\n\
    TimeoutStartSec=600\n";

/// Functions for scripts: `step NAME COMMAND…` writes `ok` for the name, or what went wrong, to the results, `must`
/// also ends the script when it went wrong; `soon SECONDS COMMAND…` asks until it succeeds.
const PRELUDE: &str = r#"
export LC_ALL=C.UTF-8 HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive
cd /test
step() {
    local name="$1" out code; shift
    out=$("$@" 2>&1); code=$?
    if [ $code = 0 ]; then fact "$name" ok
    else fact "$name" "failed ($code): $(tr '\n' '~' <<<"$out" | cut -c 1-1500)"; fi
}
must() { step "$@"; tail -n 1 /test/results | grep -q $'\tok$' || exit; }
fact() { printf '%s\t%s\n' "$1" "$2" >>/test/results; }
soon() {
    local end=$((SECONDS + $1)) out code; shift
    while :; do
        out=$("$@" 2>&1); code=$?
        [ $code = 0 ] && { echo "$out"; return 0; }
        [ $SECONDS -ge $end ] && { echo "$out"; return $code; }
        sleep 0.1
    done
}
"#;

/// A machine that is off between [`Machine::run`]s.
#[derive(Debug)]
pub struct Machine {
    folder: tempfile::TempDir,
    name: String,
}

/// What a script said.
#[derive(Debug)]
pub struct Results {
    /// What was written for each name.
    pub lines: BTreeMap<String, String>,
    /// Everything that the script printed, and the machine's journal of meshd.
    pub log: String,
}

impl Machine {
    /// A machine with a fresh copy of the root.
    pub fn new(name: &str) -> anyhow::Result<Self> {
        let image = image()?;
        let folder = tempfile::Builder::new()
            .prefix("mesh-machine-")
            .tempdir_in("/var/tmp")?;
        let copy = folder.path().join("root");
        finished(
            Command::new("cp")
                .args(["-a", "--reflink=auto"])
                .arg(&image)
                .arg(&copy),
        )?;
        let machine = Self {
            name: format!("{name}-{}", std::process::id()),
            folder,
        };
        machine.write("etc/systemd/system/mesh-test.service", UNIT)?;
        let wants = copy.join("etc/systemd/system/multi-user.target.wants");
        std::fs::create_dir_all(&wants)?;
        std::os::unix::fs::symlink("../mesh-test.service", wants.join("mesh-test.service"))?;
        // The journal survives the machine, so that a failure can be read.
        std::fs::create_dir_all(copy.join("var/log/journal"))?;
        Ok(machine)
    }

    /// The machine's root.
    pub fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    /// Writes a file of the machine.
    pub fn write(&self, path: &str, text: &str) -> anyhow::Result<()> {
        let path = self.root().join(path);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(&path, text).with_context(|| path.display().to_string())
    }

    /// Boots, runs `script` (bash, with the prelude), and waits until the machine is off.
    pub fn run(&self, script: &str, limit: Duration) -> anyhow::Result<Results> {
        self.write(
            "test/script",
            &format!("{PRELUDE}\n(\n{script}\n)\n{EPILOGUE}"),
        )?;
        self.write("test/results", "")?;
        let console = self.folder.path().join("console");
        let mut command = Command::new("unshare");
        command.args([
            "--mount",
            "--propagation",
            "private",
            "--fork",
            "--kill-child",
            "--",
        ]);
        command
            .args(["bash", "-c", LAUNCH, "launch"])
            .arg(self.root())
            .arg(&self.name);
        let began = Instant::now();
        let mut child = Child::start("systemd-nspawn", &mut command, &console)?;
        let ended = child.wait(limit);
        drop(child);
        let read = |path: &Path| {
            String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
        };
        let results = read(&self.root().join("test/results"));
        let log = read(&self.root().join("test/log"));
        match ended {
            Ok(status) if results.contains("script\tend") && status.success() => {}
            Ok(status) => bail!(
                "the machine ended with {status} after {:?}\n{results}\n{log}\n{}",
                began.elapsed(),
                read(&console)
            ),
            Err(error) => bail!("{error:#}\n{results}\n{log}\n{}", read(&console)),
        }
        let lines = results
            .lines()
            .filter_map(|line| line.split_once('\t'))
            .map(|(name, text)| (name.to_owned(), text.to_owned()))
            .collect();
        Ok(Results { lines, log })
    }
}

const EPILOGUE: &str = r"
journalctl --no-pager -o short-monotonic -u meshd.service -u meshd-names.service | tail -n 200
fact script end
";

/// The cached root; made when it is not there.
fn image() -> anyhow::Result<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))
        .context("neither XDG_CACHE_HOME nor HOME is set")?
        .join("meshd-peers");
    std::fs::create_dir_all(&cache)?;
    let root = cache.join(format!(
        "root-{SUITE}-{:016x}",
        key(&format!("{SUITE} {PACKAGES}"))
    ));
    if root.join("usr/bin/systemctl").is_file() {
        return Ok(root);
    }
    let growing = cache.join(format!("root-{SUITE}.{}", std::process::id()));
    let include = format!("--include={PACKAGES}");
    let mut debootstrap = Command::new("debootstrap");
    debootstrap
        .args(["--variant=minbase", &include, SUITE])
        .arg(&growing);
    let made = finished(&mut debootstrap);
    // What is only there to save downloads would be copied for each machine.
    drop(std::fs::remove_dir_all(
        growing.join("var/cache/apt/archives"),
    ));
    let kept = made.and_then(|()| Ok(std::fs::rename(&growing, &root)?));
    if let Err(error) = kept {
        drop(std::fs::remove_dir_all(&growing));
        // Somebody else may have made it at the same time.
        if !root.join("usr/bin/systemctl").is_file() {
            return Err(error);
        }
    }
    Ok(root)
}

/// FNV-1a: the name of the cached root changes with what is in it.
fn key(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Runs a program to its end; what it said when it failed.
pub fn finished(command: &mut Command) -> anyhow::Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let words: Vec<String> = command
        .get_args()
        .map(OsStr::to_string_lossy)
        .map(std::borrow::Cow::into_owned)
        .collect();
    let output = command
        .output()
        .with_context(|| format!("cannot start {name}"))?;
    if !output.status.success() {
        bail!(
            "{name} {}: {}\n{}{}",
            words.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_list_is_another_root() {
        assert_eq!(key(""), 0xcbf2_9ce4_8422_2325);
        assert_ne!(key("bookworm a"), key("bookworm a,b"));
    }
}
