//! The TLS configuration of the ports: certificate, key, and authorities of client certificates, behind one atomic
//! pointer. A connection keeps the configuration of its handshake; the certificate of its client is verified again when
//! the authorities change.

use std::{
    io,
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use rustls::{
    DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject as _},
    server::{
        NoServerSessionStorage, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
};
use tokio::{net::TcpStream, sync::watch};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::certificate::{ClientCertificate, Dates};

/// Longest wait between two checks of a client certificate that expires: the clock of the machine can step.
const EXPIRY_CHECK: Duration = Duration::from_secs(5);

/// Most intermediate certificates of a client. Each can cost the verification of signatures.
const MAX_INTERMEDIATES: usize = 4;

/// Whether a client needs a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClientAuth {
    Required,
    Optional,
}

/// The contents of the files.
pub(super) struct Pem {
    pub(super) certificate: Vec<u8>,
    pub(super) key: Vec<u8>,
    pub(super) client_ca: Option<Vec<u8>>,
}

/// The TLS configuration of all ports.
#[derive(Debug)]
pub(crate) struct Tls {
    current: ArcSwap<Current>,
    changes: watch::Sender<()>,
    client_auth: ClientAuth,
}

/// The TLS side of a connection: the certificate of its client, and the authorities that it is verified with.
pub(crate) struct ClientTls {
    pub(crate) tls: Arc<Tls>,
    pub(crate) certificate: Option<ClientCertificate>,
}

#[derive(Debug)]
struct Current {
    grpc: Arc<ServerConfig>,
    /// HTTP/1.1. A probe has no certificate, so a client certificate is optional.
    http: Arc<ServerConfig>,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    expiry: Expiry,
}

/// The dates at which certificates expire.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expiry {
    pub(super) certificate: Dates,
    /// The first authority that expires.
    pub(super) client_ca: Option<Dates>,
}

impl Tls {
    pub(super) fn new(pem: &Pem, client_auth: ClientAuth) -> Result<Self, String> {
        let current = Current::new(pem, client_auth)?;
        Ok(Self { current: ArcSwap::from_pointee(current), changes: watch::Sender::default(), client_auth })
    }

    /// Replaces the configuration. Open connections are judged again.
    pub(super) fn replace(&self, pem: &Pem) -> Result<(), String> {
        self.current.store(Arc::new(Current::new(pem, self.client_auth)?));
        self.changes.send_replace(());
        Ok(())
    }

    pub(super) fn expiry(&self) -> Expiry {
        self.current.load().expiry
    }

    /// The TLS handshake of a gRPC connection.
    pub(crate) async fn accept_grpc(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let config = Arc::clone(&self.current.load().grpc);
        TlsAcceptor::from(config).accept(stream).await
    }

    /// The TLS handshake of an HTTP/1.1 connection.
    pub(crate) async fn accept_http(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let config = Arc::clone(&self.current.load().http);
        TlsAcceptor::from(config).accept(stream).await
    }

    /// The certificate of the client of this connection, if it has one. An unreadable one is an error.
    pub(crate) fn client_certificate(stream: &TlsStream<TcpStream>) -> io::Result<Option<ClientCertificate>> {
        let Some(chain) = stream.get_ref().1.peer_certificates() else { return Ok(None) };
        let certificate = ClientCertificate::of(chain);
        certificate.map(Some).ok_or_else(|| io::Error::other("the client certificate is unreadable"))
    }

    /// Waits until a client certificate is no longer valid. Never returns without a certificate.
    pub(crate) async fn until_invalid(&self, certificate: Option<&ClientCertificate>) {
        let Some(certificate) = certificate else { return std::future::pending().await };
        let mut changes = self.changes.subscribe();
        // The authorities can have changed since the handshake.
        while self.is_valid(certificate) {
            loop {
                let Ok(left) = certificate.not_after.duration_since(SystemTime::now()) else { return };
                tokio::select! {
                    // The sender is in this value.
                    _ = changes.changed() => break,
                    () = tokio::time::sleep(EXPIRY_CHECK.min(left + Duration::from_secs(1))) => {}
                }
            }
        }
    }

    fn is_valid(&self, certificate: &ClientCertificate) -> bool {
        let current = self.current.load();
        let (Some(verifier), Some((leaf, others))) = (&current.verifier, certificate.chain.split_first()) else {
            return false;
        };
        verifier.verify_client_cert(leaf, others, UnixTime::now()).is_ok()
    }
}

