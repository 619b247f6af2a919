//! TLS, client certificates and bearer tokens against a real TLS server of this process, with certificates that the
//! tests generate.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use inventory_sentinel::v1::inventory_sentinel_server::InventorySentinelServer;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Code, Request,
    transport::{Certificate, Identity, Server, ServerTlsConfig},
};

use super::{Scripted, quick, refusal};
use crate::{
    Builder, CommitError, ConnectError, Reason, ReserveError, RetryPolicy, Sentinel,
    transport::credentials::RELOAD_INTERVAL,
};

const TOKEN: &str = "ist_3f9a1c0b7d2e4a68_secret";

/// A CA.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate and its key, in PEM.
struct Issued {
    certificate: String,
    key: String,
}

impl Authority {
    fn new(name: &str) -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    fn issue(&self, name: &str) -> Issued {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Issued { certificate, key: key.serialize_pem() }
    }
}

/// The `authorization` of each call that a server received.
type Received = Arc<Mutex<Vec<Option<String>>>>;

/// A scripted server with TLS; `client_ca`: it requires a certificate of this CA.
async fn serve(server: &Scripted, certificate: &Issued, client_ca: Option<&Authority>) -> (String, Received) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let tls = ServerTlsConfig::new().identity(Identity::from_pem(&certificate.certificate, &certificate.key));
    let tls = match client_ca {
        Some(ca) => tls.client_ca_root(Certificate::from_pem(&ca.pem)),
        None => tls,
    };
    let received = Received::default();
    let record = {
        let received = Arc::clone(&received);
        move |request: Request<()>| {
            let value = request.metadata().get("authorization");
            received.lock().unwrap().push(value.map(|value| value.to_str().unwrap().to_owned()));
            Ok(request)
        }
    };
    let serving = Server::builder()
        .tls_config(tls)
        .unwrap()
        .add_service(InventorySentinelServer::with_interceptor(server.clone(), record))
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(serving);
    (uri, received)
}

/// The messages of an error and its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn builder(uri: &str, ca: &Authority) -> Builder {
    Sentinel::builder(uri).retry(quick()).tls_ca(ca.pem.as_str())
}

#[tokio::test]
async fn only_a_server_of_the_right_ca_and_name_is_trusted() {
    let (ca, other) = (Authority::new("ca"), Authority::new("other"));
    let (uri, _) = serve(&Scripted::default(), &ca.issue("localhost"), None).await;
    let sentinel = builder(&uri, &ca).connect().await.unwrap();
    sentinel.namespace("sale").reserve("ps5", 1).await.unwrap();

    let error = builder(&uri, &other).connect().await.unwrap_err();
    assert!(matches!(error, ConnectError::Unreachable { .. }) && chain(&error).contains("UnknownIssuer"), "{error:?}");
    // The system's roots have not issued it either. A system without any can't be used at all.
    let error = Sentinel::builder(&uri).connect().await.unwrap_err();
    assert!(matches!(error, ConnectError::Unreachable { .. } | ConnectError::InvalidTls { .. }), "{error:?}");
    let by_address = uri.replace("localhost", "127.0.0.1");
    let error = builder(&by_address, &ca).connect().await.unwrap_err();
    assert!(chain(&error).contains("not valid for name"), "{}", chain(&error));

    // The client opens its later connections with the same certificates.
    let lazy = builder(&uri, &other).retry(RetryPolicy::never()).connect_lazy().unwrap();
    let error = lazy.namespace("sale").reserve("ps5", 1).await.unwrap_err();
    let rpc = error.rpc().unwrap();
    assert_eq!((rpc.code(), rpc.outcome_unknown()), (Code::Unavailable, false));
    assert!(rpc.message().contains("UnknownIssuer"), "{rpc}");
}

#[tokio::test]
async fn an_ipv6_address_is_the_name_of_its_certificate() {
    let ca = Authority::new("ca");
    let Ok(listener) = TcpListener::bind("[::1]:0").await else { return };
    let uri = format!("https://[::1]:{}", listener.local_addr().unwrap().port());
    let certificate = ca.issue("::1");
    let identity = Identity::from_pem(&certificate.certificate, &certificate.key);
    let serving = Server::builder()
        .tls_config(ServerTlsConfig::new().identity(identity))
        .unwrap()
        .add_service(InventorySentinelServer::new(Scripted::default()))
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(serving);
    let sentinel = builder(&uri, &ca).connect().await.unwrap();
    sentinel.namespace("sale").reserve("ps5", 1).await.unwrap();
}

