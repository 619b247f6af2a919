//! A Redis of our own: `valkey-server` or `redis-server` from PATH as a child on a unix socket in
//! the data folder, restarted when it dies and stopped with us.
//!
//! Two locks in the folder say who is there. `lock` is held by this server. `redis.lock` is handed
//! to the child as its standard input, so the kernel keeps it locked for as long as the child
//! lives, even when this server was killed: the next one finds the orphan by it and stops it
//! before two processes can write the same files.

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

/// Longest wait for a new child to answer: it may have a large file to read.
const START_LIMIT: Duration = Duration::from_secs(30);

/// Pause between two looks at a child that is starting.
const START_POLL: Duration = Duration::from_millis(10);

/// First and longest pause before a child that died is started again.
const RESTART_PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Pause between two looks at the disk.
const DISK_INTERVAL: Duration = Duration::from_millis(500);

/// A child that lived this long has its next restart at the first pause again.
const STEADY: Duration = Duration::from_secs(30);

/// Longest wait for a child to stop in order; then it is killed.
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
    #[error("the data folder {} is in use by another sentinel-server{}: give each its own --data-dir", folder.display(), pid(*holder))]
    InUse {
        /// The folder.
        folder: PathBuf,
        /// The other server's process, if it said so.
        holder: Option<u32>,
    },
    /// A child of an earlier server still runs and does not stop.
    #[error("a redis{} that an earlier server started still uses {} and does not stop: end it by hand", pid(*holder), folder.display())]
    Orphan {
        /// The folder.
        folder: PathBuf,
        /// The child.
        holder: Option<u32>,
    },
    /// The folder or a file in it can't be used.
    #[error("cannot use the data folder: {what}: {source}")]
    Folder {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The child did not come up.
    #[error("{program} did not start: {why}")]
    NoStart {
        /// Which program.
        program: String,
        /// What it said last.
        why: String,
    },
}

fn pid(holder: Option<u32>) -> String {
    holder.map_or_else(String::new, |pid| format!(" (process {pid})"))
}

/// What keeps the store from working, for people; `None`: nothing that the supervisor knows of.
pub(crate) type Trouble = watch::Receiver<Option<Arc<str>>>;

/// A running child and its supervisor. Dropped without [`Embedded::stop`], it is stopped too, but
/// nobody waits for it.
pub(crate) struct Embedded {
    url: RedisUrl,
    trouble: Trouble,
    stopping: CancellationToken,
    supervisor: Option<JoinHandle<()>>,
}

impl Embedded {
    /// Starts a child and waits until it answers.
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

    /// Where it listens.
    pub(crate) fn url(&self) -> &RedisUrl {
        &self.url
    }

    /// What keeps it from working.
    pub(crate) fn trouble(&self) -> Trouble {
        self.trouble.clone()
    }

    /// Stops the child; bounded, for it is killed if need be.
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

/// Keeps one child going.
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
        // Never a dead child's id beside a living one: the id may be somebody else's by then.
        self.folder.note_redis(&self.lock, None);
        let child = self.program.spawn(&self.folder, &self.lock)?;
        self.started = Instant::now();
        self.folder.note_redis(&self.lock, child.id());
        tracing::info!(program = %self.program, pid = child.id(), folder = %self.folder.path.display(), "redis started");
        self.child = Some(child);
        Ok(())
    }

    /// Waits until the child answers, be it that it is loading; fails at once if it dies.
    async fn wait_until_up(&mut self) -> Result<(), EmbeddedError> {
        while self.started.elapsed() < START_LIMIT {
            if let Some(child) = &mut self.child
                && let Ok(Some(status)) = child.try_wait()
            {
                return Err(self.no_start(self.said_last(status)));
            }
            if timeout(START_LIMIT, self.answers()).await == Ok(true) {
                return Ok(());
            }
            sleep(START_POLL).await;
        }
        self.stop_child().await;
        Err(self.no_start(format!("no answer within {START_LIMIT:?}")))
    }

    async fn answers(&self) -> bool {
        let ask = async {
            let mut stream = UnixStream::connect(&self.folder.socket).await?;
            stream.write_all(b"PING\r\n").await?;
            let mut reply = [0; 8];
            stream.read_exact(&mut reply[..5]).await?;
            std::io::Result::Ok(reply)
        };
        ask.await.is_ok_and(|reply| reply.starts_with(b"+PONG") || reply.starts_with(b"-LOAD"))
    }

    fn no_start(&self, why: String) -> EmbeddedError {
        EmbeddedError::NoStart { program: self.program.to_string(), why }
    }

    fn said_last(&self, status: ExitStatus) -> String {
        let full = self.disk.full().map_or_else(String::new, |full| format!("{full}; "));
        format!("{full}{status}; its last words: {}", self.folder.last_words())
    }

    /// Until it is told to stop: waits for the child to die and starts it again.
    async fn run(mut self) {
        let stopping = self.stopping.clone();
        let mut pause = RESTART_PAUSE.0;
        loop {
            tokio::select! {
                () = stopping.cancelled() => break,
                why = self.death() => tracing::error!(why, pause = ?pause, "redis died and is started again"),
                () = sleep(DISK_INTERVAL) => {
                    self.look_at_disk();
                    continue;
                }
            }
            self.look_at_disk();
            if self.started.elapsed() >= STEADY {
                pause = RESTART_PAUSE.0;
            }
            tokio::select! {
                () = stopping.cancelled() => break,
                () = sleep(pause) => {}
            }
            pause = (pause * 2).min(RESTART_PAUSE.1);
            // On a full disk it would die of its first write again.
            while self.look_at_disk() {
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

    /// Notes whether the disk is full. One that was full is so until there is room to go on.
    fn look_at_disk(&self) -> bool {
        let was_full = self.trouble.borrow().is_some();
        let full = if was_full { self.disk.short_of_room() } else { self.disk.full() };
        match &full {
            Some(why) if !was_full => tracing::error!(why, "the store can't write"),
            None if was_full => tracing::info!("the disk of the data folder has room again"),
            _ => {}
        }
        let full: Option<Arc<str>> = full.map(Arc::from);
        // The numbers in it change all the time.
        self.trouble.send_if_modified(|trouble| {
            let is_other = trouble.is_some() != full.is_some();
            if is_other {
                *trouble = full.clone();
            }
            is_other
        });
        full.is_some()
    }

    /// Waits until there is no child, and says why. Can be dropped and called again.
    async fn death(&mut self) -> String {
        let Some(child) = &mut self.child else {
            return "it could not be started".to_owned();
        };
        let status = child.wait().await;
        self.child = None;
        match status {
            Ok(status) => self.said_last(status),
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
