//! The raw generated clients of one namespace, with short methods for the calls that tests make often.

use std::time::Duration;

use inventory_sentinel::{
    Reason,
    v1::{
        self, inventory_admin_client::InventoryAdminClient, inventory_events_client::InventoryEventsClient,
        inventory_sentinel_client::InventorySentinelClient, reserve_response::Result as Reserved,
    },
};
use tonic::{Status, transport::Channel};
use tonic_types::StatusExt as _;

use crate::{eventually, new_id, reason};

/// One namespace of one server.
#[derive(Clone, Debug)]
pub struct TestClient {
    /// The raw client for checkout.
    pub checkout: InventorySentinelClient<Channel>,
    /// The raw client for operators.
    pub admin: InventoryAdminClient<Channel>,
    /// The raw client for consumers of streams.
    pub events: InventoryEventsClient<Channel>,
    /// The name.
    pub namespace: String,
}

/// A Reserve of these lines with a new identity, no ttl and no buyer; its namespace is the shop's to fill in.
pub fn reserve_request(lines: &[(&str, i32)]) -> v1::ReserveRequest {
    v1::ReserveRequest {
        request_id: new_id(),
        lines: lines.iter().map(|&(sku, quantity)| v1::Line { sku: sku.into(), quantity }).collect(),
        ..Default::default()
    }
}

/// The figure of a settlement for a SKU whose older holds do not return.
pub fn figure(sku: &str, available: i64) -> v1::SettledSku {
    v1::SettledSku { sku: sku.into(), available, old_holds_return: false }
}

type Answer<T> = Result<T, Status>;

impl TestClient {
    pub(crate) fn new(channel: Channel, namespace: &str) -> TestClient {
        TestClient {
            checkout: InventorySentinelClient::new(channel.clone()),
            admin: InventoryAdminClient::new(channel.clone()),
            events: InventoryEventsClient::new(channel),
            namespace: namespace.to_owned(),
        }
    }

    /// Reserve, as it is answered.
    ///
    /// # Errors
    /// The refusal.
    pub async fn reserve(&self, order: v1::ReserveRequest) -> Answer<v1::ReserveResponse> {
        let request = v1::ReserveRequest { namespace_id: self.namespace.clone(), ..order };
        self.checkout.clone().reserve(request).await.map(tonic::Response::into_inner)
    }

    /// A hold that must succeed.
    pub async fn hold(&self, sku: &str, quantity: i32) -> v1::Reservation {
        self.hold_order(reserve_request(&[(sku, quantity)])).await
    }

    /// A hold for so long that must succeed.
    pub async fn hold_for(&self, sku: &str, quantity: i32, ttl: Duration) -> v1::Reservation {
        let ttl = Some(ttl.try_into().expect("a ttl"));
        self.hold_order(v1::ReserveRequest { ttl, ..reserve_request(&[(sku, quantity)]) }).await
    }

    /// Supplies so many SKUs with 10 units each, and holds one unit of each; returns the SKUs and the reservations.
    pub async fn hold_one_of_each(&self, skus: usize) -> (Vec<String>, Vec<String>) {
        let skus: Vec<String> = (0..skus).map(|i| format!("sku-{i}")).collect();
        let mut held = Vec::new();
        for sku in &skus {
            self.supply(sku, 10).await;
            held.push(self.hold(sku, 1).await.reservation_id);
        }
        (skus, held)
    }

    /// A hold of this order that must succeed.
    pub async fn hold_order(&self, order: v1::ReserveRequest) -> v1::Reservation {
        match self.reserve(order).await.expect("a reservation").result {
            Some(Reserved::Reservation(reservation)) => reservation,
            other => panic!("no reservation: {other:?}"),
        }
    }

    /// Commit, as it is answered.
    ///
    /// # Errors
    /// The refusal.
    pub async fn commit(&self, reservation_id: &str) -> Answer<v1::CommitResponse> {
        let (namespace_id, reservation_id) = (self.namespace.clone(), reservation_id.to_owned());
        let request = v1::CommitRequest { namespace_id, reservation_id, ..Default::default() };
        self.checkout.clone().commit(request).await.map(tonic::Response::into_inner)
    }

    /// Rollback, as it is answered.
    ///
    /// # Errors
    /// The refusal.
    pub async fn rollback(&self, reservation_id: &str) -> Answer<v1::RollbackResponse> {
        let (namespace_id, reservation_id) = (self.namespace.clone(), reservation_id.to_owned());
        let request = v1::RollbackRequest { namespace_id, reservation_id, ..Default::default() };
        self.checkout.clone().rollback(request).await.map(tonic::Response::into_inner)
    }

