//! The next steps that the built command names for TLS and credentials. Starts the binary, and TLS servers in this
//! process with certificates that the tests generate.

use std::{
    convert::Infallible,
    fs,
    future::{Ready, ready},
    path::{Path, PathBuf},
    sync::Arc,
    task::{Context, Poll},
};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    process::Command,
};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Code, Status,
    body::Body,
    codegen::{Service, http},
    server::NamedService,
    transport::{Certificate, Identity, Server, ServerTlsConfig},
};

/// A folder with a CA, a certificate of it for `localhost`, and the key of that.
struct Pki {
    folder: TempDir,
}

impl Pki {
    fn new(name: &str) -> Pki {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let ca = params.self_signed(&key).expect("a CA").pem();
        let issuer = Issuer::new(params, key);
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(["localhost".to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &issuer).expect("a certificate").pem();
        let pki = Pki { folder: TempDir::with_prefix("sentinelctl-pki-").expect("a folder") };
        for (name, text) in [("ca.pem", ca), ("cert.pem", certificate), ("key.pem", key.serialize_pem())] {
            fs::write(pki.path(name), text).expect("a file");
        }
        pki
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).expect("a file")
    }
}

/// Refuses each call of the operators' service without a `Bearer secret`.
#[derive(Clone)]
struct Refusing(Code);

impl NamedService for Refusing {
    const NAME: &'static str = "inventory_sentinel.v1.InventoryAdmin";
}

impl Service<http::Request<Body>> for Refusing {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let is_known = request.headers().get("authorization").is_some_and(|value| value == "Bearer secret");
        let code = if is_known { Code::Unimplemented } else { self.0 };
        ready(Ok(Status::new(code, "refused").into_http()))
    }
}

/// The port of a server: `tls` with its certificate, and the CA of its clients.
async fn serve(tls: Option<(&Pki, Option<&Pki>)>, code: Code) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let mut server = Server::builder();
    if let Some((pki, client_ca)) = tls {
        let identity = Identity::from_pem(pki.read("cert.pem"), pki.read("key.pem"));
        let config = ServerTlsConfig::new().identity(identity);
        server = server
            .tls_config(match client_ca {
                Some(ca) => config.client_ca_root(Certificate::from_pem(ca.read("ca.pem"))),
                None => config,
            })
            .expect("a configuration");
    }
    let (_, health) = tonic_health::server::health_reporter();
    let serving =
        server.add_service(health).add_service(Refusing(code)).serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(serving);
    port
}

/// The port of an operator's port with TLS that reports that it is ready.
async fn serve_readyz(pki: &Pki) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let chain = vec![CertificateDer::from_pem_file(pki.path("cert.pem")).expect("a certificate")];
    let key = PrivateKeyDer::from_pem_file(pki.path("key.pem")).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a configuration");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nready\n").await;
            let _ = stream.shutdown().await;
        }
    });
    port
}

/// The lines of `doctor`, which finds a problem.
async fn lines_of_doctor(server: &str, admin_url: &str, variables: &[(&str, &Path)]) -> Vec<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_sentinelctl"))
        .args(["--server", server, "doctor", "--table", "--admin-url", admin_url])
        .env_clear()
        .envs(variables.iter().copied())
        .output()
        .await
        .expect("the command starts");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stdout).expect("text").lines().map(str::to_owned).collect()
}

/// The lines of `doctor` that failed.
async fn doctor(server: &str, variables: &[(&str, &Path)]) -> Vec<String> {
    let lines = lines_of_doctor(server, "http://127.0.0.1:1", variables).await;
    lines.into_iter().filter(|line| line.starts_with("FAIL")).collect()
}

fn is_one(lines: &[String], words: &[&str]) {
    assert!(lines.len() == 1 && words.iter().all(|word| lines[0].contains(word)), "{words:?}: {lines:#?}");
}

