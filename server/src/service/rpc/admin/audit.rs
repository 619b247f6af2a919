//! Audit: recomputes the counters of a namespace from its records, through `store::audit`.

use inventory_sentinel::{Reason, v1};
use tokio::time::Instant;
use tonic::Request;

use super::Admin;
use crate::{
    domain::{Finding, FindingKind, NamespaceName, Report, ReservationId},
    failure::Failure,
    namespaces::Namespace,
    service::{
        deadline::by_deadline,
        dispatch::{AsyncRpc, Scope},
    },
    store::audit,
    telemetry::metrics::RpcKind,
};

pub(crate) struct Audit(NamespaceName);

impl AsyncRpc for Audit {
    type Service = Admin;
    type Request = v1::AuditRequest;
    type Response = v1::AuditResponse;
    const KIND: RpcKind = RpcKind::Audit;

    fn decode(request: Request<v1::AuditRequest>) -> Result<Self, Failure> {
        Ok(Self(NamespaceName::parse(request.into_inner().namespace_id)?))
    }

    fn scope(&self) -> Scope<'_> {
        Scope::Namespace(&self.0)
    }

    async fn run(self, admin: &Admin, deadline: Instant) -> Result<v1::AuditResponse, Failure> {
        let namespace = admin.context.namespace(&self.0, deadline).await?;
        let Ok(_permit) = admin.audits.try_acquire() else {
            return Err(Failure::new(Reason::Overloaded).because("another audit is under way"));
        };
        by_deadline(deadline, run_audit(admin, &namespace)).await
    }
}

async fn run_audit(admin: &Admin, namespace: &Namespace) -> Result<v1::AuditResponse, Failure> {
    let mut report = Report::empty();
    let mut connection = admin.store.connection().await?;
    for (partition, keys) in namespace.partitions() {
        audit::partition(&mut connection, &keys, partition, admin.audit_memory, &mut report).await?;
    }
    admin.check_presence(namespace).await?;
    Ok(encode(report))
}

fn encode(report: Report) -> v1::AuditResponse {
    v1::AuditResponse {
        clean: report.clean,
        findings: report.findings.into_iter().map(encode_finding).collect(),
        skus: report.skus as i64,
        pending_reservations: report.pending as i64,
        available: report.available as i64,
        held: report.held as i64,
        sold: report.sold as i64,
        supplied: report.supplied as i64,
    }
}

fn encode_finding(finding: Finding) -> v1::AuditFinding {
    v1::AuditFinding {
        kind: match finding.kind {
            FindingKind::NotConserved => v1::AuditFindingKind::NotConserved,
            FindingKind::Negative => v1::AuditFindingKind::Negative,
            FindingKind::HeldMismatch => v1::AuditFindingKind::HeldMismatch,
            FindingKind::NoDeadline => v1::AuditFindingKind::NoDeadline,
        }
        .into(),
        sku: finding.sku,
        reservation_id: finding.reservation.map(ReservationId::encode).unwrap_or_default(),
        expected: finding.expected as i64,
        actual: finding.actual as i64,
    }
}
