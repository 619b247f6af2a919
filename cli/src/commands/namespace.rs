//! `sentinelctl namespace`: the namespaces and what holds for each.

use std::{collections::HashSet, time::Duration};

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

/// `sentinelctl namespace ...`. All but `list` are about `--namespace`, or the NAME that follows them.
#[derive(Debug, Subcommand)]
pub(crate) enum NamespaceCommand {
    /// List the namespaces.
    List,
    /// Show what holds for a namespace.
    Show {
        /// The namespace; --namespace where it is left out.
        name: Option<String>,
    },
    /// Change what holds for a namespace, or make it; a setting that is not named stays.
    Configure(ConfigureArgs),
    /// Pause all sales of a namespace: nothing is reserved, and holds that are out can be resolved.
    Pause(PauseArgs),
    /// Let the sales of a paused namespace go on; SKUs that are paused by themselves stay so.
    Resume(PauseArgs),
    /// Delete a namespace with all that it has, for good. Refused while units are held.
    Delete(DeleteArgs),
}

impl NamespaceCommand {
    /// The namespace that is named behind the command.
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
    /// The namespace; --namespace where it is left out.
    name: Option<String>,
    /// Partitions, 1 to 64; only when the namespace is made.
    #[arg(long, value_name = "NUMBER")]
    partitions: Option<i32>,
    /// Life of a hold that names none, as in 5m.
    #[arg(long, value_name = "DURATION", value_parser = positive_duration)]
    default_ttl: Option<Duration>,
    /// Longest ttl of a hold, up to 30 days.
    #[arg(long, value_name = "DURATION", value_parser = positive_duration)]
    max_ttl: Option<Duration>,
    /// Longest life of a hold, however often it is extended, up to 60 days.
    #[arg(long, value_name = "DURATION", value_parser = positive_duration)]
    max_life: Option<Duration>,
    /// How long resolved reservations and request ids are known, 1s to 30 days.
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
    /// Only if the config has this version; 0: only if the namespace is not known yet.
    #[arg(long, value_name = "VERSION")]
    if_version: Option<i64>,
    #[command(flatten)]
    change: ChangeArgs,
}

/// `sentinelctl namespace pause` and `resume`.
#[derive(Debug, Args)]
pub(crate) struct PauseArgs {
    /// The namespace; --namespace where it is left out.
    name: Option<String>,
    #[command(flatten)]
    change: ChangeArgs,
}

/// `sentinelctl namespace delete`.
#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// The namespace; --namespace where it is left out.
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
    let (mut listing, mut listed, mut next) = (session.output.listing(), HashSet::new(), String::new());
    loop {
        let request = session.sentinel.list_namespaces().size(PAGE).after(next);
        let page = request.await.map_err(|error| session.unread(&error))?;
        for namespace_id in page.items {
            // A list may name a namespace more than once.
            if listed.insert(namespace_id.clone()) {
                listing.push(&ListedNamespace { namespace_id })?;
            }
        }
        match page.next {
            Some(token) => next = token,
            None => return Ok(listing.end()?),
        }
    }
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
        let what = "no setting is named, so there is nothing to change";
        return Err(Failure::usage(
            what,
            "name a setting, as in --default-ttl 5m, or look at them with `namespace show`",
        ));
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

/// ConfigureNamespace makes an unknown namespace. A pause is for one that sells, so one with a wrong name is refused.
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

/// A deletion that failed half-way goes on when it is repeated with its request id, which the failure prints.
async fn delete(session: &Session, args: &DeleteArgs) -> Result<(), Failure> {
    let DeleteArgs { change, confirm, .. } = args;
    let namespace = &session.settings.namespace;
    if change.named().is_none() {
        // Read first, so that a name that is misspelt is no question.
        session.admin().namespace_config().await.map_err(|error| session.unread(&error))?;
    }
    confirm.confirm(&format!("this deletes namespace {namespace} with all its SKUs, reservations and events"))?;
    let request_id = identity(change.named());
    let subject = Subject::default().change(&request_id);
    let deletion = session.admin().request_id(request_id.as_str()).delete_namespace().await;
    deletion.map_err(|error| session.refused(subject, &error))?;
    Ok(session.output.row(&ListedNamespace { namespace_id: namespace.clone() })?)
}
