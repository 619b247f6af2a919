//! `sentinelctl` as people run it: the real binary, to its end.

use std::{
    process::{Command, Output, Stdio},
    time::Duration,
};

use tokio::time::timeout;

use crate::process;

/// How long a command may take: a small sale, on a busy machine.
const COMMAND_BOUND: Duration = Duration::from_secs(120);

/// Runs `sentinelctl` with these arguments, separated by spaces, against the server at this address.
pub async fn sentinelctl(server: impl ToString, arguments: &str) -> Output {
    let mut command = tokio::process::Command::from(Command::new(process::built("sentinelctl")));
    command
        .env_clear()
        .args(["--server", &format!("http://{}", server.to_string())])
        .args(arguments.split(' '))
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = timeout(COMMAND_BOUND, command.output()).await;
    output.unwrap_or_else(|_| panic!("not within {COMMAND_BOUND:?}: {arguments}")).expect("sentinelctl starts")
}
