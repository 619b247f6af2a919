//! ConfigureNamespace: changes the settings of a namespace, or creates it.

use inventory_sentinel::v1;
use tokio::time::Instant;
use tonic::Request;

use super::{Admin, decode_version};
use crate::{
    domain::{NamespaceChange, NamespaceName, RequestId},
    failure::Failure,
    namespaces::ConfigureRequest,
    service::{
        audit_record::{AuditRecord, Change, text_of_config},
        convert::namespace_config,
        dispatch::{AsyncRpc, Scope, check_age},
    },
    telemetry::metrics::RpcKind,
};

pub(crate) struct ConfigureNamespace {
    record: AuditRecord,
    name: NamespaceName,
    change: NamespaceChange,
    request_id: Option<RequestId>,
    if_revision: Option<u64>,
}

impl AsyncRpc for ConfigureNamespace {
    type Service = Admin;
    type Request = v1::ConfigureNamespaceRequest;
    type Response = v1::ConfigureNamespaceResponse;
    const KIND: RpcKind = RpcKind::ConfigureNamespace;

    fn decode(request: Request<v1::ConfigureNamespaceRequest>) -> Result<Self, Failure> {
        let record = AuditRecord::of(request.extensions());
        let v1::ConfigureNamespaceRequest { namespace_id, config, request_id, if_version } = request.into_inner();
        let name = NamespaceName::parse(namespace_id)?;
        let request_id = RequestId::parse_optional(request_id)?;
        let change = namespace_config::decode_change(config)?;
        let if_revision = if_version.map(decode_version).transpose()?;
        Ok(Self { record, name, change, request_id, if_revision })
    }

    fn scope(&self) -> Scope<'_> {
        Scope::Namespace(&self.name)
    }

    async fn run(self, admin: &Admin, deadline: Instant) -> Result<v1::ConfigureNamespaceResponse, Failure> {
        let (context, Self { record, name, change, request_id, if_revision }) = (&admin.context, self);
        context.admit()?;
        if let Some(request_id) = &request_id
            && let Some(namespace) = context.find_namespace(&name, deadline).await?
            && let Some(lane) = namespace.lane(0)
        {
            check_age(&namespace, lane, request_id, Instant::now())?;
        }
        let named = request_id.as_ref().map_or_else(String::new, |request_id| request_id.as_str().to_owned());
        let before = context.namespaces.opened(&name).map(|namespace| namespace.config.clone());
        let request = ConfigureRequest::new(change, if_revision, request_id);
        let (config, replayed) = context.namespaces.configure(&name, &request, deadline).await?;
        if !replayed && before.as_ref() != Some(&config) {
            let change = Change {
                request_id: named,
                before: before.as_ref().map(text_of_config).unwrap_or_default(),
                after: text_of_config(&config),
                ..Change::default()
            };
            record.set_change(change);
        }
        let version = config.revision as i64;
        Ok(v1::ConfigureNamespaceResponse { config: Some(namespace_config::encode(&config)), version, replayed })
    }
}
