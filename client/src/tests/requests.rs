//! The message that each request sends, and how its response is decoded, against a server in this process that records
//! the last message.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, UNIX_EPOCH},
};

use inventory_sentinel::v1::{
    self,
    inventory_admin_server::{InventoryAdmin, InventoryAdminServer},
    inventory_sentinel_server::{InventorySentinel, InventorySentinelServer},
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use super::pending;
use crate::{Namespace, NamespaceChange, PromiseState, RulesChange, Sentinel};

#[derive(Debug)]
enum Message {
    Reserve(v1::ReserveRequest),
    Commit(v1::CommitRequest),
    Rollback(v1::RollbackRequest),
    Extend(v1::ExtendRequest),
    SetStock(v1::SetStockRequest),
    ConfigureSku(v1::ConfigureSkuRequest),
    ConfigureNamespace(v1::ConfigureNamespaceRequest),
    SettlePartition(v1::SettlePartitionRequest),
    GetServerInfo(v1::GetServerInfoRequest),
}

#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Option<Message>>>);

impl Recorder {
    fn answer<T>(&self, message: Message, answer: T) -> Result<Response<T>, Status> {
        *self.0.lock().unwrap() = Some(message);
        Ok(Response::new(answer))
    }

    fn last(&self) -> Message {
        self.0.lock().unwrap().take().unwrap()
    }
}

macro_rules! last {
    ($recorder:ident, $kind:ident) => {
        match $recorder.last() {
            Message::$kind(message) => message,
            other => panic!("{other:?}"),
        }
    };
}

/// A service whose methods record their request and always give the same answer, or are not there.
macro_rules! service {
    ($service:ident:
        $($record:ident $kind:ident($request:ident) -> $response:ident $answer:expr;)+
        $(- $absent:ident($unused:ident) -> $never:ident;)+
        $(stream { $($stream:tt)+ })?
    ) => {
        #[tonic::async_trait]
        impl $service for Recorder {
            $(
                async fn $record(&self, request: Request<v1::$request>) -> Result<Response<v1::$response>, Status> {
                    self.answer(Message::$kind(request.into_inner()), $answer)
                }
            )+
            $(
                async fn $absent(&self, _: Request<v1::$unused>) -> Result<Response<v1::$never>, Status> {
                    Err(Status::unimplemented("not recorded"))
                }
            )+
            $($($stream)+)?
        }
    };
}

service! { InventorySentinel:
    reserve Reserve(ReserveRequest) -> ReserveResponse v1::ReserveResponse {
        result: Some(v1::reserve_response::Result::Reservation(pending())),
        ..Default::default()
    };
    commit Commit(CommitRequest) -> CommitResponse v1::CommitResponse {
        reservation: Some(v1::Reservation { origin_reservation_id: "r0".into(), ..pending() }),
        ..Default::default()
    };
    rollback Rollback(RollbackRequest) -> RollbackResponse
        v1::RollbackResponse { reservation: Some(pending()), ..Default::default() };
    extend Extend(ExtendRequest) -> ExtendResponse v1::ExtendResponse {
        reservation: Some(pending()),
        extendable: Some(prost_types::Duration { seconds: 2, nanos: 500_000_000 }),
        ..Default::default()
    };
    - get_reservation(GetReservationRequest) -> GetReservationResponse;
    - get_stock(GetStockRequest) -> GetStockResponse;
    - is_protected(IsProtectedRequest) -> IsProtectedResponse;
    - batch_get_stock(BatchGetStockRequest) -> BatchGetStockResponse;
    - batch(BatchRequest) -> BatchResponse;
    stream {
        type WatchProtectedStream = tokio_stream::Empty<Result<v1::WatchProtectedResponse, Status>>;

        async fn watch_protected(
            &self,
            _: Request<v1::WatchProtectedRequest>,
        ) -> Result<Response<Self::WatchProtectedStream>, Status> {
            Err(Status::unimplemented("not recorded"))
        }
    }
}

service! { InventoryAdmin:
    set_stock SetStock(SetStockRequest) -> SetStockResponse
        v1::SetStockResponse { stock: Some(v1::Stock::default()), ..Default::default() };
    configure_sku ConfigureSku(ConfigureSkuRequest) -> ConfigureSkuResponse v1::ConfigureSkuResponse {
        rules: Some(v1::SkuRules { is_protected: Some(true), buyer_limit: Some(2), ..Default::default() }),
        stock: Some(v1::Stock::default()),
        sequence: 9,
        rules_version: 4,
        replayed: false,
    };
    configure_namespace ConfigureNamespace(ConfigureNamespaceRequest) -> ConfigureNamespaceResponse
        v1::ConfigureNamespaceResponse {
            config: Some(v1::NamespaceConfig {
                partitions: Some(8),
                default_ttl: Some(prost_types::Duration::default()),
                max_ttl: Some(prost_types::Duration::default()),
                max_life: Some(prost_types::Duration::default()),
                retention: Some(prost_types::Duration::default()),
                quota_records: Some(1),
                quota_skus: Some(1),
                format: Some(2),
                is_paused: Some(false),
            }),
            version: 1,
            replayed: false,
        };
    settle_partition SettlePartition(SettlePartitionRequest) -> SettlePartitionResponse
        v1::SettlePartitionResponse { skus: 3, replayed: false, sequence: 9 };
    get_server_info GetServerInfo(GetServerInfoRequest) -> GetServerInfoResponse v1::GetServerInfoResponse {
        state: "memory only".into(),
        fenced_partitions: vec![v1::FencedPartition {
            namespace_id: "sale".into(),
            partition: 1,
            seen: Some(v1::HistoryPoint { epoch: 7, term: "a".repeat(40), sequence: 141 }),
            kept_sequence: 71,
            fenced_at: None,
            fence: "0123456789abcdef".into(),
            is_gated: true,
        }],
        promises: vec![
            v1::Promise { name: "terms".into(), state: v1::PromiseState::Kept.into(), detail: "x".into() },
            v1::Promise { name: "clocks".into(), state: v1::PromiseState::NotChecked.into(), detail: "y".into() },
            v1::Promise { name: "partitions".into(), state: v1::PromiseState::Broken.into(), detail: "z".into() },
            v1::Promise { name: "of a newer server".into(), state: 9, detail: String::new() },
        ],
        ..Default::default()
    };
    - adjust_stock(AdjustStockRequest) -> AdjustStockResponse;
    - get_sku(GetSkuRequest) -> GetSkuResponse;
    - delete_sku(DeleteSkuRequest) -> DeleteSkuResponse;
    - delete_namespace(DeleteNamespaceRequest) -> DeleteNamespaceResponse;
    - get_namespace(GetNamespaceRequest) -> GetNamespaceResponse;
    - list_namespaces(ListNamespacesRequest) -> ListNamespacesResponse;
    - list_stock(ListStockRequest) -> ListStockResponse;
    - list_reservations(ListReservationsRequest) -> ListReservationsResponse;
    - set_protection(SetProtectionRequest) -> SetProtectionResponse;
    - audit(AuditRequest) -> AuditResponse;
    stream {
        type ImportStockStream = tokio_stream::Empty<Result<v1::ImportStockResponse, Status>>;

        async fn import_stock(
            &self,
            _: Request<tonic::Streaming<v1::ImportStockRequest>>,
        ) -> Result<Response<Self::ImportStockStream>, Status> {
            Err(Status::unimplemented("not recorded"))
        }
    }
}

async fn shop() -> (Recorder, Namespace) {
    let recorder = Recorder::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}", listener.local_addr().unwrap());
    let server = tonic::transport::Server::builder()
        .add_service(InventorySentinelServer::new(recorder.clone()))
        .add_service(InventoryAdminServer::new(recorder.clone()))
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(server);
    let sentinel = Sentinel::connect(uri).await.unwrap();
    (recorder, sentinel.namespace("sale"))
}

