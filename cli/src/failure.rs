//! The failures of a command and their exit codes (sysexits). No I/O.

use std::io;

/// Why a command failed, in one line for humans; `Advised` has a second one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The arguments contradict each other.
    #[error("{0}")]
    Usage(String),
    /// No server responds.
    #[error("{0}")]
    Unavailable(String),
    /// Anything else.
    #[error("{0}")]
    Failed(String),
    /// A failure with any exit code, and the next step.
    #[error("{what}")]
    Advised {
        /// The exit code.
        code: u8,
        /// The error, in one line.
        what: String,
        /// The next step, in one line.
        next: String,
    },
    /// The reader of standard output has closed it, as `head` does. Not an error of the command.
    #[error("the output is not read any more")]
    OutputClosed,
}

impl Failure {
    /// A problem was found, or a failure without another code.
    pub(crate) const FAILED: u8 = 1;
    /// The arguments, the environment or the config file.
    pub(crate) const USAGE: u8 = 64;
    /// The server refused the call.
    pub(crate) const REFUSED: u8 = 65;
    /// No server responds.
    pub(crate) const UNAVAILABLE: u8 = 69;
    /// The outcome of a change is unknown.
    pub(crate) const UNKNOWN: u8 = 75;
    /// The operator did not confirm.
    pub(crate) const ABORTED: u8 = 77;

    pub(crate) fn code(&self) -> u8 {
        match self {
            Failure::Usage(_) => Failure::USAGE,
            Failure::Unavailable(_) => Failure::UNAVAILABLE,
            Failure::Failed(_) => Failure::FAILED,
            Failure::Advised { code, .. } => *code,
            Failure::OutputClosed => 0,
        }
    }

    /// The next step, if any.
    pub(crate) fn next(&self) -> Option<&str> {
        match self {
            Failure::Advised { next, .. } => Some(next),
            _ => None,
        }
    }

    /// Bad usage, with the next step.
    pub(crate) fn usage(what: impl Into<String>, next: impl Into<String>) -> Failure {
        Failure::Advised { code: Failure::USAGE, what: what.into(), next: next.into() }
    }
}

/// Writing the output.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::OutputClosed,
            _ => Failure::Failed(format!("can't write the output: {error}")),
        }
    }
}
