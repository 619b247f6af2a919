//! The words of the service as types: parsed once, at the edge, and true ever after. No I/O.
//!
//! - here: names, ids and numbers, and how they are parsed;
//! - [`operation`]: what a lane carries, and what comes of it;
//! - [`history`]: terms, places in a partition's history, and what was lost of it;
//! - [`audit`]: what an audit finds;
//! - [`clock`]: the clock of a partition beside that of the store;
//! - [`promise`]: what an OK depends on.

use std::{fmt, str::FromStr, time::Duration};

use inventory_sentinel::Reason;

mod audit;
mod clock;
mod history;
mod operation;
mod promise;

pub use audit::{Finding, FindingKind, Report};
pub use clock::{Clock, ClockOffsets, Reading, TimeOfDay};
pub use history::{Fence, FenceId, HistoryPoint, Knowledge, Term, Verdict};
pub use operation::{
    Answer, Condition, Configured, Happened, NamespaceChange, Operation, Outcome, Refusal, Reservation, ReservedLine,
    Rules, RulesChange, State, Stock,
};
pub use promise::{Promise, PromiseState};

pub use crate::limits::{
    FIRST_WITH_PAUSE, FORMATS, MAX_ID_BYTES, MAX_LIFE, MAX_LINES, MAX_NAMESPACE_BYTES, MAX_PARTITIONS, MAX_QUANTITY,
    MAX_QUOTA_RECORDS, MAX_QUOTA_SKUS, MAX_SKU_BYTES, MAX_STOCK, MAX_TTL, RETENTION,
};

/// A field that is not what it should be: why, and which one.
#[derive(Debug, PartialEq, Eq)]
pub struct Invalid {
    pub reason: Reason,
    /// The path of the field in the request, as `BadRequest` names it.
    pub field: String,
    /// What is known beyond the meaning of the reason, such as the limit; empty if nothing is.
    pub detail: String,
}

impl Invalid {
    pub fn new(reason: Reason, field: impl Into<String>) -> Self {
        Self { reason, field: field.into(), detail: String::new() }
    }

    /// Adds what is known beyond the meaning of the reason.
    pub fn because(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }
}

/// One sale or tenant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamespaceName(String);

impl NamespaceName {
    /// The name that an empty field means.
    const DEFAULT: &'static str = "default";

    pub fn parse(text: String) -> Result<Self, Invalid> {
        if text.is_empty() {
            return Ok(Self(Self::DEFAULT.into()));
        }
        if text.len() > MAX_NAMESPACE_BYTES || !text.bytes().all(is_namespace_byte) {
            return Err(Invalid::new(Reason::InvalidNamespace, "namespace_id"));
        }
        Ok(Self(text))
    }

    /// A name as the store has it; `None` if this service did not write it.
    pub fn from_store(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok().filter(|text| !text.is_empty())?;
        Self::parse(text.to_owned()).ok()
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NamespaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_namespace_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._-".contains(&byte)
}

/// What is sold.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sku(String);

impl Sku {
    pub fn parse(text: String, field: &str) -> Result<Self, Invalid> {
        if text.is_empty() {
            return Err(Invalid::new(Reason::EmptySku, field));
        }
        if text.len() > MAX_SKU_BYTES || !is_printable(&text) {
            return Err(Invalid::new(Reason::InvalidSku, field));
        }
        Ok(Self(text))
    }

    /// A SKU as the store gave it back.
    pub fn from_store(bytes: &[u8]) -> Option<Self> {
        Self::parse(String::from_utf8(bytes.to_vec()).ok()?, "").ok()
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn into_string(self) -> String {
        self.0
    }

    /// What stands before the first `~`, or all of it: SKUs of one group lie in one partition.
    fn group(&self) -> &str {
        self.0.split_once('~').map_or(self.0.as_str(), |(group, _)| group)
    }

    /// Which of so many partitions a SKU lies in; fixed for ever, as records depend on it. FNV-1a, and
    /// the last step of MurmurHash3: without it SKUs that differ only at their end lie together.
    pub fn partition(&self, partitions: u16) -> u16 {
        if partitions <= 1 {
            return 0;
        }
        let mut hash = self
            .group()
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
        for factor in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
            hash = (hash ^ (hash >> 33)).wrapping_mul(factor);
        }
        ((hash ^ (hash >> 33)) % u64::from(partitions)) as u16
    }
}

/// Units of one line, 1 to [`MAX_QUANTITY`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quantity(u32);

impl Quantity {
    pub fn parse(units: i32, field: &str) -> Result<Self, Invalid> {
        match u32::try_from(units) {
            Ok(units @ 1..=MAX_QUANTITY) => Ok(Self(units)),
            _ => Err(Invalid::new(Reason::InvalidQuantity, field)),
        }
    }

