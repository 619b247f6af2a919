//! `sentinelctl stock import`: many SKUs from a CSV file, with an identity derived from the rows. Reads one file or
//! standard input.

use std::path::PathBuf;

use clap::Args;
use inventory_sentinel::{Reason, reason::Advice};
use inventory_sentinel_client::Imported;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::ChangeArgs;
use crate::{
    confirm::ConfirmArgs,
    failure::Failure,
    output::{Output, Row, note},
    refusal::Subject,
    rows::{self, StockRow},
    session::Session,
    table::{Column, shown},
};

/// Rows of one call: the server's limit of a message.
const CALL_ROWS: usize = 1_000;

pub(crate) const AFTER_HELP: &str = "\
The file has the columns sku and on_hand, separated by commas, with or without a header line. A field that contains a
comma or a quote is in double quotes. A file with a malformed row changes nothing (exit 64).

The identity of the import is derived from its rows: the same command can be repeated after a failure. Rows that it
applied before count as kept. To import the same rows as another change, set another --request-id.

Exit 1 if the server refused rows; each is printed with its line in the file and the reason.";

/// `sentinelctl stock import`.
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// The CSV file, or - for standard input.
    file: PathBuf,
    /// Also set existing SKUs. This may lower the units on hand and needs --yes.
    #[arg(long)]
    overwrite: bool,
    /// Print every row, not only those that failed.
    #[arg(long)]
    rows: bool,
    #[command(flatten)]
    change: ChangeArgs,
    #[command(flatten)]
    confirm: ConfirmArgs,
}

/// The outcome of a row.
#[derive(Debug, Serialize)]
struct RowView<'a> {
    row: u64,
    sku: &'a str,
    on_hand: i64,
    outcome: &'static str,
    reason: Option<String>,
    message: Option<String>,
}

impl Row for RowView<'_> {
    const COLUMNS: &'static [Column] = &[
        Column::Right("row"),
        Column::Left("sku"),
        Column::Right("on hand"),
        Column::Left("outcome"),
        Column::Left("reason"),
    ];

    fn cells(&self) -> Vec<String> {
        let reason = match (&self.reason, &self.message) {
            (Some(reason), Some(message)) => format!("{reason}: {}", shown(message)),
            (None, Some(message)) => shown(message),
            (reason, None) => reason.clone().unwrap_or_default(),
        };
        vec![self.row.to_string(), shown(self.sku), self.on_hand.to_string(), self.outcome.to_owned(), reason]
    }
}

/// The outcome of all rows: the last line.
#[derive(Debug, Default, Serialize)]
struct Summary {
    rows: usize,
    made: usize,
    kept: usize,
    failed: usize,
    request_id: String,
    /// Rows that failed for a transient reason, or whose outcome is unknown.
    #[serde(skip)]
    transient: usize,
    /// Failed rows of SKUs that this import created before.
    #[serde(skip)]
    deleted_since: usize,
}

pub(crate) async fn run(session: &Session, args: &ImportArgs) -> Result<bool, Failure> {
    let rows = rows::stock_rows(&args.file)?;
    let namespace = &session.settings.namespace;
    if args.overwrite {
        let what = format!(
            "this sets the units on hand of {} SKUs in namespace {namespace:?}, also of existing ones",
            rows.len()
        );
        args.confirm.confirm(&what)?;
    }
    let request_id = match args.change.named() {
        Some(named) => named.to_owned(),
        None => identity(namespace, args.overwrite, &rows),
    };
    let is_new = session.is_namespace_new().await?;
    let admin = session.admin().request_id(request_id.as_str());
    let mut summary = Summary { rows: rows.len(), request_id: request_id.clone(), ..Summary::default() };
    let mut listing = session.output.listing();
    let mut is_listed = false;
    let mut end = Ok(());
    for rows in rows.chunks(CALL_ROWS) {
        let mut request = admin.import_stock(rows.iter().map(|row| (row.sku.as_str(), row.units)));
        if args.overwrite {
            request = request.overwrite();
        }
        let outcomes = match request.await {
            Ok(outcomes) => outcomes,
            Err(error) => {
                let failure = session.refused(Subject::default().change(&request_id), &error);
                end = Err(broken(failure, summary.made + summary.kept + summary.failed, summary.rows));
                break;
            }
        };
        for (row, outcome) in rows.iter().zip(&outcomes) {
            let view = summary.count(row, outcome);
            if args.rows || view.outcome == FAILED {
                listing.push(&view)?;
                is_listed = true;
            }
        }
    }
    session.note_new_namespace(is_new && summary.made > 0);
    if is_listed {
        listing.end()?;
    }
    // Rows that failed before the import broke are printed first.
    end?;
    summary.print(session.output, args.overwrite)?;
    if summary.transient > 0 {
        note(&format!("{} of the failed rows may pass: repeat the same command", summary.transient));
    }
    if args.overwrite && summary.kept > 0 {
        note(&format!(
            "{} rows were applied by this import before, and a repeat changes nothing: to set them again, name another \
             --request-id",
            summary.kept
        ));
    }
    if summary.deleted_since > 0 {
        note(&format!(
            "this import has made {} of the failed SKUs before, and they were deleted since: to make them again, name \
             another --request-id",
            summary.deleted_since
        ));
    }
    Ok(summary.failed == 0)
}

