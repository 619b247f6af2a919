//! The headers of a call that concern time: how long its caller waits, and whether it is a retry.
//! No I/O.

use std::{future::Future, time::Duration};

use http::HeaderName;
use inventory_sentinel::Reason;
use tokio::time::{Instant, timeout_at};
use tonic::metadata::MetadataMap;

use crate::failure::Failure;

/// Longest wait of a call without a deadline.
pub(super) const MAX_CALL_DURATION: Duration = Duration::from_secs(60);
/// Respond this much before the caller's deadline, but at most a tenth of the timeout. The caller
/// then gets our error details, which the transport's own timeout lacks.
const RESPONSE_MARGIN: Duration = Duration::from_millis(50);

/// How long the caller waits.
static TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// How often gRPC has sent the call before; absent from the first attempt.
static PREVIOUS_ATTEMPTS: HeaderName = HeaderName::from_static("grpc-previous-rpc-attempts");
/// The number of Envoy's attempt, from 1.
static ENVOY_ATTEMPT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");

/// Whether gRPC or a proxy has sent the call before, according to its headers. Then the call must not
/// claim to be a first attempt.
pub(super) fn is_retry(metadata: &MetadataMap) -> bool {
    let headers = metadata.as_ref();
    headers.contains_key(&PREVIOUS_ATTEMPTS) || headers.get(&ENVOY_ATTEMPT).is_some_and(|attempt| attempt != "1")
}

/// The deadline of a call that arrives now.
pub(super) fn deadline(metadata: &MetadataMap) -> Instant {
    deadline_after(Instant::now(), metadata)
}

/// The deadline of a call that arrived at this instant, from its `grpc-timeout` header.
pub(super) fn deadline_after(arrived_at: Instant, metadata: &MetadataMap) -> Instant {
    let timeout = metadata.as_ref().get(&TIMEOUT).and_then(|value| parse_timeout(value.to_str().ok()?));
    deadline_in(arrived_at, timeout.unwrap_or(MAX_CALL_DURATION))
}

/// The deadline of a call that arrived at this instant and has this timeout.
pub(super) fn deadline_in(arrived_at: Instant, timeout: Duration) -> Instant {
    let margin = RESPONSE_MARGIN.min(timeout / 10);
    arrived_at + timeout.saturating_sub(margin).min(MAX_CALL_DURATION)
}

/// Awaits work until the deadline. The work must not change anything: a call that times out here
/// counts as not applied.
pub(super) async fn by_deadline<T, E>(deadline: Instant, work: impl Future<Output = Result<T, E>>) -> Result<T, Failure>
where
    Failure: From<E>,
{
    match timeout_at(deadline, work).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(Failure::new(Reason::DeadlineExceeded)),
    }
}

/// At most eight digits and a unit, as the gRPC protocol defines it.
fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3_600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_grpc_writes_them() {
        assert_eq!(parse_timeout("5S"), Some(Duration::from_secs(5)));
        assert_eq!(parse_timeout("250m"), Some(Duration::from_millis(250)));
        assert_eq!(parse_timeout("99999999H"), Some(Duration::from_secs(99_999_999 * 3_600)));
        for bad in ["", "S", "5", "5s", "-5S", "123456789S", "5ä"] {
            assert_eq!(parse_timeout(bad), None, "{bad}");
        }
    }
}
