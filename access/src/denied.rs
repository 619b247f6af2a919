//! Why a credential is refused. Data only.

/// Why a credential identifies nobody. No variant contains a part of the credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The call has no credential.
    #[error("the call has no credential")]
    Missing,
    /// The credential has no form that is accepted.
    #[error("the credential has no accepted form")]
    Malformed,
    /// No identity has this credential, or its signature or secret is wrong.
    #[error("no identity has this credential")]
    Unknown,
    /// The credential is no longer valid.
    #[error("the credential has expired")]
    Expired,
    /// The credential is not valid yet.
    #[error("the credential is not valid yet")]
    NotYetValid,
    /// The token was issued for another service.
    #[error("the token was issued for another service")]
    WrongAudience,
}
