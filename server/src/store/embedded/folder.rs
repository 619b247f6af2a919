//! The data folder of the embedded Redis: its locks, its socket, its log. Touches files only, except for the signal
//! that ends an orphan.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::time::{Instant, sleep};

use super::{EmbeddedError, process};

/// The longest path of a unix socket, in bytes: the kernel's 108, without the NUL.
const MAX_SOCKET_PATH: usize = 107;

/// A log longer than this, in bytes, is renamed when a child starts.
const MAX_LOG_BYTES: u64 = 10 * 1024 * 1024;

/// The bytes that are read from the end of the log, and the lines of it that are quoted.
const END_OF_LOG: (u64, usize) = (4_096, 3);

/// Pause between two attempts to take a lock that an orphan holds.
const LOCK_POLL: Duration = Duration::from_millis(20);

/// A data folder that this process has locked.
pub(super) struct Folder {
    /// Absolute.
    pub(super) path: PathBuf,
    /// The path of the socket on which the child listens.
    pub(super) socket: PathBuf,
    /// `lock`, held.
    _lock: File,
}

impl Folder {
    /// Creates the folder if it is absent, for this user only, and locks it.
    pub(super) fn open(path: &Path) -> Result<Folder, EmbeddedError> {
        let failed = |what: &str| {
            let what = format!("{what} {}", path.display());
            move |source| EmbeddedError::Folder { what, source }
        };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed("make"))?;
        let path = path.canonicalize().map_err(failed("find"))?;
        let mode = fs::metadata(&path).map_err(failed("read the mode of"))?.permissions().mode();
        if mode & 0o077 != 0 {
            let mode = format!("{:o}", mode & 0o777);
            tracing::warn!(folder = %path.display(), mode, "other users can enter the data folder: chmod 700");
        }

        let lock = open_lock(&path.join("lock")).map_err(failed("lock"))?;
        match lock.try_lock() {
            Ok(()) => note(&lock, Some(std::process::id())),
            Err(TryLockError::WouldBlock) => {
                return Err(EmbeddedError::InUse { holder: holder(&lock), folder: path });
            }
            Err(TryLockError::Error(source)) => return Err(failed("lock")(source)),
        }
        let socket = socket_path(&path).map_err(failed("find a place for the socket of"))?;
        Ok(Folder { path, socket, _lock: lock })
    }

    /// Takes the lock that every child holds. If it is held, its holder is an orphan, which is stopped.
    pub(super) async fn lock_redis(&self, limit: Duration) -> Result<File, EmbeddedError> {
        let failed = |source| EmbeddedError::Folder { what: "lock redis.lock".to_owned(), source };
        let lock = open_lock(&self.path.join("redis.lock")).map_err(failed)?;
        let began = Instant::now();
        let mut is_terminated = false;
        let mut killed = false;
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(lock),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(source)) => return Err(failed(source)),
            }
            let orphan = holder(&lock);
            if !is_terminated {
                tracing::warn!(pid = orphan, "a redis of an earlier server still runs and is stopped");
                process::terminate(orphan);
                is_terminated = true;
            } else if began.elapsed() > limit && !killed {
                process::kill_group(orphan);
                killed = true;
            } else if began.elapsed() > 2 * limit {
                return Err(EmbeddedError::Orphan { folder: self.path.clone(), holder: orphan });
            }
            sleep(LOCK_POLL).await;
        }
    }

    /// Writes the process id of the child into the lock that it holds.
    pub(super) fn note_redis(&self, lock: &File, child: Option<u32>) {
        note(lock, child);
    }

    /// The log of the child, opened for appending. A long log is renamed first.
    pub(super) fn log(&self) -> io::Result<File> {
        let path = self.log_path();
        if fs::metadata(&path).is_ok_and(|log| log.len() > MAX_LOG_BYTES) {
            fs::rename(&path, self.path.join("redis.log.1"))?;
        }
        OpenOptions::new().create(true).append(true).mode(0o600).open(path)
    }

    /// The last lines of the log, as one line.
    pub(super) fn end_of_log(&self) -> String {
        let read = || -> io::Result<String> {
            let mut log = File::open(self.log_path())?;
            let length = log.metadata()?.len();
            log.seek(SeekFrom::Start(length.saturating_sub(END_OF_LOG.0)))?;
            let mut end = Vec::new();
            log.take(END_OF_LOG.0).read_to_end(&mut end)?;
            Ok(String::from_utf8_lossy(&end).into_owned())
        };
        let end = read().unwrap_or_default();
        let lines: Vec<&str> = end.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let last = &lines[lines.len().saturating_sub(END_OF_LOG.1)..];
        if last.is_empty() { "none".to_owned() } else { last.join(" | ") }
    }

    fn log_path(&self) -> PathBuf {
        self.path.join("redis.log")
    }
}

/// The path of the socket: in the data folder, or, if that path is too long, in a private temporary folder whose name
/// is derived from the data folder's.
fn socket_path(folder: &Path) -> io::Result<PathBuf> {
    let socket = folder.join("redis.sock");
    if socket.as_os_str().len() <= MAX_SOCKET_PATH {
        return Ok(socket);
    }
    let digest = Sha256::digest(folder.as_os_str().as_encoded_bytes());
    let name: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let user = rustix::process::geteuid().as_raw();
    let private = std::env::temp_dir().join(format!("inventory-sentinel-{user}-{name}"));
    match DirBuilder::new().mode(0o700).create(&private) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    // If another user has created it first, it is not private.
    let found = fs::symlink_metadata(&private)?;
    if !found.is_dir() || found.uid() != user || found.mode() & 0o077 != 0 {
        return Err(io::Error::other(format!("{} is not a private folder of this user", private.display())));
    }
    let socket = private.join("redis.sock");
    if socket.as_os_str().len() > MAX_SOCKET_PATH {
        return Err(io::Error::other(format!("{} is longer than {MAX_SOCKET_PATH} bytes", socket.display())));
    }
    Ok(socket)
}

fn open_lock(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Writes the holder's process id into a lock, for error messages and for the stop of an orphan. The kernel keeps the
/// lock, so a failure here has no effect on it.
fn note(mut lock: &File, pid: Option<u32>) {
    // Overwrites the old id with the same number of bytes, which works on a full disk too.
    let line = format!("{:<11}\n", pid.map_or_else(String::new, |pid| pid.to_string()));
    let mut write = || -> io::Result<()> {
        lock.rewind()?;
        lock.write_all(line.as_bytes())
    };
    if let Err(error) = write() {
        tracing::warn!(%error, "the process id could not be written to the lock file");
    }
}

fn holder(mut lock: &File) -> Option<u32> {
    let mut text = String::new();
    lock.rewind().ok()?;
    lock.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}
