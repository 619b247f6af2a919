//! `sentinelctl audit`: whether the books of the namespace agree with its records.

use super::LONG_CALL_TIMEOUT;
use crate::{failure::Failure, session::Session, views::server::AuditView};

/// True if nothing is wrong.
pub(crate) async fn run(session: &Session) -> Result<bool, Failure> {
    let audit = session.patient_admin(LONG_CALL_TIMEOUT).audit().await.map_err(|error| session.unread(&error))?;
    let view = AuditView::from(&audit);
    session.output.details(&view, &view.details())?;
    if !session.output.is_json() && !view.findings.is_empty() {
        let mut listing = session.output.listing();
        view.findings.iter().try_for_each(|finding| listing.push(finding))?;
        listing.end()?;
    }
    Ok(audit.clean)
}