    /// A quantity as the store gave it back.
    pub fn from_store(units: u32) -> Self {
        Self(units)
    }

    pub fn get(self) -> u32 {
        self.0
    }
}

/// A SKU and how many units of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub sku: Sku,
    pub quantity: Quantity,
}

/// Units on hand, 0 to [`MAX_STOCK`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnHand(u64);

impl OnHand {
    /// No unit.
    pub const NONE: Self = Self(0);

    pub fn parse(units: i64) -> Result<Self, Invalid> {
        match u64::try_from(units) {
            Ok(units @ 0..=MAX_STOCK) => Ok(Self(units)),
            _ => Err(Invalid::new(Reason::InvalidStock, "on_hand")),
        }
    }

    pub fn get(self) -> u64 {
        self.0
    }
}

/// Units to add or to take away, never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delta(i64);

impl Delta {
    pub fn parse(units: i64) -> Result<Self, Invalid> {
        if units == 0 || units.unsigned_abs() > MAX_STOCK {
            return Err(Invalid::new(Reason::InvalidDelta, "delta"));
        }
        Ok(Self(units))
    }

    pub fn get(self) -> i64 {
        self.0
    }
}

/// Milliseconds of a span or an instant as messages have them, rounded up; `None` if it is negative or malformed.
pub fn whole_millis(seconds: i64, nanos: i32) -> Option<u64> {
    let (seconds, nanos) = (u64::try_from(seconds).ok()?, u64::try_from(nanos).ok()?);
    if nanos >= 1_000_000_000 {
        return None;
    }
    seconds.checked_mul(1_000)?.checked_add(nanos.div_ceil(1_000_000))
}

/// How long units are held, in whole milliseconds, at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ttl(u64);

impl Ttl {
    /// At least 1 ms and at most the longest of the namespace, once it is rounded up to the millisecond.
    pub fn parse(seconds: i64, nanos: i32, longest: Duration) -> Result<Self, Invalid> {
        match whole_millis(seconds, nanos) {
            Some(millis) if millis > 0 && u128::from(millis) <= longest.as_millis() => Ok(Self(millis)),
            _ => {
                let longest = humantime::format_duration(longest);
                Err(Invalid::new(Reason::InvalidTtl, "ttl").because(format!("the longest is {longest}")))
            }
        }
    }

    pub fn as_millis(self) -> u64 {
        self.0
    }
}

/// The lengths of a UUID as text: bare, with hyphens, in braces too, as a URN.
const UUID_LENGTHS: [usize; 4] = [32, 36, 38, 45];

/// The caller's identity for one attempt, and the instant in it if it is a UUIDv7.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId {
    text: String,
    born: Option<Millis>,
}

impl RequestId {
    pub fn parse(text: String) -> Result<Self, Invalid> {
        if text.is_empty() {
            return Err(Invalid::new(Reason::RequestIdRequired, "request_id"));
        }
        if !is_identifier(&text) {
            return Err(Invalid::new(Reason::InvalidRequestId, "request_id"));
        }
        let born = Self::born(&text);
        Ok(Self { text, born })
    }

    fn born(text: &str) -> Option<Millis> {
        // A text of another length is none, and the parser would only spend time on saying why.
        if !UUID_LENGTHS.contains(&text.len()) {
            return None;
        }
        let uuid = uuid::Uuid::from_str(text).ok().filter(|uuid| uuid.get_version_num() == 7)?;
        let (seconds, nanos) = uuid.get_timestamp()?.to_unix();
        Some(Millis(seconds * 1_000 + u64::from(nanos) / 1_000_000))
    }

