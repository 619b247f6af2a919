//! GetServerInfo: the version, the store, the promises, the fenced partitions. Reads memory only.

use inventory_sentinel::v1;
use prost_types::Timestamp;
use tokio::time::Instant;
use tonic::Request;

use super::Admin;
use crate::{
    config::Durability,
    domain::{FORMATS, Promise, PromiseState},
    failure::Failure,
    service::{
        convert,
        dispatch::{AsyncRpc, Scope},
    },
    telemetry::metrics::RpcKind,
    witness::FencedPartition,
};

pub(crate) struct GetServerInfo;

impl AsyncRpc for GetServerInfo {
    type Service = Admin;
    type Request = v1::GetServerInfoRequest;
    type Response = v1::GetServerInfoResponse;
    const KIND: RpcKind = RpcKind::GetServerInfo;

    fn decode(_: Request<v1::GetServerInfoRequest>) -> Result<Self, Failure> {
        Ok(Self)
    }

    fn scope(&self) -> Scope<'_> {
        Scope::Server
    }

    async fn run(self, admin: &Admin, _: Instant) -> Result<v1::GetServerInfoResponse, Failure> {
        let witnesses = &admin.promises.witnesses;
        let (identity, written, path) = (witnesses.identity(), witnesses.written(), witnesses.path());
        let offsets = admin.context.namespaces.clock_offsets();
        let durability = match admin.durability {
            Durability::Fast => "fast",
            Durability::Durable => "durable",
        };
        Ok(v1::GetServerInfoResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            durability: durability.to_owned(),
            store_version: identity.version().unwrap_or_default(),
            store_id: identity.id().unwrap_or_default(),
            state: path.map_or_else(|| "memory only".to_owned(), |path| path.display().to_string()),
            state_written_at: written.at.map(Timestamp::from),
            state_error: written.error.unwrap_or_default(),
            newest_format: FORMATS.1.into(),
            clock_offset: Some(convert::signed_duration(offsets.clock)),
            time_of_day_offset: Some(convert::signed_duration(offsets.time_of_day)),
            fenced_partitions: witnesses.fenced().into_iter().map(encode_fenced).collect(),
            promises: admin.promises.list().into_iter().map(encode_promise).collect(),
        })
    }
}

fn encode_fenced(FencedPartition { namespace, partition, fence }: FencedPartition) -> v1::FencedPartition {
    v1::FencedPartition {
        namespace_id: namespace.as_str().to_owned(),
        partition: partition.into(),
        seen: Some(convert::history_point(fence.seen)),
        kept_sequence: fence.kept as i64,
        fence: fence.id.as_str().to_owned(),
        is_gated: fence.is_gated,
        fenced_at: Some(convert::timestamp(fence.noticed_at)),
    }
}

fn encode_promise(Promise { name, state, detail }: Promise) -> v1::Promise {
    let state = match state {
        PromiseState::Kept => v1::PromiseState::Kept,
        PromiseState::Broken => v1::PromiseState::Broken,
        PromiseState::NotChecked => v1::PromiseState::NotChecked,
    };
    v1::Promise { name: name.to_owned(), state: state.into(), detail }
}
