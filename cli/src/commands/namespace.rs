//! `sentinelctl namespace`: the namespaces and their settings.

use std::{collections::BTreeSet, time::Duration};

use clap::{Args, Subcommand};
use inventory_sentinel_client::NamespaceChange;

use super::{ChangeArgs, PAGE};
use crate::{
    confirm::ConfirmArgs,
    failure::Failure,
    refusal::Subject,
    session::{Session, identity},
    values::positive_duration,
    views::namespace::{ListedNamespace, NamespaceView},
};

/// `sentinelctl namespace ...`. All but `list` use `--namespace`, or the NAME after the command.
#[derive(Debug, Subcommand)]
pub(crate) enum NamespaceCommand {
    /// List the namespaces, sorted by name.
    List,
    /// Show the settings of a namespace.
    Show {
        /// The namespace; default: --namespace.
        name: Option<String>,
    },
    /// Change the settings of a namespace, or create it; other settings stay unchanged.
    Configure(ConfigureArgs),
    /// Pause all sales of a namespace: no units can be reserved, and existing holds can be resolved.
    Pause(PauseArgs),
    /// Resume the sales of a paused namespace; SKUs with their pause stay paused.
    Resume(PauseArgs),
    /// Delete a namespace with all its data. Refused while units are held.
    Delete(DeleteArgs),
}

impl NamespaceCommand {
    /// The NAME after the command.
    pub(crate) fn name(&self) -> Option<&str> {
        match self {
            NamespaceCommand::List => None,
            NamespaceCommand::Show { name } => name.as_deref(),
            NamespaceCommand::Configure(args) => args.name.as_deref(),
            NamespaceCommand::Pause(args) | NamespaceCommand::Resume(args) => args.name.as_deref(),
            NamespaceCommand::Delete(args) => args.name.as_deref(),
        }
    }
}

/// `sentinelctl namespace configure`.
#[derive(Debug, Args)]
pub(crate) struct ConfigureArgs {
    /// The namespace; default: --namespace.
    name: Option<String>,
    /// Partitions, 1 to 64; fixed once the namespace exists.
    #[arg(long, value_name = "NUMBER")]
    partitions: Option<i32>,
    /// Ttl of a hold that sets none, for example 5m; at most --max-ttl.
    #[arg(long, value_name = "DURATION", value_parser = positive_duration)]
    default_ttl: Option<Duration>,
    /// Longest ttl of a hold, up to 30 days; at least --default-ttl.
    #[arg(long, value_name = "DURATION", value_parser = positive_duration)]
    max_ttl: Option<Duration>,
    /// Longest life of a hold, however often it is extended, up to 60 days.
    #[arg(long, value_name = "DURATION", value_parser = positive_duration)]
    max_life: Option<Duration>,
    /// How long resolved reservations and request ids are stored, 1s to 30 days.
    #[arg(long, value_name = "DURATION", value_parser = positive_duration)]
    retention: Option<Duration>,
    /// Records that the namespace may hold, 1 to 1,000,000,000.
    #[arg(long, value_name = "NUMBER")]
    quota_records: Option<i64>,
    /// SKUs that the namespace may hold, 1 to 100,000,000.
    #[arg(long, value_name = "NUMBER")]
    quota_skus: Option<i64>,
    /// The format of its records, 1 to 5; it can only be raised.
    #[arg(long, value_name = "NUMBER")]
    format: Option<i32>,
    /// Whether all sales are paused, true or false; needs format 5.
    #[arg(long, value_name = "BOOL")]
    is_paused: Option<bool>,
    /// Only if the config has this version; 0: only if the namespace does not exist.
    #[arg(long, value_name = "VERSION")]
    if_version: Option<i64>,
    #[command(flatten)]
    change: ChangeArgs,
}

/// `sentinelctl namespace pause` and `resume`.
#[derive(Debug, Args)]
pub(crate) struct PauseArgs {
    /// The namespace; default: --namespace.
    name: Option<String>,
    #[command(flatten)]
    change: ChangeArgs,
}

/// `sentinelctl namespace delete`.
#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// The namespace; default: --namespace.
    name: Option<String>,
    #[command(flatten)]
    change: ChangeArgs,
    #[command(flatten)]
    confirm: ConfirmArgs,
}