    /// GetReservation.
    ///
    /// # Errors
    /// The refusal.
    pub async fn reservation(&self, reservation_id: &str) -> Answer<v1::Reservation> {
        let (namespace_id, reservation_id) = (self.namespace.clone(), reservation_id.to_owned());
        let request = v1::GetReservationRequest { namespace_id, reservation_id, ..Default::default() };
        let response = self.checkout.clone().get_reservation(request).await?.into_inner();
        Ok(response.reservation.expect("an answer has a reservation"))
    }

    /// GetStock.
    ///
    /// # Errors
    /// The refusal.
    pub async fn try_stock(&self, sku: &str) -> Answer<v1::GetStockResponse> {
        let request = v1::GetStockRequest { namespace_id: self.namespace.clone(), sku: sku.into() };
        self.checkout.clone().get_stock(request).await.map(tonic::Response::into_inner)
    }

    /// The counters of a SKU that must be there.
    pub async fn stock(&self, sku: &str) -> v1::Stock {
        self.try_stock(sku).await.expect("the stock").stock.expect("an answer has a stock")
    }

    /// Available, held and sold units of a SKU that must be there.
    pub async fn counts(&self, sku: &str) -> (i64, i64, i64) {
        let stock = self.stock(sku).await;
        assert_eq!(stock.supplied, stock.available + stock.held + stock.sold, "{stock:?}");
        (stock.available, stock.held, stock.sold)
    }

    /// SetStock, with this identity.
    ///
    /// # Errors
    /// The refusal.
    pub async fn set_stock(&self, sku: &str, on_hand: i64, request_id: &str) -> Answer<v1::SetStockResponse> {
        let (namespace_id, sku, request_id) = (self.namespace.clone(), sku.to_owned(), request_id.to_owned());
        let request = v1::SetStockRequest { namespace_id, sku, on_hand, request_id, ..Default::default() };
        self.admin.clone().set_stock(request).await.map(tonic::Response::into_inner)
    }

    /// SetStock that must succeed.
    pub async fn supply(&self, sku: &str, on_hand: i64) -> v1::Stock {
        let response = self.set_stock(sku, on_hand, &new_id()).await.expect("the stock is set");
        response.stock.expect("an answer has a stock")
    }

    /// SetStock that makes a SKU and leaves a known one as it is, with a new identity: a warm-up.
    ///
    /// # Errors
    /// The refusal.
    pub async fn warm_up(&self, sku: &str, on_hand: i64) -> Answer<v1::SetStockResponse> {
        let (namespace_id, sku, request_id) = (self.namespace.clone(), sku.to_owned(), new_id());
        let request =
            v1::SetStockRequest { namespace_id, sku, on_hand, request_id, if_absent: true, ..Default::default() };
        self.admin.clone().set_stock(request).await.map(tonic::Response::into_inner)
    }

    /// AdjustStock, with this identity.
    ///
    /// # Errors
    /// The refusal.
    pub async fn adjust_stock(&self, sku: &str, delta: i64, request_id: &str) -> Answer<v1::AdjustStockResponse> {
        let (namespace_id, sku, request_id) = (self.namespace.clone(), sku.to_owned(), request_id.to_owned());
        let request = v1::AdjustStockRequest { namespace_id, sku, delta, request_id, existing_namespace_only: false };
        self.admin.clone().adjust_stock(request).await.map(tonic::Response::into_inner)
    }

    /// DeleteSku.
    ///
    /// # Errors
    /// The refusal.
    pub async fn delete_sku(&self, sku: &str) -> Answer<v1::DeleteSkuResponse> {
        let (namespace_id, sku, request_id) = (self.namespace.clone(), sku.to_owned(), new_id());
        let request = v1::DeleteSkuRequest { namespace_id, sku, request_id };
        self.admin.clone().delete_sku(request).await.map(tonic::Response::into_inner)
    }

    /// SettlePartition, with this identity, for whatever the partition is fenced for.
    ///
    /// # Errors
    /// The refusal.
    pub async fn settle(
        &self,
        partition: i32,
        skus: &[v1::SettledSku],
        request_id: &str,
    ) -> Answer<v1::SettlePartitionResponse> {
        match self.settle_fence(partition, "", skus, request_id).await {
            Err(status) if reason(&status) == Reason::FenceChanged => {
                let metadata = status.get_details_error_info().expect("an ErrorInfo").metadata;
                self.settle_fence(partition, &metadata["fence"], skus, request_id).await
            }
            answer => answer,
        }
    }

    /// SettlePartition for the loss that has this name.
    ///
    /// # Errors
    /// The refusal.
    pub async fn settle_fence(
        &self,
        partition: i32,
        fence: &str,
        skus: &[v1::SettledSku],
        request_id: &str,
    ) -> Answer<v1::SettlePartitionResponse> {
        let (namespace_id, request_id, skus) = (self.namespace.clone(), request_id.to_owned(), skus.to_vec());
        let request = v1::SettlePartitionRequest { namespace_id, partition, request_id, skus, fence: fence.into() };
        self.admin.clone().settle_partition(request).await.map(tonic::Response::into_inner)
    }

