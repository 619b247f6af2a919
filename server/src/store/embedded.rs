//! The embedded Redis: `valkey-server` or `redis-server` from PATH as a child process, on a unix socket in the data
//! folder. Restarts the child when it dies, and stops it with this server.
//!
//! Two locks in the folder prevent that two processes write the same files. This server holds `lock`. The child gets
//! `redis.lock` as its standard input, so the kernel keeps it locked while the child runs, even if this server was
//! killed. The next server finds such an orphan by the lock and stops it.

use std::fs::File;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::process::Child;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::config::{Config, RedisUrl};
use crate::tasks::{Task, Tasks};

mod disk;
mod folder;
mod memory;
mod process;

use disk::Disk;
use folder::Folder;
use process::Program;

/// Longest wait for the first response of a new child: it may have a large file to read.
const START_LIMIT: Duration = Duration::from_secs(30);

/// Pause between two checks of a child that is starting.
const START_POLL: Duration = Duration::from_millis(10);

/// First and longest pause before a dead child is started again.
const RESTART_PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Pause between two checks of the disk.
const DISK_INTERVAL: Duration = Duration::from_millis(500);

/// A child that ran this long is next restarted after the first pause again.
const STEADY: Duration = Duration::from_secs(30);

/// Longest wait for a child to stop after SIGTERM. Then it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// Why there is no embedded Redis.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmbeddedError {
    /// Neither program is installed.
    #[error(
        "neither valkey-server nor redis-server is in PATH: install one (apt install redis-server, dnf install valkey, \
         apk add valkey, brew install valkey), or name a running one with --redis-url"
    )]
    NoProgram,
    /// Another server uses the folder.
    #[error(
        "the data folder {} is in use by another sentinel-server{}: give each its own --data-dir",
        folder.display(),
        pid(*holder)
    )]
    InUse {
        /// The folder.
        folder: PathBuf,
        /// The process id of the other server, if the lock contains it.
        holder: Option<u32>,
    },
    /// A child of an earlier server still runs and does not stop.
    #[error(
        "a redis{} that an earlier server started still uses {} and does not stop: end it by hand",
        pid(*holder),
        folder.display()
    )]
    Orphan {
        /// The folder.
        folder: PathBuf,
        /// The process id of the child, if the lock contains it.
        holder: Option<u32>,
    },
    /// The folder or a file in it can't be used.
    #[error("cannot use the data folder: {what}: {source}")]
    Folder {
        /// The action that failed.
        what: String,
        /// The cause.
        source: std::io::Error,
    },
    /// The child did not start.
    #[error("{program} did not start: {why}")]
    NoStart {
        /// The program.
        program: String,
        /// The cause: its exit status and the end of its log.
        why: String,
    },
}

fn pid(holder: Option<u32>) -> String {
    holder.map_or_else(String::new, |pid| format!(" (process {pid})"))
}

/// The current trouble that keeps the store from working, for people. `None`: the supervisor found none.
pub(crate) type Trouble = watch::Receiver<Option<Arc<str>>>;

/// A running child and its supervisor. A drop without [`Embedded::stop`] stops the child too, but does not wait for it.
pub(crate) struct Embedded {
    url: RedisUrl,
    trouble: Trouble,
    stopping: CancellationToken,
    supervisor: Option<JoinHandle<()>>,
}

impl Embedded {
    /// Starts a child and waits until it responds.
    pub(crate) async fn start(config: &Config, tasks: &Tasks) -> Result<Embedded, EmbeddedError> {
        let max_memory = config.embedded_max_memory.or_else(memory::default_limit);
        let program = Program::find(config.durability, max_memory).ok_or(EmbeddedError::NoProgram)?;
        let folder = Folder::open(&config.data_dir)?;
        let lock = folder.lock_redis(STOP_LIMIT).await?;
        let url = RedisUrl::unix(&folder.socket);
        let (trouble, known) = watch::channel(None);
        let mut supervisor = Supervisor {
            program,
            disk: Disk::of(&folder.path),
            folder,
            trouble,
            lock,
            child: None,
            started: Instant::now(),
            stopping: CancellationToken::new(),
        };
        supervisor.spawn()?;
        supervisor.wait_until_up().await?;

        let stopping = supervisor.stopping.clone();
        let supervisor = tasks.spawn_vital(Task::EmbeddedRedis, stopping.clone(), supervisor.run());
        Ok(Embedded { url, trouble: known, stopping, supervisor: Some(supervisor) })
    }

    /// The URL of the socket on which it listens.
    pub(crate) fn url(&self) -> &RedisUrl {
        &self.url
    }

    /// The trouble that keeps it from working.
    pub(crate) fn trouble(&self) -> Trouble {
        self.trouble.clone()
    }

    /// Stops the child. The wait is bounded: after [`STOP_LIMIT`] the child is killed.
    pub(crate) async fn stop(mut self) {
        self.stopping.cancel();
        if let Some(supervisor) = self.supervisor.take()
            && let Err(error) = supervisor.await
        {
            tracing::error!(%error, "the supervisor of redis failed");
        }
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.stopping.cancel();
    }
}

