//! ListNamespaces: a page of the namespaces of the store, read through `store::lists`.

use inventory_sentinel::v1;
use tokio::time::Instant;
use tonic::Request;

use super::Admin;
use crate::{
    access::Caller,
    domain::NamespaceName,
    failure::Failure,
    service::{
        deadline::by_deadline,
        dispatch::{AsyncRpc, Scope},
        token::page::{PageTokens, decode_page_size},
    },
    store::lists::{self, Page, Range},
    telemetry::metrics::RpcKind,
};

pub(crate) struct ListNamespaces {
    size: usize,
    page_token: String,
    caller: Option<Caller>,
}

impl AsyncRpc for ListNamespaces {
    type Service = Admin;
    type Request = v1::ListNamespacesRequest;
    type Response = v1::ListNamespacesResponse;
    const KIND: RpcKind = RpcKind::ListNamespaces;

    fn decode(request: Request<v1::ListNamespacesRequest>) -> Result<Self, Failure> {
        let caller = request.extensions().get().cloned();
        let v1::ListNamespacesRequest { page_size, page_token } = request.into_inner();
        Ok(Self { size: decode_page_size(page_size)?, page_token, caller })
    }

    fn scope(&self) -> Scope<'_> {
        Scope::Entries
    }

    async fn run(self, admin: &Admin, deadline: Instant) -> Result<v1::ListNamespacesResponse, Failure> {
        let Self { size, page_token, caller } = self;
        admin.context.admit()?;
        let tokens = PageTokens::of_namespaces(&admin.promises.witnesses.identity().id().unwrap_or_default())?;
        let range = Range { size, from: tokens.decode(&page_token)? };
        // Other namespaces fill no page, so that its size does not show how many there are.
        let is_allowed = |name: &NamespaceName| caller.as_ref().is_none_or(|caller| caller.allows(name));
        let page = by_deadline(deadline, async {
            let mut connection = admin.store.connection().await?;
            lists::namespaces(&mut connection, range, is_allowed).await
        });
        let Page { items, next } = page.await?;
        let row = |name: NamespaceName| v1::ListedNamespace { namespace_id: name.as_str().to_owned() };
        Ok(v1::ListNamespacesResponse {
            namespaces: items.into_iter().map(row).collect(),
            next_page_token: tokens.encode(next),
        })
    }
}
