//! A server of the same API on the same transport whose handlers answer at once: the ceiling that gRPC sets.
//! `sentinel-noop ADDRESS [THREADS]` serves there until it is stopped, on as many threads as the server takes beside
//! its Redis where no number is given. It answers Reserve with a reservation like a real one, and nothing else;
//! there is no stock, no Redis, no tracing.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use inventory_sentinel::v1::{
    self, inventory_sentinel_server as api, inventory_sentinel_server::InventorySentinelServer,
};
use prost_types::Timestamp;
use sentinel_server::config::Config;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, service::Routes};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The length of an id as the server makes it.
const ID: &str = "AAAAAAAAAAAAAAAAAAAAAAAA";
/// Some time; real ones have as many bytes.
const AT: Timestamp = Timestamp { seconds: 1_800_000_000, nanos: 123_000_000 };

struct AtOnce;

#[tonic::async_trait]
impl api::InventorySentinel for AtOnce {
    async fn reserve(&self, request: Request<v1::ReserveRequest>) -> Result<Response<v1::ReserveResponse>, Status> {
        let v1::ReserveRequest { namespace_id, lines, .. } = request.into_inner();
        let lines = lines
            .into_iter()
            .map(|v1::Line { sku, quantity }| v1::ReservationLine {
                sku,
                quantity,
                held: quantity,
                ..Default::default()
            })
            .collect();
        let reservation = v1::Reservation {
            namespace_id,
            reservation_id: ID.into(),
            state: v1::ReservationState::Pending.into(),
            lines,
            created_at: Some(AT),
            expires_at: Some(AT),
            ..Default::default()
        };
        Ok(Response::new(v1::ReserveResponse {
            result: Some(v1::reserve_response::Result::Reservation(reservation)),
            replayed: false,
            sequence: 1_000_000,
        }))
    }

    async fn commit(&self, _: Request<v1::CommitRequest>) -> Result<Response<v1::CommitResponse>, Status> {
        absent()
    }

    async fn rollback(&self, _: Request<v1::RollbackRequest>) -> Result<Response<v1::RollbackResponse>, Status> {
        absent()
    }

    async fn extend(&self, _: Request<v1::ExtendRequest>) -> Result<Response<v1::ExtendResponse>, Status> {
        absent()
    }

    async fn get_reservation(
        &self,
        _: Request<v1::GetReservationRequest>,
    ) -> Result<Response<v1::GetReservationResponse>, Status> {
        absent()
    }

    async fn get_stock(&self, _: Request<v1::GetStockRequest>) -> Result<Response<v1::GetStockResponse>, Status> {
        absent()
    }

    async fn batch_get_stock(
        &self,
        _: Request<v1::BatchGetStockRequest>,
    ) -> Result<Response<v1::BatchGetStockResponse>, Status> {
        absent()
    }

    async fn batch(&self, _: Request<v1::BatchRequest>) -> Result<Response<v1::BatchResponse>, Status> {
        absent()
    }

    async fn is_protected(
        &self,
        _: Request<v1::IsProtectedRequest>,
    ) -> Result<Response<v1::IsProtectedResponse>, Status> {
        absent()
    }

    type WatchProtectedStream = tonic::codegen::BoxStream<v1::WatchProtectedResponse>;

    async fn watch_protected(
        &self,
        _: Request<v1::WatchProtectedRequest>,
    ) -> Result<Response<Self::WatchProtectedStream>, Status> {
        absent()
    }
}

fn absent<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("only Reserve is answered here"))
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let address: SocketAddr = arguments.next().context("usage: sentinel-noop ADDRESS [THREADS]")?.parse()?;
    let threads = arguments.next().map(|threads| threads.parse()).transpose()?;
    let config = Config { threads, ..Config::default() };
    sentinel_server::runtime(&config)?.block_on(serve(address, &config))
}

async fn serve(address: SocketAddr, config: &Config) -> Result<()> {
    let listener = TcpListener::bind(address).await?;
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_serving::<InventorySentinelServer<AtOnce>>().await;
    let routes = Routes::new(InventorySentinelServer::new(AtOnce)).add_service(health);
    sentinel_server::serve_routes(config, listener, routes, CancellationToken::new()).await;
    Ok(())
}
