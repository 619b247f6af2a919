//! GET over HTTP/1.1, plain or with TLS: all that the operator's port needs.

use std::{net::SocketAddr, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
};

/// The status and the body of an answer, or the failure to get one.
///
/// # Errors
/// Nobody listens, or what came is no HTTP.
pub async fn http_get(address: SocketAddr, path: &str) -> anyhow::Result<(u16, String)> {
    get(TcpStream::connect(address).await?, path, "").await
}

/// The same over TLS, for a server with a certificate of this authority, and with this bearer token if it is not empty.
///
/// # Errors
/// Nobody listens, the handshake fails, or what came is no HTTP.
pub async fn https_get(address: SocketAddr, path: &str, ca: &str, bearer: &str) -> anyhow::Result<(u16, String)> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes())?)?;
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = connector.connect(ServerName::try_from("localhost")?, TcpStream::connect(address).await?).await?;
    get(stream, path, bearer).await
}

async fn get(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    path: &str,
    bearer: &str,
) -> anyhow::Result<(u16, String)> {
    let credential = if bearer.is_empty() { String::new() } else { format!("authorization: Bearer {bearer}\r\n") };
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{credential}connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut bytes = Vec::new();
    let read = stream.read_to_end(&mut bytes).await;
    // A server may close without a TLS close_notify.
    if bytes.is_empty() {
        read?;
    }
    let answer = String::from_utf8(bytes)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| anyhow::anyhow!("no HTTP: {answer:?}"))?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.ok_or_else(|| anyhow::anyhow!("no status: {head:?}"))?, body.to_owned()))
}
