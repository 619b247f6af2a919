//! Searches of the store for namespaces that this server has not opened. All calls that wait share one read, and each
//! namespace that is found is opened once. Uses the store and what this server knows; knows nothing of calls.

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

/// Names that one read of the store looks up.
const NAMES_AT_ONCE: usize = 512;

/// More namespaces than there can be.
pub(super) const ANY_NUMBER: usize = 1 << 40;

/// The first format of a namespace that can keep a fence.
const FIRST_WITH_FENCE: u8 = 2;

/// What a search in the store came to.
pub(crate) type Found = Result<Option<Arc<Namespace>>, StoreError>;

/// Names that are being looked up. No name is in both maps; both are bounded by the calls that wait.
#[derive(Default)]
pub(super) struct Searches {
    /// Names of the next read, which is not sent yet: what it finds answers all who wait.
    next: BTreeMap<NamespaceName, watch::Sender<Option<Found>>>,
    /// Names of reads that were sent, until they are answered. That one found nothing is no answer to a call that came
    /// after it was sent.
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
    /// What came of it; `None` if its task ended without an answer.
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

    /// Whether this name is looked up.
    pub(crate) fn has(&self, name: &NamespaceName) -> bool {
        self.0.contains_key(name)
    }

    /// What came of the search for a name; `None` if there is none.
    pub(crate) async fn found(&self, name: &NamespaceName) -> Option<Found> {
        self.0.get(name)?.clone().result().await
    }
}

/// Reads the store for all names that wait, one read after the other.
struct Reader<S> {
    namespaces: Arc<Namespaces<S>>,
    has_ended: bool,
}

impl<S: NamespaceStore> Reader<S> {
    async fn read(mut self) {
        while let Some(searched) = self.next() {
            let names: Vec<_> = searched.iter().map(|searched| searched.name.clone()).collect();
            match self.namespaces.store.find_all(&names).await {
                Ok(found) => searched.into_iter().zip(found).for_each(|(searched, found)| searched.go_on(found)),
                Err(error) => searched.into_iter().for_each(|searched| searched.answer(Err(error.clone()))),
            }
        }
    }

    /// The names of the next read, which is sent from now on; `None`: no name waits, and the reader has ended.
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
        let searched = |name| Searched { namespaces: Arc::clone(&self.namespaces), name, is_answered: false };
        Some(names.into_iter().map(searched).collect())
    }
}

impl<S> Drop for Reader<S> {
    fn drop(&mut self) {
        if !self.has_ended {
            // After a panic. Those who wait start another one.
            let mut searches = self.namespaces.searches();
            searches.is_reading = false;
            searches.next.clear();
        }
    }
}

/// A name whose read was sent. Its search ends with this, answered or not.
struct Searched<S> {
    namespaces: Arc<Namespaces<S>>,
    name: NamespaceName,
    is_answered: bool,
}

impl<S: NamespaceStore> Searched<S> {
    /// Answers at once where there is nothing to open.
    fn go_on(self, found: Result<Stored, StoreError>) {
        match found {
            Err(error) => self.answer(Err(error)),
            Ok(Stored { presence: Presence::Absent, .. }) if self.namespaces.witnesses.config(&self.name).is_none() => {
                self.answer(Ok(None));
            }
            Ok(found) => {
                let tasks = self.namespaces.lanes.tasks.clone();
                tasks.spawn(Task::NamespaceSearch, async move {
                    // Each opening is limited in time by the store's limits, so a turn comes.
                    let _turn = Arc::clone(&self.namespaces.openings).acquire_owned().await;
                    let opened = self.namespaces.open_found(&self.name, found).await;
                    self.answer(opened);
                });
            }
        }
    }

    fn answer(mut self, found: Found) {
        // From here on the name can be searched for again, and that search is none of this one's.
        self.is_answered = true;
        if let Some(answer) = self.namespaces.searches().sent.remove(&self.name) {
            // Perhaps nobody waits any more.
            let _ = answer.send(Some(found));
        }
    }
}

impl<S> Drop for Searched<S> {
    fn drop(&mut self) {
        if !self.is_answered {
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
        // In a box: else every call carries the whole way of opening a namespace about with it.
        Box::pin(self.find(name)).await
    }

    async fn find(self: &Arc<Self>, name: &NamespaceName) -> Found {
        let (search, was_sent) = self.search(name);
        match search.result().await {
            // The store was read before this call came: another server may have made the namespace since.
            Some(Ok(None)) if was_sent => {}
            Some(found) => return found,
            None => {}
        }
        // Whatever is under way for this name now was sent after this call came.
        let (search, _) = self.search(name);
        search.result().await.unwrap_or_else(|| Err(StoreError::not_applied("the search for the namespace ended")))
    }

    /// Starts to look these names up with one read of the store.
    pub(crate) fn look_up_all(self: &Arc<Self>, names: impl IntoIterator<Item = NamespaceName>) -> Lookups {
        let mut searches = self.searches();
        let lookups = names.into_iter().filter_map(|name| {
            // One that was sent before this call came is left to `get`.
            let search = (!searches.sent.contains_key(&name)).then(|| searches.join_next(&name))?;
            Some((name, search))
        });
        let lookups = Lookups(lookups.collect());
        self.start_reader(searches);
        lookups
    }

    /// The search for this name, and whether its read was sent before. A crowd at the opening of a sale shares one.
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
        // A task of its own: the caller who came first may be the first to go.
        self.lanes.tasks.spawn(Task::NamespaceSearch, reader.read());
    }

    /// Opens a namespace that was looked up, and makes it again where only this server knows it.
    pub(super) async fn open_found(&self, name: &NamespaceName, found: Stored) -> Found {
        self.unended_deletions.note(name, &found.presence);
        self.forget_deleted(name, &found).await?;
        match (found.presence, self.witnesses.config(name)) {
            (Presence::Live(config), _) => self.open(name, &config).await.map(Some),
            (Presence::Deleting { deleting, .. }, _) if deleting.is_final => Ok(None),
            (Presence::Deleting { .. }, _) => Err(being_deleted()),
            (Presence::Absent, Some(known)) => {
                // The store has lost a namespace that this server knows: it is made as it was, and fenced.
                self.register(name, ANY_NUMBER).await?;
                // The oldest format can't keep the fence. A server that does not know a newer one refuses the namespace.
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
