//! Calls of any RPC without generated code: the paths of the descriptors, and a valid request of each RPC.

use bytes::{Buf as _, BufMut as _, Bytes};
use http::uri::PathAndQuery;
use inventory_sentinel::v1::{self, batch_operation::Operation};
use prost::Message;
use prost_types::FileDescriptorSet;
use sentinel_tests::{BOUND, new_id};
use tokio_stream::Stream;
use tonic::{
    Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    transport::Channel,
};
use tonic_health::pb::HealthCheckRequest;
use tonic_reflection::pb::{v1 as reflection, v1alpha as old_reflection};

/// The services of this package.
pub(super) const CHECKOUT: &str = "/inventory_sentinel.v1.InventorySentinel/";
pub(super) const ADMIN: &str = "/inventory_sentinel.v1.InventoryAdmin/";
pub(super) const EVENTS: &str = "/inventory_sentinel.v1.InventoryEvents/";
/// The services of libraries.
pub(super) const HEALTH: &str = "/grpc.health.v1.Health/";
pub(super) const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/";
pub(super) const OLD_REFLECTION: &str = "/grpc.reflection.v1alpha.ServerReflection/";

/// Passes messages as bytes.
#[derive(Clone, Copy, Debug)]
struct BytesCodec;

impl Codec for BytesCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = BytesCodec;
    type Decoder = BytesCodec;

    fn encoder(&mut self) -> BytesCodec {
        BytesCodec
    }

    fn decoder(&mut self) -> BytesCodec {
        BytesCodec
    }
}

impl Encoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(message);
        Ok(())
    }
}

impl Decoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

/// Sends one message, then the end of the stream. Returns the first message of the response, or the status of the
/// call. `authorization` is the whole header; empty: none.
pub(super) async fn call(
    channel: &Channel,
    authorization: &str,
    path: &str,
    message: impl Into<Bytes>,
) -> Result<Bytes, Status> {
    let first = send(channel, authorization, path, tokio_stream::once(message.into()));
    tokio::time::timeout(BOUND, first).await.unwrap_or_else(|_| panic!("{path}: no response"))
}

/// Sends these messages. The rest is that of [`call`], without a limit of its time.
pub(super) async fn send(
    channel: &Channel,
    authorization: &str,
    path: &str,
    messages: impl Stream<Item = Bytes> + Send + 'static,
) -> Result<Bytes, Status> {
    let mut request = Request::new(messages);
    if !authorization.is_empty() {
        request.metadata_mut().insert("authorization", authorization.parse().expect("ASCII"));
    }
    let mut client = Grpc::new(channel.clone());
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let path: PathAndQuery = path.parse().expect("a path");
    let response = client.streaming(request, path.clone(), BytesCodec).await?;
    let first = response.into_inner().message().await?;
    Ok(first.unwrap_or_else(|| panic!("{path}: the response has no message")))
}

/// The paths of all RPCs of all services.
pub(super) fn paths() -> Vec<String> {
    let descriptors = [
        v1::FILE_DESCRIPTOR_SET,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        reflection::FILE_DESCRIPTOR_SET,
        old_reflection::FILE_DESCRIPTOR_SET,
    ];
    let mut paths = Vec::new();
    for descriptors in descriptors {
        for file in FileDescriptorSet::decode(descriptors).expect("descriptors").file {
            for service in &file.service {
                let path = |method: &str| format!("/{}.{}/{method}", file.package(), service.name());
                paths.extend(service.method.iter().map(|method| path(method.name())));
            }
        }
    }
    paths
}

/// The target of the requests.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) namespace: String,
    pub(super) sku: String,
    /// A SKU without holds.
    pub(super) spare_sku: String,
    /// Pending reservations of `sku`.
    pub(super) reservations: [String; 5],
}

/// A path with a request that is valid for this target, and that changes or reads something.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) path: String,
    pub(super) message: Bytes,
}

fn entry(service: &str, method: &str, message: &impl Message) -> Entry {
    Entry { path: format!("{service}{method}"), message: message.encode_to_vec().into() }
}

/// One entry of each RPC, in an order in which all of them succeed.
pub(super) fn entries(target: &Target) -> Vec<Entry> {
    let mut entries = of_checkout(target);
    entries.extend(of_events(target));
    entries.extend(of_libraries());
    entries.extend(of_admin(target));
    entries
}

fn of_checkout(target: &Target) -> Vec<Entry> {
    let Target { namespace, sku, reservations: [first, second, third, fourth, fifth], .. } = target;
    let namespace_id = namespace.clone();
    let reserve = || v1::ReserveRequest {
        namespace_id: namespace.clone(),
        request_id: new_id(),
        lines: vec![v1::Line { sku: sku.clone(), quantity: 1 }],
        ..Default::default()
    };
    let commit = |id: &String| v1::CommitRequest {
        namespace_id: namespace.clone(),
        reservation_id: id.clone(),
        ..Default::default()
    };
    let rollback = |id: &String| v1::RollbackRequest {
        namespace_id: namespace.clone(),
        reservation_id: id.clone(),
        ..Default::default()
    };
    let extend = |id: &String| v1::ExtendRequest {
        namespace_id: namespace.clone(),
        reservation_id: id.clone(),
        ttl: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
        request_id: new_id(),
    };
    let get = |id: &String| v1::GetReservationRequest {
        namespace_id: namespace.clone(),
        reservation_id: id.clone(),
        ..Default::default()
    };
    let get_stock = || v1::GetStockRequest { namespace_id: namespace.clone(), sku: sku.clone() };
    let operations = [
        Operation::Reserve(reserve()),
        Operation::Commit(commit(third)),
        Operation::Rollback(rollback(fourth)),
        Operation::Extend(extend(fifth)),
        Operation::GetReservation(get(fifth)),
        Operation::GetStock(get_stock()),
    ];
    let operation = |operation| v1::BatchOperation { operation: Some(operation), timeout: None };
    let batch = v1::BatchRequest { operations: operations.map(operation).to_vec() };
    let skus = vec![sku.clone()];
    vec![
        entry(CHECKOUT, "Reserve", &reserve()),
        entry(CHECKOUT, "Extend", &extend(first)),
        entry(CHECKOUT, "GetReservation", &get(first)),
        entry(CHECKOUT, "Commit", &commit(first)),
        entry(CHECKOUT, "Rollback", &rollback(second)),
        entry(CHECKOUT, "GetStock", &get_stock()),
        entry(CHECKOUT, "BatchGetStock", &v1::BatchGetStockRequest { namespace_id: namespace.clone(), skus }),
        entry(CHECKOUT, "Batch", &batch),
        entry(CHECKOUT, "IsProtected", &v1::IsProtectedRequest { namespace_id: namespace.clone(), sku: sku.clone() }),
        entry(CHECKOUT, "WatchProtected", &v1::WatchProtectedRequest { namespace_id, ..Default::default() }),
    ]
}

