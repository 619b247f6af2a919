//! `sentinelctl doctor`: checks everything between this machine and the store, one line per check. Changes nothing.
//!
//! - here: the order of the checks and the lines; `server`: the checks of GetServerInfo; `health`: the health
//!   service and the clock; `readyz`: the operator's HTTP port.

mod health;
mod readyz;
mod server;

use clap::Args;
use inventory_sentinel_client::{RpcError, Sentinel};
use serde::Serialize;

use crate::{config::Settings, failure::Failure, output::Output, security::credentials_advice, session, table::shown};

/// Where the operator's port listens by default. It has TLS if the gRPC port has.
const DEFAULT_ADMIN_ADDRESS: &str = "127.0.0.1:9464";

/// `sentinelctl doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// The operator's HTTP port of the server, which has /readyz [env: SENTINEL_ADMIN_URL; default:
    /// port 9464 of 127.0.0.1, with the scheme of --server].
    #[arg(long, value_name = "URL")]
    admin_url: Option<String>,
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
enum Status {
    Ok,
    Warn,
    Fail,
}

/// One check.
#[derive(Debug, Serialize)]
struct Check {
    status: Status,
    check: &'static str,
    found: String,
    /// The next step; null if there is none.
    next: Option<String>,
}

impl Check {
    fn ok(check: &'static str, found: impl Into<String>) -> Check {
        Check { status: Status::Ok, check, found: found.into(), next: None }
    }

    fn warn(check: &'static str, found: impl Into<String>, next: impl Into<String>) -> Check {
        Check { status: Status::Warn, check, found: found.into(), next: Some(next.into()) }
    }

    fn fail(check: &'static str, found: impl Into<String>, next: impl Into<String>) -> Check {
        Check { status: Status::Fail, check, found: found.into(), next: Some(next.into()) }
    }

    /// The line for humans.
    fn line(&self) -> String {
        let status = match self.status {
            Status::Ok => "OK",
            Status::Warn => "WARN",
            Status::Fail => "FAIL",
        };
        let next = self.next.as_ref().map(|next| format!("; next: {}", shown(next))).unwrap_or_default();
        format!("{status:<4}  {:<10}  {}{next}\n", self.check, shown(&self.found))
    }
}

/// Prints each check as soon as it is done.
struct Checks {
    output: Output,
    failed: usize,
}

impl Checks {
    fn print(&mut self, check: &Check) -> Result<(), Failure> {
        self.failed += usize::from(check.status == Status::Fail);
        match self.output.is_json() {
            true => Ok(self.output.json(check)?),
            false => Ok(self.output.text(&check.line())?),
        }
    }
}

/// True if no check failed.
pub(crate) async fn run(settings: &Settings, output: Output, args: &DoctorArgs) -> Result<bool, Failure> {
    let mut checks = Checks { output, failed: 0 };
    let of_environment = std::env::var("SENTINEL_ADMIN_URL").ok().filter(|url| !url.is_empty());
    let admin_url = args.admin_url.clone().or(of_environment);
    let scheme = if settings.server.starts_with("https://") { "https" } else { "http" };
    let admin_url = admin_url.unwrap_or_else(|| format!("{scheme}://{DEFAULT_ADMIN_ADDRESS}"));
    let admin_url = readyz::parse(&admin_url)?;
    match session::builder(settings)?.connect().await {
        Err(error) => {
            let failure = session::unreachable(&settings.server, &error);
            if failure.code() == Failure::USAGE {
                return Err(failure);
            }
            checks.print(&Check::fail("connection", failure.to_string(), failure.next().unwrap_or_default()))?;
        }
        Ok(sentinel) => match health::checks(settings, sentinel.channel()).await {
            Err(check) => checks.print(&check)?,
            Ok(of_health) => {
                checks.print(&Check::ok("connection", format!("{} responds", settings.server)))?;
                for check in of_health {
                    checks.print(&check)?;
                }
                for check in of_server(settings, &sentinel).await {
                    checks.print(&check)?;
                }
            }
        },
    }
    checks.print(&readyz::check(&admin_url, settings.security.ca()?.as_deref(), settings.timeout()).await)?;
    Ok(checks.failed == 0)
}

/// The checks of GetServerInfo, which needs credentials if the server has a policy.
async fn of_server(settings: &Settings, sentinel: &Sentinel) -> Vec<Check> {
    match sentinel.namespace(&settings.namespace).admin().server_info().await {
        Ok(info) => server::checks(settings, &info),
        Err(error) => vec![of_refusal(&error)],
    }
}

/// A failed GetServerInfo.
fn of_refusal(error: &RpcError) -> Check {
    let found = format!("GetServerInfo fails: {error}");
    match credentials_advice(error.code(), error.reason().map(|reason| reason.as_str())) {
        Some(next) => Check::fail("credentials", found, next),
        None => Check::fail("server", found, "read the log of the server; an older one has no GetServerInfo"),
    }
}
