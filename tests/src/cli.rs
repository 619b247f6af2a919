//! `sentinelctl` as operators run it: starts the real binary and waits until it exits.

use std::{
    ffi::OsString,
    fs::File,
    io::{Read as _, Write as _},
    path::Path,
    process::{Command, Output, Stdio},
    time::Duration,
};

use rustix::{
    fs::{Mode, OFlags},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
};
use serde_json::Value;
use tokio::{io::AsyncWriteExt as _, time::timeout};

use crate::{
    SentinelProcess,
    process::{self, Owned},
};

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

/// A call of `sentinelctl`, with nothing of this process's environment but PATH.
#[derive(Debug)]
pub struct Ctl {
    arguments: Vec<String>,
    variables: Vec<(String, OsString)>,
    input: Vec<u8>,
}

/// How a call ended.
#[derive(Debug)]
pub struct Ran {
    /// The exit code.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Ctl {
    /// A call with these arguments, which may have spaces.
    pub fn new<S: Into<String>>(arguments: impl IntoIterator<Item = S>) -> Ctl {
        let arguments = arguments.into_iter().map(Into::into).collect();
        Ctl { arguments, variables: Vec::new(), input: Vec::new() }
    }

    /// The same against this server.
    #[must_use]
    pub fn at(self, server: impl ToString) -> Ctl {
        self.variable("SENTINEL_SERVER", format!("http://{}", server.to_string()))
    }

    /// Sets a variable of the environment.
    #[must_use]
    pub fn variable(mut self, name: &str, value: impl Into<OsString>) -> Ctl {
        self.variables.push((name.to_owned(), value.into()));
        self
    }

    /// The content of standard input, which is no terminal.
    #[must_use]
    pub fn input(self, input: impl Into<Vec<u8>>) -> Ctl {
        Ctl { input: input.into(), ..self }
    }

    /// Starts it and lets it run; it is killed when dropped.
    pub fn start(&self) -> tokio::process::Child {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut child = tokio::process::Command::new(process::built("sentinelctl"))
            .env_clear()
            .env("PATH", path)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .args(&self.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("sentinelctl starts");
        let (mut stdin, input) = (child.stdin.take().expect("a pipe"), self.input.clone());
        // A command that does not read its input may end before all of it is written.
        tokio::spawn(async move { drop(stdin.write_all(&input).await) });
        child
    }

    /// Runs it at a terminal, where somebody has typed this, to its end. `out` contains its output and the typed text.
    pub async fn run_at_terminal(self, typed: &str) -> Ran {
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&terminal).and_then(|()| unlockpt(&terminal)).expect("a terminal");
        let name = ptsname(&terminal, Vec::new()).expect("its name");
        let end = || {
            let flags = OFlags::RDWR | OFlags::NOCTTY;
            Stdio::from(rustix::fs::open(&name, flags, Mode::empty()).expect("its other end"))
        };
        let mut command = Command::new(process::built("sentinelctl"));
        command.env_clear().envs(self.variables.iter().map(|(name, value)| (name, value))).args(&self.arguments);
        let mut child = Owned(command.stdin(end()).stdout(end()).stderr(end()).spawn().expect("sentinelctl starts"));
        // The terminal ends with the last descriptor of its other end.
        drop(command);
        let mut terminal = File::from(terminal);
        terminal.write_all(typed.as_bytes()).expect("typed");
        let read = tokio::task::spawn_blocking(move || {
            let mut out = Vec::new();
            // The end of a terminal is an error on Linux.
            let _ = terminal.read_to_end(&mut out);
            out
        });
        let out = timeout(COMMAND_BOUND, read).await;
        let out =
            out.unwrap_or_else(|_| panic!("not within {COMMAND_BOUND:?}: {:?}", self.arguments)).expect("its output");
        let code = child.0.wait().expect("its end").code().unwrap_or(-1);
        Ran { code, out: String::from_utf8(out).expect("its output is UTF-8"), err: String::new() }
    }

    /// Runs it to its end.
    pub async fn run(self) -> Ran {
        let output = timeout(COMMAND_BOUND, self.start().wait_with_output()).await;
        let output = output.unwrap_or_else(|_| panic!("not within {COMMAND_BOUND:?}: {self:?}")).expect("its end");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("its output is UTF-8");
        let code = output.status.code().unwrap_or_else(|| panic!("{self:?} ended by a signal: {output:?}"));
        Ran { code, out: text(output.stdout), err: text(output.stderr) }
    }
}

impl Ran {
    /// Checks the exit code, and that each failure has its line for people and the next step.
    #[track_caller]
    pub fn ends(self, code: i32) -> Ran {
        assert_eq!(self.code, code, "{self:?}");
        if code > 1 {
            let lines: Vec<&str> = self.err.lines().filter(|line| !line.starts_with("note: ")).collect();
            assert!(lines.len() == 2 && lines[0].starts_with("sentinelctl: "), "{self:?}");
            assert!(lines[1].starts_with("next: "), "{self:?}");
        }
        self
    }

    /// The JSON objects of standard output, one a line.
    #[track_caller]
    pub fn objects(&self) -> Vec<Value> {
        let object = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {self:?}"));
        self.out.lines().map(object).collect()
    }

    /// The only JSON object of standard output.
    #[track_caller]
    pub fn object(&self) -> Value {
        let mut objects = self.objects();
        assert_eq!(objects.len(), 1, "{self:?}");
        objects.remove(0)
    }
}

/// Runs a shell script in this folder, which is its home too, with `sentinelctl` in PATH and this server in the
/// environment. The script ends at the first command that fails.
pub async fn shell(script: &str, folder: &Path, server: &SentinelProcess) -> Ran {
    let variables = [
        ("SENTINEL_SERVER", format!("http://{}", server.grpc())),
        ("SENTINEL_ADMIN_URL", format!("http://{}", server.admin_address())),
    ];
    shell_with(script, folder, &variables).await
}

/// The same with these variables instead of a server.
pub async fn shell_with(script: &str, folder: &Path, variables: &[(&str, String)]) -> Ran {
    let programs = process::built("sentinelctl").parent().expect("a folder").to_owned();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let paths = std::iter::once(programs).chain(std::env::split_paths(&path));
    let mut command = tokio::process::Command::new("bash");
    command
        .env_clear()
        .env("PATH", std::env::join_paths(paths).expect("a PATH"))
        .env("HOME", folder)
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .current_dir(folder)
        .args(["-euo", "pipefail", "-c", script])
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = timeout(COMMAND_BOUND, command.output()).await;
    let output = output.unwrap_or_else(|_| panic!("not within {COMMAND_BOUND:?}: {script}")).expect("bash starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("its output is UTF-8");
    Ran { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
}
