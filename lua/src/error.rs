//! Why bytes from the store cannot be decoded. No I/O.

/// ByteReader from the store that this release cannot decode.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Nothing that this service writes.
    #[error("unexpected bytes: {0}")]
    Malformed(Box<str>),
    /// A newer release has written it.
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
