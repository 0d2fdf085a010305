//! Programs that print a credential (`exec` of a kubeconfig): run with a deadline, believed until they expire.
//!
//! Never: waits longer than the deadline, takes more than 1 MiB, or writes what was printed anywhere.

use std::{process::Stdio, time::Duration};

use serde::Deserialize;
use tokio::{io::AsyncReadExt, process::Command};

use super::kubeconfig::Plugin;

/// For one run; the program is ended then.
const DEADLINE: Duration = Duration::from_secs(20);
/// Most bytes that are read of what it prints.
const MAX: u64 = 1 << 20;

/// What the program said.
#[derive(Clone, Default)]
pub(crate) struct Credential {
    pub(crate) token: Option<String>,
    /// Certificate chain and key, as PEM.
    pub(crate) certificate: Option<(String, String)>,
    /// Milliseconds since the epoch; `None`: until it is refused.
    pub(crate) expires_ms: Option<u64>,
}

#[derive(Deserialize)]
struct Printed {
    kind: String,
    status: Option<Status>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    token: Option<String>,
    client_certificate_data: Option<String>,
    client_key_data: Option<String>,
    expiration_timestamp: Option<String>,
}

/// Runs the program once.
pub(crate) async fn run(plugin: &Plugin) -> Result<Credential, String> {
    let name = plugin.command.display();
    let mut spec = serde_json::json!({ "interactive": false });
    if let (Some(cluster), Some(spec)) = (&plugin.cluster, spec.as_object_mut()) {
        spec.insert("cluster".into(), cluster.clone());
    }
    let info = serde_json::json!({
        "apiVersion": plugin.version, "kind": "ExecCredential", "spec": spec,
    });
    let mut child = Command::new(&plugin.command)
        .args(&plugin.arguments)
        .envs(plugin.environment.iter().map(|(name, value)| (name, value)))
        .env("KUBERNETES_EXEC_INFO", info.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("{name} cannot be run: {error}"))?;
    let mut printed = Vec::new();
    let ran = async {
        if let Some(out) = child.stdout.take() {
            out.take(MAX).read_to_end(&mut printed).await?;
        }
        child.wait().await
    };
    let status = tokio::time::timeout(DEADLINE, ran)
        .await
        .map_err(|_late| format!("{name} did not end within {} s", DEADLINE.as_secs()))?
        .map_err(|error| format!("{name} cannot be read: {error}"))?;
    if !status.success() {
        return Err(format!("{name} failed: {status}"));
    }
    read(&printed).map_err(|what| format!("{name}: {what}"))
}

/// What the program printed. Errors never quote it.
fn read(printed: &[u8]) -> Result<Credential, String> {
    let printed: Printed = serde_json::from_slice(printed)
        .map_err(|_quotes| "it printed no ExecCredential".to_owned())?;
    let status = printed.status.filter(|_| printed.kind == "ExecCredential");
    let status = status.ok_or("it printed no ExecCredential with a status")?;
    let certificate = status.client_certificate_data.zip(status.client_key_data);
    let token = status.token.filter(|token| !token.is_empty());
    if token.is_none() && certificate.is_none() {
        return Err("it printed neither a token nor a certificate with its key".into());
    }
    let expires_ms = match status.expiration_timestamp {
        None => None,
        Some(text) => Some(moment_ms(&text).ok_or("its expirationTimestamp is no time")?),
    };
    Ok(Credential {
        token,
        certificate,
        expires_ms,
    })
}

/// `2026-11-21T09:00:00[.123](Z|+01:00)` (RFC 3339) in milliseconds since the epoch, whole seconds.
fn moment_ms(text: &str) -> Option<u64> {
    let number = |from: usize, to: usize| -> Option<i64> {
        let digits = text.get(from..to)?;
        digits
            .bytes()
            .all(|byte| byte.is_ascii_digit())
            .then(|| digits.parse().ok())?
    };
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let possible = (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60;
    if !possible || second > 60 {
        return None;
    }
    let rest = text
        .get(19..)?
        .trim_start_matches(|one: char| one == '.' || one.is_ascii_digit());
    let offset = match rest {
        "Z" | "z" => 0,
        _ => {
            let sign = if rest.starts_with('-') { -1 } else { 1 };
            let (hours, minutes) = rest.trim_start_matches(['+', '-']).split_once(':')?;
            sign * (hours.parse::<i64>().ok()? * 3600 + minutes.parse::<i64>().ok()? * 60)
        }
    };
    // Days since the epoch of a date of the Gregorian calendar, with years that begin in March.
    let (shifted, place) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days =
        365 * shifted + shifted / 4 - shifted / 100 + shifted / 400 + (153 * place + 2) / 5 + day
            - 1;
    let seconds = (days - 719_468) * 86_400 + hour * 3600 + minute * 60 + second - offset;
    u64::try_from(seconds).ok()?.checked_mul(1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::kubeconfig::Plugin;

    #[test]
    fn moments() {
        assert_eq!(moment_ms("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(moment_ms("2026-11-21T09:00:00Z"), Some(1_795_251_600_000));
        assert_eq!(
            moment_ms("2026-11-21T10:00:00.25+01:00"),
            Some(1_795_251_600_000)
        );
        assert_eq!(
            moment_ms("2024-02-29T00:00:00-00:30"),
            Some(1_709_166_600_000)
        );
        for broken in [
            "",
            "2026",
            "2026-13-01T00:00:00Z",
            "2026-11-21T09:00:00",
            "x026-11-21T09:00:00Z",
        ] {
            assert_eq!(moment_ms(broken), None, "{broken}");
        }
    }

    fn shell(text: &str) -> Plugin {
        Plugin {
            command: "sh".into(),
            arguments: vec!["-c".into(), text.into()],
            environment: vec![("WORD".into(), "said".into())],
            version: "client.authentication.k8s.io/v1".into(),
            cluster: None,
        }
    }

    #[tokio::test]
    async fn what_it_prints_is_read_and_never_quoted() {
        let good = r#"echo '{"kind":"ExecCredential","status":{"token":"'$WORD'","expirationTimestamp":"2026-11-21T09:00:00Z"}}'"#;
        let read = run(&shell(good)).await.unwrap_or_default();
        assert_eq!(read.token.as_deref(), Some("said"));
        assert_eq!(read.expires_ms, Some(1_795_251_600_000));
        for bad in [
            "echo my-secret",
            "exit 3",
            r#"echo '{"kind":"ExecCredential","status":{}}'"#,
        ] {
            let error = run(&shell(bad)).await.err().unwrap_or_default();
            assert!(!error.is_empty() && !error.contains("secret"), "{error}");
        }
        let missing = Plugin {
            command: "/nowhere/plugin".into(),
            ..shell("")
        };
        assert!(run(&missing).await.is_err());
    }
}
