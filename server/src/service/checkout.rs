//! `InventorySentinel`: take units, make the sale final, give units back. Parses and answers; what
//! is decided is decided in the store.

use std::time::Duration;

use inventory_sentinel::{
    Reason,
    v1::{self, inventory_sentinel_server::InventorySentinel, reserve_response},
};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::{Desk, carry, check_age, convert, deadline, lane_of, status::Failure, unexpected};
use crate::{
    domain::{BuyerId, Line, NamespaceName, Operation, Outcome, Refusal, RequestId, ReservationId, Sku, Stock, Ttl},
    namespaces::Namespace,
    telemetry::metrics::Operation as Measured,
};

/// The longest ttl of any namespace: what a namespace that does not exist would allow at most.
const ANY_TTL: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// The checkout service.
#[derive(Clone)]
pub(crate) struct Checkout(pub(crate) Desk);

#[tonic::async_trait]
impl InventorySentinel for Checkout {
    async fn reserve(&self, request: Request<v1::ReserveRequest>) -> Result<Response<v1::ReserveResponse>, Status> {
        let deadline = deadline(request.metadata());
        let handler = self.handle_reserve(request.into_inner(), deadline);
        let short =
            |response: &v1::ReserveResponse| matches!(response.result, Some(reserve_response::Result::Shortage(_)));
        self.0.answer(Measured::Reserve, handler, short).await
    }

    async fn commit(&self, request: Request<v1::CommitRequest>) -> Result<Response<v1::CommitResponse>, Status> {
        let deadline = deadline(request.metadata());
        let v1::CommitRequest { namespace_id, reservation_id, request_id } = request.into_inner();
        let handler = async {
            RequestId::check_optional(request_id)?;
            let (reservation, replayed, sequence) =
                self.on_reservation(namespace_id, &reservation_id, Operation::Commit, deadline).await?;
            Ok(v1::CommitResponse { reservation: Some(reservation), replayed, sequence })
        };
        self.0.answer(Measured::Commit, handler, |_| false).await
    }

    async fn rollback(&self, request: Request<v1::RollbackRequest>) -> Result<Response<v1::RollbackResponse>, Status> {
        let deadline = deadline(request.metadata());
        let v1::RollbackRequest { namespace_id, reservation_id, request_id } = request.into_inner();
        let handler = async {
            RequestId::check_optional(request_id)?;
            let (reservation, replayed, sequence) =
                self.on_reservation(namespace_id, &reservation_id, Operation::Rollback, deadline).await?;
            Ok(v1::RollbackResponse { reservation: Some(reservation), replayed, sequence })
        };
        self.0.answer(Measured::Rollback, handler, |_| false).await
    }

    async fn get_reservation(
        &self,
        request: Request<v1::GetReservationRequest>,
    ) -> Result<Response<v1::GetReservationResponse>, Status> {
        let deadline = deadline(request.metadata());
        let v1::GetReservationRequest { namespace_id, reservation_id } = request.into_inner();
        let handler = async {
            let (reservation, _, sequence) =
                self.on_reservation(namespace_id, &reservation_id, Operation::GetReservation, deadline).await?;
            Ok(v1::GetReservationResponse { reservation: Some(reservation), sequence })
        };
        self.0.answer(Measured::GetReservation, handler, |_| false).await
    }

    async fn get_stock(&self, request: Request<v1::GetStockRequest>) -> Result<Response<v1::GetStockResponse>, Status> {
        let deadline = deadline(request.metadata());
        let v1::GetStockRequest { namespace_id, sku } = request.into_inner();
        let handler = async {
            let (sku, stock, sequence) = self.read_stock(namespace_id, sku, deadline).await?;
            Ok(v1::GetStockResponse { stock: Some(convert::stock(sku, stock)), sequence })
        };
        self.0.answer(Measured::GetStock, handler, |_| false).await
    }

