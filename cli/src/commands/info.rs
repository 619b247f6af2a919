//! `sentinelctl info`: the state of the server, and each promise with its state.

use crate::{
    failure::Failure,
    output::{Output, Row},
    session::Session,
    views::server::InfoView,
};

pub(crate) async fn run(session: &Session) -> Result<bool, Failure> {
    let info = session.admin().server_info().await.map_err(|error| session.unread(&error))?;
    let view = InfoView::from(&info);
    session.output.details(&view, &view.details())?;
    if !session.output.is_json() {
        table(session.output, &view.promises)?;
        table(session.output, &view.fenced_partitions)?;
    }
    Ok(true)
}

/// One table after an empty line; nothing if there are no rows.
fn table<R: Row>(output: Output, rows: &[R]) -> Result<(), Failure> {
    if rows.is_empty() {
        return Ok(());
    }
    output.text("\n")?;
    let mut listing = output.listing();
    rows.iter().try_for_each(|row| listing.push(row))?;
    Ok(listing.end()?)
}
