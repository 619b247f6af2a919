//! Runs the operations of the model on a real server: operations as calls, responses as answers. Speaks
//! gRPC over a channel that it is given.

use std::time::Duration;

use inventory_sentinel::{
    Reason,
    v1::{
        AdjustStockRequest, CommitRequest, ConfigureSkuRequest, DeleteSkuRequest, ExtendRequest, GetReservationRequest,
        GetSkuRequest, GetStockRequest, IsProtectedRequest, LatePolicy, Line, Reservation, ReservationState,
        ReserveRequest, RestPolicy, RollbackRequest, SetStockRequest, SkuRules, Stock,
        inventory_admin_client::InventoryAdminClient, inventory_sentinel_client::InventorySentinelClient,
        reserve_response::Result as Reserved,
    },
};
use tonic::{Code, Request, Status, transport::Channel};
use tonic_types::StatusExt as _;

use super::{Answer, Condition, Counters, Op, Replayed, about, millis_of};

/// Longest that one call may take.
const CALL_LIMIT: Duration = Duration::from_secs(10);

/// The answer of a server.
#[derive(Clone, Debug, PartialEq)]
pub struct Received {
    /// The answer.
    pub answer: Answer,
    /// The place in the partition's history, where the response has one.
    pub sequence: Option<i64>,
    /// The version of the SKU, where the response has one.
    pub version: Option<i64>,
}

impl Op {
    /// Makes this call once. `first_attempt` is the claim of a Reserve.
    ///
    /// # Errors
    /// Where there is no answer: the server or its store is away, shed the call, or has a defect.
    pub async fn execute(&self, channel: &Channel, namespace: &str, first_attempt: bool) -> Result<Received, Status> {
        match self.call(channel, namespace, first_attempt).await {
            Ok(received) => Ok(received),
            Err(status) => {
                refused(&status).map(|answer| Received { answer, sequence: None, version: None }).ok_or(status)
            }
        }
    }

    async fn call(&self, channel: &Channel, namespace: &str, first_attempt: bool) -> Result<Received, Status> {
        let mut checkout = InventorySentinelClient::new(channel.clone());
        let mut admin = InventoryAdminClient::new(channel.clone());
        let namespace_id = namespace.to_owned();
        match self.clone() {
            Op::SetStock { sku, on_hand, condition, request_id } => {
                let if_absent = condition == Condition::IfAbsent;
                let if_version = if let Condition::IfVersion(version) = condition { Some(version) } else { None };
                let request = SetStockRequest {
                    namespace_id,
                    sku,
                    on_hand,
                    request_id,
                    if_absent,
                    if_version,
                    existing_namespace_only: false,
                };
                let response = admin.set_stock(limited(request)).await?.into_inner();
                Ok(stock(response.stock, response.replayed, response.sequence))
            }
            Op::AdjustStock { sku, delta, request_id } => {
                let request =
                    AdjustStockRequest { namespace_id, sku, delta, request_id, existing_namespace_only: false };
                let response = admin.adjust_stock(limited(request)).await?.into_inner();
                Ok(stock(response.stock, response.replayed, response.sequence))
            }
            Op::ConfigureSku { sku, rules, if_version, request_id } => {
                let rules = Some(rules);
                let request = ConfigureSkuRequest { namespace_id, sku, rules, request_id, if_version };
                let response = admin.configure_sku(limited(request)).await?.into_inner();
                let version = response.rules_version;
                Ok(ruled(response.stock, response.rules, version, response.replayed, response.sequence))
            }
            Op::GetSku { sku } => {
                let response = admin.get_sku(limited(GetSkuRequest { namespace_id, sku })).await?.into_inner();
                Ok(ruled(response.stock, response.rules, response.rules_version, false, response.sequence))
            }
            Op::DeleteSku { sku, request_id } => {
                let request = DeleteSkuRequest { namespace_id, sku, request_id };
                let response = admin.delete_sku(limited(request)).await?.into_inner();
                let answer = Answer::Deleted(response.stock.map(counters), response.replayed);
                Ok(Received { answer, sequence: Some(response.sequence), version: None })
            }
            Op::Reserve { request_id, lines, ttl_ms, buyer_id, replaces } => {
                let request = ReserveRequest {
                    namespace_id,
                    request_id,
                    lines: messages(lines),
                    ttl: ttl_ms.map(duration),
                    buyer_id,
                    replaces_reservation_id: replaces,
                    first_attempt,
                };
                let response = checkout.reserve(limited(request)).await?.into_inner();
                let held = matches!(response.result, Some(Reserved::Reservation(_)));
                let bought = matches!(response.result, Some(Reserved::AlreadyPurchased(_)));
                match response.result {
                    Some(Reserved::Shortage(shortage)) if !response.replayed => {
                        let sequence = Some(response.sequence);
                        Ok(Received { answer: Answer::Short(shortage.lines), sequence, version: None })
                    }
                    Some(
                        Reserved::Reservation(made)
                        | Reserved::AlreadyPurchased(made)
                        | Reserved::AlreadyReleased(made),
                    ) if held == (made.state() == ReservationState::Pending)
                        && bought
                            == (made.state() == ReservationState::Committed
                                || !made.purchase_reservation_id.is_empty()) =>
                    {
                        Ok(reservation(Some(made), response.replayed, response.sequence))
                    }
                    other => Err(Status::internal(format!("no result of a Reserve: {other:?}"))),
                }
            }
            Op::Commit { reservation_id, late } => {
                let late_policy = if late { LatePolicy::Repurchase } else { LatePolicy::Unspecified }.into();
                let request = CommitRequest { namespace_id, reservation_id, late_policy, ..Default::default() };
                let response = checkout.commit(limited(request)).await?.into_inner();
                Ok(reservation(response.reservation, response.replayed, response.sequence))
            }
            Op::CommitLines { reservation_id, lines, keep_rest, request_id } => {
                let rest_policy = if keep_rest { RestPolicy::Keep } else { RestPolicy::Release }.into();
                let (lines, late_policy) = (messages(lines), LatePolicy::Unspecified.into());
                let request =
                    CommitRequest { namespace_id, reservation_id, request_id, late_policy, lines, rest_policy };
                let response = checkout.commit(limited(request)).await?.into_inner();
                Ok(reservation(response.reservation, response.replayed, response.sequence))
            }
            Op::Rollback { reservation_id } => {
                let request = RollbackRequest { namespace_id, reservation_id, ..Default::default() };
                let response = checkout.rollback(limited(request)).await?.into_inner();
                Ok(reservation(response.reservation, response.replayed, response.sequence))
            }
            Op::RollbackLines { reservation_id, lines, request_id } => {
                let request = RollbackRequest { namespace_id, reservation_id, request_id, lines: messages(lines) };
                let response = checkout.rollback(limited(request)).await?.into_inner();
                Ok(reservation(response.reservation, response.replayed, response.sequence))
            }
            Op::Extend { reservation_id, ttl_ms, request_id } => {
                let request = ExtendRequest { namespace_id, reservation_id, ttl: Some(duration(ttl_ms)), request_id };
                let response = checkout.extend(limited(request)).await?.into_inner();
                let left = response.extendable.map_or(-1, millis_of);
                let extended = Box::new(response.reservation.unwrap_or_default());
                let answer = Answer::Extended(extended, left, response.replayed);
                Ok(Received { answer, sequence: Some(response.sequence), version: None })
            }
            Op::GetReservation { reservation_id } => {
                let request = GetReservationRequest { namespace_id, reservation_id, ..Default::default() };
                let response = checkout.get_reservation(limited(request)).await?.into_inner();
                Ok(reservation(response.reservation, false, response.sequence))
            }
            Op::GetStock { sku } => {
                let response = checkout.get_stock(limited(GetStockRequest { namespace_id, sku })).await?.into_inner();
                Ok(stock(response.stock, false, response.sequence))
            }
            Op::IsProtected { sku } => {
                let request = IsProtectedRequest { namespace_id, sku };
                let response = checkout.is_protected(limited(request)).await?.into_inner();
                Ok(Received { answer: Answer::IsProtected(response.is_protected), sequence: None, version: None })
            }
        }
    }
}

