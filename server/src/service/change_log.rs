//! The log of the changes that operators make: one line for each call that changed something. It
//! contains the caller, the values before and after, and the request id. A replay is not logged.
//! Writes the log only.

use std::fmt::Write as _;

use tonic::Request;

use crate::{
    domain::{NamespaceName, Stock},
    store::wire::NamespaceConfig,
    telemetry::limit::RECORD,
    transport::CallerAddress,
};

/// Longest text of one field of a line, in bytes; the rest is cut off.
const MAX_FIELD: usize = 2_048;

/// The caller of a change. Unknown parts are empty.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    address: String,
    user_agent: String,
}

impl Caller {
    pub(super) fn of<T>(request: &Request<T>) -> Self {
        let address = request.extensions().get::<Option<CallerAddress>>().copied().flatten();
        let address = address.map(|address| address.0.to_string());
        let user_agent = request.metadata().get("user-agent").and_then(|agent| agent.to_str().ok());
        Self { address: address.unwrap_or_default(), user_agent: cut(user_agent.unwrap_or_default().to_owned()) }
    }

    /// Writes the line of one change.
    pub(super) fn log(&self, call: &'static str, namespace: &NamespaceName, change: Change<'_>) {
        let Change { sku, request_id, before, after } = change;
        tracing::info!(
            target: RECORD,
            call,
            namespace = namespace.as_str(),
            sku,
            request_id,
            before = cut(before),
            after = cut(after),
            caller = self.address,
            user_agent = self.user_agent,
            "an operator changed something"
        );
    }
}

/// A change.
#[derive(Debug, Default)]
pub(super) struct Change<'a> {
    /// Empty if the call concerns several SKUs, or none.
    pub(super) sku: &'a str,
    pub(super) request_id: &'a str,
    /// Empty if unknown.
    pub(super) before: String,
    pub(super) after: String,
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
    if text.len() > MAX_FIELD {
        let end = (0..=MAX_FIELD).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
    }
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
