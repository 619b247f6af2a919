//! `sentinelctl info`: what the server says of itself.

use crate::{failure::Failure, session::Session, views::server::InfoView};

pub(crate) async fn run(session: &Session) -> Result<bool, Failure> {
    let info = session.admin().server_info().await.map_err(|error| session.unread(&error))?;
    let view = InfoView::from(&info);
    session.output.details(&view, &view.details())?;
    if !session.output.is_json() && !view.fenced_partitions.is_empty() {
        let mut listing = session.output.listing();
        view.fenced_partitions.iter().try_for_each(|fenced| listing.push(fenced))?;
        listing.end()?;
    }
    Ok(true)
}
