//! The mesh daemon: reads its arguments, opens the rooms, ends with an exit code.

mod admin;
mod admission;
mod adopt;
mod announce;
mod arguments;
mod boot;
mod called;
mod capture;
mod certificates;
mod clock;
mod cluster;
mod config;
mod counts;
mod daemon;
mod disk;
mod fallback;
mod ground;
mod intake;
mod local;
mod metrics;
mod names;
mod notify;
mod questions;
mod quota;
mod reconcile;
mod replaced;
mod running;
mod shares;
mod stop;
mod telemetry;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let arguments = arguments::Arguments::parse();
    match arguments::carry_out(&arguments) {
        Ok(code) => code,
        Err(error) => {
            telemetry::report(&error);
            ExitCode::from(1)
        }
    }
}
