//! What ends a command early, and its exit code (sysexits). No I/O.

/// Why a command ended before its work was done. One line for people each.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The arguments parse, and make no sense together.
    #[error("{0}")]
    Usage(String),
    /// There is no server, or it does not answer.
    #[error("{0}")]
    Unavailable(String),
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

impl Failure {
    pub(crate) const FAILED: u8 = 1;
    pub(crate) const USAGE: u8 = 64;
    pub(crate) const UNAVAILABLE: u8 = 69;

    pub(crate) fn code(&self) -> u8 {
        match self {
            Failure::Usage(_) => Failure::USAGE,
            Failure::Unavailable(_) => Failure::UNAVAILABLE,
            Failure::Failed(_) => Failure::FAILED,
        }
    }
}