    /// Where the caller may leave it out.
    pub fn parse_optional(text: String) -> Result<Option<Self>, Invalid> {
        if text.is_empty() {
            return Ok(None);
        }
        Self::parse(text).map(Some)
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the store is sure to know this identity still if it ever saw it; only a UUIDv7 tells.
    /// The margin covers the way to the store and clocks that disagree.
    pub fn check_age(&self, now: TimeOfDay, retention: Duration) -> Result<(), Invalid> {
        const LARGEST_MARGIN: Duration = Duration::from_secs(5 * 60);
        let Some(Millis(born)) = self.born else {
            return Ok(());
        };
        let margin = LARGEST_MARGIN.min(retention / 2).as_millis() as u64;
        let retention = retention.as_millis() as u64;
        if born.saturating_add(retention - margin) < now.earliest.0 {
            return Err(Invalid::new(Reason::RequestTooOld, "request_id"));
        }
        if born > now.latest.0.saturating_add(LARGEST_MARGIN.as_millis() as u64) {
            return Err(Invalid::new(Reason::InvalidRequestId, "request_id"));
        }
        Ok(())
    }
}

/// The caller's name for a buyer; empty if none was given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BuyerId(String);

impl BuyerId {
    pub fn parse(text: String) -> Result<Self, Invalid> {
        if text.len() > MAX_ID_BYTES || !is_printable(&text) {
            return Err(Invalid::new(Reason::InvalidBuyerId, "buyer_id"));
        }
        Ok(Self(text))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn into_string(self) -> String {
        self.0
    }
}

/// Whether a text has visible characters and spaces only: no control character, no line break, nothing invisible that
/// changes how the rest of a line looks. Combining marks are visible beside the character before them.
fn is_printable(text: &str) -> bool {
    let is_visible = |character: char| {
        let beside = ['a', character];
        // What `escape_debug` shows as it is.
        character.is_ascii_graphic() || String::from_iter(beside).escape_debug().eq(beside)
    };
    let is_plain = |byte| matches!(byte, b' '..=b'~');
    text.bytes().all(is_plain) || text.chars().all(|character| character == ' ' || is_visible(character))
}

/// Printable ASCII without spaces, so that it can stand in a log line and a URL as it is.
fn is_identifier(text: &str) -> bool {
    text.len() <= MAX_ID_BYTES && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// 16 bytes that stand for an identity in the store.
pub type Id = [u8; 16];

/// The name of a reservation: its id in the store, and the partition it lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReservationId {
    pub id: Id,
    pub partition: u16,
}

impl ReservationId {
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let invalid = || Invalid::new(Reason::InvalidReservationId, "reservation_id");
        let bytes: [u8; 18] = base64url::decode(text).ok_or_else(invalid)?;
        let (id, partition) = bytes.split_at(16);
        Ok(Self {
            id: id.try_into().map_err(|_| invalid())?,
            partition: u16::from_be_bytes(partition.try_into().map_err(|_| invalid())?),
        })
    }

    /// As callers know it.
    pub fn encode(self) -> String {
        let mut bytes = [0; 18];
        bytes[..16].copy_from_slice(&self.id);
        bytes[16..].copy_from_slice(&self.partition.to_be_bytes());
        base64url::encode(bytes)
    }
}

/// URL-safe base64 of 18 bytes, which needs no padding: 24 characters.
mod base64url {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

    pub(crate) fn encode(bytes: [u8; 18]) -> String {
        URL_SAFE_NO_PAD.encode(bytes)
    }

