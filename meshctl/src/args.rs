//! Every flag once: help, manual page, completion and `docs/meshctl.md` come from here.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};

use crate::{print::Format, time::duration, wait::Share};

mod adopt;
mod ask;
mod host;
mod mesh;
mod registry;
mod resources;

pub(crate) use adopt::AdoptArgs;
pub(crate) use ask::{
    CheckArgs, CostArgs, CurlArgs, EdgesArgs, EndpointsArgs, ExplainArgs, ServicesArgs, StatArgs,
    TapArgs, WhyArgs,
};
pub(crate) use host::{BackupArgs, BypassArgs, EnrolArgs, RestoreArgs};
pub(crate) use mesh::{
    InitArgs, JoinArgs, LeaveArgs, OperatorAdd, OperatorCommand, OperatorRevoke, TokenCommand,
    TokenCreate,
};
pub(crate) use registry::{RegistryCommand, RegistryDiff, RegistryDump};
pub(crate) use resources::{
    ApplyArgs, ConfirmArgs, DeleteArgs, DiffArgs, EditResourceArgs, GetArgs, HistoryArgs,
    ImportArgs, RollbackArgs, RouteCommand, SplitArgs, ValidateArgs,
};

/// Drives the mesh from this host, through its own daemon.
///
/// Alone it prints the status, findings, and what to do next.
#[derive(Debug, Parser)]
#[command(name = "meshctl", version, disable_help_subcommand = true, after_help = EXIT_CODES)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

const EXIT_CODES: &str = "Exit codes: 0 ok, 1 finding, 2 usage, 3 daemon unreachable, 4 conflict, \
    5 wait timed out (accepted, not everywhere yet), 6 not permitted.";

/// Flags of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Everywhere")]
pub(crate) struct Global {
    /// The daemon's socket
    #[arg(
        long,
        global = true,
        env = "MESHD_SOCKET",
        hide_env_values = true,
        value_name = "PATH",
        default_value = "/run/meshd/meshd.sock"
    )]
    pub(crate) socket: PathBuf,
    /// Form of the output
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        value_name = "FORMAT",
        default_value_t
    )]
    pub(crate) output: Format,
    /// Longest time for one answer of the daemon
    #[arg(long, global = true, value_parser = duration, value_name = "TIME", default_value = "30s")]
    pub(crate) timeout: Duration,
    /// Directory of the operator's key; `~/.config/meshctl` unless set
    #[arg(
        long,
        global = true,
        env = "MESHCTL_HOME",
        hide_env_values = true,
        value_name = "DIR"
    )]
    pub(crate) home: Option<PathBuf>,
}

/// Flags of every command that changes something.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Changes")]
pub(crate) struct ChangeArgs {
    /// Show what would be done and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Why, for history and log
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) reason: String,
    /// Wait until it is in force: on all hosts, or on a share of them
    #[arg(long, value_name = "all|N%", value_parser = Share::parse, num_args = 0..=1,
        require_equals = true, default_missing_value = "all")]
    pub(crate) wait: Option<Share>,
    /// Longest time to wait
    #[arg(long, value_parser = duration, value_name = "TIME", default_value = "30s")]
    pub(crate) wait_timeout: Duration,
}

impl Default for ChangeArgs {
    fn default() -> Self {
        Self {
            dry_run: false,
            reason: String::new(),
            wait: None,
            wait_timeout: Duration::from_secs(30),
        }
    }
}

/// Flags of every command that changes resources.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct EditArgs {
    #[command(flatten)]
    pub(crate) change: ChangeArgs,
    /// Undo it by itself after this time unless `meshctl confirm` comes first
    #[arg(long, value_parser = duration, value_name = "TIME", help_heading = "Changes")]
    pub(crate) confirm_within: Option<Duration>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a mesh: its CA, this first host, and the first operator (you)
    Init(InitArgs),
    /// Join a mesh with a token
    Join(JoinArgs),
    /// Tokens that let hosts join
    #[command(subcommand)]
    Token(TokenCommand),
    /// Leave the mesh: say goodbye, then run idle
    Leave(LeaveArgs),
    /// Hosts of the mesh
    Members,
    /// People who may change the mesh
    #[command(subcommand)]
    Operator(OperatorCommand),
    /// Services
    Services(ServicesArgs),
    /// Endpoints of services, and whether this host would use them
    Endpoints(EndpointsArgs),
    /// Take services that a registry knows on this host into the mesh, callers unchanged
    Adopt(AdoptArgs),
    /// What discovery sources say, and how they are
    #[command(subcommand)]
    Registry(RegistryCommand),
    /// Recognise a systemd unit as a service, from its first packet on
    Enrol(EnrolArgs),
    /// Create or change resources from files
    Apply(ApplyArgs),
    /// Show resources
    Get(GetArgs),
    /// Change a resource in your editor
    Edit(EditResourceArgs),
    /// Delete resources
    Delete(DeleteArgs),
    /// What a file, or a commit, changes
    Diff(DiffArgs),
    /// Commits, newest first
    History(HistoryArgs),
    /// Restore an earlier content, as a new commit
    Rollback(RollbackArgs),
    /// Keep a change made with --confirm-within, or what `adopt --try` tries
    Confirm(ConfirmArgs),
    /// Routes for people in a hurry
    #[command(subcommand)]
    Route(RouteCommand),
    /// What the daemon is doing
    Status,
    /// Look for problems, and say what to do about each
    Check(CheckArgs),
    /// What would happen to a request, step by step
    Explain(ExplainArgs),
    /// What did happen to a request that failed
    Why(WhyArgs),
    /// Requests by source, destination and route
    Stat(StatArgs),
    /// Who calls whom in the whole mesh: rate, success, latency, mTLS or plain
    Edges(EdgesArgs),
    /// This host's requests as they end
    Tap(TapArgs),
    /// What the mesh adds to calls from one service to another
    Cost(CostArgs),
    /// One call as a local service, and how it came about
    Curl(CurlArgs),
    /// Take meshd out of this host's path until `unbypass`; works without the daemon
    Bypass(BypassArgs),
    /// Undo `bypass`
    Unbypass(BypassArgs),
    /// Save everything that this host's authority needs to be restored: a secret
    Backup(BackupArgs),
    /// Put a backup into an empty state directory; the daemon must not run
    Restore(RestoreArgs),
    /// Check documents
    Validate(ValidateArgs),
    /// Translate rules of the first Istio into documents for `apply`
    Import(ImportArgs),
    /// Completion script for a shell
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Versions of meshctl and of the daemon
    Version,
    /// Write the manual pages into a directory
    #[command(hide = true)]
    Man {
        /// The directory
        directory: PathBuf,
    },
    /// Print docs/meshctl.md
    #[command(hide = true)]
    Docs,
}

