//! The request builders: each collects the parameters of one RPC and sends it when it is awaited. They import `scope`,
//! `transport`, `convert` and the types; none imports [`Namespace`](crate::Namespace) or [`Admin`](crate::Admin).
//!
//! - checkout: `reserve`, `resolve` (commit, rollback, extend), `batch`, `reads`.
//! - operators: `configure` (stock, rules, settings), `bulk`, `lists`, `settle`.

pub(crate) mod batch;
pub(crate) mod bulk;
pub(crate) mod configure;
pub(crate) mod lists;
pub(crate) mod reads;
pub(crate) mod reserve;
pub(crate) mod resolve;
pub(crate) mod settle;

/// Makes a request awaitable: awaiting it calls its `send`.
macro_rules! impl_into_future {
    ($request:ident -> $output:ty) => {
        impl std::future::IntoFuture for $request {
            type Output = $output;
            type IntoFuture = std::pin::Pin<Box<dyn Future<Output = Self::Output> + Send>>;

            fn into_future(self) -> Self::IntoFuture {
                Box::pin(self.send())
            }
        }
    };
}
use impl_into_future;
