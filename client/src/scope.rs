//! The target of a request: the client's shared state, a namespace and a deadline. Every request builder holds a scope;
//! [`Namespace`](crate::Namespace) and [`Admin`](crate::Admin) are scopes with methods. Uses `convert`, `rpc_error` and
//! `transport`.

use std::{future::Future, sync::Arc, time::Duration};

use tonic::{Request, Response, Status, transport::Channel};

use crate::{
    convert::Decode,
    rpc_error::RpcError,
    transport::{
        call::Core,
        identities::{Identified, new_request_id},
    },
};

/// The namespace of a request, the connections to the server, and the deadline.
#[derive(Clone, Debug)]
pub(crate) struct Scope {
    pub(crate) core: Arc<Core>,
    pub(crate) name: Arc<str>,
    pub(crate) deadline: Duration,
}

/// The scope of an operator's request.
#[derive(Clone, Debug)]
pub(crate) struct AdminScope {
    pub(crate) scope: Scope,
    /// The identity that the caller set, if any.
    pub(crate) request_id: Option<String>,
    pub(crate) existing_namespace_only: bool,
}

impl Scope {
    /// The namespace, as messages name it.
    pub(crate) fn namespace_id(&self) -> String {
        self.name.to_string()
    }

    /// Sends a message that is safe to repeat until it gets a final response.
    pub(crate) async fn call<M, R, F>(
        &self,
        message: M,
        send: impl Fn(Channel, Request<M>) -> F,
    ) -> Result<R::Value, RpcError>
    where
        M: Clone,
        R: Decode,
        F: Future<Output = Result<Response<R>, Status>>,
    {
        self.core.call(self.deadline, message, send).await
    }

    /// Sends a read like `call`. A read changes nothing, so its outcome is never unknown.
    pub(crate) async fn read<M, R, F>(
        &self,
        message: M,
        send: impl Fn(Channel, Request<M>) -> F,
    ) -> Result<R::Value, RpcError>
    where
        M: Clone,
        R: Decode,
        F: Future<Output = Result<Response<R>, Status>>,
    {
        self.call(message, send).await.map_err(RpcError::into_read)
    }

    /// Sends a change like `call`. `is_named`: the caller set its `request_id`, so the client refuses the same id for
    /// another request.
    pub(crate) async fn change<M, R, F>(
        &self,
        message: M,
        is_named: bool,
        send: impl Fn(Channel, Request<M>) -> F,
    ) -> Result<R::Value, RpcError>
    where
        M: Clone + Identified,
        R: Decode,
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let claim = self.core.claim_for(&message, is_named)?;
        claim.end(self.call(message, send).await, |_| true)
    }
}

impl AdminScope {
    pub(crate) fn namespace_id(&self) -> String {
        self.scope.namespace_id()
    }

    /// The identity that the caller set, or a new one.
    pub(crate) fn request_id(&self) -> String {
        self.request_id.clone().unwrap_or_else(new_request_id)
    }

    /// Whether the caller set the identity.
    pub(crate) fn is_named(&self) -> bool {
        self.request_id.is_some()
    }
}