    pub(crate) fn decode(text: &str) -> Option<[u8; 18]> {
        let mut bytes = [0; 18];
        let length = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
        (length == bytes.len()).then_some(bytes)
    }
}

/// An instant on the partition's clock, or its time of day: milliseconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Millis(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reservation_ids_round_trip_and_only_they_parse() {
        let id = ReservationId { id: *b"0123456789abcdef", partition: 513 };
        let text = id.encode();
        assert_eq!(text.len(), 24);
        assert_eq!(ReservationId::parse(&text), Ok(id));
        for bad in ["", "short", &text[..23], &format!("{text}A"), "!".repeat(24).as_str()] {
            assert!(ReservationId::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn skus_of_a_group_lie_together() {
        let partition = |sku: &str| Sku::parse(sku.into(), "sku").map(|sku| sku.partition(64));
        assert_eq!(partition("concert~row-7"), partition("concert~row-8"));
        assert_eq!(partition("concert~a~b"), partition("concert"));
        assert_ne!(partition("concert"), partition("theatre"));
    }

    #[test]
    fn a_ttl_is_rounded_up_to_the_millisecond_and_has_a_limit() {
        let longest = Duration::from_secs(60);
        assert_eq!(Ttl::parse(0, 1_000_000, longest), Ok(Ttl(1)));
        assert_eq!(Ttl::parse(60, 0, longest), Ok(Ttl(60_000)));
        assert_eq!(Ttl::parse(0, 1, longest), Ok(Ttl(1)));
        assert_eq!(Ttl::parse(1, 1_500_000, longest), Ok(Ttl(1_002)));
        assert_eq!(Ttl::parse(1, 999_999_999, longest), Ok(Ttl(2_000)));
        for (seconds, nanos) in [(0, 0), (60, 1), (60, 1_000_000), (-1, 0), (0, -1), (i64::MAX, 0), (1, 1_000_000_000)]
        {
            assert!(Ttl::parse(seconds, nanos, longest).is_err(), "{seconds} {nanos}");
        }
    }

    #[test]
    fn a_uuid_v7_has_an_age_and_an_opaque_id_has_none() {
        let retention = Duration::from_secs(3_600);
        let born = 1_700_000_000_000;
        let text = uuid::Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, born / 1_000, 0));
        let day = |earliest, latest| TimeOfDay { earliest: Millis(earliest), latest: Millis(latest) };
        let minutes = |n: u64| day(born + n * 60_000, born + n * 60_000);
        for text in [text.to_string(), text.simple().to_string(), text.braced().to_string(), text.urn().to_string()] {
            let id = RequestId::parse(text).expect("a UUIDv7 is a request id");
            assert_eq!(id.check_age(minutes(55), retention), Ok(()));
            assert_eq!(id.check_age(minutes(56), retention).map_err(|e| e.reason), Err(Reason::RequestTooOld));
            let early = born - 6 * 60_000;
            assert_eq!(id.check_age(day(early, early), retention).map_err(|e| e.reason), Err(Reason::InvalidRequestId));
            // Where the clock is in doubt, both instants must say so.
            assert_eq!(id.check_age(day(early, born + 90 * 60_000), retention), Ok(()));
        }
        let opaque = RequestId::parse("order-1".into()).expect("opaque ids are allowed");
        assert_eq!(opaque.check_age(minutes(1_000_000), retention), Ok(()));
    }

    #[test]
    fn skus_that_look_alike_are_spread_over_the_partitions() {
        let mut partitions = [0; 64];
        for i in 0..6_400 {
            let sku = Sku::parse(format!("sku-{i}"), "sku").expect("a good sku");
            partitions[usize::from(sku.partition(64))] += 1;
        }
        assert!(partitions.iter().all(|skus| (50..150).contains(skus)), "{partitions:?}");
        // For ever: a namespace of an earlier version must find its records.
        let ps5 = Sku::parse("ps5".to_owned(), "sku").expect("a good sku");
        assert_eq!((ps5.partition(1), ps5.partition(64)), (0, 46));
    }

    #[test]
    fn hostile_names_are_refused() {
        for bad in ["{}", "a:b", "a\0", "a\nb", "a b", "ä", "\u{1b}[31m", &"x".repeat(1 << 20)] {
            assert!(NamespaceName::parse(bad.to_string()).is_err());
        }
        for bad in ["a\0", "a\nb", "a b", "ä", &"x".repeat(129)] {
            assert!(RequestId::parse(bad.to_string()).is_err());
        }
        let long = "ä".repeat(65);
        for bad in [
            "a\0",
            "a\nb",
            "\u{1b}[31m",
            "\u{7f}",
            "\u{85}",
            "\u{a0}",
            "\u{200b}",
            "\u{202e}cba",
            "\u{2028}",
            "\u{feff}",
            &long,
        ] {
            assert!(Sku::parse(bad.to_string(), "sku").is_err(), "{bad:?}");
            assert!(BuyerId::parse(bad.to_string()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_shop_has_names_of_its_own() {
        let longest = "ä".repeat(64);
        for good in [
            "Größe M / blau",
            "A&B",
            "a,b",
            "x:y",
            "{}",
            "東京 限定",
            "e\u{301}clair",
            "👟",
            "\"'\\`$%<>",
            "हिन्दी",
            "שלום",
            " ",
            &longest,
        ] {
            assert_eq!(Sku::parse(good.to_string(), "sku").map(Sku::into_string), Ok(good.to_owned()));
            assert_eq!(BuyerId::parse(good.to_string()).map(BuyerId::into_string), Ok(good.to_owned()));
        }
    }
}