#[tokio::test]
async fn a_server_can_require_a_client_certificate() {
    let ca = Authority::new("ca");
    let server = Scripted::default();
    let (uri, _) = serve(&server, &ca.issue("localhost"), Some(&ca)).await;
    // TLS 1.3 ends the handshake of a client before the server has verified its certificate. So the first call fails,
    // with the alert of the server or with a broken connection.
    let buy = |builder: Builder| async move {
        let sentinel = builder.retry(RetryPolicy::never()).connect().await.unwrap();
        sentinel.namespace("sale").reserve("ps5", 1).await.map(|_| ())
    };
    let own = ca.issue("web.shop.internal");
    buy(builder(&uri, &ca).client_certificate(own.certificate.as_str(), own.key.as_str())).await.unwrap();
    let foreign = Authority::new("other").issue("web.shop.internal");
    let foreign = builder(&uri, &ca).client_certificate(foreign.certificate, foreign.key);
    for builder in [builder(&uri, &ca), foreign] {
        let error = buy(builder).await.unwrap_err();
        assert_eq!(error.rpc().map(crate::RpcError::code), Some(Code::Unavailable), "{error}");
    }
    assert_eq!(server.calls(), 1);
}

#[tokio::test]
async fn certificates_that_can_not_be_used_are_refused_at_once() {
    let ca = Authority::new("ca");
    let (own, other) = (ca.issue("web"), ca.issue("web"));
    let uri = "https://localhost:1";
    let connect = |builder: Builder| builder.connect_lazy().map(|_| ()).unwrap_err();
    for builder in [
        Sentinel::builder(uri).tls_ca(""),
        Sentinel::builder(uri).tls_ca(own.key.as_str()),
        builder(uri, &ca).client_certificate("", own.key.as_str()),
        builder(uri, &ca).client_certificate(own.certificate.as_str(), ""),
        builder(uri, &ca).client_certificate(own.certificate.as_str(), other.key.as_str()),
    ] {
        let shown = format!("{builder:?}");
        assert!(!shown.contains("BEGIN") && !shown.contains("45, 45, 45"), "{shown}");
        let error = connect(builder);
        assert!(matches!(error, ConnectError::InvalidTls { .. }), "{error:?}");
    }
    let plain = "http://localhost:1";
    let error = connect(builder(plain, &ca));
    assert!(matches!(error, ConnectError::TlsWithoutHttps { .. }), "{error:?}");
    let error = connect(Sentinel::builder(plain).client_certificate(own.certificate, own.key));
    assert!(matches!(error, ConnectError::TlsWithoutHttps { .. }), "{error:?}");
    let error = connect(Sentinel::builder("unix:/run/sentinel.sock"));
    assert!(matches!(error, ConnectError::InvalidUri { .. }), "{error:?}");
}

#[tokio::test]
async fn a_token_is_not_sent_in_plain_text_to_another_machine() {
    for uri in ["http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1"] {
        Sentinel::builder(uri).bearer_token(TOKEN).connect_lazy().unwrap();
    }
    for uri in ["http://10.0.0.1:1", "http://sentinel.shop.internal:1"] {
        let builder = Sentinel::builder(uri).bearer_token(TOKEN);
        assert!(!format!("{builder:?}").contains(TOKEN));
        let error = builder.connect_lazy().unwrap_err();
        assert!(matches!(error, ConnectError::TokenWithoutTls { .. }), "{error:?}");
        assert!(!format!("{error:?} {error}").contains(TOKEN));
    }
    let error = Sentinel::builder("http://127.0.0.1:1").bearer_token("secret token").connect_lazy().unwrap_err();
    assert!(matches!(error, ConnectError::InvalidToken { .. }) && !format!("{error:?}").contains("secret"));
    let error = Sentinel::builder("http://127.0.0.1:1").bearer_token_file("/nowhere/token").connect_lazy().unwrap_err();
    assert!(matches!(error, ConnectError::TokenFile { .. }), "{error:?}");
}

