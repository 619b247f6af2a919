//! TLS of the connections: the trusted CAs and the certificate of this client. No I/O, except that the first use of the
//! system's roots reads them.

use std::{error::Error as _, fmt, net::IpAddr, time::Duration};

use http::Uri;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

/// The line before each certificate of a PEM file.
const PEM_CERTIFICATE: &[u8] = b"-----BEGIN CERTIFICATE-----";

/// The TLS settings of a client.
#[derive(Clone, Default)]
pub(crate) struct TlsSettings {
    /// PEM; `None`: the roots of the system.
    pub(crate) ca: Option<Vec<u8>>,
    pub(crate) certificate: Option<ClientCertificate>,
}

/// A certificate with its chain, and its key, in PEM.
#[derive(Clone)]
pub(crate) struct ClientCertificate {
    pub(crate) chain: Vec<u8>,
    pub(crate) key: Vec<u8>,
}

/// Without the key.
impl fmt::Debug for TlsSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsSettings")
            .field("has_ca", &self.ca.is_some())
            .field("has_certificate", &self.certificate.is_some())
            .finish()
    }
}

impl TlsSettings {
    /// Whether nothing is set.
    pub(crate) fn is_default(&self) -> bool {
        self.ca.is_none() && self.certificate.is_none()
    }

    /// The endpoint with TLS. `timeout`: of the handshake.
    pub(crate) fn apply(&self, endpoint: Endpoint, uri: &Uri, timeout: Duration) -> Result<Endpoint, String> {
        let config = ClientTlsConfig::new().timeout(timeout);
        let config = match &self.ca {
            Some(ca) => config.ca_certificate(Certificate::from_pem(checked("the CA file", ca)?)),
            None => config.with_native_roots(),
        };
        let config = match &self.certificate {
            Some(ClientCertificate { chain, key }) => {
                config.identity(Identity::from_pem(checked("the client certificate", chain)?, key))
            }
            None => config,
        };
        // The host of an IPv6 address has brackets, the name in a certificate has none.
        let host = uri.host().unwrap_or_default();
        let config = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(address) => config.domain_name(address),
            None => config,
        };
        endpoint.tls_config(config).map_err(|error| {
            let mut cause = error.source();
            let mut text = error.to_string();
            while let Some(error) = cause {
                text = format!("{text}: {error}");
                cause = error.source();
            }
            text
        })
    }
}

/// A PEM file without a certificate would be accepted, and would trust nobody.
fn checked<'a>(name: &str, pem: &'a [u8]) -> Result<&'a [u8], String> {
    let has_certificate = pem.windows(PEM_CERTIFICATE.len()).any(|window| window == PEM_CERTIFICATE);
    if has_certificate { Ok(pem) } else { Err(format!("{name} contains no certificate in PEM")) }
}

/// Whether calls to this host stay on this machine.
pub(crate) fn is_loopback(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_loopback() {
        let is_loopback = |uri: &str| is_loopback(&uri.parse().unwrap());
        for uri in
            ["http://localhost:1", "http://LOCALHOST", "http://127.0.0.1:1", "http://127.9.9.9", "http://[::1]:1"]
        {
            assert!(is_loopback(uri), "{uri}");
        }
        for uri in ["http://localhost.shop.example", "http://10.0.0.1", "http://127.0.0.1.example", "http://[::2]"] {
            assert!(!is_loopback(uri), "{uri}");
        }
    }

    #[test]
    fn a_key_is_never_shown() {
        let certificate = ClientCertificate { chain: b"chain".into(), key: b"secret".into() };
        let settings = TlsSettings { ca: None, certificate: Some(certificate) };
        assert_eq!(format!("{settings:?}"), "TlsSettings { has_ca: false, has_certificate: true }");
    }
}
