//! ListStock: a page of the SKUs of a namespace, read through `store::lists`.

use inventory_sentinel::v1;
use tokio::time::Instant;
use tonic::Request;

use super::Admin;
use crate::{
    domain::NamespaceName,
    failure::Failure,
    service::{
        convert::sku_rules::{SkuView, sku_view},
        deadline::by_deadline,
        dispatch::{AsyncRpc, Scope},
        token::page::{PageTokens, decode_page_size, partitions},
    },
    store::lists::{self, Page, Range},
    telemetry::metrics::RpcKind,
};

pub(crate) struct ListStock {
    name: NamespaceName,
    size: usize,
    page_token: String,
}

impl AsyncRpc for ListStock {
    type Service = Admin;
    type Request = v1::ListStockRequest;
    type Response = v1::ListStockResponse;
    const KIND: RpcKind = RpcKind::ListStock;

    fn decode(request: Request<v1::ListStockRequest>) -> Result<Self, Failure> {
        let v1::ListStockRequest { namespace_id, page_size, page_token } = request.into_inner();
        Ok(Self { name: NamespaceName::parse(namespace_id)?, size: decode_page_size(page_size)?, page_token })
    }

    fn scope(&self) -> Scope<'_> {
        Scope::Namespace(&self.name)
    }

    async fn run(self, admin: &Admin, deadline: Instant) -> Result<v1::ListStockResponse, Failure> {
        let Self { name, size, page_token } = self;
        let namespace = admin.context.namespace(&name, deadline).await?;
        let tokens = PageTokens::of_stock(&namespace);
        let range = Range { size, from: tokens.decode(&page_token)? };
        let partitions = partitions(&namespace, None, &[0], range)?;
        let page = by_deadline(deadline, async {
            let mut connection = admin.store.connection().await?;
            lists::stock(&mut connection, &partitions, range).await
        });
        let Page { items, next } = page.await?;
        admin.check_presence(&namespace).await?;
        let row = |(sku, stock)| {
            let SkuView { stock, rules, rules_version } = sku_view(sku, stock);
            v1::ListedSku { stock, rules, rules_version }
        };
        let next_page_token = tokens.encode(next);
        Ok(v1::ListStockResponse { skus: items.into_iter().map(row).collect(), next_page_token })
    }
}