fn of_events(Target { namespace, sku, .. }: &Target) -> Vec<Entry> {
    let namespace_id = namespace.clone();
    let watch = v1::WatchRequest { namespace_id: namespace.clone(), from_oldest: true, ..Default::default() };
    let watch_stock = v1::WatchStockRequest { namespace_id, skus: vec![sku.clone()], ..Default::default() };
    vec![entry(EVENTS, "Watch", &watch), entry(EVENTS, "WatchStock", &watch_stock)]
}

fn of_libraries() -> Vec<Entry> {
    use old_reflection::server_reflection_request::MessageRequest as OldMessageRequest;
    use reflection::server_reflection_request::MessageRequest;
    let check = HealthCheckRequest { service: String::new() };
    let list = reflection::ServerReflectionRequest {
        message_request: Some(MessageRequest::ListServices(String::new())),
        ..Default::default()
    };
    let old_list = old_reflection::ServerReflectionRequest {
        message_request: Some(OldMessageRequest::ListServices(String::new())),
        ..Default::default()
    };
    vec![
        entry(HEALTH, "Check", &check),
        entry(HEALTH, "Watch", &check),
        entry(REFLECTION, "ServerReflectionInfo", &list),
        entry(OLD_REFLECTION, "ServerReflectionInfo", &old_list),
    ]
}

fn of_admin(target: &Target) -> Vec<Entry> {
    let Target { namespace, sku, spare_sku, .. } = target;
    let (namespace_id, sku, request_id) = (|| namespace.clone(), || sku.clone(), new_id);
    let set = v1::SetStockRequest {
        namespace_id: namespace_id(),
        sku: sku(),
        on_hand: 77,
        request_id: request_id(),
        ..Default::default()
    };
    let adjust = v1::AdjustStockRequest {
        namespace_id: namespace_id(),
        sku: sku(),
        delta: 5,
        request_id: request_id(),
        ..Default::default()
    };
    let rules = Some(v1::SkuRules { max_quantity: Some(9), ..Default::default() });
    let configure_sku = v1::ConfigureSkuRequest {
        namespace_id: namespace_id(),
        sku: sku(),
        rules,
        request_id: request_id(),
        ..Default::default()
    };
    let delete_sku =
        v1::DeleteSkuRequest { namespace_id: namespace_id(), sku: spare_sku.clone(), request_id: request_id() };
    let config = Some(v1::NamespaceConfig { is_paused: Some(true), ..Default::default() });
    let configure = v1::ConfigureNamespaceRequest { namespace_id: namespace_id(), config, ..Default::default() };
    let import = v1::ImportStockRequest {
        namespace_id: namespace_id(),
        request_id: request_id(),
        rows: vec![v1::ImportRow { sku: sku(), on_hand: 99 }],
        overwrite: true,
        ..Default::default()
    };
    let set_protection = v1::SetProtectionRequest {
        namespace_id: namespace_id(),
        skus: vec![sku()],
        is_protected: Some(false),
        request_id: request_id(),
    };
    let settle =
        v1::SettlePartitionRequest { namespace_id: namespace_id(), request_id: request_id(), ..Default::default() };
    vec![
        entry(ADMIN, "GetServerInfo", &v1::GetServerInfoRequest {}),
        entry(ADMIN, "GetSku", &v1::GetSkuRequest { namespace_id: namespace_id(), sku: sku() }),
        entry(ADMIN, "GetNamespace", &v1::GetNamespaceRequest { namespace_id: namespace_id() }),
        entry(ADMIN, "ListNamespaces", &v1::ListNamespacesRequest::default()),
        entry(ADMIN, "ListStock", &v1::ListStockRequest { namespace_id: namespace_id(), ..Default::default() }),
        entry(
            ADMIN,
            "ListReservations",
            &v1::ListReservationsRequest { namespace_id: namespace_id(), ..Default::default() },
        ),
        entry(ADMIN, "Audit", &v1::AuditRequest { namespace_id: namespace_id() }),
        entry(ADMIN, "SettlePartition", &settle),
        entry(ADMIN, "SetStock", &set),
        entry(ADMIN, "AdjustStock", &adjust),
        entry(ADMIN, "ConfigureSku", &configure_sku),
        entry(ADMIN, "ImportStock", &import),
        entry(ADMIN, "SetProtection", &set_protection),
        entry(ADMIN, "DeleteSku", &delete_sku),
        entry(ADMIN, "ConfigureNamespace", &configure),
        entry(
            ADMIN,
            "DeleteNamespace",
            &v1::DeleteNamespaceRequest { namespace_id: namespace_id(), request_id: request_id() },
        ),
    ]
}
