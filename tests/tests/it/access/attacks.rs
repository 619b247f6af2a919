//! Attacks on the guard: callers without a credential that use up places, chains of certificates, doubled credentials,
//! and operators that hide a change.

use std::time::Duration;

use inventory_sentinel::{Reason, v1};
use sentinel_tests::{
    SentinelProcess, assert_refused,
    credentials::{AccessFiles, Authority, Signed, Validity},
    eventually, reason,
};
use tonic::Request;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest,
};

use super::{Bearer, CallerClients, assert_no_connection, set_stock};
use crate::limits::raw_connection::{RawConnection, framed, refused};

#[tokio::test]
async fn watches_of_the_health_do_not_fill_the_port() {
    let files = AccessFiles::new();
    let token = files.token("everything");
    let server = SentinelProcess::launch().guarded(&files).flags("--max-connections 8").start().await;
    let mut watches = Vec::new();
    for _ in 0..8 {
        let mut client = HealthClient::new(server.connect(files.client_tls()).await.expect("a connection"));
        let mut watch = client.watch(HealthCheckRequest::default()).await.expect("a watch").into_inner();
        watch.message().await.expect("the first status");
        watches.push((client, watch));
    }
    for _ in 0..4 {
        let mut caller = CallerClients::connect(&server, &files, &token).await;
        caller.admin.get_server_info(v1::GetServerInfoRequest {}).await.expect("a place for an identified caller");
    }
}

#[tokio::test]
async fn a_stream_of_reflection_ends_with_its_token() {
    let files = AccessFiles::new();
    let token = files.token("metrics");
    let server = SentinelProcess::launch().guarded(&files).start().await;
    let bearer = Bearer(Some(format!("Bearer {token}").parse().expect("ASCII")));
    let channel = server.connect(files.client_tls()).await.expect("a connection");
    let mut client = ServerReflectionClient::with_interceptor(channel, bearer);
    let list = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    // The stream of requests stays open.
    let (requests, receiver) = tokio::sync::mpsc::channel(1);
    requests.send(list).await.expect("sent");
    let receiver = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut answers = client.server_reflection_info(receiver).await.expect("a stream").into_inner();
    answers.message().await.expect("an answer");

    files.revoke(&token);
    let end = tokio::time::timeout(Duration::from_secs(10), answers.message()).await.expect("it ends in time");
    assert_eq!(reason(&end.expect_err("the end")), Reason::CredentialsUnknown);
}

#[tokio::test]
async fn a_long_chain_of_certificates_is_refused() {
    let files = AccessFiles::new();
    let server = SentinelProcess::launch().guarded_with_client_ca(&files, "required").start().await;
    let signed = files.authority.client("uri:spiffe://shop/everything", Validity::Now);
    let with_intermediates = |number: usize| {
        let others: String = (0..number).map(|_| Authority::new("test authority").pem()).collect();
        Signed { certificate: format!("{}{others}", signed.certificate), key: signed.key.clone() }
    };
    let call = async |signed: Signed| {
        let channel = server.connect(files.client_tls().identity(signed.identity())).await.map_err(|_| ());
        match channel {
            Ok(channel) => CallerClients::new(channel, "").admin.get_server_info(v1::GetServerInfoRequest {}).await,
            Err(()) => Err(tonic::Status::unavailable("the handshake failed")),
        }
    };
    call(with_intermediates(4)).await.expect("a chain of the longest accepted length");
    assert_no_connection(call(with_intermediates(5)).await);
}

#[tokio::test]
async fn two_credentials_in_one_call_are_refused() {
    let files = AccessFiles::new();
    let token = files.token("everything");
    let server = SentinelProcess::launch().guarded(&files).start().await;
    let mut caller = CallerClients::connect(&server, &files, "").await;
    for other in [token.as_str(), "another"] {
        let mut request = Request::new(v1::GetServerInfoRequest {});
        for credential in [&token, other] {
            request.metadata_mut().append("authorization", format!("Bearer {credential}").parse().expect("ASCII"));
        }
        assert_refused(caller.admin.get_server_info(request).await, Reason::CredentialsMalformed, None);
    }
}

/// An operator can't hide a change by a disconnection.
#[tokio::test]
async fn a_change_has_its_record_although_its_caller_disconnects() {
    let files = AccessFiles::new();
    let token = files.token("everything");
    let server = SentinelProcess::launch().guarded(&files).start().await;
    let mut owner = CallerClients::connect(&server, &files, &token).await;
    owner.admin.set_stock(set_stock("sale", "first", 10)).await.expect("set");
    for attempt in 0..40 {
        let mut caller = owner.clone();
        let call =
            tokio::spawn(async move { caller.admin.set_stock(set_stock("sale", &format!("sku-{attempt}"), 10)).await });
        // The call is cancelled at different steps of its way.
        tokio::time::sleep(Duration::from_micros(100 * attempt)).await;
        call.abort();
    }
    let request = v1::ListStockRequest { namespace_id: "sale".into(), page_size: 1_000, ..Default::default() };
    let skus = owner.admin.list_stock(request).await.expect("a page").into_inner().skus;
    let skus: Vec<String> = skus.into_iter().filter_map(|row| Some(row.stock?.sku)).collect();
    assert!(!skus.is_empty());
    eventually("each change has its record", async || {
        let records = server.log_lines();
        let is_recorded = |sku: &String| {
            records.iter().any(|record| {
                record["call"] == "SetStock"
                    && record["sku"] == sku.as_str()
                    && record["outcome"] == "OK"
                    && record["after"].as_str().is_some_and(|after| !after.is_empty())
            })
        };
        skus.iter().all(is_recorded).then_some(())
    })
    .await;
}

#[tokio::test]
async fn failed_writes_of_the_audit_log_are_counted() {
    let server = SentinelProcess::launch().flags("--audit-log /dev/full").start().await;
    let mut admin = server.admin();
    admin.get_server_info(v1::GetServerInfoRequest {}).await.expect("a call of an operator");
    let failures = async || server.metric("inventory_sentinel_audit_write_failures_total").await;
    eventually("the failure is counted", async || (failures().await >= 1.0).then_some(())).await;
}

/// Refused calls that never end use up the places of their own connections only.
#[tokio::test]
async fn refused_calls_that_do_not_end_close_no_other_connection() {
    const RESERVE: &str = "/inventory_sentinel.v1.InventorySentinel/Reserve";
    let files = AccessFiles::new();
    let token = files.token("everything");
    let policy = files.path("policy.toml");
    let flags = format!("--policy {} --max-unfinished-requests 256 --request-timeout 60s", policy.display());
    let server = SentinelProcess::launch().flags(&flags).start().await;
    let mut honest = RawConnection::connect(&server).await.with_bearer(&token);
    // The body of an honest call arrives in two parts.
    let message = framed(&prost::Message::encode_to_vec(&v1::ReserveRequest::default()));
    let (response, mut rest) = honest.call(RESERVE, &[], false).await;

    let mut held = Vec::new();
    for _ in 0..8 {
        let mut attacker = RawConnection::connect(&server).await;
        for _ in 0..100 {
            match attacker.try_call(RESERVE, &[], false).await {
                Ok(call) => held.push(call),
                Err(_) => break,
            }
        }
    }
    rest.send_data(message.into(), true).expect("an open connection");
    let refused = refused(response).await.expect_err("an empty request");
    assert_eq!(reason(&refused), Reason::RequestIdRequired);
}
