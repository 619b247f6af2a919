//! The files of access: certificate, key, client CA, policy, tokens, key sets. They are read at the start, and again at
//! an interval: file events miss the symbolic links that Kubernetes swaps. A bad file keeps the last good one.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use inventory_sentinel_access::{Rules, limits::MAX_TOKENS_FILE_BYTES};
use sha2::{Digest as _, Sha256};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::{
    guard::Guard,
    tls::{ClientAuth, Pem, Tls},
};
use crate::telemetry::{access::AccessMetrics, limit::RECORD};

/// The largest file, in bytes: that of the tokens may be the largest.
const MAX_FILE: u64 = MAX_TOKENS_FILE_BYTES as u64;
/// The failure of the same contents that is reported.
const REPORTED_FAILURE: u64 = 2;
/// A certificate is reported when this much of its life is left, or [`EXPIRY_WARNING`] if that is less.
const EXPIRY_SHARE: u32 = 3;
const EXPIRY_WARNING: Duration = Duration::from_secs(14 * 24 * 3_600);
/// Pause between two such reports.
const EXPIRY_REPORT_INTERVAL: Duration = Duration::from_secs(3_600);

/// The paths of the files.
#[derive(Clone, Debug)]
pub(crate) struct AccessFiles {
    pub(crate) tls: Option<TlsFiles>,
    pub(crate) policy: Option<PathBuf>,
}

/// The paths of the files of TLS.
#[derive(Clone, Debug)]
pub(crate) struct TlsFiles {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) client_ca: Option<PathBuf>,
    pub(crate) client_auth: ClientAuth,
}

/// The guard and the TLS configuration of a server, and the files that they come from.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    pub(crate) guard: Arc<Guard>,
    pub(crate) tls: Option<Arc<Tls>>,
}

/// The files since their last read.
pub(crate) struct Watched {
    files: AccessFiles,
    tls: Source,
    policy: Source,
    /// The files that the policy names, in the version that was read last.
    policy_files: Vec<PathBuf>,
    next_expiry_report: Option<SystemTime>,
}

/// The state of one group of files.
#[derive(Default)]
struct Source {
    /// The digest of the contents that are in use.
    used: [u8; 32],
    /// The digest of contents that failed, and how often.
    failed: Option<([u8; 32], u64)>,
}

impl Access {
    /// Reads the files. Without files every call is allowed, and the ports have no TLS.
    ///
    /// # Errors
    /// One line for each problem.
    pub(crate) fn load(
        files: AccessFiles,
        max_failed_attempts: u32,
        metrics: &AccessMetrics,
    ) -> Result<(Self, Watched), String> {
        let mut watched = Watched {
            files,
            tls: Source::default(),
            policy: Source::default(),
            policy_files: Vec::new(),
            next_expiry_report: None,
        };
        let tls = match &watched.files.tls {
            Some(files) => {
                let pem = files.read()?;
                watched.tls.used = files.digest(&pem);
                Some(Arc::new(Tls::new(&pem, files.client_auth)?))
            }
            None => None,
        };
        let rules = match &watched.files.policy {
            Some(path) => {
                let ReadPolicy { rules, files, digest } = read_policy(path);
                watched.policy.used = digest;
                watched.policy_files = files;
                Some(rules?)
            }
            None => None,
        };
        let guard = Arc::new(Guard::new(rules, max_failed_attempts, metrics.clone()));
        let access = Self { guard, tls };
        access.report_expiry(&mut watched, metrics);
        Ok((access, watched))
    }

    /// Access without files.
    pub(crate) fn open(metrics: AccessMetrics) -> Self {
        Self { guard: Arc::new(Guard::new(None, 1, metrics)), tls: None }
    }

