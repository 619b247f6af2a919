//! The caller of one call: identified at its start, and judged again when the rules change or the credential expires.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use http::{
    HeaderMap, HeaderValue,
    header::{AUTHORIZATION, Entry},
    uri::PathAndQuery,
};
use inventory_sentinel::Reason;
use inventory_sentinel_access::{Identity, Role};
use subtle::ConstantTimeEq as _;

use super::{Requirement, certificate::ClientCertificate, guard::Guard};
use crate::{domain::NamespaceName, failure::Failure};

/// Longest wait between two checks of a credential that expires: the clock of the machine can step.
const EXPIRY_CHECK: Duration = Duration::from_secs(5);
/// The scheme of the header `authorization`, without distinction of case.
const BEARER: &[u8] = b"bearer ";

/// The access of one connection.
#[derive(Debug)]
pub(crate) struct ConnectionAccess {
    guard: Arc<Guard>,
    address: Option<SocketAddr>,
    certificate: Option<ClientCertificate>,
    /// The last identified caller: most calls of a connection have the same credential.
    last: Mutex<Option<Arc<Identification>>>,
}

/// An identified credential.
struct Identification {
    /// The header of the call; `None`: the certificate of the connection.
    header: Option<HeaderValue>,
    identity: Arc<Identity>,
    until: Option<SystemTime>,
    generation: u64,
}

impl std::fmt::Debug for Identification {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identification").field("identity", &self.identity.name).finish_non_exhaustive()
    }
}

impl ConnectionAccess {
    pub(crate) fn new(
        guard: Arc<Guard>,
        address: Option<SocketAddr>,
        certificate: Option<ClientCertificate>,
    ) -> Arc<Self> {
        Arc::new(Self { guard, address, certificate, last: Mutex::default() })
    }

    /// Whether every call is allowed.
    pub(crate) fn is_open(&self) -> bool {
        self.guard.is_open()
    }

    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    pub(crate) fn certificate(&self) -> Option<&ClientCertificate> {
        self.certificate.as_ref()
    }

    /// Judges a call before its request is read. Removes the credential from the headers. `None`: the call needs no
    /// identity.
    pub(crate) fn admit(
        self: &Arc<Self>,
        requirement: Requirement,
        headers: &mut HeaderMap,
        call: Option<&PathAndQuery>,
    ) -> Result<Option<Caller>, Failure> {
        if self.guard.is_open() || requirement == Requirement::Nothing {
            return Ok(None);
        }
        let refuse = |reason| self.guard.refuse(reason, self.address, "", (path(call), ""));
        let header = take_credential(headers).map_err(refuse)?;
        let identification = self.identify(header, true).map_err(refuse)?;
        let caller = Caller { access: Arc::clone(self), identification, requirement, call: call.cloned() };
        caller.with_its_role().map(Some)
    }

    /// Whether the caller of a request has this role, or needs none.
    pub(crate) fn has(&self, role: Role, headers: &mut HeaderMap, call: &str) -> bool {
        if self.guard.is_open() {
            return true;
        }
        let has_credential = headers.contains_key(AUTHORIZATION);
        match take_credential(headers).and_then(|header| self.identify(header, true)) {
            Ok(caller) => caller.identity.has(role),
            Err(reason) => {
                if has_credential {
                    self.guard.refuse(reason, self.address, "", (call, ""));
                }
                false
            }
        }
    }

    /// Records a call that is refused although its caller may make it.
    pub(crate) fn record_refusal(&self, reason: Reason, caller: Option<&Caller>, call: Option<&PathAndQuery>) {
        let identity = caller.map_or("", |caller| &caller.identity().name);
        self.guard.record_refusal(reason, self.address, identity, (path(call), ""));
    }

    /// Identifies the caller. `is_limited`: the rate limit of failed attempts applies.
    fn identify(&self, header: Option<HeaderValue>, is_limited: bool) -> Result<Arc<Identification>, Reason> {
        // Before the rules are read, so that a change in between leads to another identification.
        let generation = self.guard.generation();
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(last) = last
            && last.generation == generation
            && is_same(last.header.as_ref(), header.as_ref())
            && last.until.is_none_or(|until| SystemTime::now() <= until)
        {
            return Ok(last);
        }
        let identification = Arc::new(self.identify_credential(header, generation, is_limited)?);
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&identification));
        Ok(identification)
    }

    fn identify_credential(
        &self,
        header: Option<HeaderValue>,
        generation: u64,
        is_limited: bool,
    ) -> Result<Identification, Reason> {
        let bearer = match &header {
            Some(header) => Some(bearer(header.as_bytes()).ok_or(Reason::CredentialsMalformed)?),
            None => None,
        };
        let limited = is_limited.then(|| self.address.map(|address| address.ip()));
        let identified = self.guard.identify(bearer, self.certificate.as_ref(), limited)?;
        Ok(Identification { header, identity: identified.identity, until: identified.until, generation })
    }
}

/// The caller of one call that a guard admitted. The transport adds it to the extensions of the request.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    access: Arc<ConnectionAccess>,
    identification: Arc<Identification>,
    requirement: Requirement,
    /// The path of the RPC.
    call: Option<PathAndQuery>,
}

impl Caller {
    pub(crate) fn identity(&self) -> &Identity {
        &self.identification.identity
    }

    /// Refuses a namespace that the caller may not use.
    pub(crate) fn permit(&self, namespace: &NamespaceName) -> Result<(), Failure> {
        if self.allows(namespace) {
            return Ok(());
        }
        Err(self.refuse(Reason::NamespaceForbidden, namespace.as_str()))
    }