#[tokio::test]
async fn a_token_is_sent_with_calls_retries_streams_and_shared_messages() {
    let ca = Authority::new("ca");
    let server = Scripted { silent: true, ..Scripted::default() };
    let (uri, received) = serve(&server, &ca.issue("localhost"), None).await;
    let sentinel = builder(&uri, &ca).bearer_token(TOKEN).connect().await.unwrap();
    let sale = sentinel.namespace("sale").with_deadline(Duration::from_millis(500));
    // Those that get no response occupy the client, so further calls share a message.
    let calls = (0..12).map(|_| {
        let sale = sale.clone();
        tokio::spawn(async move { sale.reserve("ps5", 1).await.map(|_| ()) })
    });
    for call in calls.collect::<Vec<_>>() {
        let _ = call.await.unwrap();
    }
    assert!(!server.batches.lock().unwrap().is_empty(), "no call was batched");
    // The scripted server has no streams: the call is opened, and refused.
    let protected = sale.watch_protected();
    let before = received.lock().unwrap().len();
    while received.lock().unwrap().len() == before {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(protected);
    let expected = Some(format!("Bearer {TOKEN}"));
    assert!(received.lock().unwrap().iter().all(|sent| *sent == expected));
    assert!(!format!("{sentinel:?} {sale:?}").contains(TOKEN));

    let server = Scripted::refusing([refusal(Reason::StoreUnavailable)]);
    let (uri, received) = serve(&server, &ca.issue("localhost"), None).await;
    let sentinel = builder(&uri, &ca).bearer_token(TOKEN).connect().await.unwrap();
    sentinel.namespace("sale").reserve("ps5", 1).await.unwrap();
    assert_eq!(*received.lock().unwrap(), [expected.clone(), expected]);
}

#[tokio::test]
async fn a_rotated_token_is_sent_without_a_new_connection() {
    let ca = Authority::new("ca");
    let server = Scripted::default();
    let (uri, received) = serve(&server, &ca.issue("localhost"), None).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    std::fs::write(&path, "first\n").unwrap();
    let sentinel = builder(&uri, &ca).bearer_token_file(&path).connect().await.unwrap();
    let sale = sentinel.namespace("sale");
    sale.reserve("ps5", 1).await.unwrap();
    std::fs::write(folder.path().join("new"), "second").unwrap();
    std::fs::rename(folder.path().join("new"), &path).unwrap();
    tokio::time::sleep(RELOAD_INTERVAL).await;
    sale.reserve("ps5", 1).await.unwrap();
    std::fs::remove_file(&path).unwrap();
    tokio::time::sleep(RELOAD_INTERVAL).await;
    sale.reserve("ps5", 1).await.unwrap();
    let sent: Vec<_> = received.lock().unwrap().iter().flatten().cloned().collect();
    assert_eq!(sent, ["Bearer first", "Bearer second", "Bearer second"]);
    let from: std::collections::HashSet<_> = server.received.lock().unwrap().iter().map(|call| call.from).collect();
    assert_eq!(from.len(), 1, "one connection");
}

/// With or without a reason that this client has in its catalogue.
#[tokio::test]
async fn a_refusal_of_the_credentials_is_typed_final_and_known() {
    for code in [Code::Unauthenticated, Code::PermissionDenied] {
        let server = Scripted::refusing([tonic::Status::new(code, "refused")]);
        let error = super::sale(&server, quick()).await.reserve("ps5", 1).await.unwrap_err();
        assert!(matches!(&error, ReserveError::Rpc(rpc) if rpc.code() == code && rpc.attempts() == 1), "{error:?}");
        assert!(!error.outcome_unknown());
        // A token can expire between two attempts: the first one may have been applied.
        let server = Scripted::refusing([refusal(Reason::OutcomeUnknown), tonic::Status::new(code, "refused")]);
        let error = super::sale(&server, quick()).await.commit("r1").await.unwrap_err();
        assert!(matches!(&error, CommitError::Rpc(rpc) if rpc.code() == code && rpc.attempts() == 2), "{error:?}");
        assert!(error.outcome_unknown());
    }
}
