//! Every RPC with every wrong credential: refused for the expected reason, without a change. A new RPC needs an entry
//! in [`any_rpc`](super::any_rpc).

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

use inventory_sentinel::{Reason, v1};
use prost::Message as _;
use sentinel_tests::{
    SentinelProcess,
    credentials::{AccessFiles, Authority, Validity, seconds_from_now},
    eventually, new_id, reason,
};
use serde_json::json;
use tonic::{
    Status,
    transport::{Channel, ClientTlsConfig},
};

use super::{
    CallerClients,
    any_rpc::{ADMIN, CHECKOUT, EVENTS, Entry, HEALTH, OLD_REFLECTION, REFLECTION, Target, call, entries, paths},
    assert_no_connection,
};

/// A wrong credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    Missing,
    AnotherScheme,
    MalformedToken,
    UnknownToken,
    ExpiredToken,
    JwtOfAnotherAudience,
    ExpiredJwt,
    JwtWithForeignSignature,
    JwtOfUnknownSubject,
    UnknownCertificate,
    /// A token of an identity with every role but that of the service.
    Role,
    /// A token of an identity with the role in another namespace.
    Namespace,
    CertificateOfAnotherAuthority,
    CertificateOfRemovedAuthority,
    ExpiredCertificate,
    CertificateOfServer,
}

/// The expected outcome of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Refused(Reason),
    Passes,
    /// The handshake fails.
    NoConnection,
}

use Outcome::{NoConnection, Passes, Refused};

/// For each wrong credential the outcome of: a service that needs a role, reflection, health.
const EXPECTED: [(Wrong, [Outcome; 3]); 16] = [
    (Wrong::Missing, all_but_health(Reason::CredentialsMissing)),
    (Wrong::AnotherScheme, all_but_health(Reason::CredentialsMalformed)),
    (Wrong::MalformedToken, all_but_health(Reason::CredentialsMalformed)),
    (Wrong::UnknownToken, all_but_health(Reason::CredentialsUnknown)),
    (Wrong::ExpiredToken, all_but_health(Reason::CredentialsExpired)),
    (Wrong::JwtOfAnotherAudience, all_but_health(Reason::CredentialsWrongAudience)),
    (Wrong::ExpiredJwt, all_but_health(Reason::CredentialsExpired)),
    (Wrong::JwtWithForeignSignature, all_but_health(Reason::CredentialsUnknown)),
    (Wrong::JwtOfUnknownSubject, all_but_health(Reason::CredentialsUnknown)),
    (Wrong::UnknownCertificate, all_but_health(Reason::CredentialsUnknown)),
    (Wrong::Role, [Refused(Reason::RoleMissing), Passes, Passes]),
    (Wrong::Namespace, [Refused(Reason::NamespaceForbidden), Passes, Passes]),
    (Wrong::CertificateOfAnotherAuthority, [NoConnection; 3]),
    (Wrong::CertificateOfRemovedAuthority, [NoConnection; 3]),
    (Wrong::ExpiredCertificate, [NoConnection; 3]),
    (Wrong::CertificateOfServer, [NoConnection; 3]),
];

const fn all_but_health(reason: Reason) -> [Outcome; 3] {
    [Refused(reason), Refused(reason), Passes]
}

/// The roles, and the prefix of the paths that need each.
const ROLES: [(&str, &str); 3] = [("checkout", CHECKOUT), ("events", EVENTS), ("operator", ADMIN)];

/// The place in a row of [`EXPECTED`]; a service without a place fails the test.
fn group(path: &str) -> usize {
    let is_of = |services: &[&str]| services.iter().any(|service| path.starts_with(service));
    match () {
        () if is_of(&[CHECKOUT, EVENTS, ADMIN]) => 0,
        () if is_of(&[REFLECTION, OLD_REFLECTION]) => 1,
        () if is_of(&[HEALTH]) => 2,
        () => panic!("{path} is of a service without an expected outcome"),
    }
}

/// A guarded server and the credentials for it.
struct Fixture {
    files: AccessFiles,
    server: SentinelProcess,
    /// An authority that the server trusted once.
    removed: Authority,
    owner: CallerClients,
    owner_token: String,
    unknown_token: String,
    expired_token: String,
    elsewhere: String,
    /// For each role a token of an identity without it.
    without: Vec<String>,
}

