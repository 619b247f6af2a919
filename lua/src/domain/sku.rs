//! SKUs, quantities and lines. No I/O.

use inventory_sentinel::Reason;

use super::Invalid;
use crate::limits::{MAX_QUANTITY, MAX_SKU_BYTES, MAX_STOCK};

/// The name of a product.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sku(String);

impl Sku {
    /// Parses a SKU of this field.
    pub fn parse(text: String, field: &str) -> Result<Self, Invalid> {
        if text.is_empty() {
            return Err(Invalid::new(Reason::EmptySku, field));
        }
        if text.len() > MAX_SKU_BYTES || !is_printable(&text) {
            return Err(Invalid::new(Reason::InvalidSku, field));
        }
        Ok(Self(text))
    }

    /// A SKU from the store; `None` if this service did not write it.
    pub fn from_store(bytes: &[u8]) -> Option<Self> {
        Self::parse(String::from_utf8(bytes.to_vec()).ok()?, "").ok()
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its text.
    pub fn into_string(self) -> String {
        self.0
    }

    /// The text before the first `~`, or all of it. The SKUs of a group are in one partition.
    fn group(&self) -> &str {
        self.0.split_once('~').map_or(self.0.as_str(), |(group, _)| group)
    }

    /// The partition of the SKU in a namespace with this number of partitions. The function never changes, because
    /// stored records depend on it. It is FNV-1a with the last step of MurmurHash3, which spreads SKUs that differ only
    /// at their end.
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
    /// Parses the units of this field.
    pub fn parse(units: i32, field: &str) -> Result<Self, Invalid> {
        match u32::try_from(units) {
            Ok(units @ 1..=MAX_QUANTITY) => Ok(Self(units)),
            _ => Err(Invalid::new(Reason::InvalidQuantity, field)),
        }
    }

    /// A quantity from the store.
    pub fn from_store(units: u32) -> Self {
        Self(units)
    }

    /// The units.
    pub fn get(self) -> u32 {
        self.0
    }
}

/// Units of a SKU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The SKU.
    pub sku: Sku,
    /// Its units.
    pub quantity: Quantity,
}

/// Units on hand, 0 to [`MAX_STOCK`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnHand(u64);

impl OnHand {
    /// No unit.
    pub const NONE: Self = Self(0);

    /// Parses the units of a request.
    pub fn parse(units: i64) -> Result<Self, Invalid> {
        match u64::try_from(units) {
            Ok(units @ 0..=MAX_STOCK) => Ok(Self(units)),
            _ => Err(Invalid::new(Reason::InvalidStock, "on_hand")),
        }
    }

    /// The units.
    pub fn get(self) -> u64 {
        self.0
    }
}

/// Units to add or to take away, never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delta(i64);

impl Delta {
    /// Parses the units of a request.
    pub fn parse(units: i64) -> Result<Self, Invalid> {
        if units == 0 || units.unsigned_abs() > MAX_STOCK {
            return Err(Invalid::new(Reason::InvalidDelta, "delta"));
        }
        Ok(Self(units))
    }

    /// The units.
    pub fn get(self) -> i64 {
        self.0
    }
}

/// Whether a text has only visible characters and spaces: no control character, no line break, and no invisible
/// character that changes how the rest of a line appears. Combining marks are visible beside the character before them.
pub(super) fn is_printable(text: &str) -> bool {
    let is_visible = |character: char| {
        let beside = ['a', character];
        // `escape_debug` leaves visible characters unchanged.
        character.is_ascii_graphic() || String::from_iter(beside).escape_debug().eq(beside)
    };
    let is_plain = |byte| matches!(byte, b' '..=b'~');
    text.bytes().all(is_plain) || text.chars().all(|character| character == ' ' || is_visible(character))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::BuyerId;

    #[test]
    fn skus_of_a_group_lie_together() {
        let partition = |sku: &str| Sku::parse(sku.into(), "sku").map(|sku| sku.partition(64));
        assert_eq!(partition("concert~row-7"), partition("concert~row-8"));
        assert_eq!(partition("concert~a~b"), partition("concert"));
        assert_ne!(partition("concert"), partition("theatre"));
    }

    #[test]
    fn skus_that_look_alike_are_spread_over_the_partitions() {
        let mut partitions = [0; 64];
        for i in 0..6_400 {
            let sku = Sku::parse(format!("sku-{i}"), "sku").expect("a good sku");
            partitions[usize::from(sku.partition(64))] += 1;
        }
        assert!(partitions.iter().all(|skus| (50..150).contains(skus)), "{partitions:?}");
        // Must never change: a namespace of an earlier version must find its records.
        let ps5 = Sku::parse("ps5".to_owned(), "sku").expect("a good sku");
        assert_eq!((ps5.partition(1), ps5.partition(64)), (0, 46));
    }

    #[test]
    fn hostile_skus_are_refused() {
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