    /// ConfigureSku: protected or not.
    ///
    /// # Errors
    /// The refusal.
    pub async fn protect(&self, sku: &str, is_protected: bool) -> Answer<v1::ConfigureSkuResponse> {
        self.configure(sku, v1::SkuRules { is_protected: Some(is_protected), ..Default::default() }).await
    }

    /// ConfigureSku.
    ///
    /// # Errors
    /// The refusal.
    pub async fn configure(&self, sku: &str, rules: v1::SkuRules) -> Answer<v1::ConfigureSkuResponse> {
        let (namespace_id, sku) = (self.namespace.clone(), sku.to_owned());
        let request = v1::ConfigureSkuRequest { namespace_id, sku, rules: Some(rules), ..Default::default() };
        self.admin.clone().configure_sku(request).await.map(tonic::Response::into_inner)
    }

    /// Commit of these lines, with this identity.
    ///
    /// # Errors
    /// The refusal.
    pub async fn commit_lines(
        &self,
        reservation_id: &str,
        lines: &[(&str, i32)],
        rest_policy: v1::RestPolicy,
        request_id: &str,
    ) -> Answer<v1::CommitResponse> {
        let request = v1::CommitRequest {
            namespace_id: self.namespace.clone(),
            reservation_id: reservation_id.into(),
            request_id: request_id.into(),
            lines: reserve_request(lines).lines,
            rest_policy: rest_policy.into(),
            ..Default::default()
        };
        self.checkout.clone().commit(request).await.map(tonic::Response::into_inner)
    }

    /// Rollback of these lines, with this identity.
    ///
    /// # Errors
    /// The refusal.
    pub async fn rollback_lines(
        &self,
        reservation_id: &str,
        lines: &[(&str, i32)],
        request_id: &str,
    ) -> Answer<v1::RollbackResponse> {
        let request = v1::RollbackRequest {
            namespace_id: self.namespace.clone(),
            reservation_id: reservation_id.into(),
            request_id: request_id.into(),
            lines: reserve_request(lines).lines,
        };
        self.checkout.clone().rollback(request).await.map(tonic::Response::into_inner)
    }

    /// Commit that repurchases after the deadline.
    ///
    /// # Errors
    /// The refusal.
    pub async fn commit_late(&self, reservation_id: &str) -> Answer<v1::CommitResponse> {
        let request = v1::CommitRequest {
            namespace_id: self.namespace.clone(),
            reservation_id: reservation_id.into(),
            late_policy: v1::LatePolicy::Repurchase.into(),
            ..Default::default()
        };
        self.checkout.clone().commit(request).await.map(tonic::Response::into_inner)
    }

    /// Extend, with this identity.
    ///
    /// # Errors
    /// The refusal.
    pub async fn extend(&self, reservation_id: &str, ttl: Duration, request_id: &str) -> Answer<v1::ExtendResponse> {
        let request = v1::ExtendRequest {
            namespace_id: self.namespace.clone(),
            reservation_id: reservation_id.into(),
            ttl: Some(ttl.try_into().expect("a ttl")),
            request_id: request_id.into(),
        };
        self.checkout.clone().extend(request).await.map(tonic::Response::into_inner)
    }

    /// Waits until a reservation has expired.
    pub async fn expired(&self, reservation_id: &str) {
        eventually("the hold expires", async || {
            let state = self.reservation(reservation_id).await.expect("it is known").state();
            (state == v1::ReservationState::Expired).then_some(())
        })
        .await;
    }

    /// IsProtected, as it is answered.
    ///
    /// # Errors
    /// The refusal.
    pub async fn try_is_protected(&self, sku: &str) -> Answer<v1::IsProtectedResponse> {
        let request = v1::IsProtectedRequest { namespace_id: self.namespace.clone(), sku: sku.into() };
        self.checkout.clone().is_protected(request).await.map(tonic::Response::into_inner)
    }

    /// IsProtected.
    pub async fn is_protected(&self, sku: &str) -> bool {
        self.try_is_protected(sku).await.expect("an answer").is_protected
    }

    /// Audit, as it is answered.
    ///
    /// # Errors
    /// The refusal.
    pub async fn try_audit(&self) -> Answer<v1::AuditResponse> {
        let request = v1::AuditRequest { namespace_id: self.namespace.clone() };
        self.admin.clone().audit(request).await.map(tonic::Response::into_inner)
    }

    /// An audit that must find nothing wrong.
    pub async fn audit(&self) -> v1::AuditResponse {
        let audit = self.try_audit().await.expect("an audit");
        assert!(audit.clean && audit.findings.is_empty(), "{audit:?}");
        assert_eq!(audit.supplied, audit.available + audit.held + audit.sold, "{audit:?}");
        audit
    }
}
