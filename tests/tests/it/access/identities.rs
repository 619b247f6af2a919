//! The identities of callers: bearer tokens, JSON Web Tokens, client certificates.

use std::time::{Duration, SystemTime};

use inventory_sentinel::{Reason, v1};
use sentinel_tests::{
    SentinelProcess, assert_refused,
    credentials::{AccessFiles, Authority, Validity, seconds_from_now},
    eventually, reason,
};
use serde_json::json;

use super::{CallerClients, assert_no_connection, set_stock};

fn stock_of(namespace: &str) -> v1::GetStockRequest {
    v1::GetStockRequest { namespace_id: namespace.into(), sku: "ps5".into() }
}

#[tokio::test]
async fn a_token_gives_its_identity_its_roles_in_its_namespaces_only() {
    let files = AccessFiles::new();
    let (everything, checkout, metrics) = (files.token("everything"), files.token("checkout"), files.token("metrics"));
    let expired = files.token_until("everything", Some(SystemTime::now() - Duration::from_secs(1)));
    let server = SentinelProcess::launch().guarded(&files).start().await;
    let mut owner = CallerClients::connect(&server, &files, &everything).await;
    for namespace in ["sale", "eu-1", "us"] {
        owner.admin.set_stock(set_stock(namespace, "ps5", 10)).await.expect("set");
    }

    let mut shop = CallerClients::connect(&server, &files, &checkout).await;
    shop.checkout.get_stock(stock_of("sale")).await.expect("its namespace");
    shop.checkout.get_stock(stock_of("eu-1")).await.expect("its prefix");
    assert_refused(shop.checkout.get_stock(stock_of("us")).await, Reason::NamespaceForbidden, None);
    assert_refused(shop.checkout.get_stock(stock_of("not-there")).await, Reason::NamespaceForbidden, None);
    let info = shop.admin.get_server_info(v1::GetServerInfoRequest {}).await;
    assert_refused(info, Reason::RoleMissing, None);

    for (credential, expected) in [
        ("", Reason::CredentialsMissing),
        ("ist_0123456789abcdef_012345678901234567890123", Reason::CredentialsUnknown),
        (expired.as_str(), Reason::CredentialsExpired),
        ("no-token", Reason::CredentialsMalformed),
    ] {
        let mut caller = CallerClients::connect(&server, &files, credential).await;
        assert_refused(caller.checkout.get_stock(stock_of("sale")).await, expected, None);
    }

    assert_eq!(server.get("/metrics", "").await.expect("a response").0, 401);
    assert_eq!(server.get("/metrics", &checkout).await.expect("a response").0, 403);
    let (status, page) = server.get("/metrics", &metrics).await.expect("a response");
    assert_eq!(status, 200);
    assert!(page.contains("inventory_sentinel_access_refused_total{reason=\"NAMESPACE_FORBIDDEN\"} 2"), "{page}");
    assert_eq!(server.get("/livez", "").await.expect("a response").0, 200);
    let (_, open) = server.get("/readyz", "").await.expect("a response");
    let (_, whole) = server.get("/readyz", &metrics).await.expect("a response");
    assert!(whole.len() > open.len() && whole.starts_with(&open), "{open} and {whole}");
}

#[tokio::test]
async fn a_page_of_namespaces_does_not_show_how_many_others_there_are() {
    const OTHERS: usize = 60;
    let files = AccessFiles::new();
    let (everything, operator) = (files.token("everything"), files.token("operator"));
    let server = SentinelProcess::launch().guarded(&files).start().await;
    let mut owner = CallerClients::connect(&server, &files, &everything).await;
    for namespace in (0..OTHERS).map(|i| format!("other-{i}")).chain(["sale".to_owned()]) {
        owner.admin.set_stock(set_stock(&namespace, "ps5", 10)).await.expect("set");
    }
    let request = v1::ListNamespacesRequest { page_size: 5, page_token: String::new() };
    let page = owner.admin.list_namespaces(request.clone()).await.expect("a page").into_inner();
    assert_ne!(page.next_page_token, "", "the list has more than one page");
    let mut scoped = CallerClients::connect(&server, &files, &operator).await;
    let page = scoped.admin.list_namespaces(request).await.expect("a page").into_inner();
    let names: Vec<_> = page.namespaces.iter().map(|listed| listed.namespace_id.as_str()).collect();
    assert_eq!((names, page.next_page_token.as_str()), (vec!["sale"], ""));
}

