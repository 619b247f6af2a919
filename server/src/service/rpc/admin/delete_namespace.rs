//! DeleteNamespace: deletes a namespace without holds.

use inventory_sentinel::v1;
use tokio::time::Instant;
use tonic::Request;

use super::Admin;
use crate::{
    domain::{NamespaceName, RequestId},
    failure::Failure,
    service::{
        change_log::{Caller, Change, text_of_config},
        dispatch::AsyncRpc,
    },
    telemetry::metrics::RpcKind,
};

pub(crate) struct DeleteNamespace {
    caller: Caller,
    name: NamespaceName,
    request_id: Option<RequestId>,
}

impl AsyncRpc for DeleteNamespace {
    type Service = Admin;
    type Request = v1::DeleteNamespaceRequest;
    type Response = v1::DeleteNamespaceResponse;
    const KIND: RpcKind = RpcKind::DeleteNamespace;

    fn decode(request: Request<v1::DeleteNamespaceRequest>) -> Result<Self, Failure> {
        let caller = Caller::of(&request);
        let v1::DeleteNamespaceRequest { namespace_id, request_id } = request.into_inner();
        let name = NamespaceName::parse(namespace_id)?;
        let request_id = RequestId::parse_optional(request_id)?;
        Ok(Self { caller, name, request_id })
    }

    async fn run(self, admin: &Admin, deadline: Instant) -> Result<v1::DeleteNamespaceResponse, Failure> {
        let (context, Self { caller, name, request_id }) = (&admin.context, self);
        context.admit()?;
        let before = context.namespaces.opened(&name).map(|namespace| text_of_config(&namespace.config));
        let replayed = context.namespaces.delete(&name, request_id.as_ref(), deadline).await?;
        if !replayed {
            let request_id = request_id.as_ref().map_or("", RequestId::as_str);
            let (before, after) = (before.unwrap_or_default(), "deleted".into());
            caller.log("DeleteNamespace", &name, Change { request_id, before, after, ..Change::default() });
        }
        Ok(v1::DeleteNamespaceResponse { replayed })
    }
}
