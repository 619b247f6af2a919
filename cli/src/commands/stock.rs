//! `sentinelctl stock`: the counters of SKUs. The import is in `import`.

use std::collections::HashSet;

use clap::{Args, Subcommand};
use inventory_sentinel_client::{Reason, RpcError, Stock};

use super::{ChangeArgs, PAGE, import::ImportArgs};
use crate::{
    confirm::ConfirmArgs,
    failure::Failure,
    refusal::Subject,
    session::{Session, identity},
    views::stock::{SkuView, StockView},
};

/// `sentinelctl stock ...`.
#[derive(Debug, Subcommand)]
pub(crate) enum StockCommand {
    /// List the SKUs of the namespace with their counters.
    List(ListArgs),
    /// Show the counters of a SKU.
    Get {
        /// The SKU.
        sku: String,
    },
    /// Set the units on hand, which are the available and the held ones; sold units stay unchanged. Creates a missing
    /// SKU, protected, and a missing namespace. Needs --yes to lower the units on hand.
    Set(SetArgs),
    /// Add units, or remove units: `stock adjust t-shirt -5`. Held units cannot be removed.
    Adjust(AdjustArgs),
    /// Set the units on hand of many SKUs from a CSV file. Existing SKUs stay unchanged.
    #[command(after_help = super::import::AFTER_HELP)]
    Import(ImportArgs),
}

/// `sentinelctl stock list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// End after this many SKUs.
    #[arg(long, value_name = "NUMBER")]
    limit: Option<usize>,
}

/// `sentinelctl stock set`.
#[derive(Debug, Args)]
pub(crate) struct SetArgs {
    /// The SKU.
    sku: String,
    /// Units on hand, 0 to 1,000,000,000.
    #[arg(allow_negative_numbers = true)]
    on_hand: i64,
    /// Only if the SKU does not exist.
    #[arg(long, conflicts_with = "if_version")]
    if_absent: bool,
    /// Only if the counters have this version.
    #[arg(long, value_name = "VERSION")]
    if_version: Option<i64>,
    #[command(flatten)]
    change: ChangeArgs,
    #[command(flatten)]
    confirm: ConfirmArgs,
}

/// `sentinelctl stock adjust`.
#[derive(Debug, Args)]
pub(crate) struct AdjustArgs {
    /// The SKU.
    sku: String,
    /// Units to add, or to remove if negative.
    #[arg(allow_negative_numbers = true)]
    delta: i64,
    #[command(flatten)]
    change: ChangeArgs,
}

pub(crate) async fn run(session: &Session, command: StockCommand) -> Result<bool, Failure> {
    match command {
        StockCommand::List(args) => list(session, &args).await?,
        StockCommand::Get { sku } => get(session, &sku).await?,
        StockCommand::Set(args) => set(session, &args).await?,
        StockCommand::Adjust(args) => adjust(session, &args).await?,
        StockCommand::Import(args) => return super::import::run(session, &args).await,
    }
    Ok(true)
}

async fn list(session: &Session, args: &ListArgs) -> Result<(), Failure> {
    let admin = session.admin();
    let (mut listing, mut listed, mut next) = (session.output.listing(), HashSet::new(), String::new());
    'pages: loop {
        let page = admin.list_stock().size(PAGE).after(next).await.map_err(|error| session.unread(&error))?;
        for sku in &page.items {
            if args.limit.is_some_and(|limit| listed.len() >= limit) {
                break 'pages;
            }
            // A list may contain a SKU more than once.
            if listed.insert(sku.stock.sku.clone()) {
                listing.push(&SkuView::from(sku))?;
            }
        }
        match page.next {
            Some(token) => next = token,
            None => break,
        }
    }
    listing.end()?;
    session.note_paused_namespace().await;
    Ok(())
}

async fn get(session: &Session, sku: &str) -> Result<(), Failure> {
    let subject = Subject::of_sku(sku);
    let stock = session.namespace().stock(sku).await.map_err(|error| session.refused(subject, &error))?;
    session.output.row(&StockView::from(&stock.value))?;
    session.note_paused_namespace().await;
    Ok(())
}

async fn set(session: &Session, args: &SetArgs) -> Result<(), Failure> {
    let SetArgs { sku, on_hand, if_absent, if_version, change, confirm } = args;
    if *on_hand < 0 {
        let what = format!("{on_hand} units can't be on hand");
        return Err(Failure::usage(what, "give 0 or more, or remove units with `stock adjust`"));
    }
    let request_id = identity(change.named());
    let subject = Subject::of_sku(sku).change(&request_id);
    let known = known_stock(session, sku).await?;
    let before = known.map(|stock| StockView::from(&stock).on_hand()).filter(|&before| before > *on_hand);
    if let (Some(before), false) = (before, *if_absent) {
        confirm.confirm(&format!("this lowers the units on hand of SKU {sku:?} from {before} to {on_hand}"))?;
    }
    let is_new = session.is_namespace_new().await?;
    let mut request = session.admin().request_id(request_id.as_str()).set_stock(sku, *on_hand);
    if *if_absent {
        request = request.if_absent();
    }
    if let Some(version) = if_version {
        request = request.if_version(*version);
    }
    let done = request.await.map_err(|error| session.refused(subject, &error))?;
    session.note_new_namespace(is_new);
    Ok(session.output.row(&StockView::from(&done.value))?)
}

async fn adjust(session: &Session, args: &AdjustArgs) -> Result<(), Failure> {
    let AdjustArgs { sku, delta, change } = args;
    let request_id = identity(change.named());
    let subject = Subject::of_sku(sku).change(&request_id);
    let is_new = session.is_namespace_new().await?;
    let admin = session.admin().request_id(request_id.as_str());
    let done = admin.adjust_stock(sku, *delta).await.map_err(|error| session.refused(subject, &error))?;
    session.note_new_namespace(is_new);
    Ok(session.output.row(&StockView::from(&done.value))?)
}

/// The counters of a SKU, if it and its namespace exist. A call of InventoryAdmin: an operator needs no other role, and
/// a separate port of operators has no other service.
async fn known_stock(session: &Session, sku: &str) -> Result<Option<Stock>, Failure> {
    match session.admin().sku(sku).await {
        Ok(found) => Ok(Some(found.value.stock)),
        Err(error) => match error.rpc().and_then(RpcError::reason) {
            Some(Reason::SkuNotFound | Reason::NamespaceNotFound) => Ok(None),
            _ => Err(session.refused(Subject::of_sku(sku), &error)),
        },
    }
}
