//! The gRPC services of a server, with their layers, and the descriptors for reflection. No I/O.

use std::sync::Arc;

use inventory_sentinel::v1::{
    self, inventory_admin_server::InventoryAdminServer, inventory_events_server::InventoryEventsServer,
    inventory_sentinel_server::InventorySentinelServer,
};
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tonic::service::Routes;
use tonic_health::pb::health_server::{Health, HealthServer};
use tower_layer::Layer as _;

use super::RunError;
use crate::{
    catch_panic::CatchPanicLayer,
    config::{Config, Switch},
    control::promises::Promises,
    control::watch::Hub,
    router_bypass::RouterBypassLayer,
    service::{Admin, Checkout, Events, ServiceContext},
    store::Store,
    tasks::Tasks,
    telemetry::grpc::TraceLayer,
    transport::Services,
};

/// The parts of a server that its services use.
pub(super) struct Parts<'a> {
    pub(super) config: &'a Config,
    pub(super) context: &'a ServiceContext,
    pub(super) hub: &'a Arc<Hub>,
    pub(super) lists: &'a Arc<Store>,
    pub(super) promises: &'a Promises,
    pub(super) tasks: &'a Tasks,
}

/// The services behind the gRPC port. `serves_admin`: InventoryAdmin has no separate port.
pub(super) fn services<H: Health>(
    parts: &Parts<'_>,
    health: HealthServer<H>,
    serves_admin: bool,
) -> Result<impl Services + use<H>, RunError> {
    let Parts { config, context, hub, tasks, .. } = *parts;
    let max_request = config.max_request_bytes;
    let checkout = InventorySentinelServer::new(Checkout { context: context.clone(), hub: Arc::clone(hub) })
        .max_decoding_message_size(max_request);
    let events = Events { context: context.clone(), hub: Arc::clone(hub) };
    let mut routes = Routes::new(InventoryEventsServer::new(events).max_decoding_message_size(max_request));
    if serves_admin {
        routes = routes.add_service(admin(parts));
    }
    let routes = with_common(config, routes, health)?.prepare();
    Ok(TraceLayer.layer(CatchPanicLayer(tasks.clone()).layer(RouterBypassLayer(checkout).layer(routes))))
}

/// The services behind the gRPC port of InventoryAdmin.
pub(super) fn admin_services<H: Health>(
    parts: &Parts<'_>,
    health: HealthServer<H>,
) -> Result<impl Services + use<H>, RunError> {
    let routes = with_common(parts.config, Routes::new(admin(parts)), health)?.prepare();
    Ok(TraceLayer.layer(CatchPanicLayer(parts.tasks.clone()).layer(routes)))
}

fn admin(parts: &Parts<'_>) -> InventoryAdminServer<Admin> {
    let Parts { config, context, lists, promises, .. } = *parts;
    let admin = Admin::new(context.clone(), Arc::clone(lists), promises.clone(), config);
    InventoryAdminServer::new(admin).max_decoding_message_size(config.max_request_bytes)
}

/// Adds the services that every gRPC port has: health and, unless it is off, reflection.
fn with_common<H: Health>(config: &Config, routes: Routes, health: HealthServer<H>) -> Result<Routes, RunError> {
    let routes = routes.add_service(health);
    Ok(match config.security.reflection {
        Switch::On => routes.add_service(reflection().build_v1()?).add_service(reflection().build_v1alpha()?),
        Switch::Off => routes,
    })
}

/// The descriptors of all services.
const DESCRIPTORS: [&[u8]; 4] = [
    v1::FILE_DESCRIPTOR_SET,
    tonic_health::pb::FILE_DESCRIPTOR_SET,
    tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
    tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
];

/// The full names of all services.
pub(super) fn service_names() -> Result<Vec<String>, prost::DecodeError> {
    let mut names = Vec::new();
    for descriptors in DESCRIPTORS {
        for file in FileDescriptorSet::decode(descriptors)?.file {
            names.extend(file.service.iter().map(|service| format!("{}.{}", file.package(), service.name())));
        }
    }
    Ok(names)
}

/// Describes the services and the details of errors, so that grpcurl can decode the reason of a refusal.
fn reflection() -> tonic_reflection::server::Builder<'static> {
    // The builder adds the descriptors of the reflection services.
    let builder = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET);
    DESCRIPTORS[..2]
        .iter()
        .fold(builder, |builder, descriptors| builder.register_encoded_file_descriptor_set(descriptors))
}