#[tokio::test]
async fn reserve_names_what_it_replaces() {
    let (server, sale) = shop().await;
    sale.reserve("ps5", 1).replacing("r0").await.unwrap();
    assert_eq!(last!(server, Reserve).replaces_reservation_id, "r0");
    sale.reserve("ps5", 1).await.unwrap();
    assert_eq!(last!(server, Reserve).replaces_reservation_id, "");
}

#[tokio::test]
async fn commit_says_what_becomes_of_the_rest_and_of_a_late_one() {
    let (server, sale) = shop().await;
    sale.commit("r1").line("ps5", 2).line("pad", 1).keep_rest().await.unwrap();
    let received = last!(server, Commit);
    assert_eq!((received.namespace_id.as_str(), received.reservation_id.as_str()), ("sale", "r1"));
    let line = |sku: &str, quantity| v1::Line { sku: sku.into(), quantity };
    assert_eq!(received.lines, [line("ps5", 2), line("pad", 1)]);
    assert_eq!(received.rest_policy(), v1::RestPolicy::Keep);
    assert_eq!(received.late_policy(), v1::LatePolicy::Unspecified);

    sale.commit("r1").line("ps5", 2).release_rest().await.unwrap();
    assert_eq!(last!(server, Commit).rest_policy(), v1::RestPolicy::Release);

    let sold = sale.commit("r0").repurchase_if_late().await.unwrap();
    assert_eq!(sold.origin.as_deref(), Some("r0"));
    let received = last!(server, Commit);
    assert_eq!(received.late_policy(), v1::LatePolicy::Repurchase);
    assert_eq!((received.rest_policy(), received.lines.len()), (v1::RestPolicy::Unspecified, 0));
}

