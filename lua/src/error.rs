//! Why bytes from the store cannot be decoded. No I/O.

/// Bytes from the store that this release cannot decode.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// No release of this service writes such bytes.
    #[error("unexpected bytes: {0}")]
    Malformed(Box<str>),
    /// A newer release wrote them.
    #[error("a newer version: {0}")]
    Newer(Box<str>),
}

impl DecodeError {
    /// Names the record or reply that is malformed.
    pub(crate) fn malformed(what: impl Into<Box<str>>) -> Self {
        Self::Malformed(what.into())
    }

    /// Names the record that has a newer version.
    pub(crate) fn newer(what: impl Into<Box<str>>) -> Self {
        Self::Newer(what.into())
    }
}