impl Current {
    fn new(pem: &Pem, client_auth: ClientAuth) -> Result<Self, String> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let chain = certificates(&pem.certificate).map_err(|error| format!("the certificate: {error}"))?;
        let key = PrivateKeyDer::from_pem_slice(&pem.key).map_err(|_| "the key: no private key in PEM".to_owned())?;
        let certificate = valid_dates(&chain[0]).map_err(|error| format!("the certificate: {error}"))?;
        CertifiedKey::from_der(chain.clone(), key.clone_key(), &provider)
            .map_err(|error| format!("the certificate and the key: {error}"))?;
        let mut authorities = None;
        if let Some(client_ca) = &pem.client_ca {
            authorities =
                Some(Authorities::new(client_ca, &provider).map_err(|error| format!("the client CA: {error}"))?);
        }
        let verifiers = authorities.as_ref().map(|authorities| (&authorities.required, &authorities.optional));
        let grpc = match client_auth {
            ClientAuth::Required => verifiers.map(|(required, _)| required),
            ClientAuth::Optional => verifiers.map(|(_, optional)| optional),
        };
        let http = verifiers.map(|(_, optional)| optional);
        Ok(Self {
            grpc: server_config(&provider, grpc, (chain.clone(), key.clone_key()), b"h2")?,
            http: server_config(&provider, http, (chain, key), b"http/1.1")?,
            verifier: grpc.map(Arc::clone),
            expiry: Expiry { certificate, client_ca: authorities.map(|authorities| authorities.first_expiry) },
        })
    }
}

/// The verifiers of client certificates.
struct Authorities {
    required: Arc<dyn ClientCertVerifier>,
    optional: Arc<dyn ClientCertVerifier>,
    first_expiry: Dates,
}

impl Authorities {
    fn new(pem: &[u8], provider: &Arc<CryptoProvider>) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        let mut first_expiry: Option<Dates> = None;
        for certificate in certificates(pem)? {
            let dates = Dates::of(&certificate).ok_or("a certificate is unreadable")?;
            if first_expiry.is_none_or(|first| dates.not_after < first.not_after) {
                first_expiry = Some(dates);
            }
            roots.add(certificate).map_err(|error| error.to_string())?;
        }
        let roots = Arc::new(roots);
        let builder = || WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(provider));
        let required = builder().build().map_err(|error| error.to_string())?;
        let optional = builder().allow_unauthenticated().build().map_err(|error| error.to_string())?;
        let (required, optional) = (Arc::new(ShortChains(required)), Arc::new(ShortChains(optional)));
        Ok(Self { required, optional, first_expiry: first_expiry.ok_or("it has no certificate")? })
    }
}

/// Refuses long chains before their signatures are verified.
#[derive(Debug)]
struct ShortChains(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for ShortChains {
    fn offer_client_auth(&self) -> bool {
        self.0.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.0.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        if intermediates.len() > MAX_INTERMEDIATES {
            return Err(rustls::Error::General(format!("more than {MAX_INTERMEDIATES} intermediate certificates")));
        }
        self.0.verify_client_cert(leaf, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

fn server_config(
    provider: &Arc<CryptoProvider>,
    verifier: Option<&Arc<dyn ClientCertVerifier>>,
    (chain, key): (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>),
    protocol: &[u8],
) -> Result<Arc<ServerConfig>, String> {
    let builder = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(Arc::clone(verifier)),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|error| error.to_string())?;
    config.alpn_protocols = vec![protocol.to_vec()];
    // A resumed session would skip the verification of the client certificate.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// The certificates in PEM; an error if there is none.
fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let certificates = certificates.map_err(|error| format!("not valid PEM: {error}"))?;
    if certificates.is_empty() { Err("no certificate in PEM".to_owned()) } else { Ok(certificates) }
}

/// The validity of a certificate that is valid now.
fn valid_dates(certificate: &CertificateDer<'_>) -> Result<Dates, String> {
    let dates = Dates::of(certificate).ok_or("it is unreadable")?;
    let now = SystemTime::now();
    if now > dates.not_after {
        return Err("it has expired".to_owned());
    }
    if now < dates.not_before {
        return Err("it is not valid yet".to_owned());
    }
    Ok(dates)
}
