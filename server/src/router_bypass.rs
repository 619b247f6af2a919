//! A tower layer that routes the calls of one service directly. Tonic's router clones a boxed
//! service for each call, and boxes its future and its body again. One comparison of the path
//! covers almost all calls.

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use futures_util::future::Either;
use http::{Request, Response};
use tonic::{body::Body, server::NamedService};
use tower_layer::Layer;
use tower_service::Service;

/// Routes calls of one service past the router.
#[derive(Clone, Debug)]
pub(crate) struct RouterBypassLayer<D>(pub(crate) D);

impl<D: Clone, S> Layer<S> for RouterBypassLayer<D> {
    type Service = RouterBypass<D, S>;

    fn layer(&self, others: S) -> RouterBypass<D, S> {
        RouterBypass { service: self.0.clone(), others }
    }
}

/// The service that [`RouterBypassLayer`] makes.
#[derive(Clone, Debug)]
pub(crate) struct RouterBypass<D, S> {
    service: D,
    others: S,
}

impl<D, S> Service<Request<Body>> for RouterBypass<D, S>
where
    D: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + NamedService,
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<D::Future, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Services that tonic generates are always ready.
        self.others.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if is_method_of(request.uri().path(), D::NAME) {
            Either::Left(self.service.call(request))
        } else {
            Either::Right(self.others.call(request))
        }
    }
}

/// Whether a path is that of a method of this service.
fn is_method_of(path: &str, service: &str) -> bool {
    let method = path.strip_prefix('/').and_then(|path| path.strip_prefix(service));
    method.is_some_and(|method| method.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_methods_of_the_service_go_to_it() {
        assert!(is_method_of("/shop.v1.Checkout/Reserve", "shop.v1.Checkout"));
        for path in ["/shop.v1.CheckoutAdmin/Reserve", "/shop.v1.Checkout", "shop.v1.Checkout/Reserve", "/", ""] {
            assert!(!is_method_of(path, "shop.v1.Checkout"), "{path}");
        }
    }
}
