//! The audit record of each call of an operator: one line with the caller, the call, the values before and after a
//! change, and the outcome. Writes the audit log only.

use std::{
    fmt::Write as _,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use inventory_sentinel::Reason;
use tonic::{Extensions, Request};

use crate::{
    access::Caller,
    domain::{NamespaceName, RequestId, Stock},
    store::wire::NamespaceConfig,
    telemetry::{audit::AUDIT, limit::shortened, metrics::RpcKind},
    transport::OperatorCall,
};

/// Longest text of one field of a record, in bytes; the rest is cut off.
const MAX_FIELD: usize = 2_048;
/// The outcome of a call that succeeded, and of one whose caller disconnected before its end.
const DONE: &str = "OK";
const ABANDONED: &str = "ABANDONED";

/// The record of one call. Clones share it; it is written when the last of them is dropped.
#[derive(Clone, Debug)]
pub(super) struct AuditRecord(Arc<Unwritten>);

/// A record that is written when it is dropped.
#[derive(Debug)]
struct Unwritten(Mutex<Fields>);

/// The fields of a record. Unknown ones are empty.
#[derive(Debug, Default)]
struct Fields {
    call: String,
    address: String,
    user_agent: String,
    identity: String,
    namespace: String,
    change: Option<Change>,
    outcome: &'static str,
    is_discarded: bool,
}

impl AuditRecord {
    /// Begins the record of a call, and adds it to the extensions of the request.
    pub(super) fn begin<T>(call: RpcKind, request: &mut Request<T>) -> Self {
        let record = Self::detached(call, request);
        request.extensions_mut().insert(record.clone());
        record
    }

    /// Begins a record that is not in the extensions of the request.
    pub(super) fn detached<T>(call: RpcKind, request: &Request<T>) -> Self {
        let extensions = request.extensions();
        let operator = extensions.get::<OperatorCall>();
        operator.into_iter().for_each(OperatorCall::set_recorded);
        let address = operator.and_then(OperatorCall::address);
        let user_agent = request.metadata().get("user-agent").and_then(|agent| agent.to_str().ok());
        Self::with(Fields {
            call: name(call),
            address: address.map(|address| address.to_string()).unwrap_or_default(),
            user_agent: cut(user_agent.unwrap_or_default().to_owned()),
            identity: extensions.get::<Caller>().map(|caller| caller.identity().name.clone()).unwrap_or_default(),
            outcome: ABANDONED,
            ..Fields::default()
        })
    }

    /// The record in the extensions of a request. A call that is not recorded gets one that is not written.
    pub(super) fn of(extensions: &Extensions) -> Self {
        extensions.get().cloned().unwrap_or_else(|| Self::with(Fields { is_discarded: true, ..Fields::default() }))
    }

    fn with(fields: Fields) -> Self {
        Self(Arc::new(Unwritten(Mutex::new(fields))))
    }

    fn fields(&self) -> MutexGuard<'_, Fields> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An empty record of the same call and caller, for the next message of its stream.
    pub(super) fn of_next_message(&self) -> Self {
        let fields = self.fields();
        Self::with(Fields {
            call: fields.call.clone(),
            address: fields.address.clone(),
            user_agent: fields.user_agent.clone(),
            identity: fields.identity.clone(),
            outcome: ABANDONED,
            ..Fields::default()
        })
    }

    pub(super) fn set_namespace(&self, namespace: &NamespaceName) {
        self.fields().namespace = namespace.as_str().to_owned();
    }

    pub(super) fn set_change(&self, change: Change) {
        self.fields().change = Some(change);
    }

    pub(super) fn clear_change(&self) {
        self.fields().change = None;
    }

    /// Sets the outcome; `None`: the call succeeded.
    pub(super) fn set_outcome(&self, refused: Option<Reason>) {
        self.fields().outcome = refused.map_or(DONE, Reason::as_str);
    }

    /// Writes nothing: the call is recorded elsewhere.
    pub(super) fn discard(&self) {
        self.fields().is_discarded = true;
    }
}

impl Drop for Unwritten {
    fn drop(&mut self) {
        let fields = std::mem::take(self.0.get_mut().unwrap_or_else(PoisonError::into_inner));
        if fields.is_discarded {
            return;
        }
        let has_changed = fields.change.is_some();
        let Change { sku, request_id, before, after } = fields.change.unwrap_or_default();
        tracing::info!(
            target: AUDIT,
            call = fields.call,
            namespace = fields.namespace,
            sku,
            request_id,
            before = cut(before),
            after = cut(after),
            outcome = fields.outcome,
            identity = fields.identity,
            caller = fields.address,
            user_agent = fields.user_agent,
            "{}",
            if has_changed { "an operator changed something" } else { "an operator's call ended" }
        );
    }
}

/// The name of an RPC in its proto file.
fn name(call: RpcKind) -> String {
    let capitalized = |word: &str| {
        let (first, rest) = word.split_at(word.len().min(1));
        first.to_ascii_uppercase() + rest
    };
    call.label().split('_').map(capitalized).collect()
}

/// A change.
#[derive(Debug, Default)]
pub(super) struct Change {
    /// Empty if the call concerns several SKUs, or none.
    pub(super) sku: String,
    pub(super) request_id: String,
    /// Empty if unknown.
    pub(super) before: String,
    pub(super) after: String,
}

/// A request id, or an empty text.
pub(super) fn text_of_request_id(request_id: Option<&RequestId>) -> String {
    request_id.map(|request_id| request_id.as_str().to_owned()).unwrap_or_default()
}

/// Counters and rules as readable text: `on_hand=10 available=8 … is_paused=true`.
pub(super) fn text_of_stock(stock: &Stock) -> String {
    let Stock { available, held, sold, supplied, is_protected, is_paused, rules, .. } = stock;
    let mut text =
        format!("on_hand={} available={available} held={held} sold={sold} supplied={supplied}", available + held);
    let _ = write!(text, " is_protected={is_protected} is_paused={is_paused} rules_version={}", rules.revision);
    let numbers = [
        ("max_quantity", u64::from(rules.max_quantity)),
        ("max_ttl_ms", rules.max_ttl),
        ("buyer_limit", rules.buyer_limit.into()),
        ("opens_at_ms", rules.opens_at.0),
        ("closes_at_ms", rules.closes_at.0),
    ];
    for (name, number) in numbers.into_iter().filter(|(_, number)| *number > 0) {
        let _ = write!(text, " {name}={number}");
    }
    text
}

/// The settings of a namespace as readable text.
pub(super) fn text_of_config(config: &NamespaceConfig) -> String {
    let seconds = [
        ("default_ttl", config.default_ttl),
        ("max_ttl", config.max_ttl),
        ("max_life", config.max_life),
        ("retention", config.retention),
    ];
    let mut text = format!("version={} partitions={} format={}", config.revision, config.partitions, config.format);
    for (name, span) in seconds {
        let _ = write!(text, " {name}={}", humantime::format_duration(span));
    }
    let NamespaceConfig { quota_records, quota_skus, is_paused, .. } = config;
    let _ = write!(text, " quota_records={quota_records} quota_skus={quota_skus} is_paused={is_paused}");
    text
}

/// Shortens a text to [`MAX_FIELD`], at the boundary of a character.
fn cut(mut text: String) -> String {
    text.truncate(shortened(&text, MAX_FIELD).len());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_cut_between_characters() {
        assert_eq!(cut("a".repeat(MAX_FIELD)).len(), MAX_FIELD);
        assert_eq!(cut("ü".repeat(MAX_FIELD)).len(), MAX_FIELD);
        assert_eq!(cut(format!("a{}", "ü".repeat(MAX_FIELD))).len(), MAX_FIELD - 1);
    }
}
