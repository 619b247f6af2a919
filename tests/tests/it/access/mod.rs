//! Access: TLS, credentials, roles and their reload, against real guarded servers.
//!
//! - this file: calls with credentials, for the other modules;
//! - `any_rpc`: calls of any RPC without generated code;
//! - `attacks`: callers that use up places, long chains, doubled credentials, hidden changes;
//! - `audit_log`: the records of operators' calls and of refused calls;
//! - `deploy`: the container's scripts, variables and scrape, outside of a container;
//! - `every_rpc`: every RPC with every wrong credential;
//! - `guide`: the commands of docs/operate/security.md;
//! - `handshake`: versions and protocols of TLS, and the expiry of certificates;
//! - `identities`: tokens, JSON Web Tokens and client certificates;
//! - `leaks`: data of namespaces that a caller may not use;
//! - `rotation`: changed certificates, authorities, tokens and policies while calls and streams run;
//! - `secrets`: outputs of a server, searched for credentials.

mod any_rpc;
mod attacks;
mod audit_log;
mod deploy;
mod every_rpc;
mod guide;
mod handshake;
mod identities;
mod leaks;
mod rotation;
mod secrets;
mod unserved;

use inventory_sentinel::v1::{
    self, inventory_admin_client::InventoryAdminClient, inventory_events_client::InventoryEventsClient,
    inventory_sentinel_client::InventorySentinelClient,
};
use sentinel_tests::{SentinelProcess, credentials::AccessFiles, new_id};
use tonic::{
    Code, Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};

/// Adds a bearer credential to each call.
#[derive(Clone, Debug)]
struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

type Guarded = InterceptedService<Channel, Bearer>;

/// The raw clients of one caller.
#[derive(Clone, Debug)]
struct CallerClients {
    checkout: InventorySentinelClient<Guarded>,
    admin: InventoryAdminClient<Guarded>,
    events: InventoryEventsClient<Guarded>,
}

/// Sets the stock of a SKU, as a new change.
fn set_stock(namespace: &str, sku: &str, on_hand: i64) -> v1::SetStockRequest {
    v1::SetStockRequest {
        namespace_id: namespace.into(),
        sku: sku.into(),
        on_hand,
        request_id: new_id(),
        ..Default::default()
    }
}

/// Asserts that a call failed because its connection was refused: no server responded to it. A client reports the
/// refused handshake as UNAVAILABLE, or as UNKNOWN if it had begun to send the call.
fn assert_no_connection<T: std::fmt::Debug>(result: Result<T, Status>) {
    let status = result.expect_err("a refused connection");
    assert!(matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled), "{status}");
    assert!(status.details().is_empty(), "the refusal of a server: {status}");
}

impl CallerClients {
    /// Clients on this connection, with this credential unless it is empty.
    fn new(channel: Channel, credential: &str) -> CallerClients {
        let value = (!credential.is_empty()).then(|| format!("Bearer {credential}").parse().expect("ASCII"));
        let bearer = Bearer(value);
        CallerClients {
            checkout: InventorySentinelClient::with_interceptor(channel.clone(), bearer.clone()),
            admin: InventoryAdminClient::with_interceptor(channel.clone(), bearer.clone()),
            events: InventoryEventsClient::with_interceptor(channel, bearer),
        }
    }

    /// Clients on a new connection without a certificate.
    async fn connect(server: &SentinelProcess, files: &AccessFiles, credential: &str) -> CallerClients {
        CallerClients::new(server.connect(files.client_tls()).await.expect("a connection"), credential)
    }
}
