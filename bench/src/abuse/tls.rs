//! The TLS of an attacker's connection, over a socket that never blocks. Touches the given socket only.

use std::{
    io::{self, Read, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::{io::Interest, net::TcpStream};

/// The socket as rustls reads and writes it: it never blocks.
pub(super) struct Socket<'a>(pub(super) &'a TcpStream);

impl Read for Socket<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(super) fn lock(tls: &Mutex<ClientConnection>) -> MutexGuard<'_, ClientConnection> {
    tls.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The settings of a client that trusts this authority.
pub(super) fn trusting(ca: &str) -> anyhow::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes())?)?;
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_safe_default_protocol_versions()?.with_root_certificates(roots);
    Ok(Arc::new(builder.with_no_client_auth()))
}

/// The handshake of a client.
pub(super) async fn handshake(
    stream: &TcpStream,
    config: Arc<ClientConfig>,
    is_http2: bool,
) -> io::Result<ClientConnection> {
    let mut config = (*config).clone();
    config.alpn_protocols = vec![if is_http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
    let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
    let mut tls = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    while tls.is_handshaking() {
        let direction = if tls.wants_write() { Interest::WRITABLE } else { Interest::READABLE };
        stream.ready(direction).await?;
        let done =
            if tls.wants_write() { tls.write_tls(&mut Socket(stream)) } else { tls.read_tls(&mut Socket(stream)) };
        match done {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {
                tls.process_new_packets().map_err(io::Error::other)?;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    // The last flight of the client.
    while tls.wants_write() {
        stream.writable().await?;
        match tls.write_tls(&mut Socket(stream)) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            _ => {}
        }
    }
    Ok(tls)
}