impl Fixture {
    async fn start() -> Fixture {
        let files = AccessFiles::new();
        for (role, _) in ROLES {
            let others = ROLES.iter().filter(|(other, _)| *other != role);
            let grants: Vec<_> =
                others.map(|(other, _)| format!("{{ role = \"{other}\", namespaces = [\"*\"] }}")).collect();
            let (name, grants) = (format!("without-{role}"), grants.join(", "));
            files.edit("policy.toml", |text| {
                format!("{text}\n[[identity]]\nname = \"{name}\"\ngrants = [{grants}, {{ role = \"metrics\" }}]\n")
            });
        }
        let owner_token = files.token("everything");
        let unknown_token = files.token("everything");
        files.revoke(&unknown_token);
        let expired_token = files.token_until("everything", Some(SystemTime::now() - Duration::from_secs(1)));
        let (elsewhere, without) =
            (files.token("elsewhere"), ROLES.map(|(role, _)| files.token(&format!("without-{role}"))).to_vec());
        let removed = Authority::new("removed authority");
        files.write("client-ca.pem", &format!("{}{}", files.authority.pem(), removed.pem()));
        let server = SentinelProcess::launch()
            .guarded_with_client_ca(&files, "optional")
            // No credential is refused because of the number of the others.
            .flags("--max-failed-authentications 1000000")
            .start()
            .await;
        let peer = removed.client("uri:spiffe://shop/everything", Validity::Now);
        let channel = server.connect(files.client_tls().identity(peer.identity())).await.expect("a connection");
        let mut peer = CallerClients::new(channel, "");
        peer.admin.get_server_info(v1::GetServerInfoRequest {}).await.expect("the authority is trusted at first");
        files.write("client-ca.pem", &files.authority.pem());
        eventually("the authority is removed", async || {
            server.log().contains("changed files are in use").then_some(())
        })
        .await;
        let owner = CallerClients::connect(&server, &files, &owner_token).await;
        Fixture { files, server, removed, owner, owner_token, unknown_token, expired_token, elsewhere, without }
    }

    /// The TLS settings and the header of a caller of this path.
    fn caller(&self, wrong: Wrong, path: &str) -> (ClientTlsConfig, String) {
        let name = "uri:spiffe://shop/everything";
        let (files, issuer) = (&self.files, &self.files.issuer);
        let jwt_with = |claim: &str, value| {
            let mut claims = issuer.claims("everything");
            claims[claim] = value;
            issuer.sign(&claims)
        };
        let credential = match wrong {
            Wrong::AnotherScheme => return (files.client_tls(), format!("Basic {}", self.owner_token)),
            Wrong::MalformedToken => "ist_short".to_owned(),
            Wrong::UnknownToken => self.unknown_token.clone(),
            Wrong::ExpiredToken => self.expired_token.clone(),
            Wrong::JwtOfAnotherAudience => jwt_with("aud", json!("another-service")),
            Wrong::ExpiredJwt => jwt_with("exp", json!(seconds_from_now(-5))),
            Wrong::JwtWithForeignSignature => AccessFiles::new().issuer.token("everything"),
            Wrong::JwtOfUnknownSubject => issuer.token("nobody"),
            Wrong::Role => {
                let role = ROLES.iter().position(|(_, service)| path.starts_with(service));
                self.without[role.unwrap_or(0)].clone()
            }
            Wrong::Namespace => self.elsewhere.clone(),
            _ => String::new(),
        };
        let certificate = match wrong {
            Wrong::UnknownCertificate => Some(files.authority.client("uri:spiffe://shop/unknown", Validity::Now)),
            Wrong::CertificateOfAnotherAuthority => Some(Authority::new("test authority").client(name, Validity::Now)),
            Wrong::CertificateOfRemovedAuthority => Some(self.removed.client(name, Validity::Now)),
            Wrong::ExpiredCertificate => Some(files.authority.client(name, Validity::Expired)),
            Wrong::CertificateOfServer => Some(files.authority.not_for_clients(name)),
            _ => None,
        };
        let tls = match certificate {
            Some(signed) => files.client_tls().identity(signed.identity()),
            None => files.client_tls(),
        };
        (tls, if credential.is_empty() { credential } else { format!("Bearer {credential}") })
    }

    /// Creates stock and pending reservations in `sale`, and stock in another namespace.
    async fn prepare(&mut self) -> Target {
        let partitions = Some(v1::NamespaceConfig { partitions: Some(1), ..Default::default() });
        let configure =
            v1::ConfigureNamespaceRequest { namespace_id: "sale".into(), config: partitions, ..Default::default() };
        self.owner.admin.configure_namespace(configure).await.expect("created");
        for (namespace, sku) in [("sale", "ps5"), ("sale", "spare"), ("elsewhere", "ps5")] {
            let request = v1::SetStockRequest {
                namespace_id: namespace.into(),
                sku: sku.into(),
                on_hand: 50,
                request_id: new_id(),
                ..Default::default()
            };
            self.owner.admin.set_stock(request).await.expect("set");
        }
        let mut reservations: [String; 5] = Default::default();
        for id in &mut reservations {
            let request = v1::ReserveRequest {
                namespace_id: "sale".into(),
                request_id: new_id(),
                lines: vec![v1::Line { sku: "ps5".into(), quantity: 1 }],
                ..Default::default()
            };
            let response = self.owner.checkout.reserve(request).await.expect("held").into_inner();
            let Some(v1::reserve_response::Result::Reservation(held)) = response.result else {
                panic!("no reservation: {response:?}");
            };
            *id = held.reservation_id;
        }
        Target { namespace: "sale".into(), sku: "ps5".into(), spare_sku: "spare".into(), reservations }
    }