#[tokio::test]
async fn a_batch_is_judged_operation_by_operation() {
    let files = AccessFiles::new();
    let (everything, checkout) = (files.token("everything"), files.token("checkout"));
    let server = SentinelProcess::launch().guarded(&files).start().await;
    let mut owner = CallerClients::connect(&server, &files, &everything).await;
    for namespace in ["sale", "us"] {
        owner.admin.set_stock(set_stock(namespace, "ps5", 10)).await.expect("set");
    }
    let mut shop = CallerClients::connect(&server, &files, &checkout).await;
    let entry = |namespace| v1::BatchOperation {
        operation: Some(v1::batch_operation::Operation::GetStock(stock_of(namespace))),
        ..Default::default()
    };
    let operations = vec![entry("sale"), entry("us"), entry("not-there"), entry("sale")];
    let results = shop.checkout.batch(v1::BatchRequest { operations }).await.expect("results").into_inner().results;
    let reasons: Vec<_> = results
        .into_iter()
        .map(|result| match result.result {
            Some(v1::batch_result::Result::GetStock(_)) => "OK".to_owned(),
            Some(v1::batch_result::Result::Failure(failure)) => failure.reason,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(reasons, ["OK", "NAMESPACE_FORBIDDEN", "NAMESPACE_FORBIDDEN", "OK"]);
}

#[tokio::test]
async fn a_json_web_token_of_the_issuer_identifies_its_subject() {
    let files = AccessFiles::new();
    let server = SentinelProcess::launch().guarded(&files).start().await;
    let issuer = &files.issuer;
    let with = |name: &str, value| {
        let mut claims = issuer.claims("everything");
        claims[name] = value;
        issuer.sign(&claims)
    };
    let call = async |credential: String| {
        let mut caller = CallerClients::connect(&server, &files, &credential).await;
        caller.admin.get_server_info(v1::GetServerInfoRequest {}).await
    };
    call(issuer.token("everything")).await.expect("a valid token");
    for (token, expected) in [
        (issuer.token("somebody"), Reason::CredentialsUnknown),
        (issuer.token("checkout"), Reason::RoleMissing),
        (with("aud", json!("another-service")), Reason::CredentialsWrongAudience),
        (with("exp", json!(seconds_from_now(-5))), Reason::CredentialsExpired),
        (with("nbf", json!(seconds_from_now(600))), Reason::CredentialsNotYetValid),
        (with("iss", json!("https://elsewhere.example.com")), Reason::CredentialsUnknown),
    ] {
        assert_refused(call(token).await, expected, None);
    }
    let foreign = AccessFiles::new();
    assert_refused(call(foreign.issuer.token("everything")).await, Reason::CredentialsUnknown, None);
}

#[tokio::test]
async fn a_client_certificate_identifies_its_caller() {
    let files = AccessFiles::new();
    let server = SentinelProcess::launch().guarded_with_client_ca(&files, "required").start().await;
    let connect = |signed: Option<sentinel_tests::credentials::Signed>| {
        let tls = files.client_tls();
        server.connect(match signed {
            Some(signed) => tls.identity(signed.identity()),
            None => tls,
        })
    };
    let call = async |channel| {
        let mut caller = CallerClients::new(channel, "");
        caller.admin.get_server_info(v1::GetServerInfoRequest {}).await
    };
    let valid = files.authority.client("uri:spiffe://shop/everything", Validity::Now);
    call(connect(Some(valid)).await.expect("a connection")).await.expect("an operator");
    let dns = files.authority.client("dns:checkout.shop.internal", Validity::Now);
    assert_refused(call(connect(Some(dns)).await.expect("a connection")).await, Reason::RoleMissing, None);
    let unknown = files.authority.client("uri:spiffe://shop/unknown", Validity::Now);
    assert_refused(call(connect(Some(unknown)).await.expect("a connection")).await, Reason::CredentialsUnknown, None);

    let name = "uri:spiffe://shop/everything";
    for signed in [
        None,
        Some(Authority::new("test authority").client(name, Validity::Now)),
        Some(files.authority.client(name, Validity::Expired)),
        Some(files.authority.not_for_clients(name)),
    ] {
        // In TLS 1.3 a client learns of the refusal with its first read.
        if let Ok(channel) = connect(signed).await {
            assert_no_connection(call(channel).await);
        }
    }
}

#[tokio::test]
async fn an_optional_certificate_leaves_the_choice_of_the_credential() {
    let files = AccessFiles::new();
    let token = files.token("everything");
    let server = SentinelProcess::launch().guarded_with_client_ca(&files, "optional").start().await;
    let mut by_token = CallerClients::connect(&server, &files, &token).await;
    by_token.admin.get_server_info(v1::GetServerInfoRequest {}).await.expect("a token alone");
    let certificate = files.authority.client("uri:spiffe://shop/checkout", Validity::Now);
    let tls = files.client_tls().identity(certificate.identity());
    let channel = server.connect(tls).await.expect("a connection");
    let mut by_both = CallerClients::new(channel.clone(), &token);
    by_both.admin.get_server_info(v1::GetServerInfoRequest {}).await.expect("the token counts");
    let mut by_certificate = CallerClients::new(channel.clone(), "");
    let refused = by_certificate.admin.get_server_info(v1::GetServerInfoRequest {}).await;
    assert_refused(refused, Reason::RoleMissing, None);
    let mut by_wrong_token = CallerClients::new(channel, "ist_wrong");
    let refused = by_wrong_token.admin.get_server_info(v1::GetServerInfoRequest {}).await;
    assert_refused(refused, Reason::CredentialsMalformed, None);
}

/// A proxy can share one connection between callers with good and with bad credentials.
#[tokio::test]
async fn refused_calls_leave_the_connection_open() {
    let files = AccessFiles::new();
    let token = files.token("everything");
    let server = SentinelProcess::launch().guarded(&files).flags("--audit-log /dev/null").start().await;
    let channel = server.connect(files.client_tls()).await.expect("a connection");
    let mut bad = tokio::task::JoinSet::new();
    for _ in 0..64 {
        let mut caller = CallerClients::new(channel.clone(), "ist_0123456789abcdef_0");
        bad.spawn(async move {
            for _ in 0..100 {
                assert_refused(caller.checkout.get_stock(stock_of("sale")).await, Reason::CredentialsMalformed, None);
            }
        });
    }
    let mut good = CallerClients::new(channel, &token);
    while bad.try_join_next().map(|ended| ended.expect("refused with a reason")).is_some() || !bad.is_empty() {
        good.admin.get_server_info(v1::GetServerInfoRequest {}).await.expect("a good caller beside it");
    }
}

/// A signature costs much more than a token.
#[tokio::test]
async fn an_address_with_many_failed_authentications_has_no_signature_verified() {
    let files = AccessFiles::new();
    let (token, known) = (files.token("everything"), files.issuer.token("everything"));
    let server = SentinelProcess::launch().guarded(&files).flags("--max-failed-authentications 2").start().await;
    let forged = AccessFiles::new().issuer.token("everything");
    let call = async |caller: &mut CallerClients| caller.admin.get_server_info(v1::GetServerInfoRequest {}).await;
    let mut identified = CallerClients::connect(&server, &files, &known).await;
    call(&mut identified).await.expect("a valid token");

    let mut attacker = CallerClients::connect(&server, &files, &forged).await;
    let limited = eventually("the address is limited", async || {
        let status = call(&mut attacker).await.expect_err("a forged token");
        (reason(&status) == Reason::TooManyFailedAuthentications).then_some(status)
    })
    .await;
    assert_refused(Err::<(), _>(limited), Reason::TooManyFailedAuthentications, None);
    // Neither callers that are identified already nor tokens of this service are limited.
    call(&mut identified).await.expect("an identified caller of the same address");
    call(&mut CallerClients::connect(&server, &files, &token).await).await.expect("a token");
    let mut other = CallerClients::connect(&server, &files, &files.issuer.token("everything")).await;
    eventually("the limit recovers", async || call(&mut other).await.ok()).await;
}
