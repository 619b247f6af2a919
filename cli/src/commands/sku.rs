//! `sentinelctl sku`: the rules of SKUs, their pause, their protection, their deletion.

use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use inventory_sentinel_client::{Protection, RulesChange};
use serde::Serialize;

use super::ChangeArgs;
use crate::{
    confirm::ConfirmArgs,
    failure::Failure,
    output::{Row, note},
    refusal::Subject,
    session::{Session, identity},
    table::{Column, shown},
    values::{OrNone, duration_or_none, instant_or_none, units_or_none},
    views::stock::{SkuView, StockView},
};

/// `sentinelctl sku ...`.
#[derive(Debug, Subcommand)]
pub(crate) enum SkuCommand {
    /// Show a SKU with its counters and all its rules.
    Show {
        /// The SKU.
        sku: String,
    },
    /// Change rules of a SKU; other rules stay unchanged, and `none` removes a rule.
    Rules(RulesArgs),
    /// Pause the sale of SKUs: no units can be reserved, and existing holds can be resolved.
    Pause(PauseArgs),
    /// Resume the sale of paused SKUs.
    Resume(PauseArgs),
    /// Protect SKUs: this service governs their units.
    Protect(ProtectArgs),
    /// Remove the protection of SKUs: no new holds, and existing holds can be resolved.
    Unprotect(ProtectArgs),
    /// Delete a SKU with its counters and rules. Needs --yes.
    Delete(DeleteArgs),
}

/// `sentinelctl sku rules`.
#[derive(Debug, Args)]
pub(crate) struct RulesArgs {
    /// The SKU.
    sku: String,
    /// Most units of one reservation, 1 to 1,000,000, or none.
    #[arg(long, value_name = "UNITS", value_parser = units_or_none)]
    max_quantity: Option<OrNone<i32>>,
    /// Longest ttl of one reservation, for example 5m, or none.
    #[arg(long, value_name = "DURATION", value_parser = duration_or_none)]
    max_ttl: Option<OrNone<Duration>>,
    /// Most units that one buyer may hold and have bought, 1 to 1,000,000, or none.
    #[arg(long, value_name = "UNITS", value_parser = units_or_none)]
    buyer_limit: Option<OrNone<i32>>,
    /// When the sale opens, for example 2026-11-27T18:00:00Z, or none.
    #[arg(long, value_name = "INSTANT", value_parser = instant_or_none)]
    opens_at: Option<OrNone<SystemTime>>,
    /// When the sale closes, for example 2026-11-27T20:00:00+01:00, or none.
    #[arg(long, value_name = "INSTANT", value_parser = instant_or_none)]
    closes_at: Option<OrNone<SystemTime>>,
    /// Only if the rules have this version.
    #[arg(long, value_name = "VERSION")]
    if_version: Option<i64>,
    #[command(flatten)]
    change: ChangeArgs,
}

/// `sentinelctl sku pause` and `resume`.
#[derive(Debug, Args)]
pub(crate) struct PauseArgs {
    /// The SKUs.
    #[arg(required = true, value_name = "SKU")]
    skus: Vec<String>,
    #[command(flatten)]
    change: ChangeArgs,
}

/// `sentinelctl sku protect` and `unprotect`.
#[derive(Debug, Args)]
pub(crate) struct ProtectArgs {
    /// The SKUs.
    #[arg(required = true, value_name = "SKU")]
    skus: Vec<String>,
    #[command(flatten)]
    change: ChangeArgs,
}

/// `sentinelctl sku delete`.
#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// The SKU.
    sku: String,
    #[command(flatten)]
    change: ChangeArgs,
    #[command(flatten)]
    confirm: ConfirmArgs,
}

pub(crate) async fn run(session: &Session, command: SkuCommand) -> Result<bool, Failure> {
    match command {
        SkuCommand::Show { sku } => show(session, &sku).await.map(|()| true),
        SkuCommand::Rules(args) => rules(session, args).await.map(|()| true),
        SkuCommand::Pause(args) => pause(session, &args, true).await.map(|()| true),
        SkuCommand::Resume(args) => pause(session, &args, false).await.map(|()| true),
        SkuCommand::Protect(args) => protect(session, args, true).await,
        SkuCommand::Unprotect(args) => protect(session, args, false).await,
        SkuCommand::Delete(args) => delete(session, &args).await.map(|()| true),
    }
}

async fn show(session: &Session, sku: &str) -> Result<(), Failure> {
    let subject = Subject::of_sku(sku);
    let found = session.admin().sku(sku).await.map_err(|error| session.refused(subject, &error))?;
    let view = SkuView::from(&found.value);
    session.output.details(&view, view.details())?;
    session.note_paused_namespace().await;
    Ok(())
}

