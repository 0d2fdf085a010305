//! Flags of the commands that only ask.

use std::time::Duration;

use clap::Args;

use crate::time::duration;

/// Flags of `services`.
#[derive(Debug, Args)]
pub(crate) struct ServicesArgs {
    /// Only this service: NAME or NAMESPACE/NAME
    pub(crate) service: Option<String>,
}

/// Flags of `endpoints`.
#[derive(Debug, Args)]
pub(crate) struct EndpointsArgs {
    /// Only of this service: NAME or NAMESPACE/NAME
    pub(crate) service: Option<String>,
}

/// Flags of `check`.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// Show only warnings and errors
    #[arg(long)]
    pub(crate) short: bool,
}

/// Flags of `explain`.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// Calling service, NAME or NAMESPACE/NAME; the host itself unless set
    #[arg(
        long,
        value_name = "SERVICE",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) from: String,
    /// `NAME: VALUE`; may be repeated
    #[arg(short = 'H', long = "header", value_name = "HEADER", value_parser = header)]
    pub(crate) headers: Vec<(String, String)>,
    /// Method (GET unless given) and URL, such as `POST http://words/new`
    #[arg(required = true, num_args = 1..=2, value_names = ["METHOD", "URL"])]
    pub(crate) request: Vec<String>,
}

/// Flags of `why`.
#[derive(Debug, Args)]
pub(crate) struct WhyArgs {
    /// The id in the `mesh-error` or `mesh-request-id` header
    pub(crate) id: String,
}

/// Flags of `stat`.
#[derive(Debug, Args)]
pub(crate) struct StatArgs {
    /// Only to this service
    pub(crate) service: Option<String>,
    /// Count over this time from now, and show rates
    #[arg(long, value_parser = duration, value_name = "TIME")]
    pub(crate) over: Option<Duration>,
}

/// Flags of `edges`.
#[derive(Debug, Args)]
pub(crate) struct EdgesArgs {
    /// Only edges from or to this service
    pub(crate) service: Option<String>,
    /// Count over this time from now, at most 1m; 0s: since each daemon's start
    #[arg(long, value_parser = duration, value_name = "TIME", default_value = "2s")]
    pub(crate) over: Duration,
}

/// Flags of `cost`.
#[derive(Debug, Args)]
pub(crate) struct CostArgs {
    /// The calling service, NAME or NAMESPACE/NAME; `host` for a host's own calls
    pub(crate) source: String,
    /// The called service
    pub(crate) destination: String,
    /// Count over this time from now, at most 1m; 0s: since each daemon's start
    #[arg(long, value_parser = duration, value_name = "TIME", default_value = "0s")]
    pub(crate) over: Duration,
}

/// Flags of `tap`.
#[derive(Debug, Args)]
pub(crate) struct TapArgs {
    /// Only to this service
    pub(crate) service: Option<String>,
    /// Only from this service
    #[arg(
        long,
        value_name = "SERVICE",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) from: String,
    /// Only `outbound` (from this host's programs) or `inbound`
    #[arg(long, value_parser = ["outbound", "inbound"])]
    pub(crate) direction: Option<String>,
    /// Only by this route
    #[arg(
        long,
        value_name = "ROUTE",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) route: String,
    /// Only with this method
    #[arg(
        short = 'X',
        long,
        value_name = "METHOD",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) method: String,
    /// Only paths that begin so
    #[arg(
        long,
        value_name = "PATH",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) path: String,
    /// Only this status (`503`) or class (`5xx`)
    #[arg(
        long,
        value_name = "STATUS",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) status: String,
    /// Only what failed
    #[arg(long)]
    pub(crate) failed: bool,
    /// End after so many requests
    #[arg(
        short = 'n',
        long,
        value_name = "NUMBER",
        default_value_t = 0,
        hide_default_value = true
    )]
    pub(crate) limit: u64,
}

/// Flags of `curl`.
#[derive(Debug, Args)]
pub(crate) struct CurlArgs {
    /// The local service to call as; the host itself unless set
    #[arg(
        long = "as",
        value_name = "SERVICE",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) from: String,
    /// Method
    #[arg(short = 'X', long, value_name = "METHOD")]
    pub(crate) method: Option<String>,
    /// `NAME: VALUE`; may be repeated
    #[arg(short = 'H', long = "header", value_name = "HEADER", value_parser = header)]
    pub(crate) headers: Vec<(String, String)>,
    /// Body; `@FILE` for a file, `@-` for standard input
    #[arg(short = 'd', long, value_name = "BODY")]
    pub(crate) data: Option<String>,
    /// The URL, `http://…`
    pub(crate) url: String,
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("a header is `NAME: VALUE`")?;
    if name.is_empty() || name.contains(char::is_whitespace) {
        return Err("a header is `NAME: VALUE`".to_owned());
    }
    Ok((name.to_ascii_lowercase(), value.trim().to_owned()))
}
