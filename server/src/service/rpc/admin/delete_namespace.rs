//! DeleteNamespace: deletes a namespace without holds.

use inventory_sentinel::v1;
use tokio::time::Instant;
use tonic::Request;

use super::Admin;
use crate::{
    domain::{NamespaceName, RequestId},
    failure::Failure,
    service::{
        audit_record::{AuditRecord, Change, text_of_config, text_of_request_id},
        dispatch::{AsyncRpc, Scope},
    },
    telemetry::metrics::RpcKind,
};

pub(crate) struct DeleteNamespace {
    record: AuditRecord,
    name: NamespaceName,
    request_id: Option<RequestId>,
}

impl AsyncRpc for DeleteNamespace {
    type Service = Admin;
    type Request = v1::DeleteNamespaceRequest;
    type Response = v1::DeleteNamespaceResponse;
    const KIND: RpcKind = RpcKind::DeleteNamespace;

    fn decode(request: Request<v1::DeleteNamespaceRequest>) -> Result<Self, Failure> {
        let record = AuditRecord::of(request.extensions());
        let v1::DeleteNamespaceRequest { namespace_id, request_id } = request.into_inner();
        let name = NamespaceName::parse(namespace_id)?;
        let request_id = RequestId::parse_optional(request_id)?;
        Ok(Self { record, name, request_id })
    }

    fn scope(&self) -> Scope<'_> {
        Scope::Namespace(&self.name)
    }

    async fn run(self, admin: &Admin, deadline: Instant) -> Result<v1::DeleteNamespaceResponse, Failure> {
        let (context, Self { record, name, request_id }) = (&admin.context, self);
        context.admit()?;
        let before = context.namespaces.opened(&name).map(|namespace| text_of_config(&namespace.config));
        let replayed = context.namespaces.delete(&name, request_id.as_ref(), deadline).await?;
        if !replayed {
            let request_id = text_of_request_id(request_id.as_ref());
            let (before, after) = (before.unwrap_or_default(), "deleted".into());
            record.set_change(Change { request_id, before, after, ..Change::default() });
        }
        Ok(v1::DeleteNamespaceResponse { replayed })
    }
}
