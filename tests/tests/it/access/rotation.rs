//! Changed certificates, authorities, tokens and policies: they are used without a restart and without a failed call,
//! and callers that are no longer allowed are cut off.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use inventory_sentinel::{Reason, v1};
use sentinel_tests::{
    SentinelProcess, assert_refused,
    credentials::{AccessFiles, Authority, Validity},
    eventually, new_id, reason,
};
use tonic::transport::{Certificate, ClientTlsConfig};

use super::{CallerClients, assert_no_connection, set_stock};

/// The longest time from a changed file to the end of a stream that is no longer allowed.
const JUDGED_WITHIN: Duration = Duration::from_secs(10);

fn watch(namespace: &str) -> v1::WatchRequest {
    v1::WatchRequest { namespace_id: namespace.into(), ..Default::default() }
}

/// The status with which a stream ends; panics if it lasts too long.
async fn end_of(mut stream: tonic::Streaming<v1::WatchResponse>, since: Instant) -> tonic::Status {
    let end = async {
        loop {
            match stream.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the stream ended without a status"),
                Err(status) => return status,
            }
        }
    };
    let status = tokio::time::timeout(JUDGED_WITHIN, end).await.expect("the stream ends in time");
    assert!(since.elapsed() < JUDGED_WITHIN);
    status
}