#[tokio::test]
async fn doctor_names_the_next_step_of_a_failed_handshake() {
    let (pki, other) = (Pki::new("one"), Pki::new("another"));
    let (ca, other_ca) = (&*pki.path("ca.pem"), &*other.path("ca.pem"));
    let port = serve(Some((&pki, None)), Code::Unauthenticated).await;
    let uri = format!("https://localhost:{port}");
    is_one(
        &doctor(&uri, &[("SENTINEL_TLS_CA", other_ca)]).await,
        &["connection", "no TLS connection", "SENTINEL_TLS_CA"],
    );
    let by_address = format!("https://127.0.0.1:{port}");
    is_one(&doctor(&by_address, &[("SENTINEL_TLS_CA", ca)]).await, &["connection", "name the host in --server"]);
    let plain = format!("http://localhost:{port}");
    is_one(&doctor(&plain, &[]).await, &["connection", "begin --server with https://"]);

    let plain_port = serve(None, Code::Unauthenticated).await;
    let uri = format!("https://localhost:{plain_port}");
    is_one(&doctor(&uri, &[("SENTINEL_TLS_CA", ca)]).await, &["connection", "begin --server with http://"]);

    let port = serve(Some((&pki, Some(&pki))), Code::Unimplemented).await;
    let uri = format!("https://localhost:{port}");
    // The server may close the connection before its alert is read: the next step is then less precise.
    is_one(&doctor(&uri, &[("SENTINEL_TLS_CA", ca)]).await, &["connection", "client certificate", "--tls-cert"]);
    let with = |pki: &Pki| (pki.path("cert.pem"), pki.path("key.pem"));
    let (cert, key) = with(&other);
    let foreign = [("SENTINEL_TLS_CA", ca), ("SENTINEL_CLIENT_CERT", &*cert), ("SENTINEL_CLIENT_KEY", &*key)];
    is_one(&doctor(&uri, &foreign).await, &["connection", "--client-ca"]);
    // With the right one, the handshake and the health calls succeed.
    let (cert, key) = with(&pki);
    let own = [("SENTINEL_TLS_CA", ca), ("SENTINEL_CLIENT_CERT", &*cert), ("SENTINEL_CLIENT_KEY", &*key)];
    is_one(&doctor(&uri, &own).await, &["server", "an older one has no GetServerInfo"]);
}

#[tokio::test]
async fn doctor_names_the_next_step_of_refused_credentials() {
    let pki = Pki::new("one");
    let (ca, token) = (pki.path("ca.pem"), pki.path("token"));
    fs::write(&token, "secret\n").expect("a file");
    for (code, next) in
        [(Code::Unauthenticated, "SENTINEL_TOKEN_FILE"), (Code::PermissionDenied, "policy of the server")]
    {
        let uri = format!("https://localhost:{}", serve(Some((&pki, None)), code).await);
        is_one(&doctor(&uri, &[("SENTINEL_TLS_CA", &ca)]).await, &["credentials", next]);
        for variable in [("SENTINEL_TOKEN_FILE", &*token), ("SENTINEL_TOKEN", Path::new("secret"))] {
            let lines = doctor(&uri, &[("SENTINEL_TLS_CA", &ca), variable]).await;
            is_one(&lines, &["server", "an older one has no GetServerInfo"]);
        }
    }
}