const FAILED: &str = "FAILED";

impl Summary {
    fn count<'a>(&mut self, row: &'a StockRow, outcome: &Imported) -> RowView<'a> {
        let (outcome, reason, message) = match outcome {
            Imported::Applied => {
                self.made += 1;
                ("MADE", None, None)
            }
            Imported::AlreadyThere => {
                self.kept += 1;
                ("KEPT", None, None)
            }
            Imported::Failed { reason, message, .. } => {
                self.failed += 1;
                let advice = reason.map(|reason| reason.advice());
                self.deleted_since += usize::from(*reason == Some(Reason::SkuNotFound));
                self.transient += usize::from(matches!(advice, Some(Advice::Retry | Advice::Repeat)));
                (FAILED, reason.map(|reason| reason.as_str().to_owned()), Some(message.clone()))
            }
            // An outcome of a newer server is not known to be a success.
            other => {
                self.failed += 1;
                (FAILED, None, Some(format!("{other:?}")))
            }
        };
        RowView { row: row.line, sku: &row.sku, on_hand: row.units, outcome, reason, message }
    }

    fn print(&self, output: Output, overwrites: bool) -> Result<(), Failure> {
        if output.is_json() {
            return Ok(output.json(self)?);
        }
        let Summary { rows, made, kept, failed, request_id, .. } = self;
        let made_how = if overwrites { "made or set" } else { "made" };
        Ok(output.remark(&format!("{rows} rows: {made} {made_how}, {kept} kept, {failed} failed ({request_id})"))?)
    }
}

/// The failure of an import that ended early. It can be run again unchanged.
fn broken(failure: Failure, done: usize, rows: usize) -> Failure {
    match failure {
        Failure::Advised { code, what, .. } if code != Failure::REFUSED => Failure::Advised {
            code: Failure::UNKNOWN,
            what: format!("the import broke after {done} of {rows} rows: {what}"),
            next: "repeat the same command: rows that were applied count as kept".to_owned(),
        },
        other => other,
    }
}

/// The identity of an import: the same for the same rows, namespace and policy.
fn identity(namespace: &str, overwrite: bool, rows: &[StockRow]) -> String {
    let mut hash = Sha256::new();
    hash.update([u8::from(overwrite)]);
    let mut text = |text: &str| {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text.as_bytes());
    };
    text(namespace);
    for row in rows {
        text(&row.sku);
        text(&row.units.to_string());
    }
    let digest = hash.finalize();
    let hex: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("import-{hex}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_identity_follows_from_all_that_an_import_is() {
        let rows = |sku: &str, units| vec![StockRow { line: 1, sku: sku.to_owned(), units }];
        let first = identity("sale", false, &rows("a", 1));
        let moved = vec![StockRow { line: 7, ..rows("a", 1).remove(0) }];
        assert_eq!(first, identity("sale", false, &moved), "the place in the file is no part of it");
        assert!(first.len() <= 128 && first.starts_with("import-"), "{first}");
        let others = [
            identity("sale2", false, &rows("a", 1)),
            identity("sale", true, &rows("a", 1)),
            identity("sale", false, &rows("a", 2)),
            identity("sale", false, &rows("a1", 1)),
            identity("sale", false, &[]),
        ];
        assert!(others.iter().all(|other| *other != first), "{others:?}");
    }
}
