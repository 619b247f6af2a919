//! The child process: its program, its arguments, and the signals that end it. Touches processes only.

use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Stdio;

use rustix::process::{Pid, Signal};
use tokio::process::{Child, Command};

use super::EmbeddedError;
use super::folder::Folder;
use crate::config::Durability;

/// The supported programs, the preferred one first.
const PROGRAMS: [&str; 2] = ["valkey-server", "redis-server"];

/// A program in PATH, with its settings.
pub(super) struct Program {
    path: PathBuf,
    durability: Durability,
    /// The memory limit in bytes; `None`: no limit.
    max_memory: Option<u64>,
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())
    }
}

impl Program {
    pub(super) fn find(durability: Durability, max_memory: Option<u64>) -> Option<Program> {
        Program::find_in(&env::var_os("PATH")?, durability, max_memory)
    }

    pub(super) fn find_in(path: &OsStr, durability: Durability, max_memory: Option<u64>) -> Option<Program> {
        let runs = |path: &PathBuf| {
            fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
        };
        PROGRAMS
            .iter()
            .flat_map(|name| env::split_paths(path).map(move |folder| folder.join(name)))
            .find(runs)
            .map(|path| Program { path, durability, max_memory })
    }

    /// Starts the child, with `lock` as its standard input. The child is in a separate process group, so that Ctrl-C in
    /// a terminal reaches this server only, which stops the child after its calls.
    pub(super) fn spawn(&self, folder: &Folder, lock: &File) -> Result<Child, EmbeddedError> {
        let failed = |source| EmbeddedError::Folder { what: "write redis.log".to_owned(), source };
        let log = folder.log().map_err(failed)?;
        let fsync = match self.durability {
            Durability::Durable => "always",
            Durability::Fast => "everysec",
        };
        let mut command = Command::new(&self.path);
        command
            .args(["--port", "0", "--unixsocketperm", "700", "--unixsocket"])
            .arg(&folder.socket)
            .args(["--appendonly", "yes", "--appendfsync", fsync])
            // 0 is no limit.
            .args(["--maxmemory", &self.max_memory.unwrap_or_default().to_string()])
            .args(["--maxmemory-policy", "noeviction", "--save", "", "--daemonize", "no", "--dir"])
            .arg(&folder.path)
            .stdin(lock.try_clone().map_err(failed)?)
            .stdout(log.try_clone().map_err(failed)?)
            .stderr(Stdio::from(log))
            .process_group(0)
            .kill_on_drop(true);
        command.spawn().map_err(|error| EmbeddedError::NoStart { program: self.to_string(), why: error.to_string() })
    }
}

/// Requests a clean stop of a process.
pub(super) fn terminate(pid: Option<u32>) {
    if let Some(pid) = valid(pid) {
        // It fails only if the process is gone already.
        let _ = rustix::process::kill_process(pid, Signal::TERM);
    }
}

/// Kills a process that leads a group, and its children.
pub(super) fn kill_group(pid: Option<u32>) {
    if let Some(pid) = valid(pid) {
        // As above.
        let _ = rustix::process::kill_process_group(pid, Signal::KILL);
    }
}

fn valid(pid: Option<u32>) -> Option<Pid> {
    pid.and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw)
}
