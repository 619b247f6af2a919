//! The request of each `request_id` that a caller set: one id has one effect in a namespace. The server compares a
//! repeat with the first request only if both name the same partition. So this client refuses an id that it has sent
//! for another request, before anything is sent. It reads the messages; it sends nothing, and it drops the oldest ids
//! first.

use std::{
    collections::{HashMap, VecDeque, hash_map::RandomState},
    hash::{BuildHasher, Hash},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use inventory_sentinel::{Reason, v1};
use uuid::Uuid;

use crate::rpc_error::RpcError;

/// Most bytes of one id: its entries in the map and in the queue, both just after they grew.
const ENTRY_BYTES: usize = 128;
/// The namespace that an empty name means.
const DEFAULT_NAMESPACE: &str = "default";

/// A message with a `request_id`, and the request that the id identifies.
pub(crate) trait Identified {
    /// The namespace and the request_id; `None` where the server does not use the id.
    fn identity(&self) -> Option<(&str, &str)>;
    /// The parts that every message with that id has to share.
    fn request(&self) -> impl Hash;
}

impl Identified for v1::ReserveRequest {
    fn identity(&self) -> Option<(&str, &str)> {
        Some((&self.namespace_id, &self.request_id))
    }

    /// Without the ttl: the server compares it, with its default applied.
    fn request(&self) -> impl Hash {
        let mut lines: Vec<(&str, i32)> = self.lines.iter().map(|line| (line.sku.as_str(), line.quantity)).collect();
        lines.sort_unstable();
        ("reserve", lines, &self.buyer_id, &self.replaces_reservation_id)
    }
}

/// For the others the server compares all fields; the field that is named here selects the partition.
macro_rules! identified {
    ($($message:ident: $kind:literal, $target:ident $(if $($lines:ident)+)?;)+) => { $(
        impl Identified for v1::$message {
            fn identity(&self) -> Option<(&str, &str)> {
                $($(if self.$lines.is_empty() {
                    return None;
                })+)?
                Some((&self.namespace_id, &self.request_id))
            }

            fn request(&self) -> impl Hash {
                ($kind, &self.$target)
            }
        }
    )+ };
}

identified! {
    CommitRequest: "commit", reservation_id if lines;
    RollbackRequest: "rollback", reservation_id if lines;
    ExtendRequest: "extend", reservation_id;
    SetStockRequest: "set stock", sku;
    AdjustStockRequest: "adjust stock", sku;
    ConfigureSkuRequest: "configure SKU", sku;
    DeleteSkuRequest: "delete SKU", sku;
    ConfigureNamespaceRequest: "configure namespace", namespace_id;
    DeleteNamespaceRequest: "delete namespace", namespace_id;
}

/// The ids that the callers of one client set. Clones of the client share it.
#[derive(Debug)]
pub(crate) struct Identities {
    /// Two: ids are compared by 128 bits.
    hashers: [RandomState; 2],
    capacity: usize,
    known: Mutex<Known>,
}

type Key = [u64; 2];

#[derive(Debug, Default)]
struct Known {
    entries: HashMap<Key, Entry>,
    /// The ids that may have had an effect, oldest first. The others are in flight.
    kept: VecDeque<Key>,
}

#[derive(Debug)]
struct Entry {
    request: u64,
    in_flight: u32,
    is_kept: bool,
}

/// The id of a message and the request that it identifies. Clones of a message share it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    key: Key,
    request: u64,
}

/// A call in flight with an id that its caller set, or with one that this client generated (`None`). If it is dropped
/// before its end, the call may have had an effect.
#[derive(Debug)]
pub(crate) struct Claim(Option<(Arc<Identities>, Key)>);

impl Identities {
    /// Uses up to `bytes` of memory, and that of the calls in flight.
    pub(crate) fn new(bytes: usize) -> Identities {
        let hashers = [RandomState::new(), RandomState::new()];
        Identities { hashers, capacity: bytes / ENTRY_BYTES, known: Mutex::default() }
    }

    /// The identity of a message whose `request_id` the caller set; `None` where the server does not use the id.
    pub(crate) fn of(&self, message: &impl Identified) -> Option<Identity> {
        let (namespace, request_id) = message.identity()?;
        let namespace = if namespace.is_empty() { DEFAULT_NAMESPACE } else { namespace };
        let key = self.hashers.each_ref().map(|hasher| hasher.hash_one((namespace, request_id)));
        Some(Identity { key, request: self.hashers[0].hash_one(message.request()) })
    }

