//! The name of a namespace, and a change of its settings. No I/O.

use std::{fmt, time::Duration};

use inventory_sentinel::Reason;

use super::Invalid;
use crate::limits::MAX_NAMESPACE_BYTES;

/// The name of a namespace: one sale or tenant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamespaceName(String);

impl NamespaceName {
    /// The name that an empty field means.
    const DEFAULT: &'static str = "default";

    /// Parses a name of a request.
    pub fn parse(text: String) -> Result<Self, Invalid> {
        if text.is_empty() {
            return Ok(Self(Self::DEFAULT.into()));
        }
        if text.len() > MAX_NAMESPACE_BYTES || !text.bytes().all(is_name_byte) {
            return Err(Invalid::new(Reason::InvalidNamespace, "namespace_id"));
        }
        Ok(Self(text))
    }

    /// A name from the store; `None` if this service did not write it.
    pub fn from_store(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok().filter(|text| !text.is_empty())?;
        Self::parse(text.to_owned()).ok()
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NamespaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._-".contains(&byte)
}

/// Settings of a namespace to change; `None` leaves a setting as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NamespaceChange {
    /// The number of partitions; only when the namespace is created.
    pub partitions: Option<u16>,
    /// The ttl of a hold that names none.
    pub default_ttl: Option<Duration>,
    /// The longest ttl of a hold.
    pub max_ttl: Option<Duration>,
    /// The longest life of a hold.
    pub max_life: Option<Duration>,
    /// How long resolved reservations and requests are remembered.
    pub retention: Option<Duration>,
    /// The most records.
    pub quota_records: Option<u64>,
    /// The most SKUs.
    pub quota_skus: Option<u64>,
    /// The format of its records; can only be raised.
    pub format: Option<u8>,
    /// Whether every Reserve is refused.
    pub is_paused: Option<bool>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_are_refused() {
        for bad in ["{}", "a:b", "a\0", "a\nb", "a b", "ä", "\u{1b}[31m", &"x".repeat(1 << 20)] {
            assert!(NamespaceName::parse(bad.to_string()).is_err());
        }
    }
}