async fn rules(session: &Session, args: RulesArgs) -> Result<(), Failure> {
    let RulesArgs { sku, max_quantity, max_ttl, buyer_limit, opens_at, closes_at, if_version, change } = args;
    let mut rules = RulesChange::new();
    if let Some(OrNone(units)) = max_quantity {
        rules = rules.max_quantity(units);
    }
    if let Some(OrNone(ttl)) = max_ttl {
        rules = rules.max_ttl(ttl);
    }
    let lifts_limit = matches!(buyer_limit, Some(OrNone(None)));
    if let Some(OrNone(units)) = buyer_limit {
        rules = rules.buyer_limit(units);
    }
    if let Some(OrNone(at)) = opens_at {
        rules = rules.opens_at(at);
    }
    if let Some(OrNone(at)) = closes_at {
        rules = rules.closes_at(at);
    }
    if rules == RulesChange::new() {
        let what = "no rule is given, so nothing would change";
        return Err(Failure::usage(what, "give a rule, for example --buyer-limit 2; `sku show` prints all"));
    }
    let request_id = identity(change.named());
    let mut request = session.admin().request_id(request_id.as_str()).configure_sku(&sku, rules);
    if let Some(version) = if_version {
        request = request.if_version(version);
    }
    let subject = Subject::of_sku(&sku).change(&request_id).of_rules();
    let done = request.await.map_err(|error| session.refused(subject, &error))?;
    if lifts_limit {
        note("the counts per buyer are deleted with the limit: a later limit counts from zero");
    }
    let view = SkuView::from(&done.value);
    Ok(session.output.details(&view, view.details())?)
}

/// One call per SKU, in order; the SKUs before the first refusal are changed. The identity of each call is that of the
/// command and the position of the SKU.
async fn pause(session: &Session, args: &PauseArgs, is_paused: bool) -> Result<(), Failure> {
    let PauseArgs { skus, change } = args;
    let request_id = identity(change.named());
    let mut listing = session.output.listing();
    for (i, sku) in skus.iter().enumerate() {
        let rules = RulesChange::new().paused(is_paused);
        let of_sku = if skus.len() == 1 { request_id.clone() } else { format!("{request_id}-{}", i + 1) };
        let request = session.admin().request_id(of_sku).configure_sku(sku, rules);
        let subject = Subject::of_sku(sku).change(&request_id).of_rules();
        match request.await {
            Ok(done) => listing.push(&SkuView::from(&done.value))?,
            Err(error) => {
                listing.end()?;
                return Err(session.refused(subject, &error));
            }
        }
    }
    Ok(listing.end()?)
}

/// The outcome for a SKU.
#[derive(Debug, Serialize)]
struct ProtectionView {
    sku: String,
    is_protected: bool,
    outcome: String,
}

impl Row for ProtectionView {
    const COLUMNS: &'static [Column] = &[Column::Left("sku"), Column::Left("protected"), Column::Left("outcome")];

    fn cells(&self) -> Vec<String> {
        let state = match (self.outcome.as_str(), self.is_protected) {
            (NOT_FOUND, _) => "-",
            (_, true) => "yes",
            (_, false) => "no",
        };
        vec![shown(&self.sku), state.to_owned(), self.outcome.clone()]
    }
}

const NOT_FOUND: &str = "SKU_NOT_FOUND";

/// True if every SKU exists.
async fn protect(session: &Session, args: ProtectArgs, is_protected: bool) -> Result<bool, Failure> {
    let request_id = identity(args.change.named());
    let admin = session.admin().request_id(request_id.as_str());
    let outcomes = admin
        .set_protection(&args.skus, is_protected)
        .await
        .map_err(|error| session.refused(Subject::default().change(&request_id), &error))?;
    let (mut listing, mut unknown) = (session.output.listing(), None);
    for (sku, outcome) in args.skus.iter().zip(outcomes) {
        let outcome = match outcome {
            Protection::Changed => "CHANGED".to_owned(),
            Protection::Unchanged => "UNCHANGED".to_owned(),
            Protection::SkuNotFound => {
                unknown.get_or_insert(sku);
                NOT_FOUND.to_owned()
            }
            other => format!("{other:?}"),
        };
        listing.push(&ProtectionView { sku: sku.clone(), is_protected, outcome })?;
    }
    listing.end()?;
    match unknown {
        None => Ok(true),
        Some(sku) => Err(Failure::Advised {
            code: Failure::REFUSED,
            what: format!("SKU {} does not exist in this namespace (SKU_NOT_FOUND)", shown(&format!("{sku:?}"))),
            next: format!("list the SKUs with `sentinelctl -n {} stock list`", session.settings.namespace),
        }),
    }
}

async fn delete(session: &Session, args: &DeleteArgs) -> Result<(), Failure> {
    let DeleteArgs { sku, change, confirm } = args;
    // Read first: the confirmation shows the units that are deleted.
    let subject = Subject::of_sku(sku);
    let known = session.admin().sku(sku).await.map_err(|error| session.refused(subject, &error))?;
    let stock = &known.value.stock;
    let what = format!(
        "this deletes SKU {sku:?} with {} units available, {} held and {} sold, and its rules",
        stock.available, stock.held, stock.sold
    );
    confirm.confirm(&what)?;
    let request_id = identity(change.named());
    let admin = session.admin().request_id(request_id.as_str());
    let subject = Subject::of_sku(sku).change(&request_id);
    let last = admin.delete_sku(sku).await.map_err(|error| session.refused(subject, &error))?;
    match &last.value {
        Some(last) => Ok(session.output.row(&StockView::from(last))?),
        None => Ok(session.output.remark("the SKU does not exist any more")?),
    }
}
