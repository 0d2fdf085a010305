//! What a test needs of the machine. A need that is not met skips the test, and is counted by the line
//! that it prints; with `CI=true` it fails instead.

/// True when this process is root inside private namespaces made by `scripts/private.sh`.
pub fn private_namespaces() -> bool {
    std::env::var_os("MESH_PRIVATE").is_some_and(|value| value == "1")
}

/// True when this process may do what only the machine's root may (several user ids, nspawn).
pub fn real_root() -> bool {
    nix::unistd::geteuid().is_root()
        && std::fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| {
            map.split_whitespace()
                .nth(2)
                .is_some_and(|count| count.len() > 3)
        })
}

/// Says that a test is skipped and why; panics when skipping is not allowed.
#[expect(
    clippy::print_stderr,
    reason = "a skip in CI is a failure, and must be seen"
)]
pub fn skip(test: &str, why: &str) {
    assert!(
        std::env::var_os("CI").is_none_or(|ci| ci != "true"),
        "{test}: {why}"
    );
    eprintln!("SKIPPED {test}: {why}");
}

/// Returns from the test unless the need is met.
#[macro_export]
macro_rules! need {
    (namespaces) => {
        if !$crate::need::private_namespaces() {
            $crate::need::skip(module_path!(), "run it through scripts/private.sh");
            return;
        }
    };
    (peer $name:expr) => {
        if $crate::peers::folder($name).is_none() {
            $crate::need::skip(
                module_path!(),
                &format!("{} is not there: scripts/setup.sh test", $name),
            );
            return;
        }
    };
    (root) => {
        if !$crate::need::real_root() {
            $crate::need::skip(module_path!(), "it needs root");
            return;
        }
    };
}
