//! Which command is carried out by which file.

use std::path::PathBuf;

use crate::{
    args::{
        Arguments, Command, EditArgs, Global, OperatorCommand, RegistryCommand, RouteCommand,
        TokenCommand,
    },
    client::Client,
    edit::Editor,
    failure::{Exit, Failure},
    print::Printer,
    sign,
};

mod adopt;
mod apply;
mod backup;
mod bypass;
mod check;
mod completions;
mod confirm;
mod cost;
mod curl;
mod daemon;
mod delete;
mod docs;
mod edges;
mod endpoints;
mod enrol;
mod explain;
mod get;
mod history;
mod import;
mod init;
mod join;
mod leave;
mod members;
mod operator;
mod registry;
mod resource_diff;
mod resource_edit;
mod rollback;
mod services;
mod split;
mod stat;
mod status;
mod tap;
mod token;
mod validate;
mod version;
mod why;

/// What every command works with.
#[derive(Debug)]
pub(crate) struct Session {
    /// The way to the daemon.
    pub(crate) client: Client,
    /// Where results go.
    pub(crate) printer: Printer,
    global: Global,
}

impl Session {
    fn new(global: Global) -> Self {
        let client = Client::new(&global.socket, global.timeout);
        Self {
            client,
            printer: Printer::new(global.output),
            global,
        }
    }

    /// The operator's directory.
    pub(crate) fn home(&self) -> Result<PathBuf, Failure> {
        sign::home(self.global.home.as_deref())
    }

    /// Makes commits with these flags.
    pub(crate) fn editor<'a>(&'a self, args: &'a EditArgs) -> Result<Editor<'a>, Failure> {
        Ok(Editor {
            client: &self.client,
            printer: self.printer,
            home: self.home()?,
            args,
        })
    }
}

/// Carries out one command.
pub(crate) async fn carry_out(arguments: Arguments) -> Result<Exit, Failure> {
    let session = Session::new(arguments.global);
    let s = &session;
    let Some(command) = arguments.command else {
        return status::run(s).await;
    };
    match command {
        Command::Init(args) => init::run(s, &args).await,
        Command::Join(args) => join::run(s, &args).await,
        Command::Token(TokenCommand::Create(args)) => token::run(s, &args).await,
        Command::Leave(args) => leave::run(s, &args).await,
        Command::Members => members::run(s).await,
        Command::Operator(OperatorCommand::Add(args)) => operator::add(s, &args).await,
        Command::Operator(OperatorCommand::List) => operator::list(s).await,
        Command::Operator(OperatorCommand::Revoke(args)) => operator::revoke(s, &args).await,
        Command::Operator(OperatorCommand::Key) => operator::key(s),
        Command::Services(args) => services::run(s, &args).await,
        Command::Endpoints(args) => endpoints::run(s, &args).await,
        Command::Adopt(args) => adopt::run(s, &args).await,
        Command::Registry(RegistryCommand::Status) => registry::status(s).await,
        Command::Registry(RegistryCommand::Dump(args)) => registry::dump(s, &args).await,
        Command::Registry(RegistryCommand::Diff(args)) => registry::diff(s, &args).await,
        Command::Enrol(args) => enrol::run(s, &args).await,
        Command::Apply(args) => apply::run(s, &args).await,
        Command::Get(args) => get::run(s, &args).await,
        Command::Edit(args) => resource_edit::run(s, &args).await,
        Command::Delete(args) => delete::run(s, &args).await,
        Command::Diff(args) => resource_diff::run(s, &args).await,
        Command::History(args) => history::run(s, &args).await,
        Command::Rollback(args) => rollback::run(s, &args).await,
        Command::Confirm(args) => confirm::run(s, &args).await,
        Command::Route(RouteCommand::Split(args)) => split::run(s, &args).await,
        Command::Status => status::run(s).await,
        Command::Check(args) => check::run(s, &args).await,
        Command::Explain(args) => explain::run(s, args).await,
        Command::Why(args) => why::run(s, &args).await,
        Command::Stat(args) => stat::run(s, &args).await,
        Command::Edges(args) => edges::run(s, &args).await,
        Command::Tap(args) => tap::run(s, &args).await,
        Command::Cost(args) => cost::run(s, &args).await,
        Command::Curl(args) => curl::run(s, args).await,
        Command::Bypass(args) => bypass::run(s, &args, bypass::Way::Out).await,
        Command::Unbypass(args) => bypass::run(s, &args, bypass::Way::In).await,
        Command::Backup(args) => backup::save(s, &args).await,
        Command::Restore(args) => backup::restore(s, &args),
        Command::Validate(args) => validate::run(s, &args).await,
        Command::Import(args) => import::run(s, &args),
        Command::Completions { shell } => completions::run(shell),
        Command::Version => version::run(s).await,
        Command::Man { directory } => docs::manual(&directory),
        Command::Docs => docs::run(),
    }
}

/// A service's name with its namespace: `words` is `default/words`.
fn full_name(service: &str) -> String {
    if service.contains('/') {
        service.to_owned()
    } else {
        format!("default/{service}")
    }
}