    /// All that the owner can read, in a fixed order.
    async fn state(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        for namespace in ["sale", "elsewhere"] {
            let namespace_id = namespace.to_owned();
            let stock = v1::ListStockRequest { namespace_id, page_size: 1_000, ..Default::default() };
            let stock = self.owner.admin.list_stock(stock).await.expect("stock").into_inner();
            lines.extend(stock.skus.iter().map(|listed| format!("{namespace}: {listed:?}")));
            let held = v1::ListReservationsRequest {
                namespace_id: namespace.to_owned(),
                page_size: 1_000,
                states: (1..=4).collect(),
                ..Default::default()
            };
            let held = self.owner.admin.list_reservations(held).await.expect("reservations").into_inner();
            lines.extend(held.reservations.iter().map(|held| format!("{namespace}: {held:?}")));
            let settings = v1::GetNamespaceRequest { namespace_id: namespace.to_owned() };
            let settings = self.owner.admin.get_namespace(settings).await.expect("settings").into_inner();
            lines.push(format!("{namespace}: {settings:?}"));
            // It has the sequence of the last event.
            let newest = v1::GetStockRequest { namespace_id: namespace.to_owned(), sku: "ps5".into() };
            let newest = self.owner.checkout.get_stock(newest).await.expect("stock").into_inner();
            lines.push(format!("{namespace}: {newest:?}"));
        }
        let names = self.owner.admin.list_namespaces(v1::ListNamespacesRequest::default()).await.expect("names");
        lines.extend(names.into_inner().namespaces.iter().map(|name| format!("{name:?}")));
        lines.sort();
        lines
    }
}

/// Asserts the outcome of a call. The response of a call that passes is checked where it can have a part of `sale`.
fn check(wrong: Wrong, path: &str, expected: Outcome, result: Result<bytes::Bytes, Status>) {
    let place = format!("{path} with {wrong:?}");
    if wrong == Wrong::Namespace && path == format!("{ADMIN}ListNamespaces") {
        let response = v1::ListNamespacesResponse::decode(result.expect(&place)).expect("a message");
        let names: Vec<_> = response.namespaces.iter().map(|listed| listed.namespace_id.as_str()).collect();
        assert_eq!(names, ["elsewhere"], "{place}");
        return;
    }
    if wrong == Wrong::Namespace && path == format!("{CHECKOUT}Batch") {
        let response = v1::BatchResponse::decode(result.expect(&place)).expect("a message");
        assert_eq!(response.results.len(), 6, "{place}");
        for result in response.results {
            let Some(v1::batch_result::Result::Failure(failure)) = result.result else { panic!("{place}: {result:?}") };
            assert_eq!(failure.reason, Reason::NamespaceForbidden.as_str(), "{place}");
            assert_eq!(failure.code, Reason::NamespaceForbidden.code() as i32, "{place}");
        }
        return;
    }
    match expected {
        Passes => drop(result.expect(&place)),
        NoConnection => assert_no_connection(result),
        Refused(expected) => {
            let status = result.expect_err(&place);
            assert_eq!(reason(&status), expected, "{place}: {status:?}");
            assert_eq!(status.code(), expected.code(), "{place}");
        }
    }
}