/// Reads the command line; ends the process for help, version and wrong usage.
pub(crate) fn read(words: impl Iterator<Item = OsString>) -> Arguments {
    Arguments::parse_from(joined(words))
}

/// `--wait 90%` is taken as `--wait=90%`; anything else after `--wait` is a word of its own.
fn joined(words: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut out: Vec<OsString> = Vec::new();
    for word in words {
        let after_wait = out.last().is_some_and(|last| last == "--wait");
        let share = word.to_str().is_some_and(|word| Share::parse(word).is_ok());
        if after_wait && share {
            out.pop();
            let mut both = OsString::from("--wait=");
            both.push(word);
            out.push(both);
        } else {
            out.push(word);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parsed(line: &str) -> Arguments {
        let words = line.split_whitespace().map(OsString::from);
        Arguments::try_parse_from(joined(words)).unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    #[test]
    fn the_table_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_filter_that_is_not_given_is_none() {
        for (line, direction) in [
            ("meshctl tap", None),
            ("meshctl tap words --direction inbound", Some("inbound")),
        ] {
            let Some(Command::Tap(tap)) = parsed(line).command else {
                panic!("{line}: not tap");
            };
            assert_eq!(tap.direction.as_deref(), direction, "{line}");
        }
    }

    #[test]
    fn every_command_of_the_table_exists() {
        let command = Arguments::command();
        for name in
            "init join token leave members operator adopt services endpoints enrol apply get edit \
            delete diff history rollback confirm registry route status check explain why stat curl bypass \
            unbypass backup restore validate completions version"
                .split_whitespace()
        {
            assert!(command.find_subcommand(name).is_some(), "{name}");
        }
        for name in ["doctor", "bug-report", "help"] {
            assert!(command.find_subcommand(name).is_none(), "{name}");
        }
    }

    #[test]
    fn wait_with_and_without_a_share() {
        let wait = |line: &str| match parsed(line).command {
            Some(Command::Delete(delete)) => (delete.edit.change.wait, delete.resource),
            other => panic!("{other:?}"),
        };
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(
            wait("meshctl delete --wait svc a"),
            (Some(Share::All), words("svc a"))
        );
        assert_eq!(
            wait("meshctl delete --wait 50% svc a"),
            (Some(Share::Percent(50)), words("svc a"))
        );
        assert_eq!(
            wait("meshctl delete svc a --wait=all"),
            (Some(Share::All), words("svc a"))
        );
        assert_eq!(wait("meshctl delete svc a"), (None, words("svc a")));
    }

    #[test]
    fn every_changing_verb_has_the_four_flags() {
        let command = Arguments::command();
        for path in
            "init|join|token create|leave|operator add|operator revoke|adopt|enrol|apply|edit|delete|\
            rollback|confirm|route split|bypass|unbypass|restore"
                .split('|')
        {
            let leaf = path.split(' ').fold(&command, |command, name| {
                command.find_subcommand(name).unwrap()
            });
            for flag in ["dry-run", "reason", "wait"] {
                assert!(
                    leaf.get_arguments()
                        .any(|argument| argument.get_long() == Some(flag)),
                    "{path} --{flag}"
                );
            }
        }
    }

    #[test]
    fn no_secret_on_the_command_line() {
        let mut join = Arguments::command();
        let join = join.find_subcommand_mut("join").unwrap();
        assert!(join.get_positionals().next().is_none());
        assert!(Arguments::try_parse_from(["meshctl", "join", "meshd1.abc"]).is_err());
    }
}
