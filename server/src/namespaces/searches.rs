//! Searches of the store for namespaces that this server has not opened. All waiting calls share one read, and each
//! namespace that is found is opened once. Uses the store and the witnesses.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use super::{Namespace, Namespaces, being_deleted};
use crate::{
    domain::NamespaceName,
    store::{
        NamespaceStore,
        error::StoreError,
        wire::{Found as Stored, NamespaceConfig, Presence},
    },
    tasks::Task,
};

/// The most names of one read of the store.
const NAMES_AT_ONCE: usize = 512;

/// A limit that no number of namespaces reaches.
pub(super) const ANY_NUMBER: usize = 1 << 40;

/// The first format of a namespace that can keep a fence.
const FIRST_WITH_FENCE: u8 = 2;

/// The result of a search in the store.
pub(crate) type Found = Result<Option<Arc<Namespace>>, StoreError>;

/// The searches in progress. No name is in both maps. Both are bounded by the number of waiting calls.
#[derive(Default)]
pub(super) struct Searches {
    /// Names of the next read, which is not sent yet. Its result is for all that wait.
    next: BTreeMap<NamespaceName, watch::Sender<Option<Found>>>,
    /// Names of reads that were sent and have no result yet. For a call that came after the read was sent, "absent" is
    /// no valid result.
    sent: BTreeMap<NamespaceName, watch::Sender<Option<Found>>>,
    is_reading: bool,
}

impl Searches {
    fn join_next(&mut self, name: &NamespaceName) -> Search {
        if let Some(answer) = self.next.get(name) {
            return Search(answer.subscribe());
        }
        let (answer, search) = watch::channel(None);
        self.next.insert(name.clone(), answer);
        Search(search)
    }
}

/// A search for one name.
#[derive(Clone)]
struct Search(watch::Receiver<Option<Found>>);

impl Search {
    /// Its result; `None` if its task ended without one.
    async fn result(mut self) -> Option<Found> {
        self.0.wait_for(Option::is_some).await.ok().and_then(|found| found.clone())
    }
}

/// Searches of one call for several names, which share one read of the store.
#[derive(Default)]
pub(crate) struct Lookups(HashMap<NamespaceName, Search>);

impl Lookups {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether there is a search for this name.
    pub(crate) fn has(&self, name: &NamespaceName) -> bool {
        self.0.contains_key(name)
    }

    /// The result of the search for a name; `None` if there is no search for it.
    pub(crate) async fn found(&self, name: &NamespaceName) -> Option<Found> {
        self.0.get(name)?.clone().result().await
    }
}

/// Reads the store for all waiting names, one read after the other.
struct Reader<S> {
    namespaces: Arc<Namespaces<S>>,
    has_ended: bool,
}

impl<S: NamespaceStore> Reader<S> {
    async fn read(mut self) {
        while let Some(searched) = self.next() {
            let names: Vec<_> = searched.iter().map(|searched| searched.name.clone()).collect();
            match self.namespaces.store.find_all(&names).await {
                Ok(found) => searched.into_iter().zip(found).for_each(|(searched, found)| searched.open(found)),
                Err(error) => searched.into_iter().for_each(|searched| searched.finish(Err(error.clone()))),
            }
        }
    }

    /// The names of the next read, which count as sent from now on. `None`: no name waits, and the reader has ended.
    fn next(&mut self) -> Option<Vec<Searched<S>>> {
        let mut searches = self.namespaces.searches();
        let names: Vec<_> = searches.next.keys().take(NAMES_AT_ONCE).cloned().collect();
        if names.is_empty() {
            searches.is_reading = false;
            drop(searches);
            self.has_ended = true;
            return None;
        }
        for name in &names {
            if let Some(answer) = searches.next.remove(name) {
                searches.sent.insert(name.clone(), answer);
            }
        }
        drop(searches);
        let searched = |name| Searched { namespaces: Arc::clone(&self.namespaces), name, is_finished: false };
        Some(names.into_iter().map(searched).collect())
    }
}

impl<S> Drop for Reader<S> {
    fn drop(&mut self) {
        if !self.has_ended {
            // After a panic. The waiting calls start another reader.
            let mut searches = self.namespaces.searches();
            searches.is_reading = false;
            searches.next.clear();
        }
    }
}

/// A name whose read was sent. Its drop ends the search, with or without a result.
struct Searched<S> {
    namespaces: Arc<Namespaces<S>>,
    name: NamespaceName,
    is_finished: bool,
}

