//! The TLS handshake: its versions and protocols, and the expiry of certificates.

use std::{sync::Arc, time::Duration};

use rustls::{
    ClientConfig, RootCertStore, SupportedProtocolVersion,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    version::{TLS12, TLS13},
};
use sentinel_tests::{
    BOUND, SentinelProcess,
    credentials::{AccessFiles, Validity, seconds_from_now},
    eventually,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

/// Type of a record that refuses a handshake.
const ALERT: u8 = 21;

/// The protocol that a handshake agrees on.
async fn agreed(
    server: &SentinelProcess,
    files: &AccessFiles,
    version: &'static SupportedProtocolVersion,
    protocols: &[&str],
) -> std::io::Result<Option<Vec<u8>>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(files.authority.pem().as_bytes()).expect("PEM")).expect("an authority");
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[version])
        .expect("a version")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let stream = TcpStream::connect(server.grpc()).await?;
    let name = ServerName::try_from("localhost").expect("a name");
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    let connection = stream.get_ref().1;
    assert_eq!(connection.protocol_version(), Some(version.version));
    Ok(connection.alpn_protocol().map(<[u8]>::to_vec))
}

/// The first byte of the response to a hello of this version, without extensions.
async fn response_to_hello(server: &SentinelProcess, version: [u8; 2]) -> Option<u8> {
    let mut hello = version.to_vec();
    hello.extend([7; 32]);
    // No session; one cipher suite (ECDHE-ECDSA with AES-128-CBC and SHA); no compression.
    hello.extend([0, 0, 2, 0xC0, 0x09, 1, 0]);
    let handshake = [&[1, 0, 0, hello.len() as u8], hello.as_slice()].concat();
    let record = [&[22, 3, 1, 0, handshake.len() as u8], handshake.as_slice()].concat();
    let mut stream = TcpStream::connect(server.grpc()).await.expect("a connection");
    stream.write_all(&record).await.expect("written");
    let mut first = [0];
    let read = timeout(BOUND, stream.read(&mut first)).await.expect("a response in time");
    (read.ok()? == 1).then_some(first[0])
}

#[tokio::test]
async fn only_tls_1_2_and_1_3_with_http_2_are_accepted() {
    let files = AccessFiles::new();
    let server = SentinelProcess::launch().guarded(&files).start().await;
    for version in [&TLS12, &TLS13] {
        assert_eq!(agreed(&server, &files, version, &["h2"]).await.expect("a handshake").as_deref(), Some(&b"h2"[..]));
        let both = agreed(&server, &files, version, &["http/1.1", "h2"]).await.expect("a handshake");
        assert_eq!(both.as_deref(), Some(&b"h2"[..]));
        agreed(&server, &files, version, &["http/1.1"]).await.expect_err("no common protocol");
    }
    // SSL 3.0, TLS 1.0 and TLS 1.1.
    for version in [[3, 0], [3, 1], [3, 2]] {
        assert_eq!(response_to_hello(&server, version).await, Some(ALERT), "{version:?}");
    }
}

#[tokio::test]
async fn the_expiry_of_certificates_is_a_gauge_and_a_warning() {
    let files = AccessFiles::new();
    let token = files.token("metrics");
    let server = SentinelProcess::launch().guarded_with_client_ca(&files, "optional").start().await;
    let not_after = async |certificate: &str| {
        let page = server.get("/metrics", &token).await.expect("metrics").1;
        let name = "inventory_sentinel_certificate_not_after_timestamp_seconds";
        let series = format!("{name}{{certificate=\"{certificate}\"}} ");
        page.lines().find_map(|line| line.strip_prefix(&series)?.parse::<i64>().ok()).expect("the series")
    };
    let day = 24 * 3_600;
    assert!((not_after("server").await - seconds_from_now(day)).abs() < 600);
    assert!(not_after("client_ca").await > seconds_from_now(day));
    assert!(!server.log().contains("expires soon"), "{}", server.log());

    let minutes = Duration::from_secs(600);
    files.set_server_certificate(&files.authority.server_for(Validity::For(minutes)));
    eventually("a warning", async || server.log().contains("a certificate expires soon").then_some(())).await;
    assert!((not_after("server").await - seconds_from_now(600)).abs() < 300);
}

#[tokio::test]
async fn a_server_with_an_expired_certificate_does_not_start() {
    let files = AccessFiles::new();
    files.set_server_certificate(&files.authority.server_for(Validity::Expired));
    let (code, log) = SentinelProcess::launch().guarded(&files).run().await;
    assert_eq!(code, Some(64), "{log}");
    assert!(log.contains("it has expired"), "{log}");
}
