//! `sentinelctl policy check`: a policy file with the files that it names, as the server would load them. Reads files;
//! makes no call.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use inventory_sentinel_access::{
    Identity, Rules,
    limits::{MAX_JWKS_BYTES, MAX_POLICY_BYTES, MAX_TOKENS_FILE_BYTES},
};
use serde::Serialize;

use crate::{
    failure::Failure,
    files::read_text,
    output::{Output, Row},
    table::{Column, shown},
};

/// `sentinelctl policy`.
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Validate a policy with its tokens and keys, and print each identity with its grants; exit 64 with the problems.
    Check(CheckArgs),
}

/// `sentinelctl policy check`.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// The policy file, as in --policy of the server.
    file: PathBuf,
}

/// A grant of an identity.
#[derive(Debug, Serialize)]
struct GrantView<'a> {
    identity: &'a str,
    /// Null for an identity without grants.
    role: Option<&'static str>,
    namespaces: Vec<String>,
}

impl Row for GrantView<'_> {
    const COLUMNS: &'static [Column] = &[Column::Left("identity"), Column::Left("role"), Column::Left("namespaces")];

    fn cells(&self) -> Vec<String> {
        vec![shown(self.identity), self.role.unwrap_or("none").to_owned(), shown(&self.namespaces.join(" "))]
    }
}

pub(crate) fn run(command: &PolicyCommand, output: Output) -> Result<bool, Failure> {
    let PolicyCommand::Check(CheckArgs { file }) = command;
    let rules = load(file)?;
    let mut listing = output.listing();
    for identity in rules.identities() {
        grants(identity).iter().try_for_each(|grant| listing.push(grant))?;
    }
    listing.end()?;
    let (identities, tokens, keys) = (rules.identities().count(), rules.number_of_tokens(), rules.number_of_keys());
    output.remark(&format!("identities: {identities}, tokens: {tokens}, keys of issuers: {keys}"))?;
    Ok(true)
}

fn grants(identity: &Identity) -> Vec<GrantView<'_>> {
    let view = |role, namespaces| GrantView { identity: &identity.name, role, namespaces };
    match &identity.grants[..] {
        [] => vec![view(None, Vec::new())],
        grants => {
            grants.iter().map(|grant| view(Some(grant.role.as_str()), grant.scope.patterns().collect())).collect()
        }
    }
}

/// Loads a policy as the server does: paths in it are relative to its folder.
pub(super) fn load(path: &Path) -> Result<Rules, Failure> {
    let text = read_text(path, MAX_POLICY_BYTES)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    Rules::load(&text, |name| read(&folder.join(name))).map_err(|error| {
        let what = shown(&format!("{} is invalid: {error}", path.display()));
        Failure::usage(what, "correct the named places: a server does not start with this policy, or keeps its old one")
    })
}

/// One byte more than allowed is enough for the library to refuse the file.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)?.take(MAX_TOKENS_FILE_BYTES.max(MAX_JWKS_BYTES) as u64 + 1).read_to_end(&mut content)?;
    Ok(content)
}