#[tokio::test]
async fn every_rpc_refuses_every_wrong_credential_and_changes_nothing() {
    let mut fixture = Fixture::start().await;
    let target = fixture.prepare().await;
    let entries = entries(&target);
    let listed: BTreeSet<String> = entries.iter().map(|entry| entry.path.clone()).collect();
    assert_eq!(listed, paths().into_iter().collect(), "every RPC has one entry, and every entry is an RPC");
    assert_eq!(listed.len(), entries.len());

    let before = fixture.state().await;
    for (wrong, expected) in EXPECTED {
        let expects_connection = expected != [NoConnection; 3];
        // One connection for the calls of one credential.
        let shared = match expects_connection {
            true => Some(fixture.server.connect(fixture.caller(wrong, "").0).await.expect("a connection")),
            false => None,
        };
        for Entry { path, message } in &entries {
            let (tls, authorization) = fixture.caller(wrong, path);
            let result = match &shared {
                Some(channel) => call(channel, &authorization, path, message.clone()).await,
                // In TLS 1.3 a client learns of the refusal with its first read.
                None => match fixture.server.connect(tls).await {
                    Ok(channel) => call(&channel, &authorization, path, message.clone()).await,
                    Err(_) => continue,
                },
            };
            check(wrong, path, expected[group(path)], result);
        }
        assert_eq!(fixture.state().await, before, "after {wrong:?}");
    }

    // The same requests are valid: with the right credential all succeed.
    let channel = fixture.server.connect(fixture.files.client_tls()).await.expect("a connection");
    let authorization = format!("Bearer {}", fixture.owner_token);
    for Entry { path, message } in &entries {
        if *path == format!("{ADMIN}DeleteNamespace") {
            release_all(&mut fixture.owner).await;
        }
        let result = call(&channel, &authorization, path, message.clone()).await;
        if *path == format!("{ADMIN}SettlePartition") {
            // The guard permits the call, and the store refuses it: it has lost no change.
            assert_eq!(reason(&result.expect_err("no loss")), Reason::NotFenced);
            continue;
        }
        let response = result.unwrap_or_else(|status| panic!("{path}: {status:?}"));
        if *path == format!("{CHECKOUT}Batch") {
            let results = v1::BatchResponse::decode(response).expect("a message").results;
            let is_failure =
                |result: &v1::BatchResult| matches!(result.result, None | Some(v1::batch_result::Result::Failure(_)));
            assert!(results.len() == 6 && !results.iter().any(is_failure), "{results:?}");
        }
    }
    let names = fixture.owner.admin.list_namespaces(v1::ListNamespacesRequest::default()).await.expect("names");
    assert_eq!(names.into_inner().namespaces.len(), 1, "the last entry deleted a namespace");
}

/// Rolls back all pending reservations of `sale`.
async fn release_all(owner: &mut CallerClients) {
    let held = v1::ListReservationsRequest { namespace_id: "sale".into(), page_size: 1_000, ..Default::default() };
    for held in owner.admin.list_reservations(held).await.expect("reservations").into_inner().reservations {
        let (namespace_id, reservation_id) = ("sale".into(), held.reservation_id);
        let request = v1::RollbackRequest { namespace_id, reservation_id, ..Default::default() };
        owner.checkout.rollback(request).await.expect("rolled back");
    }
}

/// Calls every RPC with an empty message. Returns the services that this port serves.
async fn served_services(channel: &Channel, token: &str) -> BTreeSet<String> {
    let mut services = BTreeSet::new();
    for path in paths() {
        let (service, _) = path.rsplit_once('/').expect("a path");
        let result = call(channel, &format!("Bearer {token}"), &path, bytes::Bytes::new()).await;
        let is_unknown = result.as_ref().is_err_and(|status| status.code() == tonic::Code::Unimplemented);
        if is_unknown {
            assert_eq!(reason(&result.expect_err("refused")), Reason::UnknownMethod, "{path}");
        } else {
            services.insert(format!("{service}/"));
        }
    }
    services
}

fn services<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}

#[tokio::test]
async fn a_port_of_operators_takes_their_service_from_the_port_of_the_others() {
    let files = AccessFiles::new();
    let token = files.token("everything");
    let server = SentinelProcess::launch().guarded(&files).flags("--grpc-admin-listen 127.0.0.1:0").start().await;
    let main = server.connect(files.client_tls()).await.expect("a connection");
    let admin = server.connect_to_grpc_admin(files.client_tls()).await.expect("a connection");
    let expected = services([CHECKOUT, EVENTS, HEALTH, REFLECTION, OLD_REFLECTION]);
    assert_eq!(served_services(&main, &token).await, expected);
    assert_eq!(served_services(&admin, &token).await, services([ADMIN, HEALTH, REFLECTION, OLD_REFLECTION]));

    // The second port is guarded too.
    let checkout = files.token("checkout");
    let path = format!("{ADMIN}GetServerInfo");
    let refused = eventually("the token is known", async || {
        let refused = call(&admin, &format!("Bearer {checkout}"), &path, bytes::Bytes::new()).await;
        let reason = reason(&refused.expect_err("refused"));
        (reason != Reason::CredentialsUnknown).then_some(reason)
    });
    assert_eq!(refused.await, Reason::RoleMissing);
    let refused = call(&admin, "", &path, bytes::Bytes::new()).await;
    assert_eq!(reason(&refused.expect_err("refused")), Reason::CredentialsMissing);
    server.connect_to_grpc_admin(files.client_tls().domain_name("another.host")).await.expect_err("its certificate");
}

#[tokio::test]
async fn reflection_can_be_off() {
    let files = AccessFiles::new();
    let token = files.token("everything");
    let server = SentinelProcess::launch().guarded(&files).flags("--reflection off").start().await;
    let channel = server.connect(files.client_tls()).await.expect("a connection");
    assert_eq!(served_services(&channel, &token).await, services([CHECKOUT, EVENTS, ADMIN, HEALTH]));
}
