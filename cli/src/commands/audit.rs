//! `sentinelctl audit`: compares the counters of the namespace with its records.

use super::LONG_CALL_TIMEOUT;
use crate::{failure::Failure, output::note, session::Session, views::server::AuditView};

/// True if there are no findings.
pub(crate) async fn run(session: &Session) -> Result<bool, Failure> {
    let audit = session.patient_admin(LONG_CALL_TIMEOUT).audit().await.map_err(|error| session.unread(&error))?;
    let view = AuditView::from(&audit);
    session.output.details(&view, &view.details())?;
    if !session.output.is_json() && !view.findings.is_empty() {
        let mut listing = session.output.listing();
        view.findings.iter().try_for_each(|finding| listing.push(finding))?;
        listing.end()?;
    }
    // An audit compares records with each other. It cannot detect records that the store lost.
    if let Ok(info) = session.admin().server_info().await {
        let namespace = &session.settings.namespace;
        for fenced in info.fenced_partitions.iter().filter(|fenced| fenced.namespace == *namespace) {
            note(&format!(
                "partition {} is fenced: its records may be consistent although the store lost acknowledged changes",
                fenced.partition
            ));
        }
    }
    Ok(audit.clean)
}
