//! The writer of the witness file, and the conversion between the file and memory. Touches the file only through
//! [`StateDir`].

use std::{
    io,
    path::Path,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::{Duration, SystemTime},
};

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::{
    KnownNamespace, Witness, Witnesses,
    file::{ClaimEntry, Document, FIRST_FORMAT, FORMAT, NamespaceEntry, PartitionEntry, StateDir, from_hex, to_hex},
};
use crate::{
    domain::{HistoryPoint, NamespaceName, Term},
    store::wire::NamespaceConfig,
};

/// Pause between two writes of the file.
const WRITE_INTERVAL: Duration = Duration::from_secs(1);

/// The state of the file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Written {
    /// The time of the last write that succeeded.
    pub(crate) at: Option<SystemTime>,
    /// The error of the last write, if it failed.
    pub(crate) error: Option<String>,
}

impl Witnesses {
    pub(super) fn read_entry(&self, entry: NamespaceEntry) -> Option<(NamespaceName, KnownNamespace)> {
        let name = NamespaceName::parse(entry.name).ok()?;
        let config = NamespaceConfig::decode(&from_hex(&entry.config)?).ok()?;
        let partition = |(partition, entry): (u16, PartitionEntry)| {
            let claim = |claim: ClaimEntry| {
                let term = Term::parse(claim.term.as_bytes())?;
                Some(HistoryPoint { epoch: claim.epoch, term, sequence: claim.sequence })
            };
            let claims = entry.claims.into_iter().map(claim).collect::<Option<_>>()?;
            Some(self.witness(&name, partition, entry.epoch, claims))
        };
        let partitions = (0..).zip(entry.partitions).map(partition).collect::<Option<_>>()?;
        Some((name, KnownNamespace { config, is_deleted: entry.deleted, partitions }))
    }

    /// The path of the file, if there is one.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.folder.as_ref().map(StateDir::path)
    }

    /// The state of the file.
    pub(crate) fn written(&self) -> Written {
        self.written.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Writes the file after each change, at most once per [`WRITE_INTERVAL`], and at the stop. Returns at once if
    /// there is no state folder.
    pub(crate) async fn keep(self: Arc<Self>, stop: CancellationToken) {
        if self.folder.is_none() {
            return;
        }
        let mut ticks = interval(WRITE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut written = (0, None);
        loop {
            let is_stopping = tokio::select! {
                () = stop.cancelled() => true,
                _ = ticks.tick() => false,
            };
            let changes = (self.changes.load(Ordering::Relaxed), self.identity.id());
            if changes != written {
                let witnesses = Arc::clone(&self);
                // A write can block for long.
                match tokio::task::spawn_blocking(move || witnesses.write()).await {
                    Ok(true) => written = changes,
                    Ok(false) => {}
                    Err(error) => tracing::error!(%error, "the task that writes the witness file failed"),
                }
            }
            if is_stopping {
                return;
            }
        }
    }

    /// Writes the file. Returns whether it succeeded.
    pub(super) fn write(&self) -> bool {
        let (Some(folder), Some(store_id)) = (&self.folder, self.identity.id()) else { return false };
        let result = folder.write(&self.document(store_id));
        self.record_write(folder.path(), &result);
        result.is_ok()
    }

    fn record_write(&self, path: &Path, result: &io::Result<()>) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.error = result.as_ref().err().map(ToString::to_string);
        match result {
            Ok(()) => {
                written.at = Some(SystemTime::now());
                if self.is_failing.swap(false, Ordering::Relaxed) {
                    tracing::info!(path = %path.display(), "the witness file is written again");
                }
            }
            Err(error) => {
                if !self.is_failing.swap(true, Ordering::Relaxed) {
                    tracing::error!(path = %path.display(), %error, "the witness file can't be written");
                }
            }
        }
    }

    fn document(&self, store_id: String) -> Document {
        let namespaces = self.namespaces();
        let partition = |witness: &Arc<Witness>| {
            let known = witness.known();
            let claim = |claim: &HistoryPoint| ClaimEntry {
                epoch: claim.epoch,
                term: claim.term.as_str().to_owned(),
                sequence: claim.sequence,
            };
            PartitionEntry { epoch: known.epoch, claims: known.claims.iter().map(claim).collect() }
        };
        let namespace = |(name, known): (&NamespaceName, &KnownNamespace)| NamespaceEntry {
            name: name.as_str().to_owned(),
            config: to_hex(&known.config.encode()),
            deleted: known.is_deleted,
            partitions: known.partitions.iter().map(partition).collect(),
        };
        let mut entries: Vec<_> = namespaces.iter().map(namespace).collect();
        entries.sort_by(|one, other| one.name.cmp(&other.name));
        let version = if entries.iter().any(|entry| entry.deleted) { FORMAT } else { FIRST_FORMAT };
        Document { version, checksum: String::new(), store_id, namespaces: entries }
    }
}