#[tokio::test]
async fn rotated_certificates_and_authorities_fail_no_call() {
    let files = AccessFiles::new();
    let token = files.token("everything");
    let server = SentinelProcess::launch().guarded_with_client_ca(&files, "optional").start().await;
    let mut owner = CallerClients::connect(&server, &files, &token).await;
    owner.admin.set_stock(set_stock("sale", "ps5", 1_000_000)).await.expect("set");

    let next = Authority::new("next authority");
    // Clients trust both authorities before the rotation, as the documentation advises.
    let both = format!("{}{}", files.authority.pem(), next.pem());
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&both)).domain_name("localhost");
    let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let kept = server.connect(tls.clone()).await.expect("a connection");
    let mut loads = Vec::new();
    for reconnects in [false, true] {
        let (stop, calls, token) = (Arc::clone(&stop), Arc::clone(&calls), token.clone());
        let (kept, endpoint) = (kept.clone(), server.endpoint(tls.clone()));
        loads.push(tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let channel = if reconnects { endpoint.connect().await.expect("a connection") } else { kept.clone() };
                let request = v1::ReserveRequest {
                    namespace_id: "sale".into(),
                    request_id: new_id(),
                    lines: vec![v1::Line { sku: "ps5".into(), quantity: 1 }],
                    ..Default::default()
                };
                let mut caller = CallerClients::new(channel, &token);
                caller.checkout.reserve(request).await.expect("no call fails");
                calls.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    let success = "inventory_sentinel_reloads_total{files=\"certificate\",result=\"success\"}";
    let reloads = async || {
        let page = server.get("/metrics", &token).await.ok()?.1;
        page.lines().find_map(|line| line.strip_prefix(success)?.trim().parse::<u64>().ok())
    };
    for round in 0..4 {
        let before = reloads().await.unwrap_or(0);
        let made = calls.load(Ordering::Relaxed);
        // The leaf, then the authority of the leaf, then the authorities of clients.
        match round {
            0 => files.set_server_certificate(&files.authority.server()),
            1 => files.set_server_certificate(&next.server()),
            2 => files.write("client-ca.pem", &both),
            _ => files.write("client-ca.pem", &next.pem()),
        }
        // The certificate of the server is no longer of the first authority, which `get` trusts.
        let is_used = async || {
            if round == 0 {
                (reloads().await? > before).then_some(())
            } else {
                let lines = server.log().matches("changed files are in use").count();
                (lines > round).then_some(())
            }
        };
        eventually("the new files are in use", is_used).await;
        eventually("calls succeed after the change", async || {
            (calls.load(Ordering::Relaxed) > made + 50).then_some(())
        })
        .await;
    }
    stop.store(true, Ordering::Relaxed);
    for load in loads {
        load.await.expect("no call failed");
    }
    assert!(calls.load(Ordering::Relaxed) > 200);

    // New peers are accepted, old ones are refused.
    let name = "uri:spiffe://shop/everything";
    let new = server.connect(tls.clone().identity(next.client(name, Validity::Now).identity())).await.expect("new");
    CallerClients::new(new, "").admin.get_server_info(v1::GetServerInfoRequest {}).await.expect("a new peer");
    let old = files.authority.client(name, Validity::Now);
    if let Ok(channel) = server.connect(tls.identity(old.identity())).await {
        let mut peer = CallerClients::new(channel, "");
        assert_no_connection(peer.admin.get_server_info(v1::GetServerInfoRequest {}).await);
    }
}

#[tokio::test]
async fn bad_files_leave_the_previous_ones_in_use() {
    let files = AccessFiles::new();
    let token = files.token("everything");
    let server = SentinelProcess::launch().guarded(&files).start().await;
    let failures = async |group: &str| {
        let page = server.get("/metrics", &token).await.expect("metrics").1;
        let series = format!("inventory_sentinel_reloads_total{{files=\"{group}\",result=\"failure\"}} ");
        page.lines().find_map(|line| line.strip_prefix(&series)?.parse::<u64>().ok()).expect("the series")
    };
    files.write("server-key.pem", &Authority::new("other").server().key);
    eventually("a foreign key is reported", async || (failures("certificate").await == 1).then_some(())).await;
    files.write("server-key.pem", "no key");
    eventually("a broken key is reported", async || (failures("certificate").await == 2).then_some(())).await;
    std::fs::remove_file(files.path("server-key.pem")).expect("removed");
    eventually("a missing key is reported", async || (failures("certificate").await == 3).then_some(())).await;
    files.set_server_certificate(&files.authority.server());

    files.write("policy.toml", "[[identity]]\nname = \"everything\"\nroles = 1\n");
    eventually("a wrong policy is reported", async || (failures("policy").await == 1).then_some(())).await;
    let mut owner = CallerClients::connect(&server, &files, &token).await;
    owner.admin.get_server_info(v1::GetServerInfoRequest {}).await.expect("the previous policy is in use");
    assert!(server.log().contains("changed files are bad"), "{}", server.log());
}

#[tokio::test]
async fn streams_and_calls_of_a_revoked_token_end() {
    let files = AccessFiles::new();
    let (everything, revoked) = (files.token("everything"), files.token("everything"));
    let server = SentinelProcess::launch().guarded(&files).start().await;
    let mut owner = CallerClients::connect(&server, &files, &everything).await;
    owner.admin.set_stock(set_stock("sale", "ps5", 1_000_000)).await.expect("set");
    let mut caller = CallerClients::connect(&server, &files, &revoked).await;
    let stream = caller.events.watch(watch("sale")).await.expect("a stream").into_inner();
    let other = owner.events.watch(watch("sale")).await.expect("a stream").into_inner();

    let since = Instant::now();
    files.revoke(&revoked);
    let status = end_of(stream, since).await;
    assert_eq!(reason(&status), Reason::CredentialsUnknown);
    let refused = caller.admin.get_server_info(v1::GetServerInfoRequest {}).await;
    assert_refused(refused, Reason::CredentialsUnknown, None);
    owner.admin.get_server_info(v1::GetServerInfoRequest {}).await.expect("the other token is valid");
    drop(other);
}

#[tokio::test]
async fn streams_outside_a_narrowed_role_end() {
    let files = AccessFiles::new();
    let (everything, events) = (files.token("everything"), files.token("events"));
    let server = SentinelProcess::launch().guarded(&files).start().await;
    let mut owner = CallerClients::connect(&server, &files, &everything).await;
    owner.admin.set_stock(set_stock("sale", "ps5", 1_000_000)).await.expect("set");
    let mut caller = CallerClients::connect(&server, &files, &events).await;
    let narrowed = caller.events.watch(watch("sale")).await.expect("a stream").into_inner();

    let since = Instant::now();
    files.edit("policy.toml", |text| {
        text.replace(
            r#"grants = [{ role = "events", namespaces = ["sale"] }]"#,
            r#"grants = [{ role = "events", namespaces = ["other"] }]"#,
        )
    });
    assert_eq!(reason(&end_of(narrowed, since).await), Reason::NamespaceForbidden);
    assert_refused(caller.events.watch(watch("sale")).await, Reason::NamespaceForbidden, None);
}

#[tokio::test]
async fn connections_of_a_removed_authority_end() {
    let files = AccessFiles::new();
    let everything = files.token("everything");
    let server = SentinelProcess::launch().guarded_with_client_ca(&files, "optional").start().await;
    let mut owner = CallerClients::connect(&server, &files, &everything).await;
    owner.admin.set_stock(set_stock("sale", "ps5", 1_000_000)).await.expect("set");
    let clients = Authority::new("authority of clients");
    files.write("client-ca.pem", &format!("{}{}", files.authority.pem(), clients.pem()));
    eventually("the authority is trusted", async || {
        let signed = clients.client("uri:spiffe://shop/everything", Validity::Now);
        let channel = server.connect(files.client_tls().identity(signed.identity())).await.ok()?;
        CallerClients::new(channel, "").admin.get_server_info(v1::GetServerInfoRequest {}).await.ok()
    })
    .await;
    let signed = clients.client("uri:spiffe://shop/everything", Validity::Now);
    let channel = server.connect(files.client_tls().identity(signed.identity())).await.expect("a connection");
    let mut caller = CallerClients::new(channel, "");
    let stream = caller.events.watch(watch("sale")).await.expect("a stream").into_inner();

    let since = Instant::now();
    files.write("client-ca.pem", &files.authority.pem());
    end_of(stream, since).await;
    // The connection can't be opened again.
    assert_no_connection(caller.admin.get_server_info(v1::GetServerInfoRequest {}).await);
}

#[tokio::test]
async fn an_expired_credential_ends_its_streams() {
    let files = AccessFiles::new();
    let everything = files.token("everything");
    let life = Duration::from_secs(8);
    let server = SentinelProcess::launch().guarded_with_client_ca(&files, "optional").start().await;
    let mut owner = CallerClients::connect(&server, &files, &everything).await;
    owner.admin.set_stock(set_stock("sale", "ps5", 1_000_000)).await.expect("set");
    let short = files.token_until("everything", Some(std::time::SystemTime::now() + life));
    let open = async |credential: String| {
        eventually("the token is known", async || {
            let mut caller = CallerClients::connect(&server, &files, &credential).await;
            caller.events.watch(watch("sale")).await.ok()
        })
        .await
        .into_inner()
    };
    let by_token = open(short).await;
    let mut claims = files.issuer.claims("everything");
    claims["exp"] = sentinel_tests::credentials::seconds_from_now(8).into();
    let by_jwt = open(files.issuer.sign(&claims)).await;
    let signed = files.authority.client("uri:spiffe://shop/everything", Validity::For(life));
    let channel = server.connect(files.client_tls().identity(signed.identity())).await.expect("a connection");
    let by_certificate = CallerClients::new(channel, "").events.watch(watch("sale")).await.expect("a stream");

    let since = Instant::now() + life;
    let within = |stream| tokio::time::timeout(life + JUDGED_WITHIN, end_of_any(stream));
    for stream in [by_token, by_jwt] {
        assert_eq!(reason(&within(stream).await.expect("it ends")), Reason::CredentialsExpired);
    }
    within(by_certificate.into_inner()).await.expect("it ends");
    assert!(since.elapsed() < JUDGED_WITHIN);
}

async fn end_of_any(mut stream: tonic::Streaming<v1::WatchResponse>) -> tonic::Status {
    loop {
        if let Err(status) = stream.message().await {
            return status;
        }
    }
}