/// Keeps one child running.
struct Supervisor {
    program: Program,
    folder: Folder,
    disk: Disk,
    trouble: watch::Sender<Option<Arc<str>>>,
    /// `redis.lock`, shared with every child.
    lock: File,
    child: Option<Child>,
    started: Instant,
    stopping: CancellationToken,
}

impl Supervisor {
    fn spawn(&mut self) -> Result<(), EmbeddedError> {
        // The lock never contains the id of a dead child: another process may have that id now.
        self.folder.note_redis(&self.lock, None);
        let child = self.program.spawn(&self.folder, &self.lock)?;
        self.started = Instant::now();
        self.folder.note_redis(&self.lock, child.id());
        let folder = self.folder.path.display();
        tracing::info!(program = %self.program, pid = child.id(), %folder, "redis started");
        self.child = Some(child);
        Ok(())
    }

    /// Waits until the child responds. "Loading" is a response. Fails at once if the child dies.
    async fn wait_until_up(&mut self) -> Result<(), EmbeddedError> {
        while self.started.elapsed() < START_LIMIT {
            if let Some(child) = &mut self.child
                && let Ok(Some(status)) = child.try_wait()
            {
                return Err(self.no_start(self.describe_exit(status)));
            }
            if timeout(START_LIMIT, self.responds()).await == Ok(true) {
                return Ok(());
            }
            sleep(START_POLL).await;
        }
        self.stop_child().await;
        Err(self.no_start(format!("no answer within {START_LIMIT:?}")))
    }

    async fn responds(&self) -> bool {
        let ping = async {
            let mut stream = UnixStream::connect(&self.folder.socket).await?;
            stream.write_all(b"PING\r\n").await?;
            let mut reply = [0; 8];
            stream.read_exact(&mut reply[..5]).await?;
            std::io::Result::Ok(reply)
        };
        ping.await.is_ok_and(|reply| reply.starts_with(b"+PONG") || reply.starts_with(b"-LOAD"))
    }

    fn no_start(&self, why: String) -> EmbeddedError {
        EmbeddedError::NoStart { program: self.program.to_string(), why }
    }

    fn describe_exit(&self, status: ExitStatus) -> String {
        let full = self.disk.full().map_or_else(String::new, |full| format!("{full}; "));
        format!("{full}{status}; the end of its log: {}", self.folder.end_of_log())
    }

    /// Waits for the child to die and starts it again, until the stop.
    async fn run(mut self) {
        let stopping = self.stopping.clone();
        let mut pause = RESTART_PAUSE.0;
        loop {
            tokio::select! {
                () = stopping.cancelled() => break,
                why = self.death() => tracing::error!(why, pause = ?pause, "redis is not running and is started again"),
                () = sleep(DISK_INTERVAL) => {
                    self.check_disk();
                    continue;
                }
            }
            self.check_disk();
            if self.started.elapsed() >= STEADY {
                pause = RESTART_PAUSE.0;
            }
            tokio::select! {
                () = stopping.cancelled() => break,
                () = sleep(pause) => {}
            }
            pause = (pause * 2).min(RESTART_PAUSE.1);
            // On a full disk it would die at its first write again.
            while self.check_disk() {
                tokio::select! {
                    () = stopping.cancelled() => return,
                    () = sleep(DISK_INTERVAL) => {}
                }
            }
            if let Err(error) = self.spawn() {
                tracing::error!(%error, "redis could not be started");
            }
        }
        self.stop_child().await;
    }

    /// Publishes whether the disk is full, and returns it. A full disk counts as full until it has enough room again.
    fn check_disk(&self) -> bool {
        let was_full = self.trouble.borrow().is_some();
        let full = if was_full { self.disk.short_of_room() } else { self.disk.full() };
        match &full {
            Some(why) if !was_full => tracing::error!(why, "the store can't write"),
            None if was_full => tracing::info!("the disk of the data folder has room again"),
            _ => {}
        }
        let full: Option<Arc<str>> = full.map(Arc::from);
        // Compares without the text: its numbers always change.
        self.trouble.send_if_modified(|trouble| {
            let is_other = trouble.is_some() != full.is_some();
            if is_other {
                *trouble = full.clone();
            }
            is_other
        });
        full.is_some()
    }

    /// Waits until there is no child. Returns the cause. Can be dropped and called again.
    async fn death(&mut self) -> String {
        let Some(child) = &mut self.child else {
            return "the last start failed".to_owned();
        };
        let status = child.wait().await;
        self.child = None;
        match status {
            Ok(status) => self.describe_exit(status),
            Err(error) => error.to_string(),
        }
    }

    async fn stop_child(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        process::terminate(child.id());
        if timeout(STOP_LIMIT, child.wait()).await.is_err() {
            tracing::warn!(limit = ?STOP_LIMIT, "redis did not stop in time and is killed");
            process::kill_group(child.id());
            let _ = child.wait().await;
        }
        tracing::info!("redis stopped");
    }
}

#[cfg(test)]
mod tests;
