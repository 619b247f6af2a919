//! The set of protected SKUs, kept here so that `is_protected` needs no call.

use std::{
    collections::HashSet,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use inventory_sentinel::{Reason, v1};
use tokio::{task::AbortHandle, time::sleep};

use super::{Follower, Heard, Told};
use crate::{
    namespace::{Namespace, checkout},
    operation_errors::IsProtectedError,
};

/// How old the set may be unless told otherwise: 5 s. A server in touch with its store says once a second that
/// nothing has changed.
pub const DEFAULT_MAX_AGE: Duration = Duration::from_secs(5);

/// Pause after a stream could not be opened.
const AGAIN: Duration = Duration::from_millis(500);

/// The protected SKUs of a namespace, kept up to date by a stream for as long as this lives. Made by
/// [`Namespace::watch_protected`]; cheap to clone.
#[derive(Clone, Debug)]
pub struct ProtectedSkus {
    namespace: Namespace,
    max_age: Duration,
    known: Arc<RwLock<Known>>,
    _task: Arc<Task>,
}

/// What the stream has told.
#[derive(Debug, Default)]
struct Known {
    skus: HashSet<String>,
    /// When it was last heard that they are these; `None`: they are not all known yet.
    heard: Option<Instant>,
    /// The set that a snapshot is building; until it is complete the one above stands, as old as it is.
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
    /// Needs a Tokio runtime around it.
    pub(crate) fn watch(namespace: Namespace) -> ProtectedSkus {
        let known = Arc::default();
        let task = tokio::spawn(keep(follow(&namespace), Arc::clone(&known)));
        ProtectedSkus { namespace, max_age: DEFAULT_MAX_AGE, known, _task: Arc::new(Task(task.abort_handle())) }
    }

    /// The same set with another longest age.
    #[must_use]
    pub fn max_age(&self, max_age: Duration) -> ProtectedSkus {
        ProtectedSkus { max_age, ..self.clone() }
    }

    /// Whether the units of a SKU are governed here: from the set, or by a call where it is older than
    /// [`max_age`](Self::max_age) allows.
    ///
    /// # Errors
    /// Those of the call; see [`IsProtectedError`].
    pub async fn is_protected(&self, sku: &str) -> Result<bool, IsProtectedError> {
        match self.known(sku) {
            Some(known) => Ok(known),
            None => self.namespace.is_protected(sku).await,
        }
    }

    /// As [`is_protected`](Self::is_protected), from the set alone; `None` where that is too old to tell.
    pub fn known(&self, sku: &str) -> Option<bool> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let heard = known.heard?;
        (heard.elapsed() <= self.max_age).then(|| known.skus.contains(sku))
    }

    /// All of the set, in no order; `None` where it is too old.
    pub fn skus(&self) -> Option<Vec<String>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let heard = known.heard?;
        (heard.elapsed() <= self.max_age).then(|| known.skus.iter().cloned().collect())
    }
}

fn follow(namespace: &Namespace) -> Follower<v1::WatchProtectedResponse> {
    let namespace_id = namespace.name().to_owned();
    Follower::new(namespace.clone(), String::new(), move |channel, request, resume_token| {
        let message = v1::WatchProtectedRequest { namespace_id: namespace_id.clone(), resume_token };
        let mut client = checkout(channel);
        Box::pin(async move { client.watch_protected(request.map(|()| message)).await })
    })
}

impl Known {
    /// Takes in a response; says whether the set is complete.
    fn hear(&mut self, told: v1::WatchProtectedResponse, is_first: bool) -> bool {
        if told.is_snapshot {
            // What a stream that broke had told of its snapshot counts for nothing.
            let building = self.building.take().filter(|_| !is_first);
            self.building.insert(building.unwrap_or_default()).extend(told.added_skus);
            return false;
        }
        if let Some(whole) = self.building.take() {
            self.skus = whole;
        }
        self.skus.extend(told.added_skus);
        for sku in &told.removed_skus {
            self.skus.remove(sku);
        }
        self.heard = Some(Instant::now());
        true
    }
}

/// Keeps the set until the task is ended.
async fn keep(mut follower: Follower<v1::WatchProtectedResponse>, known: Arc<RwLock<Known>>) {
    loop {
        match follower.next().await {
            Ok(Heard { told, is_first }) => {
                known.write().unwrap_or_else(PoisonError::into_inner).hear(told, is_first);
            }
            Err(error) => {
                tracing::debug!(namespace = follower.namespace().name(), %error, "protected SKUs are not watched");
                if error.reason() == Some(Reason::InvalidResumeToken) {
                    follower.forget_place();
                }
                sleep(AGAIN).await;
            }
        }
    }
}

impl Told for v1::WatchProtectedResponse {
    fn resume_token(&self) -> &str {
        &self.resume_token
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(added: &[&str], removed: &[&str], is_snapshot: bool) -> v1::WatchProtectedResponse {
        let names = |skus: &[&str]| skus.iter().map(|&sku| sku.to_owned()).collect();
        v1::WatchProtectedResponse {
            added_skus: names(added),
            removed_skus: names(removed),
            is_snapshot,
            resume_token: String::new(),
        }
    }

    fn set(known: &Known) -> Vec<&str> {
        let mut skus: Vec<_> = known.skus.iter().map(String::as_str).collect();
        skus.sort_unstable();
        skus
    }

    #[test]
    fn a_set_is_known_when_its_snapshot_is_complete() {
        let mut known = Known::default();
        assert!(!known.hear(told(&["a"], &[], true), true));
        assert!(!known.hear(told(&["b"], &[], true), false));
        assert!(known.heard.is_none() && known.skus.is_empty());
        assert!(known.hear(told(&[], &[], false), false));
        known.hear(told(&["c"], &["a"], false), false);
        assert_eq!(set(&known), ["b", "c"]);
    }

    #[test]
    fn a_snapshot_that_broke_off_leaves_nothing_behind() {
        let mut known = Known::default();
        known.hear(told(&["old"], &[], true), true);
        known.hear(told(&[], &[], false), false);
        known.hear(told(&["gone"], &[], true), true);
        assert_eq!(set(&known), ["old"], "until the new one is complete");
        known.hear(told(&["new"], &[], true), true);
        known.hear(told(&[], &[], false), false);
        assert_eq!(set(&known), ["new"]);
    }

    #[test]
    fn a_stream_that_goes_on_keeps_the_set() {
        let mut known = Known::default();
        known.hear(told(&["a"], &[], true), true);
        known.hear(told(&["b"], &[], false), true);
        assert_eq!(set(&known), ["a", "b"], "it went on behind the first page");
        known.hear(told(&[], &[], false), true);
        assert_eq!(set(&known), ["a", "b"]);
    }
}
