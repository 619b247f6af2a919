//! The confirmation of commands that destroy or lose units: `--yes`, or "yes" at the terminal. Reads standard input.

use std::io::{self, IsTerminal as _, Write as _};

use clap::Args;

use crate::{failure::Failure, table::shown};

/// The option of every command that destroys or loses units.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct ConfirmArgs {
    /// Do it without a confirmation prompt.
    #[arg(long, short)]
    pub(crate) yes: bool,
}

impl ConfirmArgs {
    /// Returns only if the operator confirms `what`. Fails without a terminal.
    pub(crate) fn confirm(self, what: &str) -> Result<(), Failure> {
        if self.yes {
            return Ok(());
        }
        let aborted = |why: &str| Failure::Advised {
            code: Failure::ABORTED,
            what: format!("{why}: {}; nothing was changed", shown(what)),
            next: "repeat the command with --yes to do it".to_owned(),
        };
        if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
            return Err(aborted("this needs --yes, because there is no terminal for a confirmation"));
        }
        let mut answer = String::new();
        let prompted = write!(io::stderr(), "{}. Continue? [y/N] ", shown(what))
            .and_then(|()| io::stderr().flush())
            .and_then(|()| io::stdin().read_line(&mut answer));
        match (prompted, answer.trim().to_ascii_lowercase().as_str()) {
            (Ok(_), "y" | "yes") => Ok(()),
            _ => Err(aborted("not confirmed")),
        }
    }
}