    async fn is_protected(
        &self,
        request: Request<v1::IsProtectedRequest>,
    ) -> Result<Response<v1::IsProtectedResponse>, Status> {
        let deadline = deadline(request.metadata());
        let v1::IsProtectedRequest { namespace_id, sku } = request.into_inner();
        let handler = async {
            let is_protected = match self.read_stock(namespace_id, sku, deadline).await {
                Ok((_, stock, _)) => stock.is_protected,
                Err(failure) if failure.reason() == Reason::SkuNotFound => false,
                Err(failure) => return Err(failure),
            };
            Ok(v1::IsProtectedResponse { is_protected })
        };
        self.0.answer(Measured::IsProtected, handler, |_| false).await
    }
}

impl Checkout {
    async fn handle_reserve(
        &self,
        request: v1::ReserveRequest,
        deadline: Instant,
    ) -> Result<v1::ReserveResponse, Failure> {
        let v1::ReserveRequest { namespace_id, request_id, lines, ttl, buyer_id } = request;
        let name = NamespaceName::parse(namespace_id)?;
        let request_id = RequestId::parse(request_id)?;
        let lines = convert::lines(lines)?;
        let buyer = BuyerId::parse(buyer_id)?;
        let ttl_up_to = |longest| ttl.as_ref().map(|ttl| Ttl::parse(ttl.seconds, ttl.nanos, longest)).transpose();
        ttl_up_to(ANY_TTL)?;
        let Some(namespace) = self.0.namespace(&name, deadline).await? else {
            return Err(Refusal::SkuNotFound(lines[0].sku.clone()).into());
        };
        let ttl = ttl_up_to(namespace.config.max_ttl)?;
        let partition = partition_of(&namespace, &lines)?;
        let id = namespace.reservation_id(&request_id, partition);
        let lane = lane_of(&namespace, id)?;
        check_age(&namespace, lane, &request_id)?;

        let (outcome, sequence) = carry(lane, Operation::Reserve { id, lines, ttl, buyer }, deadline).await?;
        let (result, replayed) = match outcome {
            Outcome::Reservation { reservation, replayed } => {
                (reserve_response::Result::Reservation(convert::reservation(&name, reservation)), replayed)
            }
            Outcome::Shortage(lines) => (reserve_response::Result::Shortage(convert::shortage(lines)), false),
            other => return Err(unexpected(&other)),
        };
        Ok(v1::ReserveResponse { result: Some(result), replayed, sequence })
    }

    /// What Commit, Rollback and GetReservation share: one id in, the reservation as it is now out.
    async fn on_reservation(
        &self,
        namespace_id: String,
        reservation_id: &str,
        operation: fn(ReservationId) -> Operation,
        deadline: Instant,
    ) -> Result<(v1::Reservation, bool, i64), Failure> {
        let name = NamespaceName::parse(namespace_id)?;
        let id = ReservationId::parse(reservation_id)?;
        let namespace = self.0.namespace_or(&name, Refusal::ReservationNotFound, deadline).await?;
        match carry(lane_of(&namespace, id)?, operation(id), deadline).await? {
            (Outcome::Reservation { reservation, replayed }, sequence) => {
                Ok((convert::reservation(&name, reservation), replayed, sequence))
            }
            (other, _) => Err(unexpected(&other)),
        }
    }

    async fn read_stock(
        &self,
        namespace_id: String,
        sku: String,
        deadline: Instant,
    ) -> Result<(Sku, Stock, i64), Failure> {
        let name = NamespaceName::parse(namespace_id)?;
        let sku = Sku::parse(sku, "sku")?;
        let namespace = self.0.namespace_or(&name, Refusal::SkuNotFound(sku.clone()), deadline).await?;
        match carry(namespace.lane_of(&sku), Operation::GetStock { sku: sku.clone() }, deadline).await? {
            (Outcome::Stock { sku, stock, .. }, sequence) => Ok((sku, stock, sequence)),
            (other, _) => Err(unexpected(&other)),
        }
    }
}

/// The partition that all lines lie in.
fn partition_of(namespace: &Namespace, lines: &[Line]) -> Result<u16, Failure> {
    let partition = namespace.partition_of(&lines[0].sku);
    if lines.iter().any(|line| namespace.partition_of(&line.sku) != partition) {
        return Err(Failure::new(Reason::CrossPartitionCart));
    }
    Ok(partition)
}
