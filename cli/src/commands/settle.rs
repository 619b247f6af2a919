//! `sentinelctl settle`: opens a partition that is fenced because its store lost changes.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::{ChangeArgs, LONG_CALL_TIMEOUT};
use crate::{
    confirm::ConfirmArgs,
    failure::Failure,
    refusal::Subject,
    rows::{self, Figure},
    session::{Session, identity},
};

/// `sentinelctl settle`.
#[derive(Debug, Args)]
pub(crate) struct SettleArgs {
    /// The partition, from 0; see `sentinelctl info`.
    #[arg(long, value_name = "NUMBER")]
    partition: i32,
    /// The loss that the figures are for, 16 hexadecimal digits; see `sentinelctl info`. Empty only for a partition
    /// without a fence.
    #[arg(long, value_name = "FENCE")]
    fence: String,
    /// Units of a SKU available after the settlement. Other SKUs get 0.
    #[arg(long, value_name = "SKU=UNITS", value_parser = figure)]
    available: Vec<(String, i64)>,
    /// The same, and units of older holds return. Only if your records show that none of these was sold.
    #[arg(long, value_name = "SKU=UNITS", value_parser = figure)]
    available_beside_old_holds: Vec<(String, i64)>,
    /// More figures: a CSV file with the columns sku, available and, if needed, old_holds_return (true or false); - for
    /// standard input.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    change: ChangeArgs,
    #[command(flatten)]
    confirm: ConfirmArgs,
}

/// Parses `SKU=UNITS`; a SKU may contain `=`.
fn figure(text: &str) -> Result<(String, i64), String> {
    let (sku, units) = text.rsplit_once('=').ok_or("write it as in t-shirt=30")?;
    let units = units.parse().map_err(|_| format!("{units:?} is no whole number of units"))?;
    Ok((sku.to_owned(), units))
}

#[derive(Debug, Serialize)]
struct SettlementView {
    skus: i64,
    replayed: bool,
    sequence: i64,
    request_id: String,
}

pub(crate) async fn run(session: &Session, args: SettleArgs) -> Result<bool, Failure> {
    let mut figures = match &args.file {
        Some(file) => rows::figures(file)?,
        None => Vec::new(),
    };
    let named = |old_holds_return| move |(sku, available)| Figure { sku, available, old_holds_return };
    figures.extend(args.available.into_iter().map(named(false)));
    figures.extend(args.available_beside_old_holds.into_iter().map(named(true)));
    args.confirm.confirm(&format!(
        "this settles partition {} of namespace {:?}: {} SKUs get the given figures, and all others get 0 available",
        args.partition,
        session.settings.namespace,
        figures.len()
    ))?;
    let request_id = identity(args.change.named());
    let admin = session.patient_admin(LONG_CALL_TIMEOUT).request_id(request_id.as_str());
    let mut request = admin.settle_partition(args.partition, &args.fence);
    for Figure { sku, available, old_holds_return } in figures {
        request = match old_holds_return {
            true => request.available_beside_old_holds(sku, available),
            false => request.available(sku, available),
        };
    }
    let subject = Subject::default().change(&request_id);
    let done = request.await.map_err(|error| session.refused(subject, &error))?;
    let details = [
        ("skus", done.skus.to_string()),
        ("replayed", if done.replayed { "yes" } else { "no" }.to_owned()),
        ("sequence", done.sequence.to_string()),
        ("request id", request_id.clone()),
    ];
    let view = SettlementView { skus: done.skus, replayed: done.replayed, sequence: done.sequence, request_id };
    session.output.details(&view, &details)?;
    Ok(true)
}
