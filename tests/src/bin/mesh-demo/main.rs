//! The demonstration: three hosts form a mesh and carry the calls of plain programs, four exercises,
//! each by route and by delegation table.

mod exercise;
mod table;

use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use mesh_tests::{demo::Stage, host::Kind};

/// The demonstration.
#[derive(Debug, Parser)]
struct Arguments {
    /// What this machine allows
    #[arg(long, value_enum, default_value_t = Mode::Root)]
    mode: Mode,
    /// Keep the mesh up and print what to try
    #[arg(long)]
    keep: bool,
    /// Requests of each measured step
    #[arg(long, default_value_t = 2000)]
    requests: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// Namespaces; every program has a user id of its own
    Root,
    /// Namespaces inside a user namespace, one user id
    User,
    /// No namespaces: loopback addresses and the explicit listener
    Loopback,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let kind = match arguments.mode {
        Mode::Root => Kind::Users,
        Mode::User => Kind::OneUser,
        Mode::Loopback => Kind::Loopback,
    };
    match play(kind, &arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            table::say(&format!("the demonstration failed: {error:#}"));
            ExitCode::from(1)
        }
    }
}

fn play(kind: Kind, arguments: &Arguments) -> anyhow::Result<bool> {
    table::opening(kind);
    let mut stage = Stage::set(kind, table::say)?;
    if arguments.keep {
        stage.explore(table::say)?;
        return Ok(true);
    }
    table::head();
    let mut passed = true;
    for by in [exercise::By::Route, exercise::By::Dtab] {
        for exercise in exercise::ALL {
            let row = exercise.run(&mut stage, by, arguments.requests);
            let row = match row {
                Ok(row) => row,
                Err(error) => {
                    table::say(&stage.troubles());
                    return Err(error);
                }
            };
            passed &= row.passed;
            table::row(&row);
        }
    }
    table::closing(&stage.summary()?, passed);
    Ok(passed)
}