    /// Reads changed files at an interval, until the stop.
    pub(crate) async fn watch(
        self,
        watched: Arc<std::sync::Mutex<Watched>>,
        interval: Duration,
        metrics: AccessMetrics,
        stop: CancellationToken,
    ) {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let (access, watched, metrics) = (self.clone(), Arc::clone(&watched), metrics.clone());
            let check = tokio::task::spawn_blocking(move || {
                access.check(&mut watched.lock().unwrap_or_else(std::sync::PoisonError::into_inner), &metrics);
            });
            if let Err(error) = check.await {
                tracing::error!(%error, "the files of access can't be checked");
            }
        }
    }

    /// Reads the files once, and uses those that changed.
    fn check(&self, watched: &mut Watched, metrics: &AccessMetrics) {
        if let (Some(tls), Some(files)) = (&self.tls, &watched.files.tls) {
            let pem = files.read();
            let digest = pem.as_ref().map_or_else(|error| digest([error.as_bytes()]), |pem| files.digest(pem));
            if watched.tls.is_changed(digest) {
                let result = pem.and_then(|pem| tls.replace(&pem));
                // The next certificate has a separate report.
                watched.next_expiry_report = watched.next_expiry_report.filter(|_| result.is_err());
                watched.tls.conclude("certificate", digest, result, metrics);
            }
        }
        if let Some(path) = watched.files.policy.clone()
            && watched.policy.is_changed(digest_of_files(&path, &watched.policy_files))
        {
            let ReadPolicy { rules, files, digest } = read_policy(&path);
            let result = rules.map(|rules| {
                // The new policy can name other files.
                watched.policy_files = files;
                self.guard.replace(rules);
            });
            watched.policy.conclude("policy", digest, result, metrics);
        }
        self.report_expiry(watched, metrics);
    }

    /// Sets the gauges of expiry, and logs a warning for a certificate that expires soon.
    fn report_expiry(&self, watched: &mut Watched, metrics: &AccessMetrics) {
        let Some(tls) = &self.tls else { return };
        let expiry = tls.expiry();
        let now = SystemTime::now();
        let is_due = watched.next_expiry_report.is_none_or(|next| now >= next);
        for (name, dates) in [("server", Some(expiry.certificate)), ("client_ca", expiry.client_ca)] {
            let Some(dates) = dates else { continue };
            metrics.set_not_after(name, dates.not_after);
            let life = dates.not_after.duration_since(dates.not_before).unwrap_or_default();
            let left = dates.not_after.duration_since(now).unwrap_or_default();
            if is_due && left < EXPIRY_WARNING.min(life / EXPIRY_SHARE) {
                let left = humantime::format_duration(Duration::from_secs(left.as_secs())).to_string();
                tracing::warn!(target: RECORD, certificate = name, left, "a certificate expires soon");
                watched.next_expiry_report = Some(now + EXPIRY_REPORT_INTERVAL);
            }
        }
    }
}

impl Source {
    fn is_changed(&mut self, digest: [u8; 32]) -> bool {
        if self.used == digest {
            self.failed = None;
        }
        self.used != digest
    }

    /// Reports a reload. Bad contents are read again at each check: a certificate can become valid. They are reported
    /// when they fail for the second time: at the first time their writer may not be done.
    fn conclude(&mut self, files: &'static str, digest: [u8; 32], result: Result<(), String>, metrics: &AccessMetrics) {
        let Err(error) = result else {
            *self = Self { used: digest, failed: None };
            metrics.inc_reload(files, true);
            tracing::info!(target: RECORD, files, "changed files are in use");
            return;
        };
        let failures = match self.failed {
            Some((failed, failures)) if failed == digest => failures + 1,
            _ => 1,
        };
        self.failed = Some((digest, failures));
        if failures == REPORTED_FAILURE {
            metrics.inc_reload(files, false);
            tracing::error!(target: RECORD, files, error, "changed files are bad: the previous ones stay in use");
        }
    }
}

impl TlsFiles {
    fn read(&self) -> Result<Pem, String> {
        let read = |name, path: &Path| read(path).map_err(|error| format!("{name} {}: {error}", path.display()));
        Ok(Pem {
            certificate: read("the certificate", &self.certificate)?,
            key: read("the key", &self.key)?,
            client_ca: self.client_ca.as_deref().map(|path| read("the client CA", path)).transpose()?,
        })
    }

    fn digest(&self, pem: &Pem) -> [u8; 32] {
        digest([&*pem.certificate, &*pem.key, pem.client_ca.as_deref().unwrap_or_default()])
    }
}

/// A policy as it was read.
struct ReadPolicy {
    rules: Result<Rules, String>,
    /// The files that it names.
    files: Vec<PathBuf>,
    /// The digest of exactly the bytes that were parsed.
    digest: [u8; 32],
}

