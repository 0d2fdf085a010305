//! The hand: reads its arguments, carries out one command, ends with an exit code.

mod args;
mod client;
mod command;
mod diff;
mod documents;
mod edit;
mod failure;
mod print;
mod resource;
mod sign;
mod story;
mod time;
mod wait;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = args::read(std::env::args_os());
    let output = arguments.global.output;
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return print::complain(output, &failure::Failure::local("meshctl", &error)),
    };
    match runtime.block_on(command::carry_out(arguments)) {
        Ok(exit) => ExitCode::from(exit as u8),
        Err(failure) => print::complain(output, &failure),
    }
}
