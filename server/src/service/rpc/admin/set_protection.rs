//! SetProtection: sets or lifts the protection of many SKUs. Each SKU is a ConfigureSku in its
//! lane; a bounded number of them waits at once.

use futures_util::{StreamExt as _, stream};
use inventory_sentinel::{Reason, reason::Advice, v1};
use tokio::time::Instant;
use tonic::Request;

use super::{Admin, MAX_ROWS, MAX_ROWS_IN_FLIGHT};
use crate::{
    domain::{Invalid, NamespaceName, Operation, Outcome, RequestId, RulesChange, Sku},
    failure::Failure,
    namespaces::Namespace,
    service::{
        audit_record::{AuditRecord, Change, text_of_request_id},
        convert,
        dispatch::{AsyncRpc, Scope, check_age, execute, unexpected},
    },
    telemetry::metrics::RpcKind,
};

pub(crate) struct SetProtection {
    record: AuditRecord,
    name: NamespaceName,
    skus: Vec<Sku>,
    is_protected: bool,
    request_id: Option<RequestId>,
}

impl AsyncRpc for SetProtection {
    type Service = Admin;
    type Request = v1::SetProtectionRequest;
    type Response = v1::SetProtectionResponse;
    const KIND: RpcKind = RpcKind::SetProtection;

    fn decode(request: Request<v1::SetProtectionRequest>) -> Result<Self, Failure> {
        let record = AuditRecord::of(request.extensions());
        let v1::SetProtectionRequest { namespace_id, skus, is_protected, request_id } = request.into_inner();
        let name = NamespaceName::parse(namespace_id)?;
        let request_id = RequestId::parse_optional(request_id)?;
        if skus.is_empty() {
            return Err(Invalid::new(Reason::NoRules, "skus").into());
        }
        if skus.len() > MAX_ROWS {
            return Err(Invalid::new(Reason::TooManyRows, "skus").into());
        }
        let is_protected = is_protected.ok_or_else(|| Invalid::new(Reason::NoRules, "is_protected"))?;
        Ok(Self { record, name, skus: convert::skus(skus)?, is_protected, request_id })
    }

    fn scope(&self) -> Scope<'_> {
        Scope::Namespace(&self.name)
    }

    async fn run(self, admin: &Admin, deadline: Instant) -> Result<v1::SetProtectionResponse, Failure> {
        let Self { record, name, skus, is_protected, request_id } = self;
        let namespace = admin.context.namespace(&name, deadline).await?;
        let change = RulesChange { is_protected: Some(is_protected), ..RulesChange::default() };
        let names: Vec<String> = skus.iter().map(|sku| sku.as_str().to_owned()).collect();
        let results: Vec<_> = stream::iter(skus)
            .map(|sku| protect(&namespace, request_id.as_ref(), sku, change, deadline))
            .buffered(MAX_ROWS_IN_FLIGHT)
            .collect()
            .await;
        let is_changed = |result: &Result<_, _>| matches!(result, Ok(v1::ProtectionOutcome::Changed));
        let changed = names.iter().zip(&results).filter(|(_, result)| is_changed(result));
        let changed: Vec<&str> = changed.map(|(name, _)| name.as_str()).collect();
        if !changed.is_empty() {
            let request_id = text_of_request_id(request_id.as_ref());
            let after = format!("is_protected={is_protected} of {} SKUs: {}", changed.len(), changed.join(", "));
            record.set_change(Change { request_id, after, ..Change::default() });
        }
        all_or_failure(results).map(|outcomes| v1::SetProtectionResponse { outcomes })
    }
}

async fn protect(
    namespace: &Namespace,
    request_id: Option<&RequestId>,
    sku: Sku,
    change: RulesChange,
    deadline: Instant,
) -> Result<v1::ProtectionOutcome, Failure> {
    let lane = namespace.lane_of(&sku);
    if let Some(request_id) = request_id {
        check_age(namespace, lane, request_id, Instant::now())?;
    }
    let memo = namespace.protection_identity(request_id, &sku);
    let operation = Operation::ConfigureSku { memo, sku, change, if_revision: None };
    match execute(lane, operation, deadline).await {
        Ok((Outcome::Stock { replayed: false, .. }, _)) => Ok(v1::ProtectionOutcome::Changed),
        Ok((Outcome::Stock { replayed: true, .. } | Outcome::Unchanged { .. }, _)) => {
            Ok(v1::ProtectionOutcome::Unchanged)
        }
        Ok((other, _)) => Err(unexpected(&other)),
        Err(failure) if failure.reason() == Reason::SkuNotFound => Ok(v1::ProtectionOutcome::SkuNotFound),
        Err(failure) => Err(failure),
    }
}

/// All outcomes, or the first failure. A failure that means "nothing was applied" becomes
/// OUTCOME_UNKNOWN if any SKU may have changed.
fn all_or_failure(results: Vec<Result<v1::ProtectionOutcome, Failure>>) -> Result<Vec<i32>, Failure> {
    let in_part = results.iter().any(|result| match result {
        Ok(outcome) => *outcome == v1::ProtectionOutcome::Changed,
        Err(failure) => failure.reason().advice() == Advice::Repeat,
    });
    let reported = |failure: Failure| match failure.reason().advice() {
        Advice::Retry | Advice::Operator if in_part => {
            Failure::new(Reason::OutcomeUnknown).because(&format!("of some skus, {}", failure.message()))
        }
        _ => failure,
    };
    results.into_iter().map(|result| result.map(i32::from).map_err(reported)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_changed_in_part_is_not_said_to_be_unchanged() {
        let shed = || Err(Failure::new(Reason::Overloaded));
        let reason = |results| all_or_failure(results).map_err(|failure| failure.reason());
        let changed = v1::ProtectionOutcome::Changed;
        assert_eq!(reason(vec![Ok(changed)]), Ok(vec![1]));
        assert_eq!(reason(vec![shed(), Ok(v1::ProtectionOutcome::Unchanged)]), Err(Reason::Overloaded));
        assert_eq!(reason(vec![shed(), Ok(changed)]), Err(Reason::OutcomeUnknown));
        let denied = || Err(Failure::new(Reason::StoreDenied));
        assert_eq!(reason(vec![denied(), Ok(changed)]), Err(Reason::OutcomeUnknown));
        assert_eq!(reason(vec![denied(), Ok(v1::ProtectionOutcome::Unchanged)]), Err(Reason::StoreDenied));
        let lost = Err(Failure::new(Reason::OutcomeUnknown));
        assert_eq!(reason(vec![shed(), lost]), Err(Reason::OutcomeUnknown));
    }
}