    /// Begins a call. `None`: an id that this client made, which is unique.
    pub(crate) fn claim(self: &Arc<Self>, identity: Option<Identity>) -> Result<Claim, RpcError> {
        let Some(Identity { key, request }) = identity else { return Ok(Claim(None)) };
        let mut known = self.known();
        let entry = known.entries.entry(key).or_insert(Entry { request, in_flight: 0, is_kept: false });
        if entry.request != request {
            return Err(RpcError::refused_here(
                Reason::RequestIdReused,
                "this client has sent the request_id already, for another request",
            ));
        }
        entry.in_flight += 1;
        drop(known);
        Ok(Claim(Some((Arc::clone(self), key))))
    }

    fn end(&self, key: Key, may_have_effect: bool) {
        let mut known = self.known();
        let Known { entries, kept } = &mut *known;
        let Some(entry) = entries.get_mut(&key) else { return };
        entry.in_flight -= 1;
        if may_have_effect && !entry.is_kept {
            entry.is_kept = true;
            kept.push_back(key);
        }
        remove_unused(entries, key);
        while kept.len() > self.capacity {
            let Some(oldest) = kept.pop_front() else { return };
            if let Some(entry) = entries.get_mut(&oldest) {
                entry.is_kept = false;
            }
            remove_unused(entries, oldest);
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn remove_unused(entries: &mut HashMap<Key, Entry>, key: Key) {
    if entries.get(&key).is_some_and(|entry| entry.in_flight == 0 && !entry.is_kept) {
        entries.remove(&key);
    }
}

impl Claim {
    /// Ends a call. After a refusal, or a response for which `had_effect` is false, the id is free again, as in the
    /// server.
    pub(crate) fn end<T>(
        mut self,
        result: Result<T, RpcError>,
        had_effect: impl FnOnce(&T) -> bool,
    ) -> Result<T, RpcError> {
        let may_have_effect = match &result {
            Ok(value) => had_effect(value),
            Err(error) => error.outcome_unknown(),
        };
        self.close(may_have_effect);
        result
    }

    /// Ends a call that was certainly not applied.
    pub(crate) fn end_without_effect(mut self) {
        self.close(false);
    }

    fn close(&mut self, may_have_effect: bool) {
        if let Some((identities, key)) = self.0.take() {
            identities.end(key, may_have_effect);
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.close(true);
    }
}

/// A new identity for one change.
pub(crate) fn new_request_id() -> String {
    Uuid::now_v7().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(request_id: &str, lines: &[(&str, i32)]) -> v1::ReserveRequest {
        v1::ReserveRequest {
            namespace_id: "sale".into(),
            request_id: request_id.into(),
            lines: lines.iter().map(|&(sku, quantity)| v1::Line { sku: sku.into(), quantity }).collect(),
            ..Default::default()
        }
    }

    fn claim(identities: &Arc<Identities>, message: &impl Identified) -> Result<Claim, RpcError> {
        identities.claim(identities.of(message))
    }

    fn applied(identities: &Arc<Identities>, message: &impl Identified) {
        claim(identities, message).unwrap().end(Ok(()), |()| true).unwrap();
    }

    #[test]
    fn an_id_stands_for_one_request_whatever_the_order_of_its_lines() {
        let identities = Arc::new(Identities::new(1 << 20));
        let first = order("a", &[("x", 1), ("y", 2)]);
        applied(&identities, &first);
        applied(&identities, &order("a", &[("y", 2), ("x", 1)]));
        let ttl = Some(prost_types::Duration { seconds: 9, nanos: 0 });
        applied(&identities, &v1::ReserveRequest { ttl, first_attempt: true, ..first.clone() });
        let others = [
            order("a", &[("x", 1)]),
            order("a", &[("x", 2), ("y", 1)]),
            v1::ReserveRequest { buyer_id: "amy".into(), ..first.clone() },
            v1::ReserveRequest { replaces_reservation_id: "r1".into(), ..first.clone() },
        ];
        for other in &others {
            let refused = claim(&identities, other).unwrap_err();
            assert_eq!(refused.reason(), Some(Reason::RequestIdReused), "{other:?}");
            assert_eq!((refused.attempts(), refused.outcome_unknown()), (0, false));
        }
        applied(&identities, &v1::ReserveRequest { namespace_id: "other".into(), ..others[0].clone() });
        let adjust = |sku: &str| v1::AdjustStockRequest {
            namespace_id: "sale".into(),
            sku: sku.into(),
            delta: 1,
            request_id: "b".into(),
            existing_namespace_only: false,
        };
        applied(&identities, &adjust("x"));
        applied(&identities, &adjust("x"));
        claim(&identities, &adjust("y")).unwrap_err();
        claim(&identities, &order("b", &[("x", 1)])).unwrap_err();
        let delete = |sku: &str, request_id: &str| v1::DeleteSkuRequest {
            namespace_id: "sale".into(),
            sku: sku.into(),
            request_id: request_id.into(),
        };
        claim(&identities, &delete("x", "b")).unwrap_err();
        applied(&identities, &delete("x", "c"));
        applied(&identities, &delete("x", "c"));
        claim(&identities, &delete("y", "c")).unwrap_err();
        let configure =
            v1::ConfigureNamespaceRequest { namespace_id: "sale".into(), request_id: "c".into(), ..Default::default() };
        claim(&identities, &configure).unwrap_err();
    }

    #[test]
    fn the_empty_namespace_is_the_default_one() {
        let identities = Arc::new(Identities::new(1 << 20));
        applied(&identities, &v1::ReserveRequest { namespace_id: String::new(), ..order("a", &[("x", 1)]) });
        claim(&identities, &v1::ReserveRequest { namespace_id: "default".into(), ..order("a", &[("y", 1)]) })
            .unwrap_err();
    }

    #[test]
    fn an_id_that_had_no_effect_stands_for_nothing() {
        let identities = Arc::new(Identities::new(1 << 20));
        let (first, other) = (order("a", &[("x", 2)]), order("a", &[("x", 1)]));
        claim(&identities, &first).unwrap().end(Ok(()), |()| false).unwrap();
        let refusal = RpcError::refused_here(Reason::SkuNotFound, "");
        claim(&identities, &other).unwrap().end::<()>(Err(refusal), |()| true).unwrap_err();
        assert!(identities.known().entries.is_empty());

        // Two calls at once: the effect of one is enough.
        let [short, held] = [(); 2].map(|()| claim(&identities, &first).unwrap());
        claim(&identities, &other).unwrap_err();
        held.end(Ok(()), |()| true).unwrap();
        short.end(Ok(()), |()| false).unwrap();
        claim(&identities, &other).unwrap_err();
    }

    #[test]
    fn an_id_whose_outcome_is_unknown_stands_for_its_request() {
        let identities = Arc::new(Identities::new(1 << 20));
        drop(claim(&identities, &order("dropped", &[("x", 1)])).unwrap());
        claim(&identities, &order("dropped", &[("y", 1)])).unwrap_err();
        let lost = claim(&identities, &order("lost", &[("x", 1)])).unwrap();
        lost.end::<()>(Err(RpcError::deadline_exceeded()), |()| true).unwrap_err();
        claim(&identities, &order("lost", &[("y", 1)])).unwrap_err();
    }

    #[test]
    fn a_change_of_a_whole_reservation_has_no_id() {
        let identities = Arc::new(Identities::new(1 << 20));
        let whole = v1::CommitRequest { request_id: "a".into(), reservation_id: "r1".into(), ..Default::default() };
        assert!(identities.of(&whole).is_none());
        let part = v1::CommitRequest { lines: vec![v1::Line::default()], ..whole };
        assert!(identities.of(&part).is_some());
    }

    #[test]
    fn the_oldest_ids_are_forgotten_beyond_the_limit() {
        let identities = Arc::new(Identities::new(2 * ENTRY_BYTES + 1));
        let slow = claim(&identities, &order("slow", &[("x", 1)])).unwrap();
        for id in ["a", "b", "c"] {
            applied(&identities, &order(id, &[("x", 1)]));
        }
        claim(&identities, &order("slow", &[("y", 1)])).unwrap_err();
        applied(&identities, &order("a", &[("y", 1)]));
        claim(&identities, &order("c", &[("y", 1)])).unwrap_err();
        assert_eq!(identities.known().entries.len(), 3);
        slow.end(Ok(()), |()| true).unwrap();
        let known = identities.known();
        assert_eq!((known.entries.len(), known.kept.len()), (2, 2));
    }

    /// A map that has just grown has the most room to spare.
    #[test]
    fn an_entry_takes_no_more_than_is_counted() {
        let bucket = size_of::<(Key, Entry)>() + 1;
        assert!(bucket * 16 / 7 + 2 * size_of::<Key>() <= ENTRY_BYTES);
    }
}
