//! What ends a command early, and its exit code (sysexits). No I/O.

use std::io;

/// Why a command ended before its work was done. One line for people each; `Advised` has a second one.
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
    /// One of the above or another code, and what to do next.
    #[error("{what}")]
    Advised {
        /// The exit code.
        code: u8,
        /// What was wrong, in one line.
        what: String,
        /// What to do about it, in one line.
        next: String,
    },
    /// The reader of standard output has gone, as `head` does: no fault of the command.
    #[error("the output is not read any more")]
    OutputClosed,
}

impl Failure {
    /// Something wrong was found, or a failure without another code.
    pub(crate) const FAILED: u8 = 1;
    /// The arguments, the environment or the config file.
    pub(crate) const USAGE: u8 = 64;
    /// The server refused the call.
    pub(crate) const REFUSED: u8 = 65;
    /// No server answers.
    pub(crate) const UNAVAILABLE: u8 = 69;
    /// The outcome of a change is not known.
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

    /// What to do next, if there is something to say.
    pub(crate) fn next(&self) -> Option<&str> {
        match self {
            Failure::Advised { next, .. } => Some(next),
            _ => None,
        }
    }

    /// Bad usage, with what to do about it.
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