#[tokio::test]
async fn a_command_names_the_next_step_too() {
    let pki = Pki::new("one");
    let port = serve(Some((&pki, None)), Code::Unauthenticated).await;
    let run = async |server: String, variables: &[(&str, &str)]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sentinelctl"));
        command.args(["--server", &server, "--timeout", "2s", "info"]).env_clear().envs(variables.iter().copied());
        let output = command.output().await.expect("the command starts");
        let error = String::from_utf8(output.stderr).expect("text");
        assert!(!error.contains("secret"), "{error}");
        (output.status.code(), error)
    };
    let ca = pki.path("ca.pem");
    let ca = ("SENTINEL_TLS_CA", ca.to_str().expect("text"));
    let (code, error) = run(format!("https://localhost:{port}"), &[ca]).await;
    assert!(code == Some(65) && error.contains("Unauthenticated") && error.contains("--token-file"), "{error}");
    let (code, error) = run(format!("http://localhost:{port}"), &[ca]).await;
    assert!(code == Some(64) && error.contains("https://"), "{error}");
    let token = ("SENTINEL_TOKEN", "secret");
    let (code, error) = run(format!("http://sentinel.shop.internal:{port}"), &[token]).await;
    assert!(code == Some(64) && error.contains("https://"), "{error}");
    let (code, error) =
        run(format!("https://localhost:{port}"), &[ca, ("SENTINEL_TOKEN_FILE", "/nowhere/token")]).await;
    assert!(code == Some(64) && error.contains("/nowhere/token"), "{error}");
    let (code, error) = run(format!("https://localhost:{port}"), &[ca, ("SENTINEL_TOKEN", "secret token")]).await;
    assert!(code == Some(64) && error.contains("SENTINEL_TOKEN"), "{error}");
}

#[tokio::test]
async fn generated_credentials_fit_together() {
    let folder = TempDir::with_prefix("sentinelctl-init-").expect("a folder");
    let mut command = Command::new(env!("CARGO_BIN_EXE_sentinelctl"));
    let made = command.args(["credentials", "init", "."]).env_clear().current_dir(folder.path()).output().await;
    assert!(made.expect("the command starts").status.success());
    let pki = Pki { folder };
    for (from, to) in [("server.pem", "cert.pem"), ("server-key.pem", "key.pem")] {
        fs::rename(pki.path(from), pki.path(to)).expect("renamed");
    }
    let port = serve(Some((&pki, Some(&pki))), Code::Unauthenticated).await;
    let (ca, cert, key) = (pki.path("ca.pem"), pki.path("client.pem"), pki.path("client-key.pem"));
    let own = [("SENTINEL_TLS_CA", &*ca), ("SENTINEL_CLIENT_CERT", &*cert), ("SENTINEL_CLIENT_KEY", &*key)];
    for host in ["localhost", "127.0.0.1"] {
        // The handshake succeeds; the scripted service refuses the call.
        is_one(&doctor(&format!("https://{host}:{port}"), &own).await, &["credentials"]);
    }
    let other = serve(Some((&pki, Some(&Pki::new("another")))), Code::Unauthenticated).await;
    is_one(&doctor(&format!("https://localhost:{other}"), &own).await, &["connection", "--client-ca"]);
}

#[tokio::test]
async fn doctor_reads_readyz_over_tls() {
    let (pki, other) = (Pki::new("one"), Pki::new("another"));
    let port = serve_readyz(&pki).await;
    let readyz = async |scheme: &str, ca: PathBuf| {
        let url = format!("{scheme}://localhost:{port}");
        let lines = lines_of_doctor("https://localhost:1", &url, &[("SENTINEL_TLS_CA", &ca)]).await;
        lines.into_iter().find(|line| line.contains("readyz")).expect("a line")
    };
    let line = readyz("https", pki.path("ca.pem")).await;
    assert!(line.starts_with("OK") && line.contains("every component is well"), "{line}");
    let line = readyz("https", other.path("ca.pem")).await;
    assert!(line.starts_with("WARN") && line.contains("SENTINEL_TLS_CA"), "{line}");
    let plain = format!("https://localhost:{}", serve(None, Code::Unauthenticated).await);
    let lines = lines_of_doctor("https://localhost:1", &plain, &[]).await;
    assert!(lines.iter().any(|line| line.contains("begin --admin-url with http://")), "{lines:#?}");
    let line = readyz("http", pki.path("ca.pem")).await;
    assert!(line.starts_with("WARN") && line.contains("begin --admin-url with https://"), "{line}");
}