impl<S: NamespaceStore> Searched<S> {
    /// Opens the namespace in a task, if there is one to open.
    fn open(self, found: Result<Stored, StoreError>) {
        match found {
            Err(error) => self.finish(Err(error)),
            Ok(Stored { presence: Presence::Absent, .. }) if self.namespaces.witnesses.config(&self.name).is_none() => {
                self.finish(Ok(None));
            }
            Ok(found) => {
                let tasks = self.namespaces.lanes.tasks.clone();
                tasks.spawn(Task::NamespaceSearch, async move {
                    // The limits of the store bound the time of each opening, so a permit becomes free.
                    let _permit = Arc::clone(&self.namespaces.openings).acquire_owned().await;
                    let opened = self.namespaces.open_found(&self.name, found).await;
                    self.finish(opened);
                });
            }
        }
    }

    fn finish(mut self, found: Found) {
        // From here on another search for the name can start, which the drop must not remove.
        self.is_finished = true;
        if let Some(result) = self.namespaces.searches().sent.remove(&self.name) {
            // It fails only if no call waits any more.
            let _ = result.send(Some(found));
        }
    }
}

impl<S> Drop for Searched<S> {
    fn drop(&mut self) {
        if !self.is_finished {
            self.namespaces.searches().sent.remove(&self.name);
        }
    }
}

impl<S: NamespaceStore> Namespaces<S> {
    /// The namespace, if there is one.
    pub(crate) async fn get(self: &Arc<Self>, name: &NamespaceName) -> Found {
        if let Some(namespace) = self.opened(name) {
            return Ok(Some(namespace));
        }
        // Boxed: otherwise the future of every call would contain the large future of an opening.
        Box::pin(self.find(name)).await
    }

    async fn find(self: &Arc<Self>, name: &NamespaceName) -> Found {
        let (search, was_sent) = self.search(name);
        match search.result().await {
            // The store was read before this call came: another server may have created the namespace since.
            Some(Ok(None)) if was_sent => {}
            Some(found) => return found,
            None => {}
        }
        // Any search for this name in progress now was sent after this call came.
        let (search, _) = self.search(name);
        search.result().await.unwrap_or_else(|| Err(StoreError::not_applied("the search for the namespace ended")))
    }

    /// Starts searches for these names with one read of the store.
    pub(crate) fn search_all(self: &Arc<Self>, names: impl IntoIterator<Item = NamespaceName>) -> Lookups {
        let mut searches = self.searches();
        let lookups = names.into_iter().filter_map(|name| {
            // A search that was sent before this call came is left to `get`.
            let search = (!searches.sent.contains_key(&name)).then(|| searches.join_next(&name))?;
            Some((name, search))
        });
        let lookups = Lookups(lookups.collect());
        self.start_reader(searches);
        lookups
    }

    /// The search for this name, and whether its read was sent before. All calls at the opening of a sale share one.
    fn search(self: &Arc<Self>, name: &NamespaceName) -> (Search, bool) {
        let mut searches = self.searches();
        if let Some(answer) = searches.sent.get(name) {
            return (Search(answer.subscribe()), true);
        }
        let search = searches.join_next(name);
        self.start_reader(searches);
        (search, false)
    }

    fn start_reader(self: &Arc<Self>, mut searches: MutexGuard<'_, Searches>) {
        if searches.next.is_empty() || std::mem::replace(&mut searches.is_reading, true) {
            return;
        }
        drop(searches);
        let reader = Reader { namespaces: Arc::clone(self), has_ended: false };
        // A separate task: the first caller may disconnect first.
        self.lanes.tasks.spawn(Task::NamespaceSearch, reader.read());
    }

    /// Opens a namespace that was searched for. If the store has lost it and this server has recorded it, creates it
    /// again.
    pub(super) async fn open_found(&self, name: &NamespaceName, found: Stored) -> Found {
        self.unfinished_deletions.record(name, &found.presence);
        self.forget_deleted(name, &found).await?;
        match (found.presence, self.witnesses.config(name)) {
            (Presence::Live(config), _) => self.open(name, &config).await.map(Some),
            (Presence::Deleting { deleting, .. }, _) if deleting.is_final => Ok(None),
            (Presence::Deleting { .. }, _) => Err(being_deleted()),
            (Presence::Absent, Some(known)) => {
                // The store has lost a recorded namespace: it is created with the recorded config, and fenced.
                self.register(name, ANY_NUMBER).await?;
                // The oldest format can't keep the fence. A server that can't read the newer one refuses the namespace.
                if known.format < FIRST_WITH_FENCE {
                    let known = NamespaceConfig { format: FIRST_WITH_FENCE, revision: known.revision + 1, ..known };
                    self.witnesses.set_config(name, &known);
                }
                self.open(name, &self.new.defaults.propose(None, self.random())).await.map(Some)
            }
            (Presence::Absent, None) => Ok(None),
        }
    }
}

impl<S> Namespaces<S> {
    fn searches(&self) -> MutexGuard<'_, Searches> {
        self.searches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
