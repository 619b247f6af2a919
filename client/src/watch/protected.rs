//! The set of protected SKUs, cached: `is_protected` needs no call.

use std::{
    collections::HashSet,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use inventory_sentinel::{Reason, v1};
use tokio::{task::AbortHandle, time::sleep};

use super::{ResumableResponse, ResumingStream, StreamItem};
use crate::{operation_errors::IsProtectedError, requests::reads, scope::Scope, transport::stubs::checkout_client};

/// The default maximum age of the set: 5 s. A server that reaches its store confirms the set once a second.
pub const DEFAULT_MAX_AGE: Duration = Duration::from_secs(5);

/// Pause after the stream failed.
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// The protected SKUs of a namespace, kept current by a stream until this is dropped. Made by
/// [`Namespace::watch_protected`](crate::Namespace::watch_protected); cheap to clone.
#[derive(Clone, Debug)]
pub struct ProtectedSkus {
    scope: Scope,
    max_age: Duration,
    cache: Arc<RwLock<Cache>>,
    _task: Arc<Task>,
}

/// The state of the stream.
#[derive(Debug, Default)]
struct Cache {
    skus: HashSet<String>,
    /// When the server last confirmed `skus`; `None`: they are incomplete.
    confirmed_at: Option<Instant>,
    /// The set of an incomplete snapshot. Until it is complete, `skus` stays in force.
    building: Option<HashSet<String>>,
}

#[derive(Debug)]
struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl ProtectedSkus {
    /// Must be called in a Tokio runtime.
    pub(crate) fn watch(scope: Scope) -> ProtectedSkus {
        let cache = Arc::default();
        let task = tokio::spawn(run(open(&scope), Arc::clone(&cache)));
        ProtectedSkus { scope, max_age: DEFAULT_MAX_AGE, cache, _task: Arc::new(Task(task.abort_handle())) }
    }

    /// The same set with another maximum age.
    #[must_use]
    pub fn max_age(&self, max_age: Duration) -> ProtectedSkus {
        ProtectedSkus { max_age, ..self.clone() }
    }

    /// Whether this service governs the units of a SKU: from the set, or by a call if the set is older than
    /// [`max_age`](Self::max_age).
    ///
    /// # Errors
    /// Those of the call; see [`IsProtectedError`].
    pub async fn is_protected(&self, sku: &str) -> Result<bool, IsProtectedError> {
        match self.known(sku) {
            Some(is_protected) => Ok(is_protected),
            None => reads::is_protected(&self.scope, sku).await,
        }
    }

    /// As [`is_protected`](Self::is_protected), from the set alone; `None` if it is too old.
    pub fn known(&self, sku: &str) -> Option<bool> {
        self.read(|skus| skus.contains(sku))
    }

    /// The whole set, unordered; `None` if it is too old.
    pub fn skus(&self) -> Option<Vec<String>> {
        self.read(|skus| skus.iter().cloned().collect())
    }

    fn read<T>(&self, read: impl FnOnce(&HashSet<String>) -> T) -> Option<T> {
        let cache = self.cache.read().unwrap_or_else(PoisonError::into_inner);
        let age = cache.confirmed_at?.elapsed();
        (age <= self.max_age).then(|| read(&cache.skus))
    }
}

fn open(scope: &Scope) -> ResumingStream<v1::WatchProtectedResponse> {
    let namespace_id = scope.namespace_id();
    ResumingStream::new(scope.clone(), String::new(), move |channel, request, resume_token| {
        let message = v1::WatchProtectedRequest { namespace_id: namespace_id.clone(), resume_token };
        let mut client = checkout_client(channel);
        Box::pin(async move { client.watch_protected(request.map(|()| message)).await })
    })
}

impl Cache {
    /// Applies a response; true if the set is complete.
    fn apply(&mut self, response: v1::WatchProtectedResponse, is_first: bool) -> bool {
        if response.is_snapshot {
            // A new stream discards the incomplete snapshot of a broken one.
            let building = self.building.take().filter(|_| !is_first);
            self.building.insert(building.unwrap_or_default()).extend(response.added_skus);
            return false;
        }
        if let Some(complete) = self.building.take() {
            self.skus = complete;
        }
        self.skus.extend(response.added_skus);
        for sku in &response.removed_skus {
            self.skus.remove(sku);
        }
        self.confirmed_at = Some(Instant::now());
        true
    }
}

/// Keeps the set current until the task is aborted.
async fn run(mut stream: ResumingStream<v1::WatchProtectedResponse>, cache: Arc<RwLock<Cache>>) {
    loop {
        match stream.next().await {
            Ok(StreamItem { response, is_first }) => {
                cache.write().unwrap_or_else(PoisonError::into_inner).apply(response, is_first);
            }
            Err(error) => {
                tracing::debug!(namespace = &*stream.scope().name, %error, "protected SKUs are not watched");
                if error.reason() == Some(Reason::InvalidResumeToken) {
                    stream.reset();
                }
                sleep(RETRY_DELAY).await;
            }
        }
    }
}

impl ResumableResponse for v1::WatchProtectedResponse {
    fn resume_token(&self) -> &str {
        &self.resume_token
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(added: &[&str], removed: &[&str], is_snapshot: bool) -> v1::WatchProtectedResponse {
        let names = |skus: &[&str]| skus.iter().map(|&sku| sku.to_owned()).collect();
        v1::WatchProtectedResponse {
            added_skus: names(added),
            removed_skus: names(removed),
            is_snapshot,
            resume_token: String::new(),
        }
    }

    fn set(cache: &Cache) -> Vec<&str> {
        let mut skus: Vec<_> = cache.skus.iter().map(String::as_str).collect();
        skus.sort_unstable();
        skus
    }

    #[test]
    fn a_set_is_known_when_its_snapshot_is_complete() {
        let mut cache = Cache::default();
        assert!(!cache.apply(response(&["a"], &[], true), true));
        assert!(!cache.apply(response(&["b"], &[], true), false));
        assert!(cache.confirmed_at.is_none() && cache.skus.is_empty());
        assert!(cache.apply(response(&[], &[], false), false));
        cache.apply(response(&["c"], &["a"], false), false);
        assert_eq!(set(&cache), ["b", "c"]);
    }

    #[test]
    fn a_snapshot_that_broke_off_leaves_nothing_behind() {
        let mut cache = Cache::default();
        cache.apply(response(&["old"], &[], true), true);
        cache.apply(response(&[], &[], false), false);
        cache.apply(response(&["gone"], &[], true), true);
        assert_eq!(set(&cache), ["old"], "until the new one is complete");
        cache.apply(response(&["new"], &[], true), true);
        cache.apply(response(&[], &[], false), false);
        assert_eq!(set(&cache), ["new"]);
    }

    #[test]
    fn a_stream_that_goes_on_keeps_the_set() {
        let mut cache = Cache::default();
        cache.apply(response(&["a"], &[], true), true);
        cache.apply(response(&["b"], &[], false), true);
        assert_eq!(set(&cache), ["a", "b"], "it went on behind the first page");
        cache.apply(response(&[], &[], false), true);
        assert_eq!(set(&cache), ["a", "b"]);
    }
}
