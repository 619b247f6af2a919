//! `sentinelctl token`: the bearer tokens in a tokens file. Changes that file; makes no call. The server reads a
//! changed file again.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use clap::{Args, Subcommand};
use inventory_sentinel_access::{
    PolicyError,
    limits::MAX_TOKENS_FILE_BYTES,
    tokens::{self, TokenFile},
};

use crate::{
    failure::Failure,
    files::{Replacing, unusable},
    output::{Output, note},
    table::shown,
    values, views,
};

/// `sentinelctl token`.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Create a token and print it, once. The file gets only its hash.
    New(NewArgs),
    /// Remove a token from the file. Calls with it are refused once the server has read the file again.
    Revoke(RevokeArgs),
}

/// `sentinelctl token new`.
#[derive(Debug, Args)]
pub(crate) struct NewArgs {
    /// The identity of the policy that the token is for.
    #[arg(long, value_name = "NAME")]
    identity: String,
    /// When the token expires, from now; never by default.
    #[arg(long, value_name = "DURATION", value_parser = values::positive_duration)]
    expires_in: Option<Duration>,
    /// The tokens file of the policy. A missing one is created.
    #[arg(long, value_name = "FILE")]
    tokens: PathBuf,
}

/// `sentinelctl token revoke`.
#[derive(Debug, Args)]
pub(crate) struct RevokeArgs {
    /// The public id of the token: the 16 digits after `ist_`.
    id: String,
    /// The tokens file of the policy.
    #[arg(long, value_name = "FILE")]
    tokens: PathBuf,
}

pub(crate) fn run(command: &TokenCommand, output: Output) -> Result<bool, Failure> {
    match command {
        TokenCommand::New(args) => create(args, output),
        TokenCommand::Revoke(args) => revoke(args),
    }
}

fn create(args: &NewArgs, output: Output) -> Result<bool, Failure> {
    let file = lock(&args.tokens)?;
    let old = file.read(MAX_TOKENS_FILE_BYTES)?.unwrap_or_default();
    TokenFile::parse(&old).map_err(|error| malformed(&args.tokens, &error))?;
    let expires_at = args.expires_in.map(|length| {
        let wrong = || Failure::usage("--expires-in is too long", "set a shorter one, or none");
        SystemTime::now().checked_add(length).ok_or_else(wrong)
    });
    let expires_at = expires_at.transpose()?;
    let token = tokens::generate();
    let new = tokens::append(&old, &token, &args.identity, expires_at);
    TokenFile::parse(&new).map_err(|error| {
        Failure::usage(shown(&format!("the token is refused: {error}")), "correct --identity or --expires-in")
    })?;
    file.replace(&new).map_err(|error| unusable("write", &args.tokens, &error))?;
    // The token alone, whatever the form of the output: a script stores it.
    output.text(&format!("{}\n", token.text))?;
    let until = expires_at.map_or_else(|| "does not expire".to_owned(), |at| format!("expires {}", views::instant(at)));
    note(&format!("token {} of {} {until}; it is not printed again", token.id, args.identity));
    Ok(true)
}

fn revoke(args: &RevokeArgs) -> Result<bool, Failure> {
    let file = lock(&args.tokens)?;
    let old = file.read(MAX_TOKENS_FILE_BYTES)?.unwrap_or_default();
    TokenFile::parse(&old).map_err(|error| malformed(&args.tokens, &error))?;
    let Some(new) = tokens::revoke(&old, &args.id) else {
        let path = args.tokens.display();
        // A whole token may have been passed by mistake: it is not repeated.
        return Err(Failure::Advised {
            code: Failure::FAILED,
            what: shown(&format!("no token in {path} has this id")),
            next: shown(&format!("pass the 16 digits after `ist_`; {path} has the id of each token")),
        });
    };
    file.replace(&new).map_err(|error| unusable("write", &args.tokens, &error))?;
    note(&format!("token {} is revoked", args.id));
    Ok(true)
}

fn lock(path: &Path) -> Result<Replacing, Failure> {
    Replacing::lock(path).map_err(|error| unusable("open", path, &error))
}

fn malformed(path: &Path, error: &PolicyError) -> Failure {
    Failure::usage(shown(&format!("{} is malformed: {error}", path.display())), "correct the tokens file")
}