#[tokio::test]
async fn rollback_names_its_lines_and_extend_its_ttl() {
    let (server, sale) = shop().await;
    sale.rollback("r1").line("ps5", 2).await.unwrap();
    assert_eq!(last!(server, Rollback).lines, [v1::Line { sku: "ps5".into(), quantity: 2 }]);
    let held = sale.extend("r1", Duration::from_secs(60)).await.unwrap();
    assert_eq!((held.reservation.id.as_str(), held.extendable), ("r1", Duration::from_millis(2500)));
    let received = last!(server, Extend);
    assert_eq!((received.reservation_id.as_str(), received.ttl.unwrap().seconds), ("r1", 60));
}

#[tokio::test]
async fn set_stock_has_one_condition_at_most() {
    let (server, sale) = shop().await;
    let admin = sale.admin();
    admin.set_stock("ps5", 3).await.unwrap();
    let received = last!(server, SetStock);
    assert_eq!((received.on_hand, received.if_absent, received.if_version), (3, false, None));
    assert!(!received.request_id.is_empty());
    admin.set_stock("ps5", 3).if_version(7).if_absent().await.unwrap();
    let received = last!(server, SetStock);
    assert_eq!((received.if_absent, received.if_version), (true, None));
    admin.request_id("mine").set_stock("ps5", 3).if_absent().if_version(0).await.unwrap();
    let received = last!(server, SetStock);
    assert_eq!((received.if_absent, received.if_version), (false, Some(0)));
    assert_eq!(received.request_id, "mine");
}

#[tokio::test]
async fn configurations_say_only_what_changes() {
    let (server, sale) = shop().await;
    let admin = sale.admin();
    let opens = UNIX_EPOCH + Duration::from_secs(100);
    let change = RulesChange::new().buyer_limit(2).max_quantity(None).opens_at(opens);
    let now = admin.configure_sku("ps5", change).if_version(3).await.unwrap();
    assert_eq!((now.rules_version, now.rules.buyer_limit, now.rules.max_quantity), (4, Some(2), None));
    let received = last!(server, ConfigureSku);
    let rules = received.rules.unwrap();
    assert_eq!((rules.buyer_limit, rules.max_quantity, rules.is_protected), (Some(2), Some(0), None));
    assert!(!received.request_id.is_empty());
    assert_eq!((rules.opens_at.unwrap().seconds, rules.closes_at), (100, None));
    assert_eq!(received.if_version, Some(3));

    let now = admin.configure_namespace(NamespaceChange::new().partitions(8)).if_version(0).await.unwrap();
    assert_eq!((now.partitions, now.version), (8, 1));
    let received = last!(server, ConfigureNamespace);
    assert_eq!(received.config, Some(v1::NamespaceConfig { partitions: Some(8), ..Default::default() }));
    assert_eq!(received.if_version, Some(0));
    assert!(!received.request_id.is_empty());
}

#[tokio::test]
async fn a_settlement_names_its_figures_and_what_old_holds_do() {
    let (server, sale) = shop().await;
    let settlement = sale.admin().request_id("settle-1").settle_partition(1, "0123456789abcdef");
    let settled = settlement.available("ps5", 30).available_beside_old_holds("pad", 4).await.unwrap();
    assert_eq!((settled.skus, settled.replayed, settled.sequence), (3, false, 9));
    let request = last!(server, SettlePartition);
    assert_eq!(
        (request.namespace_id.as_str(), request.partition, request.request_id.as_str()),
        ("sale", 1, "settle-1")
    );
    let figure =
        |sku: &str, available, old_holds_return| v1::SettledSku { sku: sku.into(), available, old_holds_return };
    assert_eq!(request.fence, "0123456789abcdef");
    assert_eq!(request.skus, [figure("ps5", 30, false), figure("pad", 4, true)]);

    let info = sale.admin().server_info().await.unwrap();
    assert_eq!(info.state, "memory only");
    let states: Vec<_> = info.promises.iter().map(|promise| promise.state).collect();
    let known = [PromiseState::Kept, PromiseState::NotChecked, PromiseState::Broken];
    assert_eq!((&states[..3], info.promises[1].detail.as_str()), (&known[..], "y"));
    assert_eq!(states[3], PromiseState::Unknown(9));
    let fenced = &info.fenced_partitions[0];
    assert_eq!((fenced.partition, fenced.seen_sequence, fenced.kept_sequence), (1, 141, 71));
}
