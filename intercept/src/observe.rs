//! What is really in the kernel, and whose foreign rules are in the way: lines for `meshctl check`.

use std::fs;

use mesh_model::{
    config::{Boot, Capture, Mark},
    finding::{Finding, Severity},
};

use crate::{
    apply::Settings,
    bypass,
    intent::reply_mark,
    nft::{Nft, NftError},
    routes::{Routes, mark as mark_of, priority, rule_table},
    rules,
};

/// What interception needs from a process: `CAP_NET_ADMIN`, for rules, routes, marks and transparent sockets.
const NET_ADMIN: u32 = 12;
/// The oldest nft that the rules were tried with.
const OLDEST_NFT: (u32, u32) = (1, 0);

/// Everything that is, or will be, in the way; empty when all is well.
pub async fn findings(settings: &Settings, mark: Mark) -> Vec<Finding> {
    let mut findings = Vec::new();
    capabilities(&mut findings);
    program(&mut findings, settings).await;
    rules_in_the_way(&mut findings, settings, mark).await;
    if bypass::active(&settings.state_dir) {
        findings.push(Finding::new(
            "intercept-bypass",
            Severity::Warning,
            bypass::marker(&settings.state_dir).display().to_string(),
            "bypass is on: nothing is intercepted",
            "run `meshctl unbypass`",
        ));
    }
    findings
}

/// The same for a daemon with this configuration; empty when it does not capture.
pub async fn environment(boot: &Boot) -> Vec<Finding> {
    if boot.capture == Capture::Off {
        return Vec::new();
    }
    findings(&Settings::from_boot(boot), boot.mark).await
}

/// Whether our two tables are in the kernel: the owner's, the fallback's.
pub async fn tables(settings: &Settings) -> (bool, bool) {
    missing(settings)
        .await
        .map_or((false, false), |missing| (!missing.0, !missing.1))
}

/// The tables that a daemon with this configuration keeps in the kernel while it captures, and that are not there.
pub async fn missing_tables(boot: &Boot) -> Result<Vec<&'static str>, NftError> {
    let (owner, fallback) = missing(&Settings::from_boot(boot)).await?;
    let lost = [(owner, rules::OWNER), (fallback, rules::FALLBACK)];
    Ok(lost
        .into_iter()
        .filter_map(|(lost, name)| lost.then_some(name))
        .collect())
}

async fn missing(settings: &Settings) -> Result<(bool, bool), NftError> {
    let present = Nft::find(settings.nft.as_deref())?.tables().await?;
    let lacks = |wanted: &str| present.iter().all(|name| name != wanted);
    Ok((lacks(rules::OWNER), lacks(rules::FALLBACK)))
}

fn capabilities(findings: &mut Vec<Finding>) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    if effective_capabilities(&status) & (1_u64 << NET_ADMIN) == 0 {
        findings.push(Finding::new(
            "intercept-capability",
            Severity::Error,
            "meshd",
            "it runs without CAP_NET_ADMIN",
            "give its unit AmbientCapabilities=CAP_NET_ADMIN, or switch capture off",
        ));
    }
}

fn effective_capabilities(status: &str) -> u64 {
    status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|value| u64::from_str_radix(value.trim(), 16).ok())
        .unwrap_or(0)
}

async fn program(findings: &mut Vec<Finding>, settings: &Settings) {
    let said = match Nft::find(settings.nft.as_deref()) {
        Ok(nft) => nft.run(&["--version"]).await,
        Err(error) => Err(error),
    };
    let (what, remedy) = match said {
        Ok(text) => match version(&text) {
            Some(version) if version >= OLDEST_NFT => return,
            Some((major, minor)) => (
                format!("version {major}.{minor} is too old"),
                "install nftables 1.0 or newer",
            ),
            None => return,
        },
        Err(error) => (error.to_string(), "run `apt install nftables`"),
    };
    findings.push(Finding::new(
        "intercept-nft",
        Severity::Error,
        "nft",
        what,
        remedy,
    ));
}

/// `nftables v1.0.6 (…)`.
fn version(text: &str) -> Option<(u32, u32)> {
    let word = text
        .split_whitespace()
        .find_map(|word| word.strip_prefix('v'))?;
    let mut parts = word.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

async fn rules_in_the_way(findings: &mut Vec<Finding>, settings: &Settings, mark: Mark) {
    let Ok(routes) = Routes::open() else { return };
    for v6 in [false, true] {
        for rule in routes.rules(v6).await.unwrap_or_default() {
            let (table, marked) = (rule_table(&rule), mark_of(&rule));
            let ours = table == settings.table
                && priority(&rule) == Some(settings.table)
                && marked == reply_mark(mark).map(|reply| (reply, mark.mask));
            if ours {
                continue;
            }
            let subject = format!(
                "ip{} rule priority {}",
                if v6 { " -6" } else { "" },
                priority(&rule).unwrap_or(0)
            );
            findings.extend(in_the_way(subject, table, marked, settings, mark));
        }
    }
}

fn in_the_way(
    subject: String,
    table: u32,
    marked: Option<(u32, u32)>,
    settings: &Settings,
    own: Mark,
) -> Option<Finding> {
    let what = match marked {
        _ if table == settings.table => {
            format!("it leads to table {table}, which is ours")
        }
        Some((value, mask)) if mask & own.mask != 0 && mask != u32::MAX => {
            format!(
                "its mark {value:#x}/{mask:#x} uses bits of ours, {:#x}",
                own.mask
            )
        }
        Some((value, u32::MAX)) if value & own.mask != 0 => {
            format!("its mark {value:#x} uses bits of ours, {:#x}", own.mask)
        }
        _ => return None,
    };
    Some(Finding::new(
        "intercept-foreign-rule",
        Severity::Warning,
        subject,
        what,
        "choose another `mark` (value and mask) for meshd, or remove the rule",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: Mark = Mark {
        value: 0x004d_0000,
        mask: 0x00ff_0000,
    };

    #[test]
    fn versions_and_capabilities_are_read() {
        assert_eq!(version("nftables v1.0.6 (Lester Gooch #5)\n"), Some((1, 0)));
        assert_eq!(version("what"), None);
        assert_eq!(
            effective_capabilities("Name:\tx\nCapEff:\t0000000000003000\n"),
            0x3000
        );
        assert_eq!(effective_capabilities(""), 0);
    }

    #[test]
    fn only_rules_that_share_our_bits_or_table_are_in_the_way() {
        let settings = Settings::new("/run/meshd", "/var/lib/meshd");
        for (to, marked, expected) in [
            (254, None, false),
            (7700, None, true),
            (52, Some((0x0008_0000, 0x00ff_0000)), true),
            (52, Some((0x4000, 0x4000)), false),
            (51820, Some((0xca6c, u32::MAX)), false),
            (51820, Some((0x0001_0000, u32::MAX)), true),
        ] {
            let found = in_the_way("rule".to_owned(), to, marked, &settings, OURS);
            assert_eq!(found.is_some(), expected, "{to} {marked:?}");
        }
    }
}
