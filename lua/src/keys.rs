//! The name of every Redis key: the only place that has them. No I/O.
//!
//! A partition's keys share one hash tag, `{namespace/partition}`, and are in one cluster slot.
//! A namespace has no brace, colon or slash in its name, so no two partitions share a key.

use crate::domain::NamespaceName;

/// The set of all namespaces: a server that starts sweeps them.
pub const NAMESPACES: &str = "is:namespaces";

/// The random id of the store, a string.
pub const STORE_ID: &str = "is:store";

/// The keys of one partition, in the order of `KEYS` in `scripts/contract.lua`.
#[derive(Clone, Debug)]
pub struct PartitionKeys([String; 7]);

impl PartitionKeys {
    /// The keys of this partition.
    pub fn new(namespace: &NamespaceName, partition: u16) -> Self {
        let key = |name: &str| format!("is:{{{namespace}/{partition}}}:{name}");
        Self([
            key("meta"),
            key("stock"),
            key("records:a"),
            key("records:b"),
            key("deadlines"),
            key("events"),
            key("buyers"),
        ])
    }

    /// All of them.
    pub fn all(&self) -> &[String; 7] {
        &self.0
    }

    /// Config and state.
    pub fn meta(&self) -> &str {
        &self.0[0]
    }

    /// The stock records.
    pub fn stock(&self) -> &str {
        &self.0[1]
    }

    /// The two generations of records. A record stays in the generation in which it was created.
    pub fn records(&self) -> [&str; 2] {
        [&self.0[2], &self.0[3]]
    }

    /// The deadline index.
    pub fn deadlines(&self) -> &str {
        &self.0[4]
    }

    /// The event stream.
    pub fn events(&self) -> &str {
        &self.0[5]
    }

    /// The counts of buyers.
    pub fn buyers(&self) -> &str {
        &self.0[6]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_keys_of_a_partition_share_one_tag() {
        let name = NamespaceName::parse("flash_sale".into()).expect("a valid name");
        let keys = PartitionKeys::new(&name, 3);
        assert_eq!(keys.meta(), "is:{flash_sale/3}:meta");
        for key in keys.all() {
            assert!(key.starts_with("is:{flash_sale/3}:"), "{key}");
        }
    }
}