/// Reads a policy and the files that it names.
fn read_policy(path: &Path) -> ReadPolicy {
    let (mut files, mut contents) = (Vec::new(), Vec::new());
    let mut read_and_keep = |path: &Path| {
        let bytes = read(path);
        contents.push(bytes.as_ref().map_or_else(|error| error.to_string().into_bytes(), Vec::clone));
        bytes
    };
    let text = read_and_keep(path).and_then(|bytes| String::from_utf8(bytes).map_err(io::Error::other));
    let folder = path.parent().unwrap_or(Path::new(""));
    let rules = match text {
        Err(error) => Err(format!("the policy {}: {error}", path.display())),
        Ok(text) => Rules::load(&text, |name| {
            let path = folder.join(name);
            let bytes = read_and_keep(&path);
            files.push(path);
            bytes
        })
        .map_err(|error| {
            let problem = |problem: &String| format!("the policy {}: {problem}", path.display());
            error.problems.iter().map(problem).collect::<Vec<_>>().join("\n")
        }),
    };
    ReadPolicy { rules, files, digest: digest(contents.iter().map(Vec::as_slice)) }
}

/// Reads a file that may be no larger than [`MAX_FILE`].
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(io::Error::other(format!("it is larger than {MAX_FILE} bytes")));
    }
    Ok(bytes)
}

/// The digest of a policy and of the files that it names. An unreadable file counts as its error.
fn digest_of_files(policy: &Path, files: &[PathBuf]) -> [u8; 32] {
    let paths = std::iter::once(policy).chain(files.iter().map(PathBuf::as_path));
    let contents = paths.map(|path| read(path).unwrap_or_else(|error| error.to_string().into_bytes()));
    digest(contents.collect::<Vec<_>>().iter().map(Vec::as_slice))
}

fn digest<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const POLICY: &str = "tokens_file = \"tokens.toml\"\n[[identity]]\nname = \"web\"\ngrants = []\n";

    fn metrics() -> AccessMetrics {
        AccessMetrics::new(&prometheus::Registry::new()).unwrap()
    }

    fn loaded(policy: PathBuf) -> (Access, Watched) {
        Access::load(AccessFiles { tls: None, policy: Some(policy) }, 10, &metrics()).unwrap()
    }

    #[test]
    fn unchanged_files_are_not_used_again() {
        let folder = tempfile::tempdir().unwrap();
        let policy = folder.path().join("policy.toml");
        fs::write(&policy, POLICY).unwrap();
        fs::write(folder.path().join("tokens.toml"), "").unwrap();
        let (access, mut watched) = loaded(policy.clone());
        let first = access.guard.generation();
        access.check(&mut watched, &metrics());
        assert_eq!(access.guard.generation(), first);
        let ReadPolicy { files, digest, .. } = read_policy(&policy);
        assert_eq!(files, [folder.path().join("tokens.toml")]);
        assert_eq!(digest, digest_of_files(&policy, &files));
        // A file that the policy names counts too, and its removal keeps the rules.
        fs::write(folder.path().join("tokens.toml"), "# changed\n").unwrap();
        access.check(&mut watched, &metrics());
        assert_eq!(access.guard.generation(), first + 1);
        fs::remove_file(folder.path().join("tokens.toml")).unwrap();
        access.check(&mut watched, &metrics());
        assert_eq!(access.guard.generation(), first + 1);
    }

    /// Kubernetes changes a mounted secret by another target of a symbolic link.
    #[test]
    fn a_swapped_symbolic_link_is_a_change() {
        let folder = tempfile::tempdir().unwrap();
        for (version, text) in [("v1", POLICY.to_owned()), ("v2", format!("{POLICY}# changed\n"))] {
            fs::create_dir(folder.path().join(version)).unwrap();
            fs::write(folder.path().join(version).join("policy.toml"), text).unwrap();
            fs::write(folder.path().join(version).join("tokens.toml"), "").unwrap();
        }
        let link = folder.path().join("current");
        std::os::unix::fs::symlink("v1", &link).unwrap();
        let (access, mut watched) = loaded(link.join("policy.toml"));
        let first = access.guard.generation();
        let next = folder.path().join("next");
        std::os::unix::fs::symlink("v2", &next).unwrap();
        fs::rename(&next, &link).unwrap();
        access.check(&mut watched, &metrics());
        assert_eq!(access.guard.generation(), first + 1);
        access.check(&mut watched, &metrics());
        assert_eq!(access.guard.generation(), first + 1);
    }
}
