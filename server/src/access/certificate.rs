//! The names and dates of an X.509 certificate. Parses bytes, no I/O.

use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer as _};

/// Most names of a certificate that are compared with the policy.
const MAX_NAMES: usize = 64;

/// The certificate of a client, which its TLS handshake verified.
#[derive(Debug)]
pub(crate) struct ClientCertificate {
    /// The certificate of the client, then those of intermediate authorities.
    pub(super) chain: Vec<CertificateDer<'static>>,
    /// Its subject alternative names in the form of the policy: `uri:…` and `dns:…`.
    pub(super) names: Vec<String>,
    pub(super) not_after: SystemTime,
}

impl ClientCertificate {
    /// Reads the first certificate of a verified chain; `None` if the chain is empty or unreadable.
    pub(super) fn of(chain: &[CertificateDer<'_>]) -> Option<Self> {
        let Dates { not_after, .. } = Dates::of(chain.first()?)?;
        let chain: Vec<_> = chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
        Some(Self { names: names(&chain[0]), chain, not_after })
    }
}

/// The validity of a certificate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dates {
    pub(super) not_before: SystemTime,
    pub(super) not_after: SystemTime,
}

impl Dates {
    pub(super) fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let time = |seconds: i64| SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        let validity = parsed.validity();
        Some(Self {
            not_before: time(validity.not_before.timestamp()),
            not_after: time(validity.not_after.timestamp()),
        })
    }
}

fn names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return Vec::new() };
    let Ok(Some(alternatives)) = parsed.subject_alternative_name() else { return Vec::new() };
    let in_policy_form = |name: &GeneralName<'_>| match name {
        GeneralName::URI(uri) => Some(format!("uri:{uri}")),
        GeneralName::DNSName(host) => Some(format!("dns:{}", host.to_ascii_lowercase())),
        _ => None,
    };
    alternatives.value.general_names.iter().filter_map(in_policy_form).take(MAX_NAMES).collect()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    #[test]
    fn names_and_dates_are_read_in_the_form_of_the_policy() {
        let mut params = CertificateParams::new(vec!["Web.shop.internal".to_owned()]).unwrap();
        params.subject_alt_names.push(SanType::URI("spiffe://shop/web".try_into().unwrap()));
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let read = ClientCertificate::of(&[certificate.der().clone()]).unwrap();
        assert_eq!(read.names, ["dns:web.shop.internal", "uri:spiffe://shop/web"]);
        let dates = Dates::of(certificate.der()).unwrap();
        assert!(dates.not_before < dates.not_after);
    }

    #[test]
    fn bytes_that_are_no_certificate_are_refused() {
        assert!(ClientCertificate::of(&[]).is_none());
        assert!(ClientCertificate::of(&[CertificateDer::from(vec![0x30, 0x82, 0xFF])]).is_none());
    }
}
