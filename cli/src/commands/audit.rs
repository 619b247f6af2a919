//! `sentinelctl audit`: whether the books of the namespace agree with its records.

use super::LONG_CALL_TIMEOUT;
use crate::{failure::Failure, output::note, session::Session, views::server::AuditView};

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
    // An audit compares records with each other. What the store has lost is in none of them.
    if let Ok(info) = session.admin().server_info().await {
        let namespace = &session.settings.namespace;
        for fenced in info.fenced_partitions.iter().filter(|fenced| fenced.namespace == *namespace) {
            note(&format!(
                "partition {} is fenced: its records may agree with each other, and not with what was acknowledged",
                fenced.partition
            ));
        }
    }
    Ok(audit.clean)
}
