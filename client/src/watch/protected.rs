//! The set of protected SKUs, kept here so that `is_protected` needs no call.

use std::{
    collections::HashSet,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use inventory_sentinel::{Reason, v1};
use tokio::{task::AbortHandle, time::sleep};

use super::{Follower, Told};
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

/// Keeps the set until the task is ended.
async fn keep(mut follower: Follower<v1::WatchProtectedResponse>, known: Arc<RwLock<Known>>) {
    // The set that a snapshot is building; until it is complete the one before it stands, as old as it is.
    let mut building: Option<HashSet<String>> = None;
    loop {
        match follower.next().await {
            Ok(told) => {
                let mut known = known.write().unwrap_or_else(PoisonError::into_inner);
                if told.is_snapshot {
                    building.get_or_insert_default().extend(told.added_skus);
                    continue;
                }
                match building.take() {
                    Some(whole) => known.skus = whole,
                    // It has gone on from the place where the set was complete.
                    None if known.heard.is_none() => known.skus.clear(),
                    None => {}
                }
                known.skus.extend(told.added_skus);
                for sku in &told.removed_skus {
                    known.skus.remove(sku);
                }
                known.heard = Some(Instant::now());
            }
            Err(error) => {
                tracing::debug!(namespace = follower.namespace().name(), %error, "protected SKUs are not watched");
                if building.take().is_some() || error.reason() == Some(Reason::InvalidResumeToken) {
                    // The place of an incomplete set is of no use.
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
