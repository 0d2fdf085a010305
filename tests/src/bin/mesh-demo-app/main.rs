//! The plain programs of the demonstration: words, simon, capitalizer, a load client, TCP services.
//!
//! They know nothing of the mesh: they dial `http://words/` and the like, honour `http_proxy`, and pass
//! `l5d-*` and `x-*` headers on.

mod client;
mod load;
mod serve;
mod tcp;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// A plain program of the demonstration.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Answers a random word: v1 words begin with a, v2 words with z
    Words {
        #[arg(long, default_value = "v1")]
        version: String,
        #[arg(long, default_value = "0.0.0.0:8080")]
        listen: String,
        /// A file that holds the share of requests to fail with 503, such as 0.5
        #[arg(long)]
        fail_file: Option<PathBuf>,
    },
    /// Answers "Simon says: " and a word
    Simon {
        #[arg(long, default_value = "0.0.0.0:8081")]
        listen: String,
        #[arg(long, default_value = "http://words/")]
        words: String,
    },
    /// Answers the word, or what simon says (path /simon), in capitals
    Capitalizer {
        #[arg(long, default_value = "0.0.0.0:8082")]
        listen: String,
        #[arg(long, default_value = "http://words/")]
        words: String,
        #[arg(long, default_value = "http://simon/")]
        simon: String,
    },
    /// Calls a URL many times and counts the answers; prints one JSON line
    Load(load::Load),
    /// Fetches a URL once and prints status and body
    Get {
        url: String,
        #[arg(long)]
        header: Vec<String>,
    },
    /// Sends every byte back, and closes its half when the client does
    EchoTcp {
        #[arg(long, default_value = "0.0.0.0:9000")]
        listen: String,
    },
    /// Speaks first: a greeting with the client's address, then echoes lines
    GreetingTcp {
        #[arg(long, default_value = "0.0.0.0:9001")]
        listen: String,
    },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    match Arguments::parse().role {
        Role::Words {
            version,
            listen,
            fail_file,
        } => serve::run(&listen, serve::Role::words(&version, fail_file)).await,
        Role::Simon { listen, words } => serve::run(&listen, serve::Role::simon(words)).await,
        Role::Capitalizer {
            listen,
            words,
            simon,
        } => serve::run(&listen, serve::Role::capitalizer(words, simon)).await,
        Role::Load(load) => load.run().await,
        Role::Get { url, header } => load::get(&url, &header).await,
        Role::EchoTcp { listen } => tcp::echo(&listen).await,
        Role::GreetingTcp { listen } => tcp::greeting(&listen).await,
    }
}
