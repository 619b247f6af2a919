//! GetNamespace: reads the settings of a namespace.

use inventory_sentinel::{Reason, v1};
use tokio::time::Instant;
use tonic::Request;

use super::Admin;
use crate::{
    domain::NamespaceName,
    failure::Failure,
    service::{
        convert::namespace_config,
        deadline::by_deadline,
        dispatch::{AsyncRpc, Scope},
    },
    telemetry::metrics::RpcKind,
};

pub(crate) struct GetNamespace(NamespaceName);

impl AsyncRpc for GetNamespace {
    type Service = Admin;
    type Request = v1::GetNamespaceRequest;
    type Response = v1::GetNamespaceResponse;
    const KIND: RpcKind = RpcKind::GetNamespace;

    fn decode(request: Request<v1::GetNamespaceRequest>) -> Result<Self, Failure> {
        Ok(Self(NamespaceName::parse(request.into_inner().namespace_id)?))
    }

    fn scope(&self) -> Scope<'_> {
        Scope::Namespace(&self.0)
    }

    async fn run(self, Admin { context, .. }: &Admin, deadline: Instant) -> Result<v1::GetNamespaceResponse, Failure> {
        let Self(name) = self;
        context.admit()?;
        let config = by_deadline(deadline, context.namespaces.config(&name)).await?;
        let config = config.ok_or_else(|| Failure::new(Reason::NamespaceNotFound).within(&name))?;
        let version = config.revision as i64;
        Ok(v1::GetNamespaceResponse { config: Some(namespace_config::encode(&config)), version })
    }
}
