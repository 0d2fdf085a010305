//! The programs of the soak: a server whose answers can be checked to the byte, and clients that check them.

mod calls;
mod load;
mod pattern;
mod serve;

use clap::{Parser, Subcommand};

/// A program of the soak.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// `GET /bytes/N/ID` answers N bytes that ID decides; `POST /sum/ID` answers length and sum of the body
    Serve {
        #[arg(long)]
        listen: String,
    },
    /// Small and large answers, uploads, slow readers, HTTP/1 and HTTP/2, until the time is over; one JSON line
    Load(load::Load),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    match Arguments::parse().role {
        Role::Serve { listen } => serve::run(&listen).await,
        Role::Load(load) => load.run().await,
    }
}
