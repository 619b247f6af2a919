//! An open namespace: its config, its lanes, and the ids that are derived with its secret. Touches no store.

use std::sync::Arc;

use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use super::{
    identity::{self, Identities},
    new_identity,
};
use crate::{
    domain::{Id, NamespaceName, RequestId, ReservationId, Sku},
    lane::Lane,
    random::Random,
    store::{keys::PartitionKeys, wire::NamespaceConfig},
    witness::Witness,
};

/// An open namespace.
pub(crate) struct Namespace {
    pub(crate) name: NamespaceName,
    pub(crate) config: NamespaceConfig,
    pub(super) identities: Identities,
    pub(super) random: Random,
    pub(super) lanes: Vec<Lane>,
    /// The epoch of each partition. It distinguishes the partition from a later one under the same keys.
    pub(crate) epochs: Box<[u64]>,
    /// The recorded history of each partition.
    pub(crate) witnesses: Box<[Arc<Witness>]>,
}

impl Namespace {
    /// The id of this request in the store.
    pub(crate) fn identity(&self, request: &RequestId) -> Id {
        self.identities.of_request(request)
    }

    /// The request that created this reservation, if the id contains it.
    pub(crate) fn request_of(&self, reservation: ReservationId) -> Option<String> {
        self.identities.request_of(&reservation.id)
    }

    /// The id of an optional request id. Without one it is random, and protects only the resends of this server.
    pub(crate) fn identity_or_new(&self, request: Option<&RequestId>) -> Id {
        request.map_or_else(|| new_identity(&self.random), |request| self.identity(request))
    }

    /// The id of one row of an import. No request can have it.
    pub(crate) fn row_identity(&self, request: &RequestId, sku: &Sku) -> Id {
        self.digest(&[request.as_str().as_bytes(), b"\0row", sku.as_str().as_bytes()])
    }

    /// The id of one SKU of a SetProtection. No request and no row can have it.
    pub(crate) fn protection_identity(&self, request: Option<&RequestId>, sku: &Sku) -> Id {
        let derived =
            |request: &RequestId| self.digest(&[request.as_str().as_bytes(), b"\0protection", sku.as_str().as_bytes()]);
        request.map_or_else(|| new_identity(&self.random), derived)
    }

    /// The tag of these bytes. It takes the namespace's secret to compute it.
    pub(crate) fn tag(&self, bytes: &[u8]) -> Id {
        identity::first_bytes(self.identities.mac(), &[b"\0token", bytes])
    }

    /// Whether this is the tag of these bytes. Takes constant time.
    pub(crate) fn has_tag(&self, bytes: &[u8], tag: &[u8]) -> bool {
        self.identities.mac().chain_update(b"\0token").chain_update(bytes).verify_truncated_left(tag).is_ok()
    }

    /// The MAC for the page tokens of this namespace. Resume tokens have another one.
    pub(crate) fn page_mac(&self) -> Hmac<Sha256> {
        self.identities.mac().chain_update(b"\0page")
    }

    /// The id of the purchase that a late Commit makes again. It is derived from the reservation's, so that a repeat
    /// finds it. No request can have it, because a request id has no NUL.
    pub(crate) fn purchase_of(&self, reservation: ReservationId) -> Id {
        self.digest(&[b"\0late", &reservation.id])
    }

    fn digest(&self, parts: &[&[u8]]) -> Id {
        self.identities.derived(parts)
    }

    /// The partition of a SKU.
    pub(crate) fn partition_of(&self, sku: &Sku) -> u16 {
        sku.partition(self.config.partitions)
    }

    /// The lane of a partition; `None` if there is no such partition.
    pub(crate) fn lane(&self, partition: u16) -> Option<&Lane> {
        self.lanes.get(usize::from(partition))
    }

    /// The lane of a SKU's partition.
    pub(crate) fn lane_of(&self, sku: &Sku) -> &Lane {
        &self.lanes[usize::from(self.partition_of(sku))]
    }

    pub(crate) fn lanes(&self) -> &[Lane] {
        &self.lanes
    }

    /// The keys of each partition.
    pub(crate) fn partitions(&self) -> impl Iterator<Item = (u16, PartitionKeys)> {
        (0..self.config.partitions).map(|partition| (partition, self.keys(partition)))
    }

    pub(crate) fn keys(&self, partition: u16) -> PartitionKeys {
        PartitionKeys::new(&self.name, partition)
    }

    pub(crate) fn reservation_id(&self, request: &RequestId, partition: u16) -> ReservationId {
        ReservationId { id: self.identity(request), partition }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lanes.iter().any(Lane::is_closed)
    }
}
