//! The identities that callers give: of a request, and of a buyer. No I/O.

use std::{str::FromStr, time::Duration};

use inventory_sentinel::Reason;

use super::{Invalid, StoreTime, TimeOfDay, sku::is_printable};
use crate::limits::MAX_ID_BYTES;

/// The lengths of a UUID as text: bare, with hyphens, in braces too, as a URN.
const UUID_LENGTHS: [usize; 4] = [32, 36, 38, 45];

/// The caller's identity for one attempt, with the instant of a UUIDv7.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId {
    text: String,
    issued_at: Option<StoreTime>,
}

impl RequestId {
    /// Parses an identity of a request.
    pub fn parse(text: String) -> Result<Self, Invalid> {
        if text.is_empty() {
            return Err(Invalid::new(Reason::RequestIdRequired, "request_id"));
        }
        if !is_identifier(&text) {
            return Err(Invalid::new(Reason::InvalidRequestId, "request_id"));
        }
        let issued_at = Self::issued_at(&text);
        Ok(Self { text, issued_at })
    }

    fn issued_at(text: &str) -> Option<StoreTime> {
        // The parser would spend time on an error for a text of another length.
        if !UUID_LENGTHS.contains(&text.len()) {
            return None;
        }
        let uuid = uuid::Uuid::from_str(text).ok().filter(|uuid| uuid.get_version_num() == 7)?;
        let (seconds, nanos) = uuid.get_timestamp()?.to_unix();
        Some(StoreTime(seconds * 1_000 + u64::from(nanos) / 1_000_000))
    }

    /// Parses an identity that the caller may leave out.
    pub fn parse_optional(text: String) -> Result<Option<Self>, Invalid> {
        if text.is_empty() {
            return Ok(None);
        }
        Self::parse(text).map(Some)
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Refuses an identity that the store may have forgotten. Only a UUIDv7 has an age. The margin covers the time
    /// until the store applies the request, and clocks that differ.
    pub fn check_age(&self, now: TimeOfDay, retention: Duration) -> Result<(), Invalid> {
        const LARGEST_MARGIN: Duration = Duration::from_secs(5 * 60);
        let Some(StoreTime(issued_at)) = self.issued_at else {
            return Ok(());
        };
        let margin = LARGEST_MARGIN.min(retention / 2).as_millis() as u64;
        let retention = retention.as_millis() as u64;
        if issued_at.saturating_add(retention - margin) < now.earliest.0 {
            return Err(Invalid::new(Reason::RequestTooOld, "request_id"));
        }
        if issued_at > now.latest.0.saturating_add(LARGEST_MARGIN.as_millis() as u64) {
            return Err(Invalid::new(Reason::InvalidRequestId, "request_id"));
        }
        Ok(())
    }
}

/// The caller's name for a buyer; empty if none was given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BuyerId(String);

impl BuyerId {
    /// Parses a buyer of a request or a record.
    pub fn parse(text: String) -> Result<Self, Invalid> {
        if text.len() > MAX_ID_BYTES || !is_printable(&text) {
            return Err(Invalid::new(Reason::InvalidBuyerId, "buyer_id"));
        }
        Ok(Self(text))
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its text.
    pub fn into_string(self) -> String {
        self.0
    }
}

/// Printable ASCII without spaces, for log lines and URLs.
fn is_identifier(text: &str) -> bool {
    text.len() <= MAX_ID_BYTES && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_v7_has_an_age_and_an_opaque_id_has_none() {
        let retention = Duration::from_secs(3_600);
        let issued_at = 1_700_000_000_000;
        let text = uuid::Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, issued_at / 1_000, 0));
        let day = |earliest, latest| TimeOfDay { earliest: StoreTime(earliest), latest: StoreTime(latest) };
        let minutes = |n: u64| day(issued_at + n * 60_000, issued_at + n * 60_000);
        for text in [text.to_string(), text.simple().to_string(), text.braced().to_string(), text.urn().to_string()] {
            let id = RequestId::parse(text).expect("a UUIDv7 is a request id");
            assert_eq!(id.check_age(minutes(55), retention), Ok(()));
            assert_eq!(id.check_age(minutes(56), retention).map_err(|e| e.reason), Err(Reason::RequestTooOld));
            let early = issued_at - 6 * 60_000;
            assert_eq!(id.check_age(day(early, early), retention).map_err(|e| e.reason), Err(Reason::InvalidRequestId));
            // While the clock is in doubt, an id is too old only at both instants.
            assert_eq!(id.check_age(day(early, issued_at + 90 * 60_000), retention), Ok(()));
        }
        let opaque = RequestId::parse("order-1".into()).expect("opaque ids are allowed");
        assert_eq!(opaque.check_age(minutes(1_000_000), retention), Ok(()));
    }

    #[test]
    fn hostile_ids_are_refused() {
        for bad in ["a\0", "a\nb", "a b", "ä", &"x".repeat(129)] {
            assert!(RequestId::parse(bad.to_string()).is_err());
        }
    }
}