pub(crate) async fn run(session: &Session, command: NamespaceCommand) -> Result<bool, Failure> {
    match command {
        NamespaceCommand::List => list(session).await?,
        NamespaceCommand::Show { .. } => {
            let config = session.admin().namespace_config().await.map_err(|error| session.unread(&error))?;
            let view = NamespaceView::new(&session.settings.namespace, &config);
            session.output.details(&view, view.details())?;
        }
        NamespaceCommand::Configure(args) => configure(session, args).await?,
        NamespaceCommand::Pause(args) => pause(session, &args, true).await?,
        NamespaceCommand::Resume(args) => pause(session, &args, false).await?,
        NamespaceCommand::Delete(args) => delete(session, &args).await?,
    }
    Ok(true)
}

async fn list(session: &Session) -> Result<(), Failure> {
    let (mut names, mut next) = (BTreeSet::new(), String::new());
    loop {
        let request = session.sentinel.list_namespaces().size(PAGE).after(next);
        let page = request.await.map_err(|error| session.unread(&error))?;
        // The server's list is unsorted, and may contain a name more than once.
        names.extend(page.items);
        match page.next {
            Some(token) => next = token,
            None => break,
        }
    }
    let mut listing = session.output.listing();
    for namespace_id in names {
        listing.push(&ListedNamespace { namespace_id })?;
    }
    Ok(listing.end()?)
}

async fn configure(session: &Session, args: ConfigureArgs) -> Result<(), Failure> {
    let mut change = NamespaceChange::new();
    if let Some(number) = args.partitions {
        change = change.partitions(number);
    }
    if let Some(ttl) = args.default_ttl {
        change = change.default_ttl(ttl);
    }
    if let Some(ttl) = args.max_ttl {
        change = change.max_ttl(ttl);
    }
    if let Some(life) = args.max_life {
        change = change.max_life(life);
    }
    if let Some(retention) = args.retention {
        change = change.retention(retention);
    }
    if let Some(records) = args.quota_records {
        change = change.quota_records(records);
    }
    if let Some(skus) = args.quota_skus {
        change = change.quota_skus(skus);
    }
    if let Some(format) = args.format {
        change = change.format(format);
    }
    if let Some(is_paused) = args.is_paused {
        change = change.paused(is_paused);
    }
    if change == NamespaceChange::new() {
        let what = "no setting is given, so nothing would change";
        return Err(Failure::usage(what, "give a setting, for example --default-ttl 5m; `namespace show` prints all"));
    }
    let is_new = session.is_namespace_new().await?;
    let request_id = identity(args.change.named());
    let mut request = session.admin().request_id(request_id.as_str()).configure_namespace(change);
    if let Some(version) = args.if_version {
        request = request.if_version(version);
    }
    let subject = Subject::default().change(&request_id);
    let config = request.await.map_err(|error| session.refused(subject, &error))?;
    session.note_new_namespace(is_new);
    let view = NamespaceView::new(&session.settings.namespace, &config);
    Ok(session.output.details(&view, view.details())?)
}

/// ConfigureNamespace creates a missing namespace. So a pause first reads it, and refuses a wrong name.
async fn pause(session: &Session, args: &PauseArgs, is_paused: bool) -> Result<(), Failure> {
    session.admin().namespace_config().await.map_err(|error| session.unread(&error))?;
    let request_id = identity(args.change.named());
    let change = NamespaceChange::new().paused(is_paused);
    let request = session.admin().request_id(request_id.as_str()).configure_namespace(change);
    let subject = Subject::default().change(&request_id);
    let config = request.await.map_err(|error| session.refused(subject, &error))?;
    let view = NamespaceView::new(&session.settings.namespace, &config);
    Ok(session.output.details(&view, view.details())?)
}

/// A deletion that failed half-way continues if it is repeated with its request id, which the failure prints.
async fn delete(session: &Session, args: &DeleteArgs) -> Result<(), Failure> {
    let DeleteArgs { change, confirm, .. } = args;
    let namespace = &session.settings.namespace;
    if change.named().is_none() {
        // Read first: a misspelt name fails before the confirmation.
        session.admin().namespace_config().await.map_err(|error| session.unread(&error))?;
    }
    confirm.confirm(&format!("this deletes namespace {namespace} with all its SKUs, reservations and events"))?;
    let request_id = identity(change.named());
    let subject = Subject::default().change(&request_id);
    let deletion = session.admin().request_id(request_id.as_str()).delete_namespace().await;
    deletion.map_err(|error| session.refused(subject, &error))?;
    Ok(session.output.row(&ListedNamespace { namespace_id: namespace.clone() })?)
}