fn limited<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(CALL_LIMIT);
    request
}

fn messages(lines: Vec<(String, i32)>) -> Vec<Line> {
    lines.into_iter().map(|(sku, quantity)| Line { sku, quantity }).collect()
}

fn duration(millis: i64) -> prost_types::Duration {
    prost_types::Duration { seconds: millis / 1_000, nanos: (millis % 1_000) as i32 * 1_000_000 }
}

fn counters(stock: Stock) -> Counters {
    let Stock { sku: _, available, held, sold, supplied, version: _, is_protected, withdrawn, is_paused: _ } = stock;
    assert_eq!(withdrawn, 0, "no partition of the model is ever settled");
    Counters { available, held, sold, supplied, is_protected }
}

fn stock(stock: Option<Stock>, replayed: Replayed, sequence: i64) -> Received {
    let stock = stock.unwrap_or_default();
    let version = Some(stock.version);
    Received { answer: Answer::Stock(counters(stock), replayed), sequence: Some(sequence), version }
}

fn ruled(
    stock: Option<Stock>,
    rules: Option<SkuRules>,
    rules_version: i64,
    replayed: Replayed,
    sequence: i64,
) -> Received {
    let stock = stock.unwrap_or_default();
    let version = Some(stock.version);
    let answer = Answer::Sku(counters(stock), Box::new(rules.unwrap_or_default()), rules_version, replayed);
    Received { answer, sequence: Some(sequence), version }
}

fn reservation(reservation: Option<Reservation>, replayed: Replayed, sequence: i64) -> Received {
    let answer = Answer::Reservation(Box::new(reservation.unwrap_or_default()), replayed);
    Received { answer, sequence: Some(sequence), version: None }
}

/// A status as a refusal; `None` if it is none, but means that there is no answer.
fn refused(status: &Status) -> Option<Answer> {
    let info = status.get_details_error_info()?;
    let reason = Reason::from_name(&info.reason)?;
    let is_answer = matches!(status.code(), Code::InvalidArgument | Code::NotFound | Code::FailedPrecondition)
        || reason == Reason::VersionMismatch;
    if !is_answer || status.code() != reason.code() {
        return None;
    }
    let field = status.get_details_bad_request().and_then(|bad| bad.field_violations.into_iter().next());
    // The test has the namespace.
    let named = info.metadata.into_iter().filter(|(name, _)| name != "namespace");
    let what = field.map_or_else(|| about(named), |violation| violation.field);
    Some(Answer::Refused(reason, what))
}

/// Whether the same call with the same identity may get its answer later: the server or its store
/// was away, or the connection was cut, or too many calls waited.
pub fn may_repeat(status: &Status) -> bool {
    match status.get_details_error_info() {
        Some(info) => matches!(
            Reason::from_name(&info.reason),
            Some(
                Reason::StoreUnavailable
                    | Reason::OutcomeUnknown
                    | Reason::Draining
                    | Reason::Overloaded
                    | Reason::DeadlineExceeded
            )
        ),
        None => matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled | Code::DeadlineExceeded),
    }
}