    /// Whether the caller may use a namespace. No refusal is recorded.
    pub(crate) fn allows(&self, namespace: &NamespaceName) -> bool {
        self.role().is_none_or(|role| self.identity().has_in(role, namespace.as_str()))
    }

    /// Refuses a call that concerns every namespace to a caller of some.
    pub(crate) fn permit_everything(&self) -> Result<(), Failure> {
        if self.role().is_none_or(|role| self.identity().has_everywhere(role)) {
            return Ok(());
        }
        Err(self.refuse(Reason::NamespaceForbidden, ""))
    }

    /// The same caller under the current rules.
    pub(crate) fn judged_again(&self) -> Result<Self, Failure> {
        let refuse = |reason| self.refuse(reason, "");
        let identification = self.access.identify(self.identification.header.clone(), false).map_err(refuse)?;
        Self { identification, ..self.clone() }.with_its_role()
    }

    /// Refuses a caller without the role of the call.
    fn with_its_role(self) -> Result<Self, Failure> {
        match self.role() {
            Some(role) if !self.identity().has(role) => Err(self.refuse(Reason::RoleMissing, "")),
            _ => Ok(self),
        }
    }

    /// Waits until the caller may no longer use this namespace; `None`: any. Returns the refusal.
    pub(crate) async fn until_refused(&self, namespace: Option<&NamespaceName>) -> Failure {
        let mut changes = self.access.guard.changes();
        loop {
            let until = match self.judged_again() {
                Ok(caller) => {
                    if let Some(Err(failure)) = namespace.map(|namespace| caller.permit(namespace)) {
                        return failure;
                    }
                    caller.identification.until
                }
                Err(failure) => return failure,
            };
            let left = until.map(|until| until.duration_since(SystemTime::now()).unwrap_or_default());
            let expiry = async {
                match left {
                    // One millisecond later it has certainly expired.
                    Some(left) => tokio::time::sleep(EXPIRY_CHECK.min(left + Duration::from_millis(1))).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // The sender is in the guard, which this caller holds.
                _ = changes.changed() => {}
                () = expiry => {}
            }
        }
    }

    fn role(&self) -> Option<Role> {
        match self.requirement {
            Requirement::Role(role) => Some(role),
            Requirement::Nothing | Requirement::AnyIdentity => None,
        }
    }

    fn refuse(&self, reason: Reason, namespace: &str) -> Failure {
        self.access.guard.refuse(
            reason,
            self.access.address,
            &self.identity().name,
            (path(self.call.as_ref()), namespace),
        )
    }
}

/// Removes the header with the credential. More than one is refused: a proxy may have checked another one.
fn take_credential(headers: &mut HeaderMap) -> Result<Option<HeaderValue>, Reason> {
    let Entry::Occupied(entry) = headers.entry(AUTHORIZATION) else { return Ok(None) };
    let is_single = entry.iter().nth(1).is_none();
    let first = entry.remove();
    if is_single { Ok(Some(first)) } else { Err(Reason::CredentialsMalformed) }
}

fn path(call: Option<&PathAndQuery>) -> &str {
    call.map_or("", PathAndQuery::path)
}

/// The credential in a header `authorization`.
fn bearer(header: &[u8]) -> Option<&[u8]> {
    let (scheme, credential) = header.split_at_checked(BEARER.len())?;
    (scheme.eq_ignore_ascii_case(BEARER) && !credential.is_empty()).then_some(credential)
}

fn is_same(one: Option<&HeaderValue>, other: Option<&HeaderValue>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => is_equal(one.as_bytes(), other.as_bytes()),
        (None, None) => true,
        _ => false,
    }
}

/// Whether the bytes are equal, in a time that depends on their length only: no difference ends the comparison. Eight
/// bytes at a time, because every call compares its credential with the last one of its connection.
fn is_equal(one: &[u8], other: &[u8]) -> bool {
    let ((words, rest), (other_words, other_rest)) = (one.as_chunks::<8>(), other.as_chunks::<8>());
    let differs = |one: &[u8; 8], other: &[u8; 8]| u64::from_ne_bytes(*one) ^ u64::from_ne_bytes(*other);
    let words = words.iter().zip(other_words).fold(0, |bits, (one, other)| bits | differs(one, other));
    let rest = rest.iter().zip(other_rest).fold(0, |bits, (one, other)| bits | (one ^ other));
    one.len() == other.len() && (words | u64::from(rest)).ct_eq(&0).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_equal_if_every_byte_is() {
        let credential = b"Bearer ist_0123456789abcdef_abc";
        for length in 0..credential.len() {
            let text = &credential[..length];
            assert!(is_equal(text, text) && !is_equal(text, &credential[..length + 1]));
            for at in 0..length {
                let mut other = text.to_vec();
                other[at] ^= 1;
                assert!(!is_equal(text, &other), "{length} {at}");
            }
        }
    }

    #[test]
    fn only_the_bearer_scheme_has_a_credential() {
        assert_eq!(bearer(b"Bearer abc"), Some(&b"abc"[..]));
        assert_eq!(bearer(b"bearer abc"), Some(&b"abc"[..]));
        for other in ["", "Bearer", "Bearer ", "Basic abc", "bearerabc"] {
            assert_eq!(bearer(other.as_bytes()), None, "{other}");
        }
    }
}
